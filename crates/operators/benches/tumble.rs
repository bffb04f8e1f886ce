//! Rows a second through the tumbling window aggregate: `cargo bench -p ruslo-operators`.
//!
//! 10 M rows in batches of 8,192 over 10,000 BIGINT keys, event time rising by 1 ms a row, windows of 1,000 seconds (1 M rows),
//! COUNT(*) by key; then the same with a snapshot every 100 batches, and with SUM and AVG beside.

#![allow(
    missing_docs,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark"
)]

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Int64Array, TimestampMillisecondArray};
use arrow::record_batch::RecordBatch;
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::logical_expr::AggregateUDF;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::{col, lit};
use ruslo_core::epoch::Epoch;
use ruslo_core::operator::Output;
use ruslo_core::time::Timestamp;
use ruslo_operators::testing::{TestContext, run_batch, run_watermark};
use ruslo_operators::{AggregateCall, NamedExpr, WindowAggregateSpec, WindowShape, avg_udaf, sum_udaf};

const ROWS: i64 = 10_000_000;
const BATCH_ROWS: i64 = 8_192;
const KEYS: i64 = 10_000;

fn batches() -> Vec<RecordBatch> {
    let starts = (0..ROWS).step_by(BATCH_ROWS as usize);
    starts.map(|start| batch(start..ROWS.min(start + BATCH_ROWS))).collect()
}

fn batch(rows: std::ops::Range<i64>) -> RecordBatch {
    let scatter = |row: i64| (row.wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64) as u64 >> 33) as i64 % KEYS;
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.clone().map(scatter)));
    let times: ArrayRef = Arc::new(TimestampMillisecondArray::from_iter_values(rows));
    RecordBatch::try_from_iter([("k", keys), ("ts", times)]).unwrap()
}

fn call(function: Arc<AggregateUDF>, argument: Arc<dyn PhysicalExpr>, input: &RecordBatch) -> AggregateCall {
    let name = function.name().to_owned();
    let built = AggregateExprBuilder::new(function, vec![argument]).schema(input.schema()).alias(name).build();
    AggregateCall::new(Arc::new(built.unwrap()))
}

fn spec(input: &RecordBatch, with_sums: bool) -> WindowAggregateSpec {
    let k = || col("k", &input.schema()).unwrap();
    let mut calls = vec![call(count_udaf(), lit(1i64), input)];
    if with_sums {
        calls.extend([call(sum_udaf(), k(), input), call(avg_udaf(), k(), input)]);
    }
    let key = NamedExpr::new(k(), "k", &input.schema()).unwrap();
    WindowAggregateSpec::new(&input.schema(), vec![key], calls, 1, WindowShape::tumble(1_000_000, 0).unwrap()).unwrap()
}

fn measure(name: &str, input: &[RecordBatch], with_sums: bool, snapshot_every: usize) {
    let mut operator = spec(&input[0], with_sums).factory().create().unwrap();
    let mut test = TestContext::new();
    test.batch_rows = BATCH_ROWS as usize;
    let start = Instant::now();
    let mut results = 0;
    for (index, batch) in input.iter().enumerate() {
        let mut made = run_batch(operator.as_mut(), batch.clone(), &mut test).unwrap();
        let watermark = Timestamp((index as i64 + 1) * BATCH_ROWS - 2_000);
        made.extend(run_watermark(operator.as_mut(), watermark, &mut test).unwrap());
        results += made.iter().map(RecordBatch::num_rows).sum::<usize>();
        if (index + 1) % snapshot_every == 0 {
            let mut out = Output::default();
            operator.snapshot(Epoch(index as u64), &mut test.context(), &mut out).unwrap();
        }
    }
    let rows_per_second = ROWS as f64 / start.elapsed().as_secs_f64();
    println!("{name}: {:.1} M rows/s ({results} results)", rows_per_second / 1e6);
}

fn main() {
    let input = batches();
    for _ in 0..3 {
        measure("count", &input, false, usize::MAX);
        measure("count, snapshot every 100 batches", &input, false, 100);
        measure("count, sum, avg", &input, true, usize::MAX);
    }
}
