//! A script from its first statement to its last: tables and views into the catalog, settings, and the one job.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::Column as DfColumn;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Projection, cast};
use datafusion::sql::sqlparser::tokenizer::TokenWithSpan;

use crate::batch::RUNTIME_MODE;
use crate::catalog::{Catalog, Column, Relation, Table, TableWatermark, View};
use crate::connect::Connections;
use crate::cursor::At;
use crate::ddl::{self, ColumnDdl, ColumnKind, TableDdl, WatermarkDdl};
use crate::diagnostic::{Position, Sql, SqlError};
use crate::errors::from_datafusion;
use crate::job::PlannedJob;
use crate::planner::{Planner, unqualified};
use crate::script::{Statement, split};
use crate::settings::{Rejected, RuntimeMode, Settings};
use crate::statement::{Insert, Job, Parsed, QueryText, ViewDdl, parse};
use crate::stream::{self, Places};
use crate::types::{sql_name, to_column_type};
use crate::weight::Weight;
use crate::{cursor, ids, insert, like, processing_time, show, sort, state_ttl};
use chrono_tz::Tz;
use ruslo_operators::function::World;

/// What a script has said so far.
pub(crate) struct Program<'a> {
    pub(crate) planner: Planner,
    pub(crate) catalog: Catalog,
    pub(crate) connections: Connections<'a>,
    overrides: &'a [(String, String)],
    pub(crate) default_parallelism: usize,
    pub(crate) settings: Settings,
    /// What 'automatic' is taken for, and whether something has asked.
    automatic_as: RuntimeMode,
    pub(crate) is_automatic: Cell<bool>,
    /// Where each setting of an operator was SET.
    pub(crate) set_at: HashMap<String, Position>,
    /// The statement set that is open, and where it begins.
    pub(crate) set: Option<(Vec<Insert>, bool, Position)>,
    /// What SHOW and DESCRIBE say.
    pub(crate) output: String,
    pub(crate) job: Option<PlannedJob>,
}

impl<'a> Program<'a> {
    pub(crate) fn new(
        connections: Connections<'a>,
        overrides: &'a [(String, String)],
        default_parallelism: usize,
        automatic_as: RuntimeMode,
    ) -> Self {
        let world = World::new(connections.environment, Tz::UTC);
        let (planner, catalog) = (Planner::new(world), Catalog::default());
        let settings = Settings::default();
        Self {
            planner,
            catalog,
            connections,
            overrides,
            default_parallelism,
            settings,
            automatic_as,
            is_automatic: Cell::new(false),
            set_at: HashMap::new(),
            set: None,
            output: String::new(),
            job: None,
        }
    }

    /// Reads every statement of `text`.
    pub(crate) fn read(&mut self, text: &str) -> Sql<()> {
        // Wrong overrides are an error even in a script without a job.
        self.take_zone()?;
        for statement in split(text)? {
            self.statement(&statement)?;
            self.take_zone()?;
        }
        if let Some((_, _, at)) = self.set {
            return Err(SqlError::new("the statement set has no END").at(at).help("write END behind its last ';'"));
        }
        self.settings = self.with_overrides()?;
        Ok(())
    }

    /// The settings with the caller's over the script's.
    pub(crate) fn with_overrides(&self) -> Sql<Settings> {
        let mut settings = self.settings.clone();
        for (key, value) in self.overrides {
            settings.set(key, value)?;
        }
        Ok(settings)
    }

    /// Which engine what follows is planned for.
    pub(crate) fn mode(&self) -> Sql<RuntimeMode> {
        let mode = self.with_overrides()?.runtime_mode;
        if mode != RuntimeMode::Automatic {
            return Ok(mode);
        }
        self.is_automatic.set(true);
        Ok(self.automatic_as)
    }

    /// Lets what follows be planned in the session's time zone.
    fn take_zone(&mut self) -> Sql<()> {
        let zone = self.with_overrides()?.time_zone;
        if zone != self.planner.world().zone() {
            self.planner = Planner::new(self.planner.world().in_zone(zone));
        }
        Ok(())
    }

    fn statement(&mut self, statement: &Statement) -> Sql<()> {
        let parsed = parse(statement)?;
        if self.set.is_some() {
            return self.in_set(parsed, statement.start());
        }
        match parsed {
            Parsed::BeginSet { is_explain, first } => {
                self.set = Some((Vec::new(), is_explain, statement.start()));
                self.in_set(*first, statement.start())
            }
            Parsed::EndSet => Err(SqlError::new("END closes no statement set").at(statement.start())),
            Parsed::SetIsEmpty => Err(SqlError::new("the statement set is empty").at(statement.start())),
            Parsed::CreateTable(ddl) => self.create_table_as(ddl, statement.start()),
            Parsed::Drop { name, is_view, if_exists } => match self.catalog.drop(&name, is_view)? {
                false if !if_exists => self.catalog.get(&name.value).map(drop).map_err(|error| error.at(name.at)),
                _ => Ok(()),
            },
            Parsed::Show(show) => {
                let text = show::text(&show, &self.catalog, || self.planner.function_names())?;
                self.output.push_str(&text);
                Ok(())
            }
            Parsed::CreateView(ddl) => self.create_view(&ddl, statement),
            Parsed::Set { key, .. } if key.value == RUNTIME_MODE && self.catalog.has_views() => {
                let sentence = format!("'{RUNTIME_MODE}' is set behind a view, which was planned for another mode");
                Err(SqlError::new(sentence).at(key.at).help("SET it before the first CREATE VIEW"))
            }
            Parsed::Set { key, value } => {
                self.set_at.insert(key.value.clone(), key.at);
                self.settings.set(&key.value, &value.value).map_err(|error| match error {
                    Rejected::Key(error) => error.at(key.at),
                    Rejected::Value(error) => error.at(value.at),
                })
            }
            Parsed::Reset(None) => self.settings.reset(None),
            Parsed::Reset(Some(key)) => self.settings.reset(Some(&key.value)).map_err(|error| error.at(key.at)),
            Parsed::Run(job) => self.run(&job, false, statement.start()),
            Parsed::Explain(job) => self.run(&job, true, statement.start()),
        }
    }

