//! Joins of streams: which kind a join is, from its condition.
//!
//! ```text
//! Join: on, filter                                     Projection: the join's own columns
//!   left …                         →                     StreamJoin: kind, keys, condition
//!   right …                                                left …, its computed keys
//!                                                          right …, its computed keys
//! ```
//!
//! | what the condition says | kind | what is kept |
//! |---|---|---|
//! | the window's columns of one window on both sides are equal | window join | rows until the window's end |
//! | the event times of both sides are at most so far apart | interval join | rows for as long |
//! | FOR SYSTEM_TIME AS OF, MATCH_CONDITION | join as of a time ([`temporal`]) | rows until the watermark, the last of each key |
//! | neither | regular join | rows for ever, or for `table.exec.state.ttl` |
//!
//! [`tree`] brings conditions to their joins first. A join's operator is planned in the file of its kind.

pub(crate) mod as_of;
mod bounds;
pub(crate) mod lateral;
pub(crate) mod lookup;
mod node;
mod regular;
mod subquery;
mod temporal;
mod timed;
mod tree;
mod versions;

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, JoinType, NullEquality, Result as DfResult};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, ExprSchemable, Join, LogicalPlan, Projection};
use ruslo_core::graph::{Edge, Node, NodeIndex, Partitioning};
use ruslo_core::operator::Port;

use crate::catalog::Catalog;
use crate::diagnostic::{Position, Sql, SqlError};
use crate::errors::carried;
use crate::explain::Detail;
use crate::late_rows;
use crate::nodes::{WindowAssign, WindowColumn, as_node};
use crate::physical::{Physical, index_of};
use crate::processing_time::has_processing_time;
use crate::settings::RuntimeMode;
use crate::state_ttl::{self, StateTtl};
use crate::text::expr_text;
use crate::window::{bare_column, inputs, is_event_time, lineage, table_column, with_window};
use crate::window_spec::WindowSpec;

use bounds::Times;
pub(crate) use lookup::LookupJoin;
pub(crate) use node::{JoinKind, JoinParts, StreamJoin};
pub(crate) use subquery::{with_subqueries, without_subqueries};
pub(crate) use tree::with_keys;

/// The streaming node of `join`, which stands at `at`.
pub(crate) fn join(join: &Join, at: Position, catalog: &Catalog) -> DfResult<LogicalPlan> {
    if let Some(mark) = as_of::mark_of(join).filter(|mark| lookup::is_lookup(join, mark)) {
        return lookup::lookup_join(join, mark, at);
    }
    if let Some(temporal::Found { kind, parts, times, computed }) = temporal::find(join, RuntimeMode::Streaming)? {
        return made(JoinKind::AsOf { kind, times }, parts, computed, join, catalog);
    }
    check_type(join, at).map_err(carried)?;
    let (mut parts, computed) = parts_of(join)?;
    let kind = kind_of(&mut parts, at).map_err(carried)?;
    if kind == JoinKind::Regular {
        parts = with_hints(parts)?;
        regular::check(&parts).map_err(|error| carried(error.or_at(at)))?;
    } else if parts.null_aware {
        let error = SqlError::not_yet("NOT IN within a window or a bound between event times", at);
        return Err(carried(error.help("write NOT EXISTS, which is the same where nothing is NULL")));
    }
    made(kind, parts, computed, join, catalog)
}

/// `parts` with what hints say of their inputs.
fn with_hints(parts: JoinParts) -> DfResult<JoinParts> {
    let (left, of_left) = state_ttl::take(parts.left)?;
    let (right, of_right) = state_ttl::take(parts.right)?;
    Ok(JoinParts { left, right, ttl: [of_left, of_right], ..parts })
}

/// The node of a kind of join, with the columns of `join`.
fn made(kind: JoinKind, parts: JoinParts, computed: bool, join: &Join, catalog: &Catalog) -> DfResult<LogicalPlan> {
    let lineage = lineage_of(&kind, &parts);
    let parts = without_late_rows(&kind, parts, catalog)?;
    let node = StreamJoin::try_new(kind, parts, lineage)?.into_plan();
    if !computed {
        return Ok(node);
    }
    let own = join.schema.columns().into_iter().map(Expr::Column);
    Projection::try_new(own.collect(), Arc::new(node)).map(LogicalPlan::Projection)
}

