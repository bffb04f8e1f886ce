//! Joins as of a time: the temporal join with a table that has versions, and the ASOF join.
//!
//! ```text
//! Join: o.k = r.k, mark(o.t)                   StreamJoin: as of, keys, times
//!   orders AS o                          →       orders AS o, its computed keys
//!   last rows of each k of rates AS r            rates AS r: all versions
//! ```

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, JoinType, Result as DfResult};
use datafusion::functions_window::expr_fn::lead;
use datafusion::logical_expr::utils::{conjunction, find_valid_equijoin_key_pair};
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprFunctionExt, ExprSchemable, Join, LogicalPlan, LogicalPlanBuilder, Operator, Projection,
    UserDefinedLogicalNodeCore, cast,
};
use ruslo_core::graph::{Node, NodeIndex, NodeKind};
use ruslo_operators::{AsOf, AsOfJoinInput, AsOfJoinSpec};

use super::as_of::{Mark, MarkKind, mark_of};
use super::versions::versions;
use super::{JoinInputs, JoinKind, JoinParts, StreamJoin, parts_of};
use crate::catalog::Catalog;
use crate::compiled::{compiled_column, compiled_expr, layouts};
use crate::diagnostic::{Position, Sql, SqlError};
use crate::errors::{carried, from_datafusion};
use crate::explain::Detail;
use crate::physical::{Physical, arrow_schema, index_of, physical_expr};
use crate::settings::RuntimeMode;
use crate::text::expr_text;
use crate::top_n;
use crate::window::{bare_column, is_event_time, table_column};

/// Which row of the right side counts, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum AsOfKind {
    /// The version of a row of a table.
    Version,
    /// The last row: at the time, too, unless `is_strict`.
    Match { is_strict: bool },
}

impl AsOfKind {
    /// What operator ids call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Version => "temporal join",
            Self::Match { is_strict: false } => "asof join >=",
            Self::Match { is_strict: true } => "asof join >",
        }
    }

    fn as_of(self) -> AsOf {
        match self {
            Self::Version | Self::Match { is_strict: false } => AsOf::AtOrBefore,
            Self::Match { is_strict: true } => AsOf::Before,
        }
    }
}

/// A join as of a time, taken apart.
pub(super) struct Found {
    pub(super) kind: AsOfKind,
    pub(super) parts: JoinParts,
    pub(super) times: (Column, Column),
    /// Whether some keys had to be computed.
    pub(super) computed: bool,
}

/// What `join` is, if it is marked.
pub(super) fn find(join: &Join, mode: RuntimeMode) -> DfResult<Option<Found>> {
    let Some(mark) = mark_of(join) else { return Ok(None) };
    let at = mark.at;
    found(join, mark, mode).map(Some).map_err(|error| carried(error.or_at(at.unwrap_or(START))))
}

const START: Position = Position { line: 1, column: 1 };

fn found(join: &Join, mark: Mark, mode: RuntimeMode) -> Sql<Found> {
    let (kind, left_time, right_time, right, keys) = match &mark.kind {
        MarkKind::SystemTime(time) => {
            let versions = versions(&join.right)?;
            let time = event_time(&join.left, time, mode)?;
            (
                AsOfKind::Version,
                time,
                column_at(&versions.plan, versions.time),
                versions.plan,
                Some((versions.keys, versions.name)),
            )
        }
        MarkKind::Match { left, op, right } => {
            let (kind, left, right) = matched(join, left, *op, right)?;
            let left = event_time(&join.left, left, mode)?;
            let right = event_time(&join.right, right, mode)?;
            (kind, left, right, join.right.as_ref().clone(), None)
        }
    };
    same_clock(&join.left, &left_time, &right, &right_time)?;
    let (on, rest) = pairs(&join.left, &right, mark.rest)?;
    let (on, rest) = match keys {
        Some((keys, name)) => of_key(on, rest, &right, &keys, &name)?,
        None if rest.is_empty() => (on, rest),
        None => {
            let sentence = "the ON of an ASOF JOIN takes equalities of both sides, joined by AND";
            return Err(SqlError::new(sentence).help("filter the result, or either side below the join"));
        }
    };
    let plain = Join { on, filter: conjunction(rest), right: Arc::new(right), ..join.clone() };
    let (parts, computed) = parts_of(&plain).map_err(|error| from_datafusion(&error, &[]))?;
    Ok(Found { kind, parts, times: (left_time, right_time), computed })
}

fn column_at(plan: &LogicalPlan, place: usize) -> Column {
    Column::from(plan.schema().qualified_field(place))
}

