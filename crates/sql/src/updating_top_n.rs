//! Top-N without a window, and the last row of each key: a bound on ROW_NUMBER() over the whole stream, whose answer
//! changes as rows come and go.
//!
//! ```text
//! Filter: rownum <= 3                                        Projection: .., rownum
//!   Projection: .., row_number() AS rownum           →         UpdatingTopN: keys, order, 3
//!     Window: row_number() PARTITION BY keys ORDER BY ..
//! ```
//!
//! The node has the columns of the window function's. If nobody reads the rank ([`prune`]), it is not made: then only rows
//! that are pushed out and come in are said, not each that has another rank. Of one row the rank is 1.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::FieldRef;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, DFSchemaRef, Result as DfResult, TableReference, internal_datafusion_err};
use datafusion::logical_expr::expr::Sort;
use datafusion::logical_expr::{
    Expr, Extension, Filter, LogicalPlan, LogicalPlanBuilder, Projection, UserDefinedLogicalNodeCore, Window, lit,
};
use ruslo_core::graph::{Node, NodeIndex, NodeKind, Partitioning};
use ruslo_operators::{Arrival, UpdatingTopN as Wanted, UpdatingTopNSpec};

use crate::compiled::{compiled_columns, compiled_order};
use crate::deduplicate::time_of;
use crate::diagnostic::Sql;
use crate::explain::Detail;
use crate::interval;
use crate::nodes::as_node;
use crate::physical::{Physical, index_of, sort_expr};
use crate::properties::Properties;
use crate::top_n_node::order_text;

/// The first rows of each key. Its output is the input's columns, then the rank, if it is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct UpdatingTopN {
    pub(crate) input: LogicalPlan,
    parts: Parts,
    schema: DFSchemaRef,
}

/// What an [`UpdatingTopN`] is made of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Parts {
    keys: Vec<Column>,
    order: Vec<Sort>,
    limit: usize,
    /// What the rank's column is called, if it is wanted.
    rank: Option<(Option<TableReference>, FieldRef)>,
    /// What the operator's id is a hash of.
    lineage: String,
}

/// The first `limit` rows of each of `keys` among the rows of `window`, by `order`: the window's columns.
pub(crate) fn updating_top_n(
    window: &Window,
    keys: Vec<Column>,
    order: Vec<Sort>,
    limit: usize,
    lineage: String,
) -> DfResult<LogicalPlan> {
    let (relation, number) = window.schema.qualified_field(window.input.schema().fields().len());
    let rank = (limit > 1).then(|| (relation.cloned(), Arc::clone(number)));
    let lineage = format!("updating-{lineage}");
    let parts = Parts { keys, order, limit, rank, lineage };
    let node = UpdatingTopN::try_new(window.input.as_ref().clone(), parts)?.into_plan();
    if limit > 1 {
        return Ok(node);
    }
    let columns = node.schema().columns().into_iter().map(Expr::Column).collect::<Vec<_>>();
    let number = lit(1i64).alias_qualified(relation.cloned(), number.name());
    LogicalPlanBuilder::new(node).project(columns.into_iter().chain([number]))?.build()
}

impl UpdatingTopN {
    fn try_new(input: LogicalPlan, parts: Parts) -> DfResult<Self> {
        let fields = input.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field)));
        let fields = fields.chain(parts.rank.clone()).collect();
        let schema = DFSchema::new_with_metadata(fields, DFSchema::metadata(input.schema()).clone())?;
        Ok(Self { input, parts, schema: Arc::new(schema) })
    }

    fn into_plan(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(self) })
    }

    /// What operator ids call it.
    pub(crate) fn lineage(&self) -> &str {
        &self.parts.lineage
    }

    /// The input, the keys and the order, if it keeps the row of each key that is last by that.
    pub(crate) fn last_of_each(&self) -> Option<(&LogicalPlan, &[Column], &Expr)> {
        match (self.parts.limit, self.parts.order.as_slice()) {
            (1, [sort]) if !sort.asc => Some((&self.input, &self.parts.keys, &sort.expr)),
            _ => None,
        }
    }

    /// How many columns the input has: the rank stands behind them.
    fn input_columns(&self) -> usize {
        self.input.schema().fields().len()
    }

    /// The order in which rows come, if that is what they are ranked by.
    fn arrival(&self) -> Option<Arrival> {
        let sort = self.parts.order.first()?;
        let (_, is_arrival) = time_of(&self.input, &sort.expr)?;
        is_arrival.then_some(if sort.asc { Arrival::First } else { Arrival::Last })
    }

    fn keys_text(&self) -> String {
        let keys = self.parts.keys.iter().map(|key| key.name.as_str()).collect::<Vec<_>>().join(", ");
        if keys.is_empty() { "all rows".to_owned() } else { keys }
    }

    /// Deduplicating is keeping the last row by time.
    fn title(&self) -> String {
        let keys = self.keys_text();
        match (self.parts.limit, self.parts.order.as_slice()) {
            (1, [sort]) if !sort.asc && time_of(&self.input, &sort.expr).is_some() => {
                format!("Deduplicate {keys}, last")
            }
            (limit, _) => format!("TopN {keys}, {limit}"),
        }
    }
}

