//! OVER as a whole, against results computed anew for every row.

use std::collections::HashMap;

use arrow::array::{StringArray, TimestampMillisecondArray};
use arrow::datatypes::TimestampMillisecondType;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{col, lit};
use ruslo_core::operator::Subtask;
use ruslo_core::rng::Rng;
use ruslo_core::state::OperatorState;

use super::*;
use crate::testing::{Manners, MemoryState, Subtasks, TestContext, run_batch, run_watermark};

/// Key, time, value, number.
type Row = (Option<String>, i64, Option<i64>, i64);

fn batch(rows: &[Row]) -> RecordBatch {
    let keys: ArrayRef = Arc::new(StringArray::from_iter(rows.iter().map(|row| row.0.as_deref())));
    let times: ArrayRef = Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.1)));
    let values: ArrayRef = Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.2)));
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.3)));
    let columns = [("k", keys, true), ("ts", times, true), ("v", values, true), ("id", ids, true)];
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

fn call(function: OverFunction, argument: Option<Arc<dyn PhysicalExpr>>, frame: OverFrame) -> OverCall {
    OverCall { function, argument, frame, field: Arc::new(Field::new("result", DataType::Int64, true)) }
}

fn value() -> Option<Arc<dyn PhysicalExpr>> {
    Some(col("v", batch(&[]).schema_ref()).unwrap())
}

fn by_time() -> OverOrder {
    OverOrder::EventTime(vec![SortKey { column: 1, descending: false, nulls_first: true }])
}

fn spec(calls: &[OverCall], lifetime: Option<Duration>) -> OverSpec {
    OverSpec::new(batch(&[]).schema_ref(), vec![0], by_time(), calls, lifetime).unwrap()
}

/// All results as numbers, behind the row.
type Result7 = (Row, Vec<Option<i64>>);

fn rows(batches: &[RecordBatch]) -> Vec<Result7> {
    let mut made = Vec::new();
    for batch in batches {
        let numbers = |column: usize| batch.column(column).as_primitive::<Int64Type>().clone();
        for row in 0..batch.num_rows() {
            let keys = batch.column(0).as_string::<i32>();
            let key = keys.is_valid(row).then(|| keys.value(row).to_owned());
            let time = batch.column(1).as_primitive::<TimestampMillisecondType>().value(row);
            let number = |column: usize| numbers(column).is_valid(row).then(|| numbers(column).value(row));
            let results = (4..batch.num_columns()).map(number).collect();
            made.push(((key, time, number(2), number(3).unwrap()), results));
        }
    }
    made
}

/// Every function over every kind of frame.
fn all_calls() -> Vec<OverCall> {
    let mut calls = vec![
        call(OverFunction::RowNumber, None, OverFrame::RowsUnbounded),
        call(OverFunction::Lag(1, None), value(), OverFrame::RangeUnbounded),
        call(
            OverFunction::Lag(3, Some(col("id", batch(&[]).schema_ref()).unwrap())),
            value(),
            OverFrame::RangeUnbounded,
        ),
    ];
    let frames = [
        OverFrame::RowsUnbounded,
        OverFrame::RangeUnbounded,
        OverFrame::Rows(0),
        OverFrame::Rows(3),
        OverFrame::Range(40_000),
    ];
    for frame in frames {
        calls.push(call(OverFunction::Count, Some(lit(1i64)), frame));
        calls.push(call(OverFunction::Count, value(), frame));
        calls.push(call(OverFunction::Sum, value(), frame));
        calls.push(call(OverFunction::Avg, value(), frame));
        calls.push(call(OverFunction::Min, value(), frame));
        calls.push(call(OverFunction::Max, value(), frame));
        calls.push(call(OverFunction::FirstValue, value(), frame));
        calls.push(call(OverFunction::LastValue, value(), frame));
    }
    calls
}

/// The rows of the frame of row `at` among the rows of its key.
fn frame_rows(frame: OverFrame, rows: &[Row], at: usize) -> &[Row] {
    let time = rows[at].1;
    let same = at + rows[at..].iter().take_while(|row| row.1 == time).count();
    match frame {
        OverFrame::RowsUnbounded => &rows[..=at],
        OverFrame::RangeUnbounded => &rows[..same],
        OverFrame::Rows(before) => &rows[at.saturating_sub(before as usize)..=at],
        OverFrame::Range(before) => {
            let first = rows.iter().position(|row| row.1 >= time - before).unwrap();
            &rows[first..same]
        }
    }
}

