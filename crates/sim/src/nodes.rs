//! The product's operators as the nodes of a shape: which spec each is made of.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::logical_expr::AggregateUDF;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::{col, lit};
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};
use ruslo_core::dead_letter::DeadLetters;
use ruslo_core::operator::SharedFactory;
use ruslo_operators::{
    AggregateCall, DeduplicateSpec, EventTimeSortSpec, FirstBy, LateRowsSpec, LateRule, NamedExpr, SessionSpec,
    SortKey, WINDOW_END, WindowAggregateSpec, WindowAssignSpec, WindowShape, WindowTopNSpec, sum_udaf,
};

use crate::dataset::{column, schema};

/// Which windows; the length that they are made of is [`crate::shape::EventTime::window_ms`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Windows {
    /// Of that length.
    Tumble,
    /// So many times as long, one every length.
    Hop(i64),
    /// Growing by that length, up to so many times.
    Cumulate(i64),
    /// With that gap.
    Session,
}

fn shape(windows: Windows, length_ms: i64) -> WindowShape {
    match windows {
        Windows::Hop(slices) => WindowShape::hop(length_ms, slices * length_ms, 0),
        Windows::Cumulate(slices) => WindowShape::cumulate(length_ms, slices * length_ms, 0),
        Windows::Tumble | Windows::Session => WindowShape::tumble(length_ms, 0),
    }
    .unwrap()
}

fn value() -> Arc<dyn PhysicalExpr> {
    col("value", &schema()).unwrap()
}

/// `function(argument) AS name` over these columns.
pub fn aggregate(
    function: Arc<AggregateUDF>,
    argument: Arc<dyn PhysicalExpr>,
    name: &str,
    input: &SchemaRef,
) -> AggregateCall {
    let built = AggregateExprBuilder::new(function, vec![argument]).schema(Arc::clone(input)).alias(name).build();
    AggregateCall::new(Arc::new(built.unwrap()))
}

/// `SELECT key, COUNT(*), SUM(value), MIN(value), MAX(value), window_start, window_end, window_time`
pub fn aggregated(windows: Windows, length_ms: i64) -> (SchemaRef, SharedFactory) {
    if windows == Windows::Session {
        let (keys, aggregates) = grouped();
        let spec = SessionSpec::new(&schema(), keys, aggregates, column::TIME, length_ms).unwrap();
        return (spec.schema(), spec.factory());
    }
    let spec = whole(windows, length_ms);
    (spec.schema(), spec.factory())
}

/// The local half of [`aggregated`] in two phases, and the half that merges; the key is the local one's first column.
pub fn in_two_phases(windows: Windows, length_ms: i64) -> [(SchemaRef, SharedFactory); 2] {
    let (local, global) = whole(windows, length_ms).two_phases().unwrap();
    [(local.schema(), local.factory()), (global.schema(), global.factory())]
}

fn whole(windows: Windows, length_ms: i64) -> WindowAggregateSpec {
    let (keys, aggregates) = grouped();
    WindowAggregateSpec::new(&schema(), keys, aggregates, column::TIME, shape(windows, length_ms)).unwrap()
}

fn grouped() -> (Vec<NamedExpr>, Vec<AggregateCall>) {
    let aggregates = vec![
        aggregate(count_udaf(), lit(1i64), "n", &schema()),
        aggregate(sum_udaf(), value(), "total", &schema()),
        aggregate(min_udaf(), value(), "least", &schema()),
        aggregate(max_udaf(), value(), "most", &schema()),
    ];
    let keys = vec![NamedExpr::new(col("key", &schema()).unwrap(), "key", &schema()).unwrap()];
    (keys, aggregates)
}

/// Rows as they are; aside those that come too late for these windows.
pub fn late(windows: Windows, length_ms: i64) -> (SchemaRef, SharedFactory) {
    let rule = match windows {
        Windows::Session => LateRule::Time,
        windows => LateRule::Windows(shape(windows, length_ms)),
    };
    let columns = (0..schema().fields().len()).collect();
    let spec = LateRowsSpec::new(rule, col("ts", &schema()).unwrap(), columns, schema());
    (schema(), spec.factory())
}

/// Dead letters that say where a record stood.
pub fn letters() -> DeadLetters {
    let schema = Schema::new(vec![Field::new("position", DataType::Utf8, false)]);
    DeadLetters::new("simulated", Arc::new(schema)).unwrap()
}

/// Each row once for each of its windows.
pub fn assigned(windows: Windows, length_ms: i64) -> (SchemaRef, SharedFactory) {
    let spec = WindowAssignSpec::new(&schema(), column::TIME, shape(windows, length_ms)).unwrap();
    (spec.schema(), spec.factory())
}

/// The `limit` rows of the highest values of each key and window, with their rank, of rows that have their window.
pub fn top_n(limit: usize) -> (SchemaRef, SharedFactory) {
    let (input, _) = assigned(Windows::Tumble, 1);
    let (end, _) = input.column_with_name(WINDOW_END).unwrap();
    let options = SortOptions { descending: true, nulls_first: false };
    let order = vec![PhysicalSortExpr { expr: value(), options }];
    let spec = WindowTopNSpec::new(&input, vec![column::KEY], end, 0, order, limit, "rank").unwrap();
    (spec.schema(), spec.factory())
}

/// Of each key the first row: by event time, or as they come.
pub fn firsts(by_arrival: bool) -> (SchemaRef, SharedFactory) {
    let first = if by_arrival { FirstBy::Arrival } else { FirstBy::EventTime(column::TIME) };
    let spec = DeduplicateSpec::new(&schema(), vec![column::KEY], first, None).unwrap();
    (spec.schema(), spec.factory())
}

/// All rows by time; those of one time by value, the highest first.
pub fn sorted() -> (SchemaRef, SharedFactory) {
    let key = |column, descending| SortKey { column, descending, nulls_first: false };
    let keys = [(column::TIME, false), (column::VALUE, true), (column::LINEAGE, false), (column::OFFSET, false)];
    let spec = EventTimeSortSpec::new(&schema(), keys.map(|(column, descending)| key(column, descending)).to_vec());
    let spec = spec.unwrap();
    (spec.schema(), spec.factory())
}
