//! The node of the streaming logical plan that joins two streams, of whichever kind.
//!
//! Its columns are those of the left input, then those of the right one; a semi or anti join has the left ones alone.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use datafusion::common::{Column, DFSchema, DFSchemaRef, JoinType, Result as DfResult, internal_datafusion_err};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore, build_join_schema};

use super::temporal::AsOfKind;
use crate::state_ttl::StateTtl;
use crate::text::expr_text;
use crate::top_n::window_column;
use crate::window_spec::{WindowSpec, WindowZone};

/// How the rows of two streams find each other, and when they go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum JoinKind {
    /// By key alone: rows stay.
    Regular,
    /// The event time of the left row minus that of the right row is from `lower_ms` to `upper_ms`, both included.
    /// `is_exact` says whether nothing finer than milliseconds is meant; if not, the condition says it, too.
    Interval { times: (Column, Column), lower_ms: i64, upper_ms: i64, is_exact: bool },
    /// Rows of one window; the columns are the windows' ends.
    Window { ends: (Column, Column), window: WindowSpec, zone: WindowZone },
    /// Each left row beside the right row that counts at its time.
    AsOf { kind: AsOfKind, times: (Column, Column) },
}

/// What is joined by what.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct JoinParts {
    pub(crate) left: LogicalPlan,
    pub(crate) right: LogicalPlan,
    /// Columns of the left and the right input that are equal; their types are the same.
    pub(crate) keys: Vec<(Column, Column)>,
    /// What else must hold, over the columns of both.
    pub(crate) filter: Option<Expr>,
    /// Inner, Left, Right, Full, LeftSemi or LeftAnti.
    pub(crate) join_type: JoinType,
    /// Whether NULL keys are equal: IS NOT DISTINCT FROM.
    pub(crate) nulls_are_equal: bool,
    /// Whether it is an anti join by NOT IN, which a NULL on either side makes empty.
    pub(crate) null_aware: bool,
    /// How long a regular join keeps the rows of left and right.
    pub(crate) ttl: [StateTtl; 2],
}

/// Two streams, joined.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct StreamJoin {
    pub(crate) kind: JoinKind,
    pub(crate) parts: JoinParts,
    /// What the operator's id is a hash of.
    pub(crate) lineage: String,
    schema: DFSchemaRef,
}

/// One of the inputs of a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JoinSide {
    Left,
    Right,
}

impl JoinParts {
    /// The columns of both inputs, which the condition is over.
    pub(crate) fn both(&self) -> DfResult<DFSchema> {
        self.left.schema().join(self.right.schema())
    }

    /// How many columns the left input has: those of the right one stand behind them.
    pub(crate) fn left_columns(&self) -> usize {
        self.left.schema().fields().len()
    }

    /// Whether rows of `side` come out with NULLs for the other side when they have no partner.
    pub(crate) fn is_kept(&self, side: JoinSide) -> bool {
        match side {
            JoinSide::Left => matches!(self.join_type, JoinType::Left | JoinType::Full),
            JoinSide::Right => matches!(self.join_type, JoinType::Right | JoinType::Full),
        }
    }

    /// Whether the columns of `side` may be NULL because a row of the other side has no partner.
    pub(crate) fn is_padded(&self, side: JoinSide) -> bool {
        match side {
            JoinSide::Left => self.is_kept(JoinSide::Right),
            JoinSide::Right => self.is_kept(JoinSide::Left),
        }
    }

    /// What SQL calls it.
    pub(crate) fn join_name(&self) -> &'static str {
        match self.join_type {
            JoinType::Inner => "inner",
            JoinType::Left => "left",
            JoinType::Right => "right",
            JoinType::Full => "full",
            JoinType::LeftSemi => "semi",
            JoinType::LeftAnti if self.null_aware => "anti of not in",
            JoinType::LeftAnti => "anti",
            _ => "mark",
        }
    }

    /// Its keys as a person reads them.
    pub(crate) fn keys_text(&self) -> String {
        let op = if self.nulls_are_equal { "IS NOT DISTINCT FROM" } else { "=" };
        let keys = self.keys.iter().map(|(left, right)| format!("{} {op} {}", left.flat_name(), right.flat_name()));
        keys.collect::<Vec<_>>().join(", ")
    }
}

impl StreamJoin {
    pub(crate) fn try_new(kind: JoinKind, parts: JoinParts, lineage: String) -> DfResult<Self> {
        let schema = build_join_schema(parts.left.schema(), parts.right.schema(), &parts.join_type)?;
        Ok(Self { kind, parts, lineage, schema: Arc::new(schema) })
    }