fn expected_of(call: &OverCall, rows: &[Row], at: usize) -> Option<i64> {
    let frame = frame_rows(call.frame, rows, at);
    let values: Vec<i64> = frame.iter().filter_map(|row| row.2).collect();
    match &call.function {
        OverFunction::RowNumber => Some(at as i64 + 1),
        OverFunction::Lag(before, default) => match at.checked_sub(*before as usize) {
            Some(before) => rows[before].2,
            None => default.as_ref().map(|_| rows[at].3),
        },
        OverFunction::Count
            if call.argument.as_ref().is_some_and(|argument| {
                argument.downcast_ref::<datafusion::physical_expr::expressions::Literal>().is_some()
            }) =>
        {
            Some(frame.len() as i64)
        }
        OverFunction::Count => Some(values.len() as i64),
        OverFunction::Sum => (!values.is_empty()).then(|| values.iter().sum()),
        OverFunction::Avg => (!values.is_empty()).then(|| values.iter().sum::<i64>() / values.len() as i64),
        OverFunction::Min => values.iter().min().copied(),
        OverFunction::Max => values.iter().max().copied(),
        OverFunction::FirstValue => values.first().copied(),
        OverFunction::LastValue => values.last().copied(),
    }
}

/// What must come of `rows`, in any order.
fn expected(calls: &[OverCall], rows: &[Row]) -> Vec<Result7> {
    let mut by_key: HashMap<Option<String>, Vec<Row>> = HashMap::new();
    rows.iter().for_each(|row| by_key.entry(row.0.clone()).or_default().push(row.clone()));
    let mut made = Vec::new();
    for mut rows in by_key.into_values() {
        rows.sort_by_key(|row| (row.1, row.2, row.3));
        for at in 0..rows.len() {
            made.push((rows[at].clone(), calls.iter().map(|call| expected_of(call, &rows, at)).collect()));
        }
    }
    made.sort();
    made
}

/// Every result computed anew, at any parallelism and through crashes.
#[test]
fn each_row_sees_its_frame_however_it_is_run() {
    for seed in 0..24 {
        let mut rng = Rng::seeded(seed);
        let manners = Manners {
            batch_rows: [1, 7, 1024][seed as usize % 3],
            parallelism_max: 4,
            short_of_memory: true,
            always_resumed: true,
        };
        let calls = all_calls();
        let factory = spec(&calls, (seed % 2 == 0).then(|| Duration::from_secs(3_600))).factory();
        let mut subtasks = Subtasks::new(factory, manners, Rng::seeded(seed + 1000)).unwrap();
        let (mut sent, mut watermark) = (Vec::new(), 0);
        for _ in 0..25 {
            let made: Vec<Row> = (0..1 + rng.below(20))
                .map(|_| {
                    let key = rng.below(8);
                    // Few times, so that many are equal.
                    let time = watermark + 1 + rng.below(9) as i64 * 10_000;
                    let value = (rng.below(5) > 0).then(|| rng.below(200) as i64 - 100);
                    ((key > 0).then(|| format!("key {key}")), time, value, rng.below(1000) as i64)
                })
                .collect();
            sent.extend(made.iter().cloned());
            let rows = batch(&made);
            let keys = [Arc::clone(rows.column(0))];
            subtasks.send(&rows, &keys).unwrap();
            if rng.one_in(2) {
                watermark += rng.below(50_000) as i64;
                subtasks.raise(Timestamp(watermark)).unwrap();
            }
        }
        subtasks.raise(Timestamp::MAX).unwrap();
        let (found, late_rows) = subtasks.finish().unwrap();
        let mut found = rows(&found);
        found.sort();
        assert_eq!(late_rows, 0);
        assert_eq!(found, expected(&calls, &sent), "seed {seed}");
    }
}

/// A frame that reaches back for a time only: keys that it cannot reach go, and come back as new ones.
#[test]
fn keys_that_no_frame_reaches_are_forgotten() {
    for seed in 0..30 {
        let mut rng = Rng::seeded(seed);
        let manners = Manners {
            batch_rows: [1, 7][seed as usize % 2],
            parallelism_max: 3,
            short_of_memory: true,
            always_resumed: true,
        };
        let frame = OverFrame::Range(20_000);
        let calls = [
            call(OverFunction::Sum, value(), frame),
            call(OverFunction::Max, value(), frame),
            call(OverFunction::Count, Some(lit(1i64)), frame),
        ];
        let spec = spec(&calls, None);
        assert_eq!(spec.forgets_after_ms(), Some(20_000));
        let mut subtasks = Subtasks::new(spec.factory(), manners, Rng::seeded(seed + 500)).unwrap();
        let mut sent = Vec::new();
        for round in 0..40 {
            let base = round * 10_000;
            let made: Vec<Row> = (0..1 + rng.below(6))
                .map(|_| {
                    let key = Some(format!("key {}", rng.below(30)));
                    (key, base + 1 + rng.below(9_000) as i64, Some(rng.below(9) as i64), rng.below(1000) as i64)
                })
                .collect();
            sent.extend(made.iter().cloned());
            let rows = batch(&made);
            let keys = [Arc::clone(rows.column(0))];
            subtasks.send(&rows, &keys).unwrap();
            subtasks.raise(Timestamp(base + 10_000)).unwrap();
        }
        subtasks.raise(Timestamp::MAX).unwrap();
        let mut found = rows(&subtasks.finish().unwrap().0);
        found.sort();
        assert_eq!(found, expected(&calls, &sent), "seed {seed}");
    }
}