/// `plan` in batch mode, its joins as of a time as DataFusion has them.
///
/// # Errors
/// If one is as of a time that is none.
pub(crate) fn in_batch(plan: LogicalPlan, catalog: &Catalog) -> DfResult<LogicalPlan> {
    let made = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::Join(join) = &node else { return Ok(Transformed::no(node)) };
        match as_of::mark_of(join) {
            None => Ok(Transformed::no(node)),
            Some(mark) if lookup::is_lookup(join, &mark) => lookup::in_batch(join, mark).map(Transformed::yes),
            Some(_) => temporal::in_batch(join, catalog).map(Transformed::yes),
        }
    });
    made.map(|plan| plan.data)
}

/// Refuses, at `at`, windows of what is no time behind a join.
pub(crate) fn check_times(plan: &LogicalPlan, at: Position) -> Sql<()> {
    if let Some(assign) = as_node::<WindowAssign>(plan) {
        let (input, time) = (&assign.input, &assign.time);
        let is_processing = table_column(input, time).is_some_and(|(table, name)| has_processing_time(table, &name));
        let is_event = input.schema().maybe_index_of_column(time).is_some_and(|place| is_event_time(input, place));
        if !is_processing && !is_event {
            let sentence = format!("behind this join '{}' is no event time, so it has no windows", time.name);
            let help = "behind an interval join its two time columns are, behind a window join window_time";
            return Err(SqlError::new(sentence).at(at).help(help));
        }
    }
    plan.inputs().into_iter().try_for_each(|input| check_times(input, at))
}

/// The inputs without the late rows that a side table gets.
fn without_late_rows(kind: &JoinKind, parts: JoinParts, catalog: &Catalog) -> DfResult<JoinParts> {
    let take = |input: &LogicalPlan, column: &Column| match kind {
        JoinKind::Regular => Ok(input.clone()),
        JoinKind::Interval { .. } => {
            late_rows::take_out_of_order(input.clone(), &Expr::Column(column.clone()), catalog)
        }
        JoinKind::AsOf { .. } => late_rows::take_out_of_order(input.clone(), &Expr::Column(column.clone()), catalog),
        JoinKind::Window { .. } => late_rows::take_out_copies(input.clone(), column, 0, catalog),
    };
    match kind {
        JoinKind::Regular => Ok(parts),
        JoinKind::Interval { times: (left, right), .. } | JoinKind::Window { ends: (left, right), .. } => {
            Ok(JoinParts { left: take(&parts.left, left)?, right: take(&parts.right, right)?, ..parts })
        }
        // What comes late on the right counts from then on.
        JoinKind::AsOf { times: (left, _), .. } => Ok(JoinParts { left: take(&parts.left, left)?, ..parts }),
    }
}

fn check_type(join: &Join, at: Position) -> Sql<()> {
    use JoinType::{Full, Inner, Left, LeftAnti, LeftSemi, Right};
    match join.join_type {
        Inner | Left | Right | Full | LeftSemi | LeftAnti => Ok(()),
        _ => Err(SqlError::not_yet("subqueries beside OR", at)),
    }
}

/// The parts of `join`, its keys as columns, and whether some of them had to be computed.
fn parts_of(join: &Join) -> DfResult<(JoinParts, bool)> {
    let (mut left, mut right) = (Side::of(&join.left, "$left"), Side::of(&join.right, "$right"));
    let mut keys = Vec::new();
    for (of_left, of_right) in &join.on {
        let data_type = of_left.get_type(join.left.schema())?;
        let of_right = match of_right.get_type(join.right.schema())? == data_type {
            true => of_right.clone(),
            false => datafusion::logical_expr::cast(of_right.clone(), data_type),
        };
        let key = (left.column(of_left), right.column(&of_right));
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let computed = !left.computed.is_empty() || !right.computed.is_empty();
    let parts = JoinParts {
        left: left.into_plan()?,
        right: right.into_plan()?,
        keys,
        filter: join.filter.clone(),
        join_type: join.join_type,
        nulls_are_equal: join.null_equality == NullEquality::NullEqualsNull,
        null_aware: join.null_aware,
        ttl: [StateTtl::Setting; 2],
    };
    Ok((parts, computed))
}

/// An input with the keys that are computed of it.
struct Side<'a> {
    input: &'a LogicalPlan,
    prefix: &'static str,
    computed: Vec<(Expr, Column)>,
}

