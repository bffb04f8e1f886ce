//! The window aggregates over slices against a naive recomputation, with snapshots, restores and another parallelism
//! between any two calls.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test")]

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Float64Type, Int64Type, SchemaRef, TimestampMillisecondType};
use arrow::record_batch::RecordBatch;
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::functions_aggregate::stddev::stddev_udaf;
use datafusion::logical_expr::{AggregateUDF, Operator as Sign};
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::{binary, col, lit};
use datafusion::scalar::ScalarValue;
use ruslo_core::epoch::Epoch;
use ruslo_core::operator::Output;
use ruslo_core::rng::Rng;
use ruslo_core::source::{RowTime, SplitWatermark};
use ruslo_core::time::Timestamp;
use ruslo_operators::testing::{Manners, Subtasks, TestContext};
use ruslo_operators::{
    AggregateCall, NamedExpr, RowTimeAssigner, WatermarkSpec, WindowAggregateSpec, WindowShape, avg_udaf, sum_udaf,
};

/// One input row.
#[derive(Debug, Clone)]
struct Row {
    number: Option<i64>,
    text: Option<String>,
    millis: i64,
    value: Option<i64>,
}

/// What is checked of a seed.
struct Case {
    /// Rows of each split, in order.
    splits: Vec<Vec<Row>>,
    keyed: bool,
    kind: Kind,
    /// From one window's end to the next.
    slice: i64,
    size: i64,
    offset: i64,
    delay: i64,
    rows_in: usize,
    rows_out: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Tumble,
    Hop,
    Cumulate,
}

impl Case {
    fn random(rng: &mut Rng, kind: Kind) -> Self {
        let all_null = rng.one_in(8);
        let spread = [5, 60, 400][rng.below(3)];
        let splits = (0..1 + rng.below(3)).map(|_| random_rows(rng, all_null, spread)).collect();
        let (slice, slices) = match kind {
            Kind::Tumble => (1 + rng.below(120) as i64, 1),
            Kind::Hop | Kind::Cumulate => (1 + rng.below(60) as i64, 1 + rng.below(6) as i64),
        };
        Self {
            splits,
            keyed: !rng.one_in(4),
            kind,
            slice,
            size: slice * slices,
            offset: rng.below(300) as i64 - 150,
            delay: if rng.one_in(4) { 0 } else { rng.below(80) as i64 },
            rows_in: [1, 7, 1000][rng.below(3)],
            rows_out: [1, 7, 1000][rng.below(3)],
        }
    }
}

impl Case {
    fn shape(&self) -> WindowShape {
        match self.kind {
            Kind::Tumble => WindowShape::tumble(self.size, self.offset),
            Kind::Hop => WindowShape::hop(self.slice, self.size, self.offset),
            Kind::Cumulate => WindowShape::cumulate(self.slice, self.size, self.offset),
        }
        .unwrap()
    }

    /// The windows that hold `time`, each tried.
    fn windows(&self, time: i64) -> Vec<(i64, i64)> {
        let starts_every = if self.kind == Kind::Hop { self.slice } else { self.size };
        let starts = (time - self.size + 1..=time).filter(|start| (start - self.offset).rem_euclid(starts_every) == 0);
        let lengths = match self.kind {
            Kind::Cumulate => (1..=self.size / self.slice).map(|steps| steps * self.slice).collect(),
            Kind::Tumble | Kind::Hop => vec![self.size],
        };
        let windows = starts.flat_map(|start| lengths.iter().map(move |length| (start, start + length)));
        windows.filter(|(_, end)| time < *end).collect()
    }
}

fn random_rows(rng: &mut Rng, all_null: bool, spread: usize) -> Vec<Row> {
    let rows = rng.below(150);
    let mut now = -300i64;
    (0..rows)
        .map(|_| {
            now += rng.below(12) as i64;
            Row {
                number: (!rng.one_in(5)).then(|| rng.below(4) as i64),
                text: (!rng.one_in(5)).then(|| format!("key {}", rng.below(3))),
                millis: now - rng.below(spread) as i64,
                value: (!all_null && !rng.one_in(4)).then(|| rng.below(2000) as i64 - 1000),
            }
        })
        .collect()
}