impl PartialOrd for UpdatingTopN {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for UpdatingTopN {
    fn name(&self) -> &str {
        "UpdatingTopN"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        let columns = self.parts.keys.iter().cloned().map(Expr::Column);
        columns.chain(self.parts.order.iter().map(|sort| sort.expr.clone())).collect()
    }

    // Every output column keeps predicates above: what goes before the ranking changes it.

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<&str> = self.parts.keys.iter().map(|key| key.name.as_str()).collect();
        let (keys, order, limit) = (keys.join(", "), order_text(&self.parts.order), self.parts.limit);
        let rank = if self.parts.rank.is_some() { ", rank" } else { "" };
        write!(f, "UpdatingTopN: keys=[{keys}], order=[{order}], rows={limit}{rank}")
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        let broken = || internal_datafusion_err!("a Top-N lost its columns");
        let mut exprs = exprs.into_iter();
        let mut keys = Vec::new();
        for _ in 0..self.parts.keys.len() {
            let Some(Expr::Column(column)) = exprs.next() else { return Err(broken()) };
            keys.push(column);
        }
        let order = self.parts.order.iter().zip(exprs).map(|(sort, expr)| Sort { expr, ..sort.clone() }).collect();
        let input = inputs.into_iter().next().ok_or_else(broken)?;
        Self::try_new(input, Parts { keys, order, ..self.parts.clone() })
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let schema = self.input.schema();
        let exprs = self.expressions();
        let own = exprs.iter().flat_map(Expr::column_refs).filter_map(|column| schema.index_of_column(column).ok());
        let passed = output_columns.iter().copied().filter(|index| *index < self.input_columns());
        let needed: BTreeSet<usize> = passed.chain(own).collect();
        Some(vec![needed.into_iter().collect()])
    }
}

/// `plan` without ranks that nobody reads.
pub(crate) fn prune(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let pruned = plan.transform_up(|node| match &node {
        LogicalPlan::Projection(projection) => {
            let used = projection.expr.iter().flat_map(Expr::column_refs).cloned().collect();
            let Some(input) = without_rank(&projection.input, used)? else { return Ok(Transformed::no(node)) };
            let (exprs, schema) = (projection.expr.clone(), Arc::clone(&projection.schema));
            let made = Projection::try_new_with_schema(exprs, Arc::new(input), schema)?;
            Ok(Transformed::yes(LogicalPlan::Projection(made)))
        }
        _ => Ok(Transformed::no(node)),
    });
    pruned.map(|plan| plan.data)
}

/// The Top-N at or, behind filters, below `plan` without its rank, if that is not `used`.
fn without_rank(plan: &LogicalPlan, mut used: HashSet<Column>) -> DfResult<Option<LogicalPlan>> {
    if let LogicalPlan::Filter(filter) = plan {
        used.extend(filter.predicate.column_refs().into_iter().cloned());
        let Some(input) = without_rank(&filter.input, used)? else { return Ok(None) };
        return Ok(Some(LogicalPlan::Filter(Filter::try_new(filter.predicate.clone(), Arc::new(input))?)));
    }
    let Some(top) = as_node::<UpdatingTopN>(plan) else { return Ok(None) };
    let Some((relation, field)) = &top.parts.rank else { return Ok(None) };
    if used.contains(&Column::new(relation.clone(), field.name())) {
        return Ok(None);
    }
    let parts = Parts { rank: None, ..top.parts.clone() };
    Ok(Some(UpdatingTopN::try_new(top.input.clone(), parts)?.into_plan()))
}