impl<'a> Side<'a> {
    fn of(input: &'a LogicalPlan, prefix: &'static str) -> Self {
        Self { input, prefix, computed: Vec::new() }
    }

    fn column(&mut self, expr: &Expr) -> Column {
        if let Some(column) = bare_column(expr) {
            return column.clone();
        }
        if let Some((_, column)) = self.computed.iter().find(|(known, _)| known == expr) {
            return column.clone();
        }
        let column = Column::new_unqualified(format!("{}{}", self.prefix, self.computed.len()));
        self.computed.push((expr.clone(), column.clone()));
        column
    }

    fn into_plan(self) -> DfResult<LogicalPlan> {
        if self.computed.is_empty() {
            return Ok(self.input.clone());
        }
        let own = self.input.schema().columns().into_iter().map(Expr::Column);
        let computed = self.computed.into_iter().map(|(expr, column)| expr.alias(column.name));
        Projection::try_new(own.chain(computed).collect(), Arc::new(self.input.clone())).map(LogicalPlan::Projection)
    }
}

/// Which kind of join it is; what the kind says by itself leaves the keys and the condition.
fn kind_of(parts: &mut JoinParts, at: Position) -> Sql<JoinKind> {
    if let Some(kind) = window_kind(parts) {
        return Ok(kind);
    }
    let mut conjuncts = parts.filter.clone().map(split_conjunction_owned).unwrap_or_default();
    let equal = parts.keys.iter().map(|(left, right)| Expr::Column(left.clone()).eq(Expr::Column(right.clone())));
    let all: Vec<Expr> = conjuncts.iter().cloned().chain(equal).collect();
    if let Some(found) = bounds::bounds(parts, &all, Times::Event) {
        if found.is_exact {
            conjuncts.retain(|conjunct| !found.said_by.contains(conjunct));
            parts.keys.retain(|(left, right)| (left, right) != (&found.times.0, &found.times.1));
        }
        parts.filter = conjunction(conjuncts);
        let bounds::Bounds { times, lower_ms, upper_ms, is_exact, .. } = found;
        return Ok(JoinKind::Interval { times, lower_ms, upper_ms, is_exact });
    }
    if bounds::bounds(parts, &all, Times::Processing).is_some() {
        let sentence = "an interval join goes by event time; these bounds are between times of processing";
        return Err(SqlError::new(sentence).at(at).help("declare a WATERMARK in both tables, and bound its columns"));
    }
    Ok(JoinKind::Regular)
}

/// The windows of both sides, if rows of one window are joined: its columns are taken from the keys but for a start that
/// the end does not tell, and the end where there is nothing else.
fn window_kind(parts: &mut JoinParts) -> Option<JoinKind> {
    let (left, right) = (with_window(&parts.left)?, with_window(&parts.right)?);
    if left.window != right.window || left.zone != right.zone {
        return None;
    }
    let column_of = |key: &(Column, Column)| {
        let of_left = left.column(&Expr::Column(key.0.clone()), &parts.left)?;
        let of_right = right.column(&Expr::Column(key.1.clone()), &parts.right)?;
        (of_left == of_right).then_some(of_left)
    };
    let kinds: Vec<Option<WindowColumn>> = parts.keys.iter().map(column_of).collect();
    let ends = parts.keys.iter().zip(&kinds).find(|(_, kind)| **kind == Some(WindowColumn::End))?.0.clone();
    // Sessions that end together may have begun apart; of other windows the end tells the start.
    let is_session = matches!(left.window, WindowSpec::Session { .. });
    let has_start = kinds.contains(&Some(WindowColumn::Start));
    let told = if is_session { has_start } else { has_start || !matches!(left.window, WindowSpec::Cumulate { .. }) };
    if !told {
        return None;
    }
    let (window, zone) = (left.window, left.zone);
    let keys = parts.keys.iter().zip(kinds).filter(|(_, kind)| match kind {
        None => true,
        Some(WindowColumn::Start) => is_session,
        Some(_) => false,
    });
    parts.keys = keys.map(|(key, _)| key.clone()).collect();
    if parts.keys.is_empty() {
        // Windows at least can be spread over the subtasks.
        parts.keys.push(ends.clone());
    }
    Some(JoinKind::Window { ends, window, zone })
}