fn kept_keys(test: &mut TestContext, spec: &OverSpec) -> usize {
    let inner = Arc::clone(&spec.inner);
    let table = test.state.keyed(KEYS, &inner.table).unwrap();
    (0..128).map(|group| table.keys(group).unwrap().first().map_or(0, |keys| keys.len())).sum()
}

#[test]
fn nothing_is_kept_of_a_key_that_is_forgotten() {
    let calls =
        [call(OverFunction::Sum, value(), OverFrame::Rows(5)), call(OverFunction::Min, value(), OverFrame::Rows(5))];
    let spec = spec(&calls, Some(Duration::from_secs(60)));
    let mut test = TestContext::with_state(Subtask { index: 0, parallelism: 1 }, MemoryState::default());
    let mut operator = spec.clone().factory().create().unwrap();
    operator.open(&mut test.context()).unwrap();
    let row = |key: &str, time: i64| (Some(key.to_owned()), time, Some(1), 0);
    run_batch(operator.as_mut(), batch(&[row("a", 1_000), row("b", 2_000), row("a", 50_000)]), &mut test).unwrap();
    run_watermark(operator.as_mut(), Timestamp(50_000), &mut test).unwrap();
    assert_eq!(kept_keys(&mut test, &spec), 2);
    run_watermark(operator.as_mut(), Timestamp(80_000), &mut test).unwrap();
    assert_eq!(kept_keys(&mut test, &spec), 1, "'b' is a minute behind");
    run_watermark(operator.as_mut(), Timestamp(109_000), &mut test).unwrap();
    assert_eq!(kept_keys(&mut test, &spec), 1, "'a' is not");
    run_watermark(operator.as_mut(), Timestamp(200_000), &mut test).unwrap();
    assert_eq!(kept_keys(&mut test, &spec), 0);
    let made = run_batch(operator.as_mut(), batch(&[row("a", 210_000)]), &mut test).unwrap();
    assert!(made.is_empty());
    let made = rows(&run_watermark(operator.as_mut(), Timestamp(220_000), &mut test).unwrap());
    assert_eq!(made[0].1, [Some(1), Some(1)], "it begins anew");
}

#[test]
fn by_arrival_rows_go_out_as_they_come() {
    let calls = [
        call(OverFunction::Sum, value(), OverFrame::Rows(1)),
        call(OverFunction::Lag(1, None), value(), OverFrame::RangeUnbounded),
    ];
    let spec = OverSpec::new(batch(&[]).schema_ref(), vec![], OverOrder::Arrival(1), &calls, None).unwrap();
    let mut test = TestContext::new();
    let mut operator = spec.factory().create().unwrap();
    operator.open(&mut test.context()).unwrap();
    let sent = [(None, 5, Some(1), 0), (None, 4, Some(2), 0), (None, 9, Some(4), 0)];
    let mut made = rows(&run_batch(operator.as_mut(), batch(&sent[..2]), &mut test).unwrap());
    made.extend(rows(&run_batch(operator.as_mut(), batch(&sent[2..]), &mut test).unwrap()));
    let results: Vec<_> = made.into_iter().map(|(_, results)| results).collect();
    assert_eq!(results, [[Some(1), None], [Some(3), Some(1)], [Some(6), Some(2)]]);
}

#[test]
fn late_rows_are_dropped_and_counted() {
    let calls = [call(OverFunction::Count, Some(lit(1i64)), OverFrame::RangeUnbounded)];
    let mut test = TestContext::new();
    let mut operator = spec(&calls, None).factory().create().unwrap();
    operator.open(&mut test.context()).unwrap();
    let row = |time: i64| (Some("a".to_owned()), time, Some(1), 0);
    let marks = Int64Array::from(vec![i64::MIN, 10, 10, 10]);
    let sent = batch(&[row(10), row(10), row(3), row(12)]);
    let sent = ruslo_core::schema::with_split_watermarks(&sent, marks).unwrap();
    run_batch(operator.as_mut(), sent, &mut test).unwrap();
    let made = rows(&run_watermark(operator.as_mut(), Timestamp(12), &mut test).unwrap());
    assert_eq!(made.len(), 2);
    assert_eq!(test.metrics.counts().late_rows, 2);
}