fn batch(rows: &[Row]) -> RecordBatch {
    // The microseconds within a millisecond must not matter.
    let micros = rows.iter().map(|row| row.millis * 1000 + row.value.unwrap_or(0).rem_euclid(1000));
    let text: StringArray = rows.iter().map(|row| row.text.clone()).collect();
    let columns: [(&str, ArrayRef); 5] = [
        ("number", Arc::new(rows.iter().map(|row| row.number).collect::<Int64Array>())),
        ("text", Arc::new(text)),
        ("ts", Arc::new(TimestampMicrosecondArray::from_iter_values(micros))),
        ("value", Arc::new(rows.iter().map(|row| row.value).collect::<Int64Array>())),
        ("float", Arc::new(rows.iter().map(|row| row.value.map(|value| value as f64)).collect::<Float64Array>())),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
}

fn schema() -> SchemaRef {
    batch(&[]).schema()
}

fn assigner(delay: i64) -> RowTimeAssigner {
    let delay = lit(ScalarValue::new_interval_mdn(0, 0, delay * 1_000_000));
    let expression = binary(col("ts", &schema()).unwrap(), Sign::Minus, delay, &schema()).unwrap();
    RowTimeAssigner::new(schema(), None, Some(WatermarkSpec { time_column: 2, expression })).unwrap()
}

fn call(function: Arc<AggregateUDF>, column: &str, name: &str) -> AggregateCall {
    let built = AggregateExprBuilder::new(function, vec![col(column, &schema()).unwrap()])
        .schema(schema())
        .alias(name)
        .build()
        .unwrap();
    AggregateCall::new(Arc::new(built))
}

fn distinct_texts() -> AggregateCall {
    let text = col("text", &schema()).unwrap();
    let built =
        AggregateExprBuilder::new(count_udaf(), vec![text]).schema(schema()).alias("texts").distinct().build().unwrap();
    assert!(!built.groups_accumulator_supported());
    AggregateCall::new(Arc::new(built))
}

fn spec(case: &Case) -> WindowAggregateSpec {
    let keys = ["number", "text"].map(|key| NamedExpr::new(col(key, &schema()).unwrap(), key, &schema()).unwrap());
    let positive = binary(col("value", &schema()).unwrap(), Sign::Gt, lit(0i64), &schema()).unwrap();
    let calls = vec![
        call(count_udaf(), "ts", "rows"),
        call(count_udaf(), "value", "values"),
        call(sum_udaf(), "value", "sum"),
        call(avg_udaf(), "value", "avg"),
        call(min_udaf(), "text", "first"),
        call(max_udaf(), "text", "last"),
        call(min_udaf(), "value", "least"),
        call(sum_udaf(), "value", "positive").with_filter(positive),
        call(avg_udaf(), "float", "mean"),
        // Has no accumulator for many groups: goes through the adapter.
        distinct_texts(),
    ];
    let keys = if case.keyed { keys.to_vec() } else { Vec::new() };
    WindowAggregateSpec::new(&schema(), keys, calls, 2, case.shape()).unwrap()
}

/// The key, the window's start and its end.
type Key = (Option<i64>, Option<String>, i64, i64);

/// One result row.
#[derive(Debug, Clone, PartialEq, Default)]
struct Outcome {
    rows: i64,
    values: i64,
    sum: Option<i64>,
    avg: Option<i64>,
    first: Option<String>,
    last: Option<String>,
    least: Option<i64>,
    positive: Option<i64>,
    mean: Option<f64>,
    texts: i64,
}

/// What must come out, and how many rows are late.
fn expected(case: &Case) -> (BTreeMap<Key, Outcome>, usize) {
    let mut groups = BTreeMap::<Key, Vec<Row>>::new();
    let mut late = 0;
    for split in &case.splits {
        let mut watermark = i64::MIN;
        for row in split {
            let open: Vec<_> = case.windows(row.millis).into_iter().filter(|window| window.1 - 1 > watermark).collect();
            late += usize::from(open.is_empty());
            for (start, end) in open {
                let (number, text) = if case.keyed { (row.number, row.text.clone()) } else { (None, None) };
                groups.entry((number, text, start, end)).or_default().push(row.clone());
            }
            watermark = watermark.max(row.millis - case.delay);
        }
    }
    (groups.into_iter().map(|(key, rows)| (key, outcome(&rows))).collect(), late)
}

fn outcome(rows: &[Row]) -> Outcome {
    let values: Vec<i64> = rows.iter().filter_map(|row| row.value).collect();
    let mut texts: Vec<&String> = rows.iter().filter_map(|row| row.text.as_ref()).collect();
    texts.sort();
    texts.dedup();
    let sum = (!values.is_empty()).then(|| values.iter().sum::<i64>());
    let positive: Vec<i64> = values.iter().copied().filter(|value| *value > 0).collect();
    Outcome {
        rows: rows.len() as i64,
        values: values.len() as i64,
        sum,
        avg: sum.map(|sum| sum / values.len() as i64),
        first: texts.first().map(|text| (*text).clone()),
        last: texts.last().map(|text| (*text).clone()),
        least: values.iter().min().copied(),
        positive: (!positive.is_empty()).then(|| positive.iter().sum()),
        mean: sum.map(|sum| sum as f64 / values.len() as f64),
        texts: texts.len() as i64,
    }
}

/// What comes out of the operator, and how many rows are late.
fn run(case: &Case, rng: Rng) -> (BTreeMap<Key, Outcome>, u64) {
    let manners =
        Manners { batch_rows: case.rows_out, parallelism_max: 3, short_of_memory: true, always_resumed: false };
    let mut subtasks = Subtasks::new(spec(case).factory(), manners, rng).unwrap();
    let assigner = assigner(case.delay);
    let mut marks = vec![SplitWatermark::START; case.splits.len()];
    let mut left: Vec<&[Row]> = case.splits.iter().map(Vec::as_slice).collect();
    while left.iter().any(|rows| !rows.is_empty()) {
        let split = subtasks.rng().below(left.len());
        let (now, later) = left[split].split_at(left[split].len().min(case.rows_in));
        left[split] = later;
        if !now.is_empty() {
            let rows = assigner.assign(batch(now), &mut marks[split], Timestamp(0)).unwrap().batch;
            let keys = if case.keyed { rows.columns()[..2].to_vec() } else { Vec::new() };
            subtasks.send(&rows, &keys).unwrap();
        }
        subtasks.raise(marks.iter().map(|mark| mark.0).min().unwrap()).unwrap();
    }
    // The end of time, twice: the second finds what an interruption of the first has left.
    subtasks.raise(Timestamp(i64::MAX - 1)).unwrap();
    subtasks.raise(Timestamp::MAX).unwrap();
    let (made, late_rows) = subtasks.finish().unwrap();
    (collect(&made, case), late_rows)
}

fn collect(made: &[RecordBatch], case: &Case) -> BTreeMap<Key, Outcome> {
    let mut found = BTreeMap::new();
    for batch in made {
        for row in 0..batch.num_rows() {
            let (key, outcome) = read(batch, row, if case.keyed { 2 } else { 0 });
            assert_eq!(found.insert(key.clone(), outcome), None, "{key:?} came twice");
        }
    }
    found
}

fn read(batch: &RecordBatch, row: usize, keys: usize) -> (Key, Outcome) {
    let int = |at: usize| {
        let column = batch.column(at).as_primitive::<Int64Type>();
        column.is_valid(row).then(|| column.value(row))
    };
    let text = |at: usize| {
        let column = batch.column(at).as_string::<i32>();
        column.is_valid(row).then(|| column.value(row).to_owned())
    };
    let time = |at: usize| batch.column(at).as_primitive::<TimestampMillisecondType>().value(row);
    let mean = batch.column(keys + 8).as_primitive::<Float64Type>();
    let (start, end) = (time(keys + 10), time(keys + 11));
    assert_eq!(time(keys + 12), end - 1);
    let key = if keys == 2 { (int(0), text(1), start, end) } else { (None, None, start, end) };
    let outcome = Outcome {
        rows: int(keys).unwrap(),
        values: int(keys + 1).unwrap(),
        sum: int(keys + 2),
        avg: int(keys + 3),
        first: text(keys + 4),
        last: text(keys + 5),
        least: int(keys + 6),
        positive: int(keys + 7),
        mean: mean.is_valid(row).then(|| mean.value(row)),
        texts: int(keys + 9).unwrap(),
    };
    (key, outcome)
}

#[test]
fn agrees_with_the_naive_way_whatever_happens_in_between() {
    let seeds: u64 = std::env::var("RUSLO_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(60);
    for (seed, kind) in (0..seeds).flat_map(|seed| [Kind::Tumble, Kind::Hop, Kind::Cumulate].map(|kind| (seed, kind))) {
        let mut rng = Rng::seeded(seed);
        let case = Case::random(&mut rng, kind);
        let (found, late) = run(&case, rng);
        let (expected, late_expected) = expected(&case);
        assert_eq!(found, expected, "RUSLO_SEEDS: seed {seed} of {kind:?}");
        assert_eq!(late, late_expected as u64, "late rows of seed {seed} of {kind:?}");
    }
}

#[test]
fn an_aggregate_goes_by_its_state_columns() {
    // stddev keeps three state columns: the aggregates behind it must not be read from the wrong ones.
    let calls = vec![call(stddev_udaf(), "float", "deviation"), call(count_udaf(), "value", "values")];
    let spec = WindowAggregateSpec::new(&schema(), Vec::new(), calls, 2, WindowShape::tumble(10, 0).unwrap()).unwrap();
    let mut operator = spec.factory().create().unwrap();
    let mut test = TestContext::new();
    let row = |value| Row { number: None, text: None, millis: 5, value: Some(value) };
    for value in [2, 4, 6] {
        ruslo_operators::testing::run_batch(operator.as_mut(), batch(&[row(value)]), &mut test).unwrap();
        operator.snapshot(Epoch(1), &mut test.context(), &mut Output::default()).unwrap();
    }
    let made = ruslo_operators::testing::run_watermark(operator.as_mut(), Timestamp(9), &mut test).unwrap();
    assert_eq!(made[0].column(0).as_primitive::<Float64Type>().value(0), 2.0);
    assert_eq!(made[0].column(1).as_primitive::<Int64Type>().value(0), 3);
}