/// Stored for ever: docs/design/operator-ids.md.
fn lineage_of(kind: &JoinKind, parts: &JoinParts) -> String {
    let name = |column: &Column| match parts.left.schema().has_column(column) {
        true => lineage(&parts.left, column),
        false => lineage(&parts.right, column),
    };
    let op = if parts.nulls_are_equal { "is" } else { "=" };
    let keys = parts
        .keys
        .iter()
        .map(|(left, right)| format!("{} {op} {}", key_text(&parts.left, left), key_text(&parts.right, right)));
    let keys = keys.collect::<Vec<_>>().join(", ");
    let condition = parts.filter.as_ref().map(|filter| expr_text(filter, &name)).unwrap_or_default();
    let what = match kind {
        JoinKind::Regular => "regular join".to_owned(),
        JoinKind::Interval { times: (left, right), lower_ms, upper_ms, .. } => {
            let (left, right) = (lineage(&parts.left, left), lineage(&parts.right, right));
            format!("interval join {left} - {right} from={lower_ms} to={upper_ms}")
        }
        JoinKind::Window { window, zone, .. } => format!("window join {}", window.identity(*zone)),
        JoinKind::AsOf { kind, times: (left, right) } => {
            let (left, right) = (lineage(&parts.left, left), lineage(&parts.right, right));
            format!("{} {left} as of {right}", kind.name())
        }
    };
    let (left, right) = (inputs(&parts.left).join(", "), inputs(&parts.right).join(", "));
    format!("{what} type={} keys=[{keys}] if=[{condition}] inputs=[{left} | {right}]", parts.join_name())
}

/// A key, a computed one as what it is computed of.
fn key_text(input: &LogicalPlan, key: &Column) -> String {
    let computed = match input {
        LogicalPlan::Projection(projection) if key.relation.is_none() && key.name.starts_with('$') => {
            let place = projection.schema.maybe_index_of_column(key);
            place.and_then(|place| Some((projection.expr.get(place)?, projection.input.as_ref())))
        }
        _ => None,
    };
    match computed {
        Some((expr, below)) => expr_text(expr, &|column| lineage(below, column)),
        None => lineage(input, key),
    }
}

/// What the operator of a join needs of its inputs.
pub(crate) struct JoinInputs {
    pub(crate) left: NodeIndex,
    pub(crate) right: NodeIndex,
    /// Places of the keys in each.
    pub(crate) left_keys: Vec<usize>,
    pub(crate) right_keys: Vec<usize>,
}

