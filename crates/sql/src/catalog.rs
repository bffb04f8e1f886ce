//! The tables and views of a script, as far as it has been read.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::Result as DfResult;
use datafusion::logical_expr::{Expr, LogicalPlan, TableProviderFilterPushDown, TableSource, TableType};

use crate::cursor::At;
use crate::ddl::TableDdl;
use crate::diagnostic::{Position, Sql, SqlError};
use crate::pushed;
use crate::weight::Weight;

/// A table that CREATE TABLE declared.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) name: At<String>,
    /// Its columns in order, computed ones too.
    pub(crate) columns: Vec<Column>,
    /// The columns as a schema.
    pub(crate) schema: SchemaRef,
    pub(crate) watermark: Option<TableWatermark>,
    pub(crate) primary_key: Vec<String>,
    /// The declaration, LIKE written out.
    pub(crate) ddl: Arc<TableDdl>,
    /// The WITH clause.
    pub(crate) options: Vec<(At<String>, At<String>)>,
    /// How many subtasks read or write it, where a hint says so.
    pub(crate) parallelism: Option<usize>,
    /// The declaration, laid out in one way: what a fingerprint is made of.
    pub(crate) canonical: String,
}

/// A column of a table.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub(crate) field: Arc<Field>,
    /// How it is computed from the physical columns, if it is.
    pub(crate) computed: Option<Expr>,
    /// What the connector calls it, if it stands beside the row; and whether it is VIRTUAL.
    pub(crate) metadata: Option<(String, bool)>,
}

/// A table's event time.
#[derive(Debug, Clone)]
pub(crate) struct TableWatermark {
    pub(crate) column: String,
    /// The watermark, from the table's columns.
    pub(crate) expr: Expr,
    /// As the user wrote it.
    pub(crate) text: String,
}

impl Table {
    /// The columns that the connector gives.
    pub(crate) fn physical_schema(&self) -> SchemaRef {
        let physical = self.columns.iter().filter(|column| column.computed.is_none());
        Arc::new(Schema::new(physical.map(|column| column.field.clone()).collect::<Vec<_>>()))
    }

    /// The columns that the connector takes: no VIRTUAL ones.
    pub(crate) fn sink_schema(&self) -> SchemaRef {
        let is_virtual = |column: &&Column| column.metadata.as_ref().is_some_and(|(_, is_virtual)| *is_virtual);
        let written = self.columns.iter().filter(|column| column.computed.is_none() && !is_virtual(column));
        Arc::new(Schema::new(written.map(|column| column.field.clone()).collect::<Vec<_>>()))
    }

    /// Where its files are, if its connector has such; two tables with one place cannot be told apart there.
    pub(crate) fn place(&self) -> Option<PathBuf> {
        let path = &self.option("path")?.value;
        Some(Path::new(path).components().filter(|part| !matches!(part, Component::CurDir)).collect())
    }

    /// The option `key`.
    pub(crate) fn option(&self, key: &str) -> Option<&At<String>> {
        self.options.iter().find(|(known, _)| known.value == key).map(|(_, value)| value)
    }

    /// The options by key, for a connector.
    pub(crate) fn option_map(&self) -> BTreeMap<String, String> {
        self.options.iter().map(|(key, value)| (key.value.clone(), value.value.clone())).collect()
    }
}

/// A view that CREATE VIEW declared: its streaming logical plan.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) name: At<String>,
    pub(crate) plan: LogicalPlan,
    pub(crate) schema: SchemaRef,
    /// How large it is, its own views written out.
    pub(crate) weight: Weight,
    pub(crate) canonical: String,
}

/// A name that a query can read.
#[derive(Debug, Clone)]
pub(crate) enum Relation {
    Table(Arc<Table>),
    View(Arc<View>),
}

impl Relation {
    /// Its declaration, laid out in one way.
    pub(crate) fn canonical(&self) -> &str {
        match self {
            Self::Table(table) => &table.canonical,
            Self::View(view) => &view.canonical,
        }
    }
}

/// Tables and views by name.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    relations: BTreeMap<String, Relation>,
    /// Tables with hints, by name and hint.
    hinted: BTreeMap<String, Relation>,
}

