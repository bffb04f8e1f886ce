//! From a table's WITH clause to its connector: unknown names with the near one, what is missing, what doesn't fit.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use ruslo_core::connector::{Bound, Connector, MetadataColumn, Registry, TableDefinition};
use ruslo_core::dead_letter::OnError;
use ruslo_core::environment::Environment;
use ruslo_core::error::Error;
use ruslo_core::lookup::LookupSource;
use ruslo_core::sink::Sink;
use ruslo_core::source::Source;

use crate::care::{self, Care};
use crate::catalog::{Column, Table};
use crate::cursor::At;
use crate::ddl::{ColumnKind, TableDdl};
use crate::diagnostic::{Position, Sql, SqlError};
use crate::lookup_options;

const CONNECTOR: &str = "connector";
const RATE: &str = "source.rows-per-second";

/// Tables of these connectors, in this world.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Connections<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) environment: &'a Environment,
}

impl Connections<'_> {
    /// Refuses a WITH clause that no connector of this build understands.
    pub(crate) fn check(&self, name: &At<String>, options: &[(At<String>, At<String>)]) -> Sql<()> {
        let Some((_, connector_name)) = options.iter().find(|(key, _)| key.value == CONNECTOR) else {
            let sentence = format!("the table '{}' has no connector", name.value);
            return Err(SqlError::new(sentence).at(name.at).help("add WITH ('connector' = '..')"));
        };
        let connector = self.connector(connector_name)?;
        let given: BTreeMap<String, String> = options
            .iter()
            .filter(|(key, _)| key.value != CONNECTOR)
            .map(|(key, value)| (key.value.clone(), value.value.clone()))
            .collect();
        let specs = connector.options(&given).map_err(|error| at_option(error, options, name.at))?;
        Care::of(options)?;
        for (key, _) in options.iter().filter(|(key, _)| key.value != CONNECTOR && !is_common(&key.value)) {
            if !specs.iter().any(|spec| spec.is_for(&key.value)) {
                let sentence = format!("the connector '{}' has no option '{}'", connector_name.value, key.value);
                let keys = specs.iter().chain(&care::SPECS).chain(&lookup_options::SPECS).map(|spec| spec.key);
                return Err(SqlError::new(sentence).at(key.at).near(&key.value, keys));
            }
        }
        match specs.iter().find(|spec| spec.required && !given.contains_key(spec.key)) {
            Some(spec) => {
                let sentence = format!(
                    "the connector '{}' of the table '{}' needs the option '{}'",
                    connector_name.value, name.value, spec.key
                );
                Err(SqlError::new(sentence).at(connector_name.at).help(format!("'{}': {}", spec.key, spec.doc)))
            }
            None => Ok(()),
        }
    }

    /// Refuses metadata that the table's connector does not have.
    pub(crate) fn check_metadata(&self, ddl: &TableDdl) -> Sql<()> {
        let Some((_, name)) = ddl.options.iter().find(|(key, _)| key.value == CONNECTOR) else { return Ok(()) };
        let known = self.connector(name)?.metadata();
        for column in &ddl.columns {
            let ColumnKind::Metadata { key, .. } = &column.kind else { continue };
            if !known.contains(&key.as_str()) {
                let error = SqlError::new(format!("the connector '{}' has no metadata '{key}'", name.value));
                let there = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                let error = error.at(column.name.at).help(format!("there is {there}"));
                return Err(error.near(key, known.iter().copied()));
            }
        }
        Ok(())
    }

    fn connector(&self, name: &At<String>) -> Sql<&Arc<dyn Connector>> {
        self.registry.connector(&name.value).map_err(|_| {
            let known: Vec<&str> = self.registry.names().collect();
            let sentence = format!("there is no connector '{}'; there are {}", name.value, known.join(", "));
            SqlError::new(sentence).at(name.at).near(&name.value, known)
        })
    }

    /// The connector of a table, whose WITH clause was checked.
    fn of(&self, table: &Table) -> Sql<&Arc<dyn Connector>> {
        match table.option(CONNECTOR) {
            Some(name) => self.connector(name),
            None => Err(SqlError::internal(format!("the table '{}' lost its connector", table.name.value))),
        }
    }

    /// Reads the physical columns `projection` of `table`.
    pub(crate) fn source(&self, table: &Table, projection: &[usize], on_error: OnError) -> Sql<Arc<dyn Source>> {
        self.source_of(table, projection, on_error, Vec::new())
    }

    /// The same where only rows are `wanted` that satisfy all of these.
    pub(crate) fn source_of(
        &self,
        table: &Table,
        projection: &[usize],
        on_error: OnError,
        wanted: Vec<Bound>,
    ) -> Sql<Arc<dyn Source>> {
        let definition = TableDefinition { on_error, wanted, ..definition(table, table.physical_schema()) };
        let source = self.of(table)?.source(&definition, projection, self.environment);
        source.map_err(|error| at_option(error, &table.options, table.name.at))
    }

    /// Asks `table` by its columns at `keys`; none, if its connector can only read it whole.
    pub(crate) fn lookup(&self, table: &Table, keys: &[usize]) -> Sql<Option<Arc<dyn LookupSource>>> {
        let physical = table.physical_schema();
        let name = |place: &usize| table.columns.get(*place).map(|column| column.field.name().as_str());
        let places = keys.iter().map(|key| physical.index_of(name(key).unwrap_or_default()).ok());
        let Some(places) = places.collect::<Option<Vec<usize>>>() else { return Ok(None) };
        let source = self.of(table)?.lookup(&definition(table, physical.clone()), &places, self.environment);
        let source = source.map_err(|error| at_option(error, &table.options, table.name.at))?;
        let Some(source) = source else { return Ok(None) };
        if physical.fields().len() != table.columns.len() {
            let what = "computed columns of a table that is asked by key";
            return Err(SqlError::not_yet(what, table.name.at));
        }
        let types =
            |schema: &SchemaRef| schema.fields().iter().map(|field| field.data_type().clone()).collect::<Vec<_>>();
        match types(&source.schema()) == types(&physical) {
            true => Ok(Some(source)),
            false => {
                let sentence = format!("the table '{}' is asked for other columns than it declares", table.name.value);
                Err(SqlError::new(sentence).at(table.name.at))
            }
        }
    }

    /// Writes `table`, with rows that change or only come.
    pub(crate) fn sink(&self, table: &Table, is_updating: bool) -> Sql<Arc<dyn Sink>> {
        let definition = TableDefinition { is_updating, ..definition(table, table.sink_schema()) };
        let sink = self.of(table)?.sink(&definition, self.environment);
        sink.map_err(|error| at_option(error, &table.options, table.name.at))
    }
}

