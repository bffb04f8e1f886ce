//! The session window aggregate against a naive recomputation, with snapshots, restores and another parallelism between
//! any two calls.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test")]

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{Int64Type, SchemaRef, TimestampMillisecondType};
use arrow::record_batch::RecordBatch;
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::logical_expr::{AggregateUDF, Operator as Sign};
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::{binary, col, lit};
use datafusion::scalar::ScalarValue;
use ruslo_core::rng::Rng;
use ruslo_core::source::{RowTime, SplitWatermark};
use ruslo_core::time::Timestamp;
use ruslo_operators::testing::{Manners, Subtasks};
use ruslo_operators::{AggregateCall, NamedExpr, RowTimeAssigner, SessionSpec, WatermarkSpec, avg_udaf, sum_udaf};

#[derive(Debug, Clone)]
struct Row {
    number: Option<i64>,
    text: Option<String>,
    millis: i64,
    value: Option<i64>,
}

struct Case {
    /// Rows of each split, in order.
    splits: Vec<Vec<Row>>,
    keyed: bool,
    gap: i64,
    delay: i64,
    rows_in: usize,
    rows_out: usize,
}

impl Case {
    fn random(rng: &mut Rng) -> Self {
        let (spread, pace) = ([5, 60, 400][rng.below(3)], [1, 12, 60][rng.below(3)]);
        let keys = [1, 3, 40][rng.below(3)];
        Self {
            splits: (0..1 + rng.below(3)).map(|_| random_rows(rng, spread, pace, keys)).collect(),
            keyed: !rng.one_in(5),
            gap: [1, 7, 50, 300][rng.below(4)],
            delay: [0, 20, 200][rng.below(3)],
            rows_in: [1, 7, 1000][rng.below(3)],
            rows_out: [1, 7, 1000][rng.below(3)],
        }
    }
}

fn random_rows(rng: &mut Rng, spread: usize, pace: usize, keys: usize) -> Vec<Row> {
    let rows = rng.below(200);
    let mut now = -300i64;
    (0..rows)
        .map(|_| {
            now += rng.below(pace) as i64;
            Row {
                number: (!rng.one_in(6)).then(|| rng.below(keys) as i64),
                text: (!rng.one_in(3)).then(|| format!("key {}", rng.below(2))),
                millis: now - rng.below(spread) as i64,
                value: (!rng.one_in(4)).then(|| rng.below(2000) as i64 - 1000),
            }
        })
        .collect()
}

fn batch(rows: &[Row]) -> RecordBatch {
    let text: StringArray = rows.iter().map(|row| row.text.clone()).collect();
    let columns: [(&str, ArrayRef); 4] = [
        ("number", Arc::new(rows.iter().map(|row| row.number).collect::<Int64Array>())),
        ("text", Arc::new(text)),
        ("ts", Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.millis)))),
        ("value", Arc::new(rows.iter().map(|row| row.value).collect::<Int64Array>())),
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

fn call(function: Arc<AggregateUDF>, column: &str, distinct: bool) -> AggregateCall {
    let name = format!("{}({column}) {distinct}", function.name());
    let mut builder =
        AggregateExprBuilder::new(function, vec![col(column, &schema()).unwrap()]).schema(schema()).alias(name);
    if distinct {
        builder = builder.distinct();
    }
    AggregateCall::new(Arc::new(builder.build().unwrap()))
}

fn spec(case: &Case) -> SessionSpec {
    let keys = ["number", "text"].map(|key| NamedExpr::new(col(key, &schema()).unwrap(), key, &schema()).unwrap());
    let calls = vec![
        call(count_udaf(), "ts", false),
        call(sum_udaf(), "value", false),
        // Of DataFusion: must not take a group for seen before its first row.
        call(max_udaf(), "value", false),
        call(avg_udaf(), "value", false),
        call(min_udaf(), "text", false),
        // Has no accumulator for many groups: goes through the adapter.
        call(count_udaf(), "text", true),
    ];
    let keys = if case.keyed { keys.to_vec() } else { Vec::new() };
    SessionSpec::new(&schema(), keys, calls, 2, case.gap).unwrap()
}

/// (number, text, start, end).
type Key = (Option<i64>, Option<String>, i64, i64);

#[derive(Debug, Clone, PartialEq, Default)]
struct Outcome {
    rows: i64,
    sum: Option<i64>,
    most: Option<i64>,
    avg: Option<i64>,
    first: Option<String>,
    texts: i64,
}