impl Catalog {
    /// Adds a relation; its name must be new.
    pub(crate) fn add(&mut self, relation: Relation) -> Sql<()> {
        let name = match &relation {
            Relation::Table(table) => &table.name,
            Relation::View(view) => &view.name,
        };
        self.check_new(name)?;
        self.relations.insert(name.value.clone(), relation);
        Ok(())
    }

    /// Adds a table under the name that a hint gave it.
    pub(crate) fn add_hinted(&mut self, name: String, table: Arc<Table>) {
        self.hinted.insert(name, Relation::Table(table));
    }

    /// Forgets a table, or a view; whether it was there.
    pub(crate) fn drop(&mut self, name: &At<String>, is_view: bool) -> Sql<bool> {
        let found = self.relations.get(&name.value).map(|relation| matches!(relation, Relation::View(_)));
        if found.is_some_and(|found| found != is_view) {
            let (is, drop) = if is_view { ("table", "TABLE") } else { ("view", "VIEW") };
            let error = SqlError::new(format!("'{}' is a {is}", name.value)).at(name.at);
            return Err(error.help(format!("write DROP {drop} {}", name.value)));
        }
        self.relations.remove(&name.value);
        Ok(found.is_some())
    }

    /// Whether there is a relation `name`.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.relations.contains_key(name)
    }

    /// Whether a view was declared.
    pub(crate) fn has_views(&self) -> bool {
        self.relations.values().any(|relation| matches!(relation, Relation::View(_)))
    }

    fn check_new(&self, name: &At<String>) -> Sql<()> {
        if !self.contains(&name.value) {
            return Ok(());
        }
        Err(SqlError::new(format!("there is a table or view '{}' already", name.value)).at(name.at))
    }

    /// All relations, by name.
    pub(crate) fn relations(&self) -> impl Iterator<Item = (&str, &Relation)> {
        self.relations.iter().map(|(name, relation)| (name.as_str(), relation))
    }

    /// The relation `name`.
    pub(crate) fn get(&self, name: &str) -> Sql<&Relation> {
        self.relations.get(name).or_else(|| self.hinted.get(name)).ok_or_else(|| {
            let error = SqlError::new(format!("there is no table or view '{name}'"));
            error.near(name, self.relations.keys().map(String::as_str))
        })
    }

    /// The table `name`, which is there.
    pub(crate) fn table(&self, name: &str) -> Sql<&Arc<Table>> {
        match self.get(name)? {
            Relation::Table(table) => Ok(table),
            Relation::View(_) => Err(SqlError::internal(format!("'{name}' became a view"))),
        }
    }

    /// The table `name`, to write it.
    pub(crate) fn sink(&self, name: &At<String>) -> Sql<&Arc<Table>> {
        match self.get(&name.value).map_err(|error| error.at(name.at))? {
            Relation::Table(table) => Ok(table),
            Relation::View(_) => Err(not_a_table(&name.value, name.at)),
        }
    }
}

fn not_a_table(name: &str, at: Position) -> SqlError {
    SqlError::new(format!("'{name}' is a view: it can be read, not written")).at(at)
}

/// A table as DataFusion's planner sees it.
#[derive(Debug)]
pub(crate) struct StreamTable(pub(crate) Arc<Table>);

impl TableSource for StreamTable {
    fn schema(&self) -> SchemaRef {
        self.0.schema.clone()
    }

    /// What the source may be told is noted at the scan; the filter stays.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        let answer = |filter: &&Expr| match pushed::bound(filter, &self.0) {
            Some(_) => TableProviderFilterPushDown::Inexact,
            None => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(answer).collect())
    }
}

/// A view as DataFusion's planner sees it: it puts the view's plan in its place.
#[derive(Debug)]
pub(crate) struct StreamView(pub(crate) Arc<View>);

impl TableSource for StreamView {
    fn schema(&self) -> SchemaRef {
        self.0.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn get_logical_plan(&'_ self) -> Option<Cow<'_, LogicalPlan>> {
        Some(Cow::Borrowed(&self.0.plan))
    }
}
