//! The one job of a script: an INSERT, a SELECT, or a statement set of INSERTs, from its text to the graph.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use chrono_tz::Tz;
use datafusion::logical_expr::{LogicalPlan, Union};
use ruslo_core::graph::Graph;
use ruslo_core::plan::CompiledPlan;

use crate::batch::{BatchPlanning, BatchQuery, BatchShape};
use crate::catalog::Table;
use crate::compiled::compiled;
use crate::delivery::Delivery;
use crate::diagnostic::{Position, Sql, SqlError};
use crate::errors::from_datafusion;
use crate::explain::explain;
use crate::hint::{self, Options};
use crate::physical::{self, Target};
use crate::program::Program;
use crate::settings::{RuntimeMode, Settings};
use crate::statement::{Insert, Job, Parsed, QueryText};
use crate::{batch, ids, insert, logical, parallelism, share};

/// A script's only job, planned.
pub(crate) struct PlannedJob {
    pub(crate) graph: Graph,
    pub(crate) batch: Option<BatchQuery>,
    pub(crate) delivery: Delivery,
    pub(crate) explain: String,
    pub(crate) fingerprint: String,
    pub(crate) compiled: Option<CompiledPlan>,
    /// The columns of the sink, if there is only one.
    pub(crate) schema: Option<SchemaRef>,
    pub(crate) is_insert: bool,
    pub(crate) is_explain: bool,
}

/// What is planned of a job, whichever engine runs it.
struct Plans {
    graph: Graph,
    batch: Option<BatchQuery>,
    explain: String,
    compiled: Option<CompiledPlan>,
    /// The columns of the sink, if there is only one.
    schema: Option<SchemaRef>,
}

/// A query and the table that it is written into; none is the terminal.
type Flow = (LogicalPlan, Option<Arc<Table>>);