impl Physical<'_> {
    /// Plans the inputs of a join.
    pub(crate) fn join_inputs(&mut self, node: &StreamJoin) -> Sql<JoinInputs> {
        let parts = &node.parts;
        let (left, right) = (self.node(&parts.left)?, self.node(&parts.right)?);
        let places = |plan: &LogicalPlan, keys: Vec<&Column>| {
            keys.into_iter().map(|key| index_of(plan.schema(), key)).collect::<Sql<Vec<_>>>()
        };
        let left_keys = places(&parts.left, parts.keys.iter().map(|(left, _)| left).collect())?;
        let right_keys = places(&parts.right, parts.keys.iter().map(|(_, right)| right).collect())?;
        Ok(JoinInputs { left, right, left_keys, right_keys })
    }

    /// How many subtasks a join has: without keys all rows meet in one.
    pub(crate) fn join_parallelism(&self, inputs: &JoinInputs) -> usize {
        if inputs.left_keys.is_empty() { 1 } else { self.parallelism }
    }

    /// Adds an operator of two inputs: the left one's rows come by `left_keys` to its input 0, the right one's by
    /// `right_keys` to its input 1.
    pub(crate) fn add_join(&mut self, node: Node, inputs: &JoinInputs, detail: Detail) -> NodeIndex {
        let index = self.add(node, None, detail);
        let sides = [(inputs.left, &inputs.left_keys), (inputs.right, &inputs.right_keys)];
        for (input, (from, keys)) in sides.into_iter().enumerate() {
            let partitioning = Partitioning::KeyGroup(keys.clone());
            self.graph.edges.push(Edge { from, port: Port::MAIN, to: index, input, partitioning });
        }
        index
    }

    /// Adds the operator of a join.
    pub(crate) fn join(&mut self, node: &StreamJoin) -> Sql<NodeIndex> {
        match &node.kind {
            JoinKind::Regular => self.regular_join(node),
            JoinKind::Interval { .. } | JoinKind::Window { .. } => self.timed_join(node),
            JoinKind::AsOf { .. } => self.as_of_join(node),
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
    use ruslo_core::environment::Environment;

    use super::*;
    use crate::connect::Connections;
    use crate::program::Program;
    use crate::script::split;
    use crate::settings::RuntimeMode;
    use crate::statement::{Job, Parsed, parse};

    const AT: Position = Position { line: 1, column: 1 };

    /// The kind and the rest of the join of `FROM a, b` (or what `from` says), by its condition.
    fn classified(from: &str) -> Result<(JoinKind, JoinParts), String> {
        let (registry, environment) = (ruslo_connectors::registry(), Environment::local());
        let connections = Connections { registry: &registry, environment: &environment };
        let mut program = Program::new(connections, &[], 1, RuntimeMode::Streaming);
        for name in ["a", "b"] {
            program
                .read(&format!(
                    "CREATE TABLE {name} (k INT, l BIGINT, v INT, t TIMESTAMP(3), p AS PROCTIME(),
                    WATERMARK FOR t AS t) WITH ('connector' = 'filesystem', 'path' = '{name}', 'format' = 'json')"
                ))
                .unwrap();
        }
        let query = format!("SELECT a.k FROM {from}");
        let Parsed::Run(Job::Select(query)) = parse(&split(&query).unwrap()[0]).unwrap() else { panic!() };
        let plan = program.planner.query(&query, &program.catalog, RuntimeMode::Streaming);
        let plan = with_keys(plan.map_err(|error| error.message().to_owned())?.0).unwrap();
        let mut found = None;
        plan.apply(|node| {
            if let LogicalPlan::Join(join) = node {
                found = Some(join.clone());
                return Ok(TreeNodeRecursion::Stop);
            }
            Ok(TreeNodeRecursion::Continue)
        })
        .unwrap();
        let mut parts = parts_of(&found.unwrap()).unwrap().0;
        let kind = kind_of(&mut parts, AT).map_err(|error| error.message().to_owned())?;
        Ok((kind, parts))
    }

    /// The bounds of the left time minus the right one, in seconds.
    fn bounds_of(condition: &str) -> Option<(i64, i64)> {
        match classified(&format!("a, b WHERE a.k = b.k AND {condition}")).unwrap() {
            (JoinKind::Interval { lower_ms, upper_ms, .. }, parts) => {
                assert_eq!((parts.keys_text().as_str(), parts.filter), ("a.k = b.k", None), "{condition}");
                Some((lower_ms, upper_ms))
            }
            _ => None,
        }
    }

    #[test]
    fn bounds_are_found_in_any_form() {
        let minute = "INTERVAL '1' MINUTE";
        for condition in [
            format!("a.t BETWEEN b.t - {minute} AND b.t + {minute}"),
            format!("b.t BETWEEN a.t - {minute} AND a.t + {minute}"),
            format!("a.t >= b.t - {minute} AND a.t <= b.t + {minute}"),
            format!("a.t + {minute} >= b.t AND {minute} + b.t >= a.t"),
            format!("a.t - {minute} <= b.t AND NOT (a.t < b.t - {minute})"),
        ] {
            let expected = if condition.contains("NOT") { None } else { Some((-60_000, 60_000)) };
            assert_eq!(bounds_of(&condition), expected, "{condition}");
        }
        assert_eq!(bounds_of("a.t >= b.t AND a.t < b.t + INTERVAL '5' SECOND"), Some((0, 4_999)));
        assert_eq!(bounds_of("a.t > b.t AND b.t + INTERVAL '1' HOUR > a.t"), Some((1, 3_599_999)));
        assert_eq!(bounds_of("a.t = b.t"), Some((0, 0)));
        assert_eq!(bounds_of("a.t >= b.t"), None, "one bound keeps rows for ever");
        assert_eq!(bounds_of("a.t BETWEEN b.t - INTERVAL '1' MONTH AND b.t"), None, "months differ");
    }

    #[test]
    fn the_rest_of_a_condition_stays() {
        let (kind, parts) = classified(
            "a JOIN b ON a.k = b.l AND a.v < b.v WHERE a.t BETWEEN b.t AND b.t + INTERVAL '1' SECOND AND a.v > 1",
        )
        .unwrap();
        assert!(matches!(kind, JoinKind::Interval { lower_ms: 0, upper_ms: 1_000, .. }), "{kind:?}");
        assert_eq!(parts.keys_text(), "$left0 = b.l", "an INT is made a BIGINT before the exchange");
        assert_eq!(parts.filter.map(|filter| filter.to_string()).as_deref(), Some("a.v < b.v"));
        assert!(
            format!("{}", parts.left.display_indent()).contains("Filter: a.v > "),
            "{}",
            parts.left.display_indent()
        );
    }

    #[test]
    fn bounds_between_times_of_processing_are_refused() {
        let error = classified("a JOIN b ON a.k = b.k AND a.p BETWEEN b.p - INTERVAL '1' SECOND AND b.p").unwrap_err();
        assert_eq!(error, "an interval join goes by event time; these bounds are between times of processing");
    }

    /// A join of windows with this condition.
    fn windows(left: &str, right: &str, condition: &str) -> (JoinKind, JoinParts) {
        let window = |table: &str, lengths: &str| {
            format!(
                "(SELECT * FROM TABLE({}(TABLE {table}, DESCRIPTOR(t), {})))",
                &lengths[..lengths.find(' ').unwrap()],
                &lengths[lengths.find(' ').unwrap() + 1..]
            )
        };
        classified(&format!("{} AS a JOIN {} AS b ON {condition}", window("a", left), window("b", right))).unwrap()
    }

    #[test]
    fn windows_are_joined_by_their_columns() {
        let tumble = "TUMBLE INTERVAL '1' MINUTE";
        let both = "a.window_start = b.window_start AND a.window_end = b.window_end";
        let (kind, parts) = windows(tumble, tumble, &format!("a.k = b.k AND {both} AND a.v < b.v"));
        assert!(
            matches!(kind, JoinKind::Window { window: WindowSpec::Tumble { size_ms: 60_000, .. }, .. }),
            "{kind:?}"
        );
        assert_eq!(parts.keys_text(), "a.k = b.k");
        let (kind, parts) = windows(tumble, tumble, "a.window_end = b.window_end");
        assert!(matches!(kind, JoinKind::Window { .. }) && parts.keys.len() == 1, "the end tells the window");
        let (kind, _) = windows(tumble, "TUMBLE INTERVAL '2' MINUTE", both);
        assert_eq!(kind, JoinKind::Regular, "other windows");
        let cumulate = "CUMULATE INTERVAL '1' MINUTE, INTERVAL '5' MINUTE";
        let (kind, _) = windows(cumulate, cumulate, "a.window_end = b.window_end");
        assert_eq!(kind, JoinKind::Regular, "several windows may end together");
        assert!(matches!(windows(cumulate, cumulate, both).0, JoinKind::Window { .. }));
        let (kind, parts) = windows(tumble, tumble, "a.window_start = b.window_end AND a.window_end = b.window_start");
        assert_eq!((kind, parts.keys.len()), (JoinKind::Regular, 2));
    }

    #[test]
    fn a_join_without_either_is_a_regular_one() {
        let (kind, parts) = classified("a LEFT JOIN b ON a.k + 1 = b.k AND a.l IS NOT NULL").unwrap();
        assert_eq!((kind, parts.keys_text().as_str()), (JoinKind::Regular, "$left0 = b.k"));
        let (kind, parts) = classified("a, b AS c, b WHERE a.k = b.k AND b.v = c.v").unwrap();
        assert_eq!((kind, parts.keys.len()), (JoinKind::Regular, 1), "no cross join");
    }
}