impl Physical<'_> {
    /// Adds the operator of `node`, which is the root of `plan`.
    pub(crate) fn updating_top_n(&mut self, node: &UpdatingTopN, plan: &LogicalPlan) -> Sql<NodeIndex> {
        let input = self.node(&node.input)?;
        let (schema, parts, properties) = (node.input.schema(), &node.parts, self.properties(input));
        let keys = parts.keys.iter().map(|key| index_of(schema, key)).collect::<Sql<Vec<_>>>()?;
        let order = parts.order.iter().map(|sort| sort_expr(sort, schema)).collect::<Sql<Vec<_>>>()?;
        let takes_back = properties.is_updating();
        let wanted = Wanted {
            keys: keys.clone(),
            order,
            arrival: node.arrival().filter(|_| !takes_back),
            limit: parts.limit,
            rank: parts.rank.as_ref().map(|(_, field)| field.name().clone()),
            takes_back,
            says_before: self.needs_before(plan),
            lifetime: self.state_ttl,
        };
        let (says_before, arrival) = (wanted.says_before, wanted.arrival);
        let spec = UpdatingTopNSpec::new(schema.as_arrow(), wanted)?;
        let properties = properties_of(node, &keys, &properties, says_before);
        let detail = self.updating_top_n_detail(node, takes_back, arrival).with(properties);
        let detail = detail.does(does(node, takes_back, arrival)).keeps(spec.state_table());
        let added = Node {
            id: self.fresh_id(&parts.lineage),
            name: detail.name.clone(),
            parallelism: if keys.is_empty() { 1 } else { self.parallelism },
            schema: spec.schema(),
            kind: NodeKind::Operator(spec.factory()),
        };
        Ok(self.add(added, Some((input, Partitioning::KeyGroup(keys))), detail))
    }

    fn updating_top_n_detail(&self, node: &UpdatingTopN, takes_back: bool, arrival: Option<Arrival>) -> Detail {
        let (parts, keys) = (&node.parts, node.keys_text());
        let (input, per) = match parts.keys.is_empty() {
            true => ("all rows to one subtask".to_owned(), "once".to_owned()),
            false => (format!("by key {keys}"), format!("per ({keys})")),
        };
        let order = match arrival {
            Some(Arrival::First) => "as rows are read".to_owned(),
            Some(Arrival::Last) => "as rows are read, the last first".to_owned(),
            None => format!("{}, then all columns", order_text(&parts.order)),
        };
        let kept = match (takes_back, parts.limit) {
            (true, _) => "all rows, because they may be taken back".to_owned(),
            (false, 1) => "the row".to_owned(),
            (false, limit) => format!("the first {limit} rows"),
        };
        let detail = Detail::new(&node.title(), &input).line("order", order).line("state", format!("{per}: {kept}"));
        match (self.state_ttl, parts.keys.is_empty() && !takes_back) {
            (Some(ttl), _) => {
                let ttl = interval::describe(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX));
                detail.line("state goes", format!("{ttl} after a row was last written"))
            }
            (None, true) => detail,
            (None, false) => detail.line("warning", GROWS),
        }
    }
}

/// What EXPLAIN says of state without a bound.
const GROWS: &str = "this state only grows; SET 'table.exec.state.ttl' = '1 d' drops rows that were not written for a day, PARTITION BY \
                     window_start, window_end, too, drops them as time goes on";

/// Ranks tell rows apart; without them it is what tells those of the input apart. A row that changes its key goes on in
/// another subtask, and what that says may come before what it takes back: so of rows that change only sets with the key.
fn properties_of(node: &UpdatingTopN, keys: &[usize], input: &Properties, says_before: bool) -> Properties {
    let own: BTreeSet<usize> = keys.iter().copied().collect();
    if node.parts.rank.is_some() || node.parts.limit == 1 {
        let rank = node.parts.rank.as_ref().map(|_| node.input_columns());
        return input.updating(vec![own.into_iter().chain(rank).collect()], says_before);
    }
    let is_stable = |key: &&BTreeSet<usize>| !input.is_updating() || own.is_subset(key);
    let kept = input.keys().iter().filter(is_stable).cloned().collect();
    input.updating(kept, true)
}

/// What it does, for checkpoints.
fn does(node: &UpdatingTopN, takes_back: bool, arrival: Option<Arrival>) -> String {
    let (schema, parts) = (node.input.schema(), &node.parts);
    let (keys, order) = (compiled_columns(&parts.keys, schema), compiled_order(&parts.order, schema));
    let arrival = if arrival.is_some() { " by arrival" } else { "" };
    let updated = if takes_back { " updated" } else { "" };
    let rank = if parts.rank.is_some() { " rank" } else { "" };
    format!("{} keys=[{keys}] order=[{order}]{arrival}{updated}{rank}", parts.lineage)
}