impl Program<'_> {
    /// A statement inside a statement set.
    pub(crate) fn in_set(&mut self, parsed: Parsed, at: Position) -> Sql<()> {
        let Some((mut inserts, is_explain, begin)) = self.set.take() else {
            return Err(SqlError::internal("no statement set is open"));
        };
        match parsed {
            Parsed::Run(Job::Insert(insert)) => {
                inserts.push(insert);
                self.set = Some((inserts, is_explain, begin));
                Ok(())
            }
            Parsed::SetIsEmpty => {
                self.set = Some((inserts, is_explain, begin));
                Ok(())
            }
            Parsed::EndSet if inserts.is_empty() => {
                Err(SqlError::new("the statement set has no INSERT INTO").at(begin))
            }
            Parsed::EndSet => self.run(&Job::Set(inserts), is_explain, begin),
            _ => Err(SqlError::new("a statement set holds INSERT INTO statements alone")
                .at(at)
                .help("put it before EXECUTE STATEMENT SET BEGIN")),
        }
    }

    /// Plans `job`, which begins at `at`.
    pub(crate) fn run(&mut self, job: &Job, is_explain: bool, at: Position) -> Sql<()> {
        if self.job.is_some() {
            let error = SqlError::new("a script runs one INSERT or SELECT; this is the second").at(at);
            return Err(error.help("put the INSERTs between EXECUTE STATEMENT SET BEGIN and END: they are one job"));
        }
        let settings = self.with_overrides()?;
        let flows = match job {
            Job::Insert(insert) => vec![self.insert(insert)?],
            Job::Select(query) => vec![(insert::shown(self.query(query)?.0, query.start())?, None)],
            Job::Set(inserts) => self.set_of(inserts)?,
        };
        let is_insert = !matches!(job, Job::Select(_));
        let begin = match job {
            Job::Insert(insert) => insert.query.start(),
            Job::Select(query) => query.start(),
            Job::Set(_) => at,
        };
        let planned = self.plan(flows, &settings);
        let Plans { graph, batch, explain, compiled, schema } = planned.map_err(|error| error.or_at(begin))?;
        let delivery = self.delivery(&graph, &settings, is_insert)?;
        let text = match self.mode()? {
            RuntimeMode::Streaming | RuntimeMode::Automatic => job_text(job),
            // No engine goes on from the other's checkpoints.
            RuntimeMode::Batch => format!("BATCH {}", job_text(job)),
        };
        // Another zone gives times another meaning, and state with them.
        let text = match settings.time_zone {
            Tz::UTC => text,
            zone => format!("ZONE {zone} {text}"),
        };
        let fingerprint = ids::fingerprint(&text, &self.catalog);
        self.job =
            Some(PlannedJob { graph, batch, delivery, explain, fingerprint, compiled, schema, is_insert, is_explain });
        Ok(())
    }

    fn insert(&mut self, insert: &Insert) -> Sql<Flow> {
        let mut table = self.catalog.sink(&insert.table)?.clone();
        if let Some(token) = &insert.hint {
            table = self.hinted(&table, hint::options(token)?)?;
            let mode = self.mode()?;
            if let Some(subtasks) = table.parallelism.filter(|subtasks| *subtasks > 1 && mode == RuntimeMode::Batch) {
                return Err(parallelism::written_by_one(&table.name.value, subtasks).at(Position::of(token)));
            }
        }
        let (plan, _) = self.query(&insert.query)?;
        let plan = insert::conform(plan, &table, insert.columns.as_deref(), insert.table.at)?;
        Ok((plan, Some(table)))
    }

    /// The flows of a statement set; what goes into the same table is united, so that a table has one writer.
    fn set_of(&mut self, inserts: &[Insert]) -> Sql<Vec<Flow>> {
        let mut flows: Vec<(Arc<Table>, Vec<Arc<LogicalPlan>>)> = Vec::new();
        for insert in inserts {
            let (plan, Some(table)) = self.insert(insert)? else { continue };
            match flows.iter_mut().find(|(other, _)| other.name.value == table.name.value) {
                Some((other, plans)) => {
                    if other.option_map() != table.option_map() || other.parallelism != table.parallelism {
                        let sentence = format!("'{}' is written with other OPTIONS before", table.name.value);
                        return Err(SqlError::new(sentence).at(insert.table.at));
                    }
                    plans.push(Arc::new(plan));
                }
                None => {
                    check_path(&table, &flows, insert.table.at)?;
                    flows.push((table, vec![Arc::new(plan)]));
                }
            }
        }
        let united = flows.into_iter().map(|(table, mut plans)| {
            let plan = match (plans.pop(), plans.is_empty()) {
                (Some(only), true) => Arc::unwrap_or_clone(only),
                (last, _) => {
                    plans.extend(last);
                    Union::try_new_with_loose_types(plans).map(LogicalPlan::Union)?
                }
            };
            Ok((plan, Some(table)))
        });
        united.collect::<datafusion::common::Result<Vec<_>>>().map_err(|error| from_datafusion(&error, &[]))
    }

    fn plan(&self, flows: Vec<Flow>, settings: &Settings) -> Sql<Plans> {
        if self.mode()? == RuntimeMode::Batch {
            return self.plan_batch(flows, settings);
        }
        let (plans, tables): (Vec<_>, Vec<_>) = flows.into_iter().unzip();
        let plans = plans.into_iter().map(|plan| logical::optimize(plan, &self.planner)).collect::<Sql<Vec<_>>>()?;
        let plans = share::share_scans(plans).map_err(|error| from_datafusion(&error, &[]))?;
        let targets = tables.iter().map(|table| table.as_deref().map_or(Target::Result, Target::Table));
        let flows: Vec<_> = plans.iter().zip(targets).collect();
        let subtasks = settings.parallelism.unwrap_or(self.default_parallelism);
        let (mut graph, details) = physical::graph(&flows, self.connections, &self.catalog, (subtasks, settings))?;
        parallelism::apply(&mut graph, &settings.operator_parallelism).map_err(|error| self.at_setting(error))?;
        graph.validate()?;
        let explain = explain(&flows, &graph, &details);
        let compiled = Some(compiled(&graph, &details));
        let schema = match plans.as_slice() {
            [only] => Some(only.schema().inner().clone()),
            _ => None,
        };
        Ok(Plans { graph, batch: None, explain, compiled, schema })
    }

    fn plan_batch(&self, flows: Vec<Flow>, settings: &Settings) -> Sql<Plans> {
        let parallelism = settings.parallelism.unwrap_or(self.default_parallelism);
        let (operators, batch_rows) = (settings.operator_parallelism.clone(), settings.batch_rows);
        let planning = BatchPlanning {
            connections: self.connections,
            catalog: &self.catalog,
            shape: BatchShape { parallelism, operators, batch_rows },
            world: self.planner.world().clone(),
        };
        let schema = match flows.as_slice() {
            [(only, _)] => Some(only.schema().inner().clone()),
            _ => None,
        };
        let tables: Vec<_> = flows.iter().map(|(_, table)| table.clone()).collect();
        let targets = tables.iter().map(|table| table.as_deref().map_or(Target::Result, Target::Table));
        let flows = flows.into_iter().map(|(plan, _)| plan).zip(targets).collect();
        let planned = batch::plan(flows, planning).map_err(|error| self.at_setting(error))?;
        let (graph, batch, explain) = (planned.graph, Some(planned.query), planned.text);
        Ok(Plans { graph, batch, explain, compiled: None, schema })
    }

    /// An error about a setting of an operator, at its SET.
    fn at_setting(&self, error: SqlError) -> SqlError {
        let named = error.message().split('\'').nth(1).and_then(|key| self.set_at.get(key)).copied();
        error.or_at(named)
    }

    /// `query` with each hinted table under a name of its own, which the catalog then knows.
    pub(crate) fn with_hints(&mut self, query: &QueryText) -> Sql<QueryText> {
        let (tokens, hinted) = hint::take(&query.tokens)?;
        for hinted in hinted {
            let table = self.catalog.sink(&hinted.table)?.clone();
            let table = self.hinted(&table, hinted.options)?;
            self.catalog.add_hinted(hinted.name, table);
        }
        Ok(QueryText { tokens, end: query.end })
    }

    /// `table` with `options` over its own.
    fn hinted(&self, table: &Arc<Table>, mut options: Options) -> Sql<Arc<Table>> {
        let parallelism = parallelism::take_hint(&mut options)?;
        let mut merged = table.options.clone();
        for (key, value) in options {
            match merged.iter_mut().find(|(known, _)| known.value == key.value) {
                Some(known) => *known = (key, value),
                None => merged.push((key, value)),
            }
        }
        self.connections.check(&table.name, &merged)?;
        let parallelism = parallelism.map(|subtasks| subtasks.value);
        Ok(Arc::new(Table { options: merged, parallelism, ..Table::clone(table) }))
    }
}