/// What must come out, and how many rows are late: sort, then cut where two neighbours are more than a gap apart.
fn expected(case: &Case) -> (BTreeMap<Key, Outcome>, u64) {
    let mut by_key = BTreeMap::<_, Vec<Row>>::new();
    let mut late = 0;
    for split in &case.splits {
        let mut watermark = i64::MIN;
        for row in split {
            if row.millis < watermark {
                late += 1;
            } else {
                let key = if case.keyed { (row.number, row.text.clone()) } else { (None, None) };
                by_key.entry(key).or_default().push(row.clone());
            }
            watermark = watermark.max(row.millis - case.delay);
        }
    }
    let mut sessions = BTreeMap::new();
    for ((number, text), mut rows) in by_key {
        rows.sort_by_key(|row| row.millis);
        for session in rows.chunk_by(|a, b| b.millis - a.millis <= case.gap) {
            let end = session[session.len() - 1].millis + case.gap;
            sessions.insert((number, text.clone(), session[0].millis, end), outcome(session));
        }
    }
    (sessions, late)
}

fn outcome(rows: &[Row]) -> Outcome {
    let values: Vec<i64> = rows.iter().filter_map(|row| row.value).collect();
    let mut texts: Vec<&String> = rows.iter().filter_map(|row| row.text.as_ref()).collect();
    texts.sort();
    texts.dedup();
    let sum = (!values.is_empty()).then(|| values.iter().sum::<i64>());
    Outcome {
        rows: rows.len() as i64,
        sum,
        most: values.iter().max().copied(),
        avg: sum.map(|sum| sum / values.len() as i64),
        first: texts.first().map(|text| (*text).clone()),
        texts: texts.len() as i64,
    }
}

/// What comes out of the operator, and how many rows are late.
fn run(case: &Case, rng: Rng) -> (BTreeMap<Key, Outcome>, u64) {
    let manners =
        Manners { batch_rows: case.rows_out, parallelism_max: 3, short_of_memory: true, always_resumed: true };
    let mut subtasks = Subtasks::new(spec(case).factory(), manners, rng).unwrap();
    let (mut found, mut forwarded) = (BTreeMap::new(), Timestamp::MIN);
    let assigner = assigner(case.delay);
    let mut marks = vec![SplitWatermark::START; case.splits.len()];
    let mut left: Vec<&[Row]> = case.splits.iter().map(Vec::as_slice).collect();
    let mut raise = |subtasks: &mut Subtasks, watermark| {
        subtasks.raise(watermark).unwrap();
        collect(subtasks.take(), case, forwarded, &mut found);
        if subtasks.watermark() > Timestamp::MIN {
            forwarded = subtasks.output_watermark();
        }
    };
    while left.iter().any(|rows| !rows.is_empty()) {
        let split = subtasks.rng().below(left.len());
        let (now, later) = left[split].split_at(left[split].len().min(case.rows_in));
        left[split] = later;
        if !now.is_empty() {
            let rows = assigner.assign(batch(now), &mut marks[split], Timestamp(0)).unwrap().batch;
            let keys = if case.keyed { rows.columns()[..2].to_vec() } else { Vec::new() };
            subtasks.send(&rows, &keys).unwrap();
        }
        raise(&mut subtasks, marks.iter().map(|mark| mark.0).min().unwrap());
    }
    raise(&mut subtasks, Timestamp(i64::MAX - 1));
    let (rest, late_rows) = subtasks.finish().unwrap();
    assert!(rest.is_empty(), "something was still pending");
    (found, late_rows)
}

fn collect(made: Vec<RecordBatch>, case: &Case, forwarded: Timestamp, found: &mut BTreeMap<Key, Outcome>) {
    for batch in made {
        for row in 0..batch.num_rows() {
            let (key, outcome) = read(&batch, row, if case.keyed { 2 } else { 0 });
            assert!(key.3 > forwarded.millis() + 1, "{key:?} came after its time had been forwarded");
            assert_eq!(found.insert(key.clone(), outcome), None, "{key:?} came twice");
        }
    }
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
    let (start, end) = (time(keys + 6), time(keys + 7));
    assert_eq!(time(keys + 8), end - 1);
    let key = if keys == 2 { (int(0), text(1), start, end) } else { (None, None, start, end) };
    let outcome = Outcome {
        rows: int(keys).unwrap(),
        sum: int(keys + 1),
        most: int(keys + 2),
        avg: int(keys + 3),
        first: text(keys + 4),
        texts: int(keys + 5).unwrap(),
    };
    (key, outcome)
}

#[test]
fn agrees_with_the_naive_way_whatever_happens_in_between() {
    let seeds = std::env::var("RUSLO_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(80);
    let mut sessions = 0;
    for seed in 0..seeds {
        let mut rng = Rng::seeded(seed);
        let case = Case::random(&mut rng);
        let (found, late) = run(&case, rng);
        let (expected, late_expected) = expected(&case);
        assert_eq!(found, expected, "seed {seed}");
        assert_eq!(late, late_expected, "late rows of seed {seed}");
        sessions += found.len();
    }
    assert!(sessions > 20 * seeds as usize, "{sessions} sessions are too few to test anything");
}