    /// A table, and the job that fills it if it is made AS a query.
    fn create_table_as(&mut self, ddl: TableDdl, at: Position) -> Sql<()> {
        let is_new = !self.catalog.contains(&ddl.name.value);
        self.create_table(&ddl)?;
        match ddl.query {
            Some(query) if is_new => {
                let insert = Insert { table: ddl.name, hint: None, columns: None, query };
                self.run(&Job::Insert(insert), false, at)
            }
            _ => Ok(()),
        }
    }

    fn create_table(&mut self, ddl: &TableDdl) -> Sql<()> {
        if ddl.if_not_exists && self.catalog.contains(&ddl.name.value) {
            return Ok(());
        }
        let ddl = &self.written_out(ddl)?;
        self.connections.check(&ddl.name, &ddl.options)?;
        self.connections.check_metadata(ddl)?;
        let columns = self.columns(ddl)?;
        let schema = Arc::new(Schema::new(columns.iter().map(|column| column.field.clone()).collect::<Vec<_>>()));
        let watermark = match &ddl.watermark {
            Some(watermark) => Some(self.watermark(watermark, &columns, &schema, &ddl.name.value)?),
            None => None,
        };
        self.catalog.add(Relation::Table(Arc::new(Table {
            name: ddl.name.clone(),
            columns,
            schema,
            watermark,
            primary_key: ddl.primary_key.iter().map(|key| key.value.clone()).collect(),
            ddl: Arc::new(ddl.clone()),
            options: ddl.options.clone(),
            parallelism: None,
            canonical: ids::table_text(ddl),
        })))
    }

    /// `ddl` with the columns that come from LIKE and AS.
    fn written_out(&mut self, ddl: &TableDdl) -> Sql<TableDdl> {
        if let Some(like) = &ddl.like {
            let base = self.catalog.sink(&like.base)?.ddl.clone();
            let made = like::merged(ddl, like, &base)?;
            ddl::check_names(&made)?;
            return Ok(made);
        }
        let Some(query) = &ddl.query else { return Ok(ddl.clone()) };
        let plan = insert::shown(self.query(query)?.0, query.start())?;
        let columns = plan.schema().fields().iter().map(|field| ColumnDdl {
            name: At::new(field.name().clone(), query.start()),
            kind: ColumnKind::Physical { data_type: field.data_type().clone(), nullable: field.is_nullable() },
        });
        let made = TableDdl { columns: columns.collect(), query: None, ..ddl.clone() };
        ddl::check_names(&made)?;
        Ok(made)
    }

    fn columns(&self, ddl: &TableDdl) -> Sql<Vec<Column>> {
        let physical = ddl.columns.iter().filter_map(|column| match &column.kind {
            ColumnKind::Physical { data_type, nullable } | ColumnKind::Metadata { data_type, nullable, .. } => {
                Some(Field::new(&column.name.value, data_type.clone(), *nullable))
            }
            ColumnKind::Computed(_) => None,
        });
        let physical = Schema::new(physical.collect::<Vec<_>>());
        if physical.fields().is_empty() {
            let sentence = format!("the table '{}' has only computed columns", ddl.name.value);
            return Err(SqlError::new(sentence).at(ddl.name.at));
        }
        let mut columns = Vec::new();
        for column in &ddl.columns {
            columns.push(match &column.kind {
                ColumnKind::Physical { data_type, nullable } => {
                    let field = Arc::new(Field::new(&column.name.value, data_type.clone(), *nullable));
                    Column { field, computed: None, metadata: None }
                }
                ColumnKind::Metadata { data_type, nullable, key, is_virtual } => {
                    let field = Arc::new(Field::new(&column.name.value, data_type.clone(), *nullable));
                    Column { field, computed: None, metadata: Some((key.clone(), *is_virtual)) }
                }
                ColumnKind::Computed(tokens) => self.computed(&column.name, tokens, &physical)?,
            });
        }
        Ok(columns)
    }

