//! Flink's SQL: from a script's text to the physical graph that the runtime executes, or to a sentence that says what
//! is wrong and where.
//!
//! ```text
//! text ─ script ─ statement, ddl, settings ─ catalog
//!                        │
//!                  tvf, check, flink ─ planner (DataFusion) ─ stream, insert ─ logical ─ physical, scan ─ graph
//! ```
//!
//! | module | does |
//! |---|---|
//! | `script`, `cursor`, `statement`, `ddl`, `interval`, `types` | our own parser over sqlparser's tokens |
//! | `settings`, `restart`, `connect`, `care`, `catalog` | what SET, WITH and CREATE say |
//! | `delivery` | what holds if the process dies, of what the tables can do and SET says |
//! | `nested`, `unnest`, `values`, `weight` | arrays, maps, rows; UNNEST; VALUES; how large a query becomes |
//! | `tvf`, `group_window`, `check`, `flink`, `forms`, `json`, `functions` | Flink's windows, refusals, meanings |
//! | `typing`, `arithmetic`, `casts` | Flink's types |
//! | `planner`, `errors` | DataFusion's planner over our catalog, its errors as sentences of ours |
//! | `nodes`, `window`, `window_spec`, `late_rows`, `stream`, `insert`, `logical` | the streaming logical plan |
//! | `sort` | ORDER BY on a stream |
//! | `physical`, `aggregates`, `scan`, `pushed`, `side`, `ids`, `text`, `explain` | the graph, its ids, its picture |
//! | `batch` | the plan for DataFusion's batch engine, and its execution |
//! | `diagnostic` | a sentence with line, column, caret and near name |
//!
//! Entry point: [`plan`].

mod aggregates;
mod arithmetic;
mod batch;
mod care;
mod casts;
mod catalog;
mod check;
mod compiled;
mod connect;
mod cursor;
mod ddl;
mod deduplicate;
mod delivery;
mod demand;
mod diagnostic;
mod dialect;
mod errors;
mod explain;
mod flink;
mod forms;
mod functions;
mod group_by;
mod group_window;
mod grouping;
mod hint;
mod ids;
mod insert;
mod interval;
mod job;
mod join;
mod json;
mod last_rows;
mod late_rows;
mod like;
mod logical;
mod lookup_options;

mod nested;
mod nodes;
mod over;
mod parallelism;
mod physical;
mod planner;
mod processing_time;
mod program;
mod properties;
mod pushed;
mod repeat;
mod restart;
mod scan;
mod script;
mod session;
mod set_all;
mod settings;
mod share;
mod show;
mod side;
mod sort;
mod state_ttl;
mod statement;
mod stream;
mod text;
mod top_n;
mod top_n_node;
mod tvf;
mod types;
mod typing;
mod unnest;
mod updating_top_n;
mod values;
mod weight;
mod window;
mod window_spec;

use arrow::datatypes::SchemaRef;
use ruslo_core::connector::Registry;
use ruslo_core::environment::Environment;
use ruslo_core::error::Result;
use ruslo_core::graph::{Graph, NodeKind};
use ruslo_core::plan::CompiledPlan;

pub use batch::{BatchEnd, BatchLimits, BatchQuery, BatchStop, Scratch};
pub use delivery::Delivery;
pub use diagnostic::Script;
pub use restart::{RestartKind, RestartSettings};
pub use script::{NESTING_MAX, OPERATORS_MAX, SCRIPT_BYTES_MAX};
pub use settings::{
    AggregatePhases, AlignmentTimeout, RuntimeMode, SETTINGS, SettingSpec, Settings, duration as parse_duration,
};
pub use types::sql_name;

use connect::Connections;
use job::PlannedJob;
use program::Program;

/// Stack for planning: enough for the deepest text that the limits of [`Script`]s allow.
const STACK_BYTES: usize = 128 << 20;

/// What a script is planned with.
#[derive(Debug, Clone, Copy)]
pub struct Planning<'a> {
    /// The connectors that tables can have.
    pub registry: &'a Registry,
    /// The world that sources and sinks are made for.
    pub environment: &'a Environment,
    /// Settings over the script's own: `--set k=v`.
    pub overrides: &'a [(String, String)],
    /// Subtasks of each operator where neither script nor overrides say.
    pub default_parallelism: usize,
}

/// What a script does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    /// It writes a table.
    Insert,
    /// It shows rows.
    Select,
    /// It shows a plan: print [`Planned::explain`], run nothing.
    Explain,
    /// It only declares tables, views and settings.
    Nothing,
}