/// The event time of `plan` that `expr` is; in batch mode any time.
fn event_time(plan: &LogicalPlan, expr: &Expr, mode: RuntimeMode) -> Sql<Column> {
    let is_time = |place: usize| match mode {
        RuntimeMode::Batch => matches!(plan.schema().field(place).data_type(), DataType::Timestamp(..)),
        _ => is_event_time(plan, place),
    };
    let column = bare_column(expr);
    let found = column.filter(|column| plan.schema().maybe_index_of_column(column).is_some_and(is_time));
    if let Some(found) = found {
        return Ok(found.clone());
    }
    let text = expr_text(expr, &Column::flat_name);
    if let Some((table, name)) = column.and_then(|column| table_column(plan, column))
        && table.watermark.is_none()
    {
        let sentence = format!("'{text}' has no watermark, so a join as of it cannot wait for what it needs");
        let help =
            format!("add WATERMARK FOR {name} AS {name} - INTERVAL '5' SECOND to CREATE TABLE {}", table.name.value);
        return Err(SqlError::new(sentence).help(help));
    }
    let sentence = format!("'{text}' is no event time of its side of the join");
    Err(SqlError::new(sentence).help("take the column that WATERMARK FOR names, as it is"))
}

/// Which row an ASOF join takes, and the times of left and right.
fn matched<'a>(join: &Join, one: &'a Expr, op: Operator, other: &'a Expr) -> Sql<(AsOfKind, &'a Expr, &'a Expr)> {
    let is_of = |expr: &Expr, plan: &LogicalPlan| {
        let columns = expr.column_refs();
        !columns.is_empty() && columns.into_iter().all(|column| plan.schema().has_column(column))
    };
    let (left, op, right) = if is_of(one, &join.left) && is_of(other, &join.right) {
        (one, Some(op), other)
    } else if is_of(other, &join.left) && is_of(one, &join.right) {
        (other, op.swap(), one)
    } else {
        let sentence = "MATCH_CONDITION compares a time of the left side with one of the right side";
        return Err(SqlError::new(sentence).help("write MATCH_CONDITION (l.rowtime >= r.rowtime)"));
    };
    match op {
        Some(Operator::GtEq) => Ok((AsOfKind::Match { is_strict: false }, left, right)),
        Some(Operator::Gt) => Ok((AsOfKind::Match { is_strict: true }, left, right)),
        _ => Err(SqlError::not_yet("ASOF joins with the first row after a time", None)
            .help("the last row before is MATCH_CONDITION (l.rowtime >= r.rowtime)")),
    }
}

/// Times of both sides must be of one clock.
fn same_clock(left: &LogicalPlan, of_left: &Column, right: &LogicalPlan, of_right: &Column) -> Sql<()> {
    let zone = |plan: &LogicalPlan, column: &Column| {
        let place = plan.schema().maybe_index_of_column(column);
        matches!(place.map(|place| plan.schema().field(place).data_type()), Some(DataType::Timestamp(_, Some(_))))
    };
    if zone(left, of_left) == zone(right, of_right) {
        return Ok(());
    }
    let sentence = format!(
        "of '{}' and '{}' one is TIMESTAMP and the other TIMESTAMP_LTZ",
        of_left.flat_name(),
        of_right.flat_name()
    );
    Err(SqlError::new(sentence).help("declare both times as the same"))
}

type Pairs = Vec<(Expr, Expr)>;

/// The equalities of left and right, and the rest.
fn pairs(left: &LogicalPlan, right: &LogicalPlan, conjuncts: Vec<Expr>) -> Sql<(Pairs, Vec<Expr>)> {
    let (mut on, mut rest) = (Vec::new(), Vec::new());
    for conjunct in conjuncts {
        let pair = match &conjunct {
            Expr::BinaryExpr(BinaryExpr { left: one, op: Operator::Eq, right: other }) => {
                find_valid_equijoin_key_pair(one, other, left.schema(), right.schema())
                    .map_err(|error| from_datafusion(&error, &[]))?
            }
            _ => None,
        };
        match pair {
            Some(pair) => on.push(pair),
            None => rest.push(conjunct),
        }
    }
    Ok((on, rest))
}

