//! What WHERE and ON say of joins, brought to where it belongs before a join is classified: equalities of both sides
//! to its keys, the rest of a condition over both sides to its residual, conditions on one side below it.
//!
//! DataFusion's rules do this. They see the joins of one FROM alone, with what lies below as opaque leaves, so that they
//! touch nothing of ours: windows, aggregates and row numbers get their meaning afterwards.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchemaRef, Result as DfResult, internal_datafusion_err};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};
use datafusion::optimizer::eliminate_cross_join::EliminateCrossJoin;
use datafusion::optimizer::eliminate_outer_join::EliminateOuterJoin;
use datafusion::optimizer::extract_equijoin_predicate::ExtractEquijoinPredicate;
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::{Optimizer, OptimizerContext};

use super::as_of::is_marked;
use crate::nodes::as_node;

/// `plan` with the keys and conditions of each join where the join has them.
pub(crate) fn with_keys(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    if !plan.exists(|node| Ok(matches!(node, LogicalPlan::Join(_))))? {
        return Ok(plan);
    }
    if is_tree(&plan) {
        return tree(plan);
    }
    plan.map_children(|child| with_keys(child).map(Transformed::yes)).map(|plan| plan.data)
}

/// Whether `plan` is a join, or what a query writes around one.
fn is_tree(plan: &LogicalPlan) -> bool {
    match plan {
        // What the condition of a marked join says is not what it means.
        LogicalPlan::Join(join) => !is_marked(join),
        LogicalPlan::Filter(filter) => is_tree(&filter.input),
        LogicalPlan::Projection(projection) => is_tree(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => is_tree(&alias.input),
        _ => false,
    }
}

fn tree(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let mut leaves = Vec::new();
    let opaque = plan.transform_down(|node| {
        if is_tree(&node) {
            return Ok(Transformed::no(node));
        }
        let leaf = Leaf { index: leaves.len(), schema: node.schema().clone() };
        leaves.push(with_keys(node)?);
        let leaf = LogicalPlan::Extension(Extension { node: Arc::new(leaf) });
        Ok(Transformed::new(leaf, true, TreeNodeRecursion::Jump))
    })?;
    let optimizer = Optimizer::with_rules(vec![
        Arc::new(ExtractEquijoinPredicate::new()),
        Arc::new(EliminateCrossJoin::new()),
        Arc::new(EliminateOuterJoin::new()),
        Arc::new(PushDownFilter::new()),
        Arc::new(ExtractEquijoinPredicate::new()),
    ]);
    let context =
        OptimizerContext::new().without_query_execution_start_time().with_skip_failing_rules(false).with_max_passes(4);
    let joined = optimizer.optimize(opaque.data, &context, |_, _| {})?;
    let whole = joined.transform_up(|node| match as_node::<Leaf>(&node) {
        Some(leaf) => match leaves.get(leaf.index) {
            Some(plan) => Ok(Transformed::yes(plan.clone())),
            None => Err(internal_datafusion_err!("a join lost an input")),
        },
        None => Ok(Transformed::no(node)),
    });
    whole.map(|plan| plan.data)
}

/// Stands for what a join reads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Leaf {
    index: usize,
    schema: DFSchemaRef,
}

impl PartialOrd for Leaf {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for Leaf {
    fn name(&self) -> &str {
        "JoinInput"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        Vec::new()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinInput: {}", self.index)
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, _: Vec<LogicalPlan>) -> DfResult<Self> {
        Ok(self.clone())
    }
}