/// How many rows a second are read of `table` at most, if it or its source says so.
pub(crate) fn rows_per_second(table: &Table, source: &dyn Source) -> Sql<Option<u64>> {
    let Some(value) = table.option(RATE) else { return Ok(source.rows_per_second()) };
    match value.value.trim().parse::<u64>() {
        Ok(rows) if rows > 0 => Ok(Some(rows)),
        _ => {
            let sentence = format!("option '{RATE}' = '{}': expected a whole number from 1", value.value);
            Err(SqlError::new(sentence).at(value.at))
        }
    }
}

/// Whether `key` is an option of every table, whatever its connector.
fn is_common(key: &str) -> bool {
    care::is_care(key) || lookup_options::is_lookup(key)
}

/// What a person calls the connector of `table`.
pub(crate) fn connector_name(table: &Table) -> &str {
    table.option(CONNECTOR).map_or("?", |name| &name.value)
}

fn definition(table: &Table, schema: SchemaRef) -> TableDefinition {
    let mut options = table.option_map();
    options.retain(|key, _| key != CONNECTOR && !is_common(key));
    TableDefinition {
        primary_key: table.primary_key.clone(),
        partition_keys: table.ddl.partition_keys.iter().map(|key| key.value.clone()).collect(),
        metadata: metadata(table, &schema),
        ..TableDefinition::new(table.name.value.clone(), schema, options)
    }
}

/// The columns of `schema` that stand beside the row.
fn metadata(table: &Table, schema: &SchemaRef) -> Vec<MetadataColumn> {
    let beside = table.columns.iter().filter(|column| schema.field_with_name(column.field.name()).is_ok());
    let column = |column: &Column| {
        let (key, is_virtual) = column.metadata.clone()?;
        Some(MetadataColumn { column: column.field.name().clone(), key, is_virtual })
    };
    beside.filter_map(column).collect()
}

/// A connector's error, pointing to the option that it names.
fn at_option(error: Error, options: &[(At<String>, At<String>)], otherwise: Position) -> SqlError {
    let text = error.to_string();
    let named = options.iter().find(|(key, _)| text.contains(&format!("'{}'", key.value)));
    let at = named.map_or(otherwise, |(_, value)| value.at);
    SqlError::from(error).at(at)
}