    fn computed(&self, name: &At<String>, tokens: &[TokenWithSpan], physical: &Schema) -> Sql<Column> {
        if let Some(column) = processing_time::column(&name.value, tokens) {
            return Ok(column);
        }
        let schema = unqualified(physical)?;
        let expr = self.planner.expression(tokens, &schema)?;
        let (_, field) = expr.to_field(&schema).map_err(|error| from_datafusion(&error, tokens))?;
        let Some(data_type) = to_column_type(field.data_type()) else {
            let given = sql_name(field.data_type());
            let sentence = format!("the column '{}' is {given}, which a table cannot hold", name.value);
            return Err(SqlError::new(sentence).at(name.at).help("CAST it"));
        };
        let expr = if data_type == *field.data_type() { expr } else { cast(expr, data_type.clone()) };
        let field = Arc::new(Field::new(&name.value, data_type, field.is_nullable()));
        Ok(Column { field, computed: Some(expr), metadata: None })
    }

    fn watermark(
        &self,
        ddl: &WatermarkDdl,
        columns: &[Column],
        schema: &SchemaRef,
        table: &str,
    ) -> Sql<TableWatermark> {
        let name = &ddl.column.value;
        let Ok(field) = schema.field_with_name(name) else {
            let names = schema.fields().iter().map(|field| field.name().as_str());
            let error = SqlError::new(format!("there is no column '{name}' in '{table}'"));
            return Err(error.at(ddl.column.at).near(name, names));
        };
        let not_a_time = |what: &str, data_type: &DataType, at| {
            SqlError::new(format!("a watermark needs a TIMESTAMP; {what} is {}", sql_name(data_type))).at(at)
        };
        if columns.iter().any(|column| column.field.name() == name && processing_time::is_processing_time(column)) {
            let sentence = format!("'{name}' is processing time: windows over it need no watermark");
            return Err(SqlError::new(sentence).at(ddl.column.at).help("leave WATERMARK FOR out"));
        }
        if !matches!(field.data_type(), DataType::Timestamp(..)) {
            return Err(not_a_time(&format!("'{name}'"), field.data_type(), ddl.column.at)
                .help("make a TIMESTAMP(3) of it in a computed column"));
        }
        let row = unqualified(schema)?;
        let expr = self.planner.expression(&ddl.expression, &row)?;
        let data_type = expr.get_type(&row).map_err(|error| from_datafusion(&error, &ddl.expression))?;
        if !matches!(data_type, DataType::Timestamp(..)) {
            let at = ddl.expression.first().map_or(ddl.column.at, Position::of);
            return Err(not_a_time("its expression", &data_type, at));
        }
        Ok(TableWatermark { column: name.clone(), expr, text: ids::canonical(&ddl.expression) })
    }

    fn create_view(&mut self, ddl: &ViewDdl, statement: &Statement) -> Sql<()> {
        if ddl.if_not_exists && self.catalog.contains(&ddl.name.value) {
            return Ok(());
        }
        let (plan, weight) = self.query(&ddl.query)?;
        let plan = if ddl.columns.is_empty() { plan } else { rename(plan, ddl)? };
        let schema = plan.schema().inner().clone();
        let canonical = statement.canonical();
        self.catalog.add(Relation::View(Arc::new(View { name: ddl.name.clone(), plan, schema, weight, canonical })))
    }

    /// The logical plan of a query: the streaming one, in batch mode DataFusion's own.
    pub(crate) fn query(&mut self, query: &QueryText) -> Sql<(LogicalPlan, Weight)> {
        let mode = self.mode()?;
        let query = &self.with_hints(query)?;
        let (plan, weight) = self.planner.query(query, &self.catalog, mode)?;
        if mode == RuntimeMode::Batch {
            return Ok((plan, weight));
        }
        let place = |keyword| cursor::find_keyword(&query.tokens, keyword).unwrap_or_else(|| query.start());
        let places = Places { group: place("GROUP"), over: place("OVER"), join: place("JOIN") };
        let plan =
            stream::streaming(plan, places, &self.catalog).map_err(|error| from_datafusion(&error, &query.tokens))?;
        state_ttl::check_taken(&plan, &query.tokens).map_err(|error| from_datafusion(&error, &query.tokens))?;
        sort::check(&plan, cursor::find_keyword(&query.tokens, "ORDER"))?;
        let plan = sort::without_late_rows(plan, &self.catalog);
        Ok((plan.map_err(|error| from_datafusion(&error, &query.tokens))?, weight))
    }
}

/// A view's plan under the names that CREATE VIEW lists.
fn rename(plan: LogicalPlan, ddl: &ViewDdl) -> Sql<LogicalPlan> {
    let (given, listed) = (plan.schema().fields().len(), ddl.columns.len());
    if given != listed {
        let sentence = format!("the view '{}' lists {listed} columns, its query gives {given}", ddl.name.value);
        return Err(SqlError::new(sentence).at(ddl.name.at));
    }
    let columns: Vec<DfColumn> = plan.schema().columns();
    let exprs = columns.into_iter().zip(&ddl.columns).map(|(column, name)| Expr::Column(column).alias(&name.value));
    Projection::try_new(exprs.collect(), Arc::new(plan))
        .map(LogicalPlan::Projection)
        .map_err(|error| from_datafusion(&error, &[]))
}
