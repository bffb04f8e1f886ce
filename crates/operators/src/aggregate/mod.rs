//! SUM and AVG with Flink's result types.

use std::sync::Arc;

use datafusion::logical_expr::AggregateUDF;

/// SUM as Flink types it.
pub fn sum_udaf() -> Arc<AggregateUDF> {
    datafusion::functions_aggregate::sum::sum_udaf()
}

/// AVG as Flink types it.
pub fn avg_udaf() -> Arc<AggregateUDF> {
    datafusion::functions_aggregate::average::avg_udaf()
}