    /// The node as a plan.
    pub(crate) fn into_plan(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(self) })
    }

    /// The input that the `index`th column is of, and its place there.
    pub(crate) fn input_column(&self, index: usize) -> (JoinSide, &LogicalPlan, usize) {
        match index.checked_sub(self.parts.left_columns()) {
            None => (JoinSide::Left, &self.parts.left, index),
            Some(place) => (JoinSide::Right, &self.parts.right, place),
        }
    }

    /// The same, if it stays the time attribute or the window's column that it may be in the input.
    pub(crate) fn time_column(&self, index: usize) -> Option<(&LogicalPlan, usize)> {
        let (side, input, place) = self.input_column(index);
        let is_own = |(left, right): &(Column, Column)| {
            let own = if side == JoinSide::Left { left } else { right };
            input.schema().maybe_index_of_column(own) == Some(place)
        };
        let stays = match &self.kind {
            JoinKind::Regular => false,
            JoinKind::Interval { times, .. } => is_own(times),
            // Rows leave up to the end of their window: their own times may be behind the watermark by then.
            JoinKind::Window { .. } => window_column(input, place).is_some(),
            JoinKind::AsOf { times, .. } => side == JoinSide::Left && is_own(times),
        };
        (stays && !self.parts.is_padded(side)).then_some((input, place))
    }

    /// The place among the join's columns of that at `place` of `side`.
    pub(crate) fn place_of(&self, side: JoinSide, place: usize) -> usize {
        match side {
            JoinSide::Left => place,
            JoinSide::Right => place.saturating_add(self.parts.left_columns()),
        }
    }

    /// The input whose windows the rows of a window join have, if every row has one.
    pub(crate) fn window_side(&self) -> Option<(JoinSide, &LogicalPlan)> {
        let JoinKind::Window { .. } = self.kind else { return None };
        match self.parts.join_type {
            JoinType::Right => Some((JoinSide::Right, &self.parts.right)),
            JoinType::Full => None,
            _ => Some((JoinSide::Left, &self.parts.left)),
        }
    }

    /// The columns that it needs of each input for itself.
    fn own_columns(&self) -> (Vec<&Column>, Vec<&Column>) {
        let (mut left, mut right): (Vec<_>, Vec<_>) = self.parts.keys.iter().map(|(left, right)| (left, right)).unzip();
        match &self.kind {
            JoinKind::Regular => {}
            JoinKind::Interval { times: (of_left, of_right), .. }
            | JoinKind::Window { ends: (of_left, of_right), .. }
            | JoinKind::AsOf { times: (of_left, of_right), .. } => {
                left.push(of_left);
                right.push(of_right);
            }
        }
        (left, right)
    }
}

impl PartialOrd for StreamJoin {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for StreamJoin {
    fn name(&self) -> &str {
        match self.kind {
            JoinKind::Regular => "RegularJoin",
            JoinKind::Interval { .. } => "IntervalJoin",
            JoinKind::Window { .. } => "WindowJoin",
            JoinKind::AsOf { kind: AsOfKind::Version, .. } => "TemporalJoin",
            JoinKind::AsOf { .. } => "AsOfJoin",
        }
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.parts.left, &self.parts.right]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        let (left, right) = self.own_columns();
        let columns = left.into_iter().zip(right).flat_map(|(left, right)| [left, right]);
        columns.cloned().map(Expr::Column).chain(self.parts.filter.clone()).collect()
    }

    // Every output column keeps predicates above: what can go below went there before.

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}, keys=[{}]", self.name(), self.parts.join_name(), self.parts.keys_text())?;
        match &self.kind {
            JoinKind::Regular => {}
            JoinKind::Interval { times: (left, right), lower_ms, upper_ms, .. } => {
                write!(f, ", {} - {} in [{lower_ms} ms, {upper_ms} ms]", left.flat_name(), right.flat_name())?;
            }
            JoinKind::Window { window, .. } => write!(f, ", {} {}", window.kind(), window.parameters())?,
            JoinKind::AsOf { times: (left, right), .. } => {
                write!(f, ", {} as of {}", left.flat_name(), right.flat_name())?;
            }
        }
        match &self.parts.filter {
            Some(filter) => write!(f, ", if={}", expr_text(filter, &Column::flat_name)),
            None => Ok(()),
        }
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        let broken = || internal_datafusion_err!("a join lost its columns");
        let mut exprs = exprs.into_iter();
        let mut column = || match exprs.next() {
            Some(Expr::Column(column)) => Ok(column),
            _ => Err(broken()),
        };
        let mut keys = Vec::new();
        for _ in &self.parts.keys {
            keys.push((column()?, column()?));
        }
        let kind = match self.kind.clone() {
            JoinKind::Regular => JoinKind::Regular,
            JoinKind::Interval { lower_ms, upper_ms, is_exact, .. } => {
                JoinKind::Interval { times: (column()?, column()?), lower_ms, upper_ms, is_exact }
            }
            JoinKind::Window { window, zone, .. } => JoinKind::Window { ends: (column()?, column()?), window, zone },
            JoinKind::AsOf { kind, .. } => JoinKind::AsOf { kind, times: (column()?, column()?) },
        };
        let filter = exprs.next();
        let mut inputs = inputs.into_iter();
        let (left, right) = inputs.next().zip(inputs.next()).ok_or_else(broken)?;
        let parts = JoinParts { left, right, keys, filter, ..self.parts.clone() };
        Self::try_new(kind, parts, self.lineage.clone())
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let (left, right) = self.own_columns();
        let filter = self.parts.filter.iter().flat_map(Expr::column_refs).collect::<Vec<_>>();
        let needed = |side: JoinSide, plan: &LogicalPlan, own: Vec<&Column>| {
            let passed = output_columns.iter().map(|index| self.input_column(*index));
            let passed = passed.filter(|(of, ..)| *of == side).map(|(.., place)| place);
            let own = own.into_iter().chain(filter.iter().copied());
            let own = own.filter_map(|column| plan.schema().maybe_index_of_column(column));
            let mut needed: Vec<usize> = passed.chain(own).collect();
            needed.sort_unstable();
            needed.dedup();
            // Rows without columns cannot be counted.
            if needed.is_empty() && !plan.schema().fields().is_empty() {
                needed.push(0);
            }
            needed
        };
        let left = needed(JoinSide::Left, &self.parts.left, left);
        Some(vec![left, needed(JoinSide::Right, &self.parts.right, right)])
    }
}