/// Refuses a table that is written to the same place as one before it: their files could not be told apart.
fn check_path<T>(table: &Table, flows: &[(Arc<Table>, T)], at: Position) -> Sql<()> {
    let Some(place) = table.place() else { return Ok(()) };
    match flows.iter().find(|(other, _)| other.place().as_ref() == Some(&place)) {
        Some((other, _)) => {
            let place = place.display();
            let sentence = format!("'{}' and '{}' are both written to '{place}'", table.name.value, other.name.value);
            Err(SqlError::new(sentence).at(at).help("INSERT INTO one of them twice, or give them folders of their own"))
        }
        None => Ok(()),
    }
}

/// What a job says, laid out in one way.
fn job_text(job: &Job) -> String {
    match job {
        Job::Select(query) => ids::canonical(&query.tokens),
        Job::Insert(insert) => insert_text(insert),
        Job::Set(inserts) => {
            let inserts: Vec<String> = inserts.iter().map(insert_text).collect();
            format!("SET {}", inserts.join(" ; "))
        }
    }
}

fn insert_text(insert: &Insert) -> String {
    let columns = insert.columns.iter().flatten().map(|column| format!("`{}`", column.value));
    let columns = columns.collect::<Vec<_>>().join(" ");
    let hint = insert.hint.as_ref().and_then(hint::canonical).filter(|hint| !hint.is_empty());
    let hint = hint.map_or_else(String::new, |hint| format!("{hint} "));
    format!("INSERT INTO `{}` {hint}( {columns} ) {}", insert.table.value, ids::canonical(&insert.query.tokens))
}