/// Of the equalities those that say the key of the versions, each column once; what else there is goes to the rest.
fn of_key(
    on: Pairs,
    mut rest: Vec<Expr>,
    right: &LogicalPlan,
    keys: &[(usize, String)],
    name: &str,
) -> Sql<(Pairs, Vec<Expr>)> {
    let place_of = |expr: &Expr| right.schema().maybe_index_of_column(bare_column(uncast(expr))?);
    let mut missing: Vec<&(usize, String)> = keys.iter().collect();
    let mut said = Vec::new();
    for (of_left, of_right) in on {
        let place = place_of(&of_right);
        match missing.iter().position(|(key, _)| Some(*key) == place) {
            Some(found) => {
                missing.remove(found);
                said.push((of_left, of_right));
            }
            None => rest.push(of_left.eq(of_right)),
        }
    }
    match missing.first() {
        None => Ok((said, rest)),
        Some((_, key)) => {
            let sentence =
                format!("a join FOR SYSTEM_TIME AS OF says the whole key of '{name}' in ON; '{key}' is missing");
            Err(SqlError::new(sentence).help(format!("add = for '{key}'")))
        }
    }
}

/// What is cast to a type that has room for all of its values.
fn uncast(expr: &Expr) -> &Expr {
    match expr {
        Expr::Cast(cast) if cast.field.data_type().is_integer() || cast.field.data_type() == &DataType::Utf8 => {
            &cast.expr
        }
        other => other,
    }
}

/// Batch mode: a marked join as DataFusion has it: each version is valid until the next one of its key.
pub(super) fn in_batch(join: &Join, catalog: &Catalog) -> DfResult<LogicalPlan> {
    let mut asked = join.clone();
    if matches!(mark_of(join).map(|mark| mark.kind), Some(MarkKind::SystemTime(_))) {
        let right = join.right.as_ref().clone().transform_up(|node| match node {
            LogicalPlan::Filter(filter) => top_n::top_n(filter, START, catalog),
            other => Ok(Transformed::no(other)),
        })?;
        asked.right = Arc::new(right.data);
    }
    match find(&asked, RuntimeMode::Batch)? {
        Some(found) => lower(found, join),
        None => Ok(LogicalPlan::Join(asked)),
    }
}

/// What the end of a version is called.
const UNTIL: &str = "$until";

fn lower(found: Found, join: &Join) -> DfResult<LogicalPlan> {
    let Found { kind, parts, times: (left_time, right_time), .. } = found;
    let right = with_ends(&parts, &right_time)?;
    let until = Expr::Column(Column::new_unqualified(UNTIL));
    let unit = finer(&parts.left, &left_time, &parts.right, &right_time)?;
    let time = cast(Expr::Column(left_time), unit.clone());
    let (from, until_cast) = (cast(Expr::Column(right_time), unit.clone()), cast(until.clone(), unit));
    let in_time = match kind.as_of() {
        AsOf::AtOrBefore => time.clone().gt_eq(from).and(until.is_null().or(time.lt(until_cast))),
        AsOf::Before => time.clone().gt(from).and(until.is_null().or(time.lt_eq(until_cast))),
    };
    let condition = parts.filter.into_iter().fold(in_time, Expr::and);
    let (left_keys, right_keys): (Vec<Column>, Vec<Column>) = parts.keys.into_iter().unzip();
    let left = LogicalPlanBuilder::from(parts.left);
    let joined = match left_keys.is_empty() {
        true => left.join_on(right, join.join_type, [condition])?,
        false => left.join(right, join.join_type, (left_keys, right_keys), Some(condition))?,
    };
    let own = join.schema.columns().into_iter().map(Expr::Column);
    Projection::try_new(own.collect(), Arc::new(joined.build()?)).map(LogicalPlan::Projection)
}

/// The versions, each with the time of the next one of its key. Which of those of one time is the last `batch::order` says,
/// once it is known which columns are read.
fn with_ends(parts: &JoinParts, time: &Column) -> DfResult<LogicalPlan> {
    let keys: Vec<Expr> = parts.keys.iter().map(|(_, key)| Expr::Column(key.clone())).collect();
    let order = vec![Expr::Column(time.clone()).sort(true, true)];
    let until = lead(Expr::Column(time.clone()), Some(1), None).partition_by(keys).order_by(order).build()?;
    let windowed = LogicalPlanBuilder::from(parts.right.clone()).window([until.clone()])?;
    let columns = parts.right.schema().columns().into_iter().map(Expr::Column);
    let name = windowed.schema().columns().pop().map(Expr::Column).unwrap_or(until);
    windowed.project(columns.chain([name.alias(UNTIL)]))?.build()
}

