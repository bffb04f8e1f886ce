//! The operator of interval and window joins: rows of both sides, until the watermark has passed their last partner.

use datafusion::common::{Column, DFSchema, JoinType};
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};
use ruslo_core::graph::{Node, NodeIndex, NodeKind};
use ruslo_operators::{TimedJoinInput, TimedJoinKind, TimedJoinSpec};

use super::{JoinInputs, JoinKind, JoinParts, StreamJoin};
use crate::compiled::{compiled_column, compiled_expr, layouts};
use crate::diagnostic::{Sql, SqlError};
use crate::errors::from_datafusion;
use crate::explain::Detail;
use crate::interval::describe;
use crate::physical::{Physical, arrow_schema, index_of, physical_expr};
use crate::text::expr_text;

impl Physical<'_> {
    /// Adds the operator of an interval or window join.
    pub(crate) fn timed_join(&mut self, node: &StreamJoin) -> Sql<NodeIndex> {
        let inputs = self.join_inputs(node)?;
        let what = if matches!(node.kind, JoinKind::Window { .. }) { "a window join" } else { "an interval join" };
        self.must_append(inputs.left, what)?;
        self.must_append(inputs.right, what)?;
        let (spec, both) = (spec(node, &inputs)?, both(&node.parts)?);
        let [left, right] = [inputs.left, inputs.right].map(|input| self.properties(input));
        let properties = match node.parts.join_type {
            JoinType::LeftSemi | JoinType::LeftAnti => left,
            _ => left.joined(&right, node.parts.left_columns(), |place| node.time_column(place).is_some()),
        };
        let mut detail = detail(node).with(properties).does(does(node, &both));
        if let Some(table) = spec.state_tables().into_iter().next() {
            detail = detail.keeps(table);
        }
        let added = Node {
            id: self.fresh_id(&node.lineage),
            name: detail.name.clone(),
            parallelism: self.join_parallelism(&inputs),
            schema: spec.schema(),
            kind: NodeKind::Operator(spec.factory()),
        };
        Ok(self.add_join(added, &inputs, detail))
    }
}

fn both(parts: &JoinParts) -> Sql<DFSchema> {
    parts.both().map_err(|error| from_datafusion(&error, &[]))
}

fn kind(parts: &JoinParts) -> Sql<TimedJoinKind> {
    Ok(match parts.join_type {
        JoinType::Inner => TimedJoinKind::Inner,
        JoinType::Left => TimedJoinKind::Left,
        JoinType::Right => TimedJoinKind::Right,
        JoinType::Full => TimedJoinKind::Full,
        JoinType::LeftSemi => TimedJoinKind::Semi,
        JoinType::LeftAnti => TimedJoinKind::Anti,
        other => return Err(SqlError::internal(format!("a {other} join by time"))),
    })
}

fn spec(node: &StreamJoin, inputs: &JoinInputs) -> Sql<TimedJoinSpec> {
    let parts = &node.parts;
    let input = |plan: &LogicalPlan, keys: &[usize], time| -> Sql<TimedJoinInput> {
        let schema = plan.schema();
        Ok(TimedJoinInput { schema: arrow_schema(schema), keys: keys.to_vec(), time: index_of(schema, time)? })
    };
    let sides = |left, right| -> Sql<[TimedJoinInput; 2]> {
        Ok([input(&parts.left, &inputs.left_keys, left)?, input(&parts.right, &inputs.right_keys, right)?])
    };
    let mut spec = match &node.kind {
        JoinKind::Interval { times: (left, right), lower_ms, upper_ms, .. } => {
            TimedJoinSpec::interval(kind(parts)?, sides(left, right)?, *lower_ms, *upper_ms)?
        }
        JoinKind::Window { ends: (left, right), zone, .. } => {
            TimedJoinSpec::window(kind(parts)?, sides(left, right)?, zone.clock())?
        }
        _ => return Err(SqlError::internal("this join is not by time")),
    };
    if let Some(filter) = &parts.filter {
        spec = spec.on(physical_expr(filter, &both(parts)?)?);
    }
    if parts.nulls_are_equal {
        spec = spec.with_equal_nulls();
    }
    Ok(spec.with_schema(arrow_schema(node.schema()))?)
}

/// What EXPLAIN says of it.
fn detail(node: &StreamJoin) -> Detail {
    let parts = &node.parts;
    let keys = parts.keys_text();
    let input = if keys.is_empty() { "all rows to one subtask".to_owned() } else { format!("by key {keys}") };
    let named = |kind: &str| format!("{kind}Join {}", parts.join_name());
    let detail = match &node.kind {
        JoinKind::Window { window, .. } => Detail::new(&format!("{} {window}", named("Window")), &input)
            .line("window", format!("{} {window}", window.kind())),
        JoinKind::Interval { times: (left, right), lower_ms, upper_ms, .. } => {
            let (left, right) = (left.flat_name(), right.flat_name());
            let (from, to) = (describe(*lower_ms), describe(*upper_ms));
            Detail::new(&named("Interval"), &input).line("time", format!("{left} - {right} from {from} to {to}"))
        }
        _ => Detail::new(&named("Regular"), &input),
    };
    let detail = match &parts.filter {
        Some(filter) => detail.line("if", expr_text(filter, &Column::flat_name)),
        None => detail,
    };
    match &node.kind {
        JoinKind::Interval { lower_ms, upper_ms, .. } => {
            let (left, right) = (describe((-lower_ms).max(0)), describe((*upper_ms).max(0)));
            let state =
                format!("left rows until the watermark is {left} past them, right rows until it is {right} past");
            let hold = describe((*upper_ms).max(-lower_ms).max(0));
            detail.line("state", state).line("output watermark", format!("{hold} behind its input's"))
        }
        _ => detail.line("state", "rows of both sides until their window ends"),
    }
}

/// What it does, for checkpoints.
fn does(node: &StreamJoin, both: &DFSchema) -> String {
    let parts = &node.parts;
    let pair = |(left, right): &(Column, Column)| {
        let (of_left, of_right) = (parts.left.schema(), parts.right.schema());
        format!("{} {}", compiled_column(left, of_left), compiled_column(right, of_right))
    };
    let keys = parts.keys.iter().map(pair).collect::<Vec<_>>().join(", ");
    let times = match &node.kind {
        JoinKind::Interval { times, .. } => pair(times),
        JoinKind::Window { ends, .. } => pair(ends),
        _ => String::new(),
    };
    let condition = parts.filter.as_ref().map(|filter: &Expr| compiled_expr(filter, both)).unwrap_or_default();
    let right = layouts(parts.right.schema().as_arrow());
    format!("{} keys=[{keys}] times=[{times}] if=[{condition}] right=[{right}]", node.lineage)
}
