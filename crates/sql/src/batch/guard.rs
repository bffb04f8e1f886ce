//! Guards for batch plans: AND and OR are evaluated as on a stream, see [`ruslo_operators::guarded`].

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use ruslo_operators::guarded;

/// Guards the conditions and columns of a finished plan.
#[derive(Debug)]
pub(super) struct Guards;

impl PhysicalOptimizerRule for Guards {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            if let Some(filter) = node.downcast_ref::<FilterExec>() {
                return Ok(Transformed::yes(Arc::new(filtered(filter)?) as _));
            }
            if let Some(projection) = node.downcast_ref::<ProjectionExec>() {
                return Ok(Transformed::yes(Arc::new(projected(projection)?) as _));
            }
            Ok(Transformed::no(node))
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "guards"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn filtered(filter: &FilterExec) -> Result<FilterExec> {
    let condition = guarded(Arc::clone(filter.predicate()), &filter.input().schema())?;
    FilterExecBuilder::from(filter).with_predicate(condition).build()
}

fn projected(projection: &ProjectionExec) -> Result<ProjectionExec> {
    let schema = projection.input().schema();
    let columns = projection.expr().iter().map(|column| {
        Ok(ProjectionExpr { expr: guarded(Arc::clone(&column.expr), &schema)?, alias: column.alias.clone() })
    });
    ProjectionExec::try_new(columns.collect::<Result<Vec<_>>>()?, Arc::clone(projection.input()))
}