/// A type that has both times exactly.
fn finer(left: &LogicalPlan, of_left: &Column, right: &LogicalPlan, of_right: &Column) -> DfResult<DataType> {
    let types = [
        Expr::Column(of_left.clone()).get_type(left.schema())?,
        Expr::Column(of_right.clone()).get_type(right.schema())?,
    ];
    let rank = |data_type: &DataType| match data_type {
        DataType::Timestamp(TimeUnit::Second, _) => 0,
        DataType::Timestamp(TimeUnit::Millisecond, _) => 1,
        DataType::Timestamp(TimeUnit::Microsecond, _) => 2,
        _ => 3,
    };
    let [one, other] = types;
    Ok(if rank(&one) >= rank(&other) { one } else { other })
}

impl Physical<'_> {
    /// Adds the operator of a join as of a time.
    pub(super) fn as_of_join(&mut self, node: &StreamJoin) -> Sql<NodeIndex> {
        let JoinKind::AsOf { kind, times } = &node.kind else {
            return Err(SqlError::internal("this join is not as of a time"));
        };
        let inputs = self.join_inputs(node)?;
        self.must_append(inputs.left, "the left side of a join as of a time")?;
        if *kind != AsOfKind::Version {
            self.must_append(inputs.right, "an ASOF join")?;
        }
        let changes = self.properties(inputs.right).is_updating();
        let spec = spec(node, &inputs, (*kind, times), changes)?;
        let both = node.parts.both().map_err(|error| from_datafusion(&error, &[]))?;
        let time = index_of(node.parts.left.schema(), &times.0)?;
        let properties = self.properties(inputs.left).looked_up(time);
        let mut detail = detail(node, *kind, times, changes).with(properties).does(does(node, times, changes, &both));
        for table in spec.state_tables().into_iter().take(1) {
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

fn spec(node: &StreamJoin, inputs: &JoinInputs, of: (AsOfKind, &(Column, Column)), changes: bool) -> Sql<AsOfJoinSpec> {
    let (parts, (kind, times)) = (&node.parts, of);
    let input = |plan: &LogicalPlan, keys: &[usize], time: &Column| -> Sql<AsOfJoinInput> {
        let schema = plan.schema();
        Ok(AsOfJoinInput { schema: arrow_schema(schema), keys: keys.to_vec(), time: index_of(schema, time)? })
    };
    let both = [input(&parts.left, &inputs.left_keys, &times.0)?, input(&parts.right, &inputs.right_keys, &times.1)?];
    let mut spec = AsOfJoinSpec::new(both, kind.as_of(), parts.join_type == JoinType::Left, changes)?;
    if let Some(filter) = &parts.filter {
        let both = parts.both().map_err(|error| from_datafusion(&error, &[]))?;
        spec = spec.on(physical_expr(filter, &both)?);
    }
    Ok(spec.with_schema(arrow_schema(node.schema()))?)
}

/// What EXPLAIN says of it.
fn detail(node: &StreamJoin, kind: AsOfKind, times: &(Column, Column), changes: bool) -> Detail {
    let parts = &node.parts;
    let keys = parts.keys_text();
    let input = if keys.is_empty() { "all rows to one subtask".to_owned() } else { format!("by key {keys}") };
    let (left, right) = (times.0.flat_name(), times.1.flat_name());
    let detail = match kind {
        AsOfKind::Version => {
            let changes = if changes { ", which are changes" } else { "" };
            Detail::new(&format!("TemporalJoin {}", parts.join_name()), &input)
                .line("time", format!("as of {left}, versions by {right}{changes}"))
        }
        AsOfKind::Match { is_strict } => {
            let op = if is_strict { ">" } else { ">=" };
            Detail::new("AsOfJoin left", &input).line("time", format!("the last row with {left} {op} {right}"))
        }
    };
    let detail = match &parts.filter {
        Some(filter) => detail.line("if", expr_text(filter, &Column::flat_name)),
        None => detail,
    };
    detail.line(
        "state",
        "rows of both sides until the watermark has reached them, then the last right row of each key for ever",
    )
}

/// What it does, for checkpoints.
fn does(node: &StreamJoin, times: &(Column, Column), changes: bool, both: &DFSchema) -> String {
    let parts = &node.parts;
    let pair = |(left, right): &(Column, Column)| {
        let (of_left, of_right) = (parts.left.schema(), parts.right.schema());
        format!("{} {}", compiled_column(left, of_left), compiled_column(right, of_right))
    };
    let keys = parts.keys.iter().map(pair).collect::<Vec<_>>().join(", ");
    let condition = parts.filter.as_ref().map(|filter| compiled_expr(filter, both)).unwrap_or_default();
    let right = layouts(parts.right.schema().as_arrow());
    let changes = if changes { " changes" } else { "" };
    format!("{} keys=[{keys}] times=[{}] if=[{condition}] right=[{right}]{changes}", node.lineage, pair(times))
}