/// A script, planned.
pub struct Planned {
    /// What it does.
    pub kind: JobKind,
    /// The pipeline; empty for [`JobKind::Nothing`]. In batch mode only its sources and sinks; what connects them is not
    /// told.
    pub graph: Graph,
    /// In batch mode: what computes the rows of the sinks.
    pub batch: Option<BatchQuery>,
    /// How it runs: the script's SETs, and the overrides over them.
    pub settings: Settings,
    /// Which mode was chosen and why, if the script leaves it to the planner.
    pub choice: Option<String>,
    /// What holds if the process dies; none for [`JobKind::Nothing`].
    pub delivery: Option<Delivery>,
    /// The plan as text: what EXPLAIN shows; empty for [`JobKind::Nothing`].
    pub explain: String,
    /// What the query says, as 16 hexadecimal digits: a checkpoint of another fingerprint is another query's. Layout,
    /// comments, settings and how fast a source is read do not count.
    pub fingerprint: String,
    /// How the plan lays out state, for checkpoints; none for [`JobKind::Nothing`] and in batch mode.
    pub compiled: Option<CompiledPlan>,
    /// What SHOW and DESCRIBE say, in the order of the script.
    pub output: String,
    /// The columns that the sink gets; none for [`JobKind::Nothing`].
    pub schema: Option<SchemaRef>,
}

/// Plans a script.
///
/// ```
/// use ruslo_core::environment::Environment;
/// use ruslo_sql::{JobKind, Planning, Script, plan};
///
/// let script = Script { name: "example.sql", text: "SET 'parallelism.default' = '2'" };
/// let planning = Planning {
///     registry: &ruslo_connectors::registry(),
///     environment: &Environment::local(),
///     overrides: &[],
///     default_parallelism: 1,
/// };
/// let planned = plan(script, &planning)?;
/// assert_eq!(planned.kind, JobKind::Nothing);
/// assert_eq!(planned.settings.parallelism, Some(2));
/// # Ok::<(), ruslo_core::error::Error>(())
/// ```
///
/// # Errors
/// `Usage`, with the place in the text, for everything that the user can mend; `Internal`, if the planner is wrong.
pub fn plan(script: Script<'_>, planning: &Planning<'_>) -> Result<Planned> {
    stacker::grow(STACK_BYTES, || plan_here(script, planning))
}

fn plan_here(script: Script<'_>, planning: &Planning<'_>) -> Result<Planned> {
    let (batch, is_automatic) = plan_as(script, planning, RuntimeMode::Batch);
    if !is_automatic {
        return batch;
    }
    let refused = match batch {
        Ok(planned) => return Ok(told(planned, "batch, because all tables that are read end")),
        Err(refused) => refused,
    };
    let (streaming, _) = plan_as(script, planning, RuntimeMode::Streaming);
    match streaming {
        Ok(planned) => match endless(&planned.graph).map(str::to_owned) {
            Some(source) => Ok(told(planned, &format!("streaming, because '{source}' never ends"))),
            None => Err(refused),
        },
        Err(error) if refused.to_string().contains(batch::NEVER_ENDS) => Err(error),
        Err(_) => Err(refused),
    }
}

/// The first source of `graph` that has no end.
fn endless(graph: &Graph) -> Option<&str> {
    let is_endless = |kind: &NodeKind| matches!(kind, NodeKind::Source(node) if !node.source.is_bounded());
    let source = graph.nodes.iter().find(|node| is_endless(&node.kind))?;
    Some(source.name.strip_prefix("Source ").unwrap_or(&source.name))
}

/// `planned`, which says which mode 'automatic' is.
fn told(planned: Planned, mode: &str) -> Planned {
    let choice = format!("{} is {mode}", batch::RUNTIME_MODE);
    let explain = format!("== Mode ==\n{choice}\n\n{}", planned.explain);
    Planned { choice: Some(choice), explain, ..planned }
}

/// Plans `script`, with 'automatic' taken for `mode`; and whether that was said.
fn plan_as(script: Script<'_>, planning: &Planning<'_>, mode: RuntimeMode) -> (Result<Planned>, bool) {
    let connections = Connections { registry: planning.registry, environment: planning.environment };
    let mut program = Program::new(connections, planning.overrides, planning.default_parallelism, mode);
    let read = program.read(script.text).map_err(|error| error.render(script));
    let is_automatic = program.is_automatic.get() && (read.is_err() || program.job.is_some());
    (read.map(|()| planned(program)), is_automatic)
}

fn planned(program: Program<'_>) -> Planned {
    let (settings, output, choice) = (program.settings, program.output, None);
    let Some(job) = program.job else {
        return Planned {
            kind: JobKind::Nothing,
            graph: Graph::default(),
            batch: None,
            settings,
            choice,
            delivery: None,
            explain: String::new(),
            fingerprint: String::new(),
            compiled: None,
            output,
            schema: None,
        };
    };
    let kind = match (job.is_explain, job.is_insert) {
        (true, _) => JobKind::Explain,
        (false, true) => JobKind::Insert,
        (false, false) => JobKind::Select,
    };
    let PlannedJob { graph, batch, delivery, explain, fingerprint, compiled, schema, .. } = job;
    let delivery = Some(delivery);
    Planned { kind, graph, batch, settings, choice, delivery, explain, fingerprint, compiled, output, schema }
}
