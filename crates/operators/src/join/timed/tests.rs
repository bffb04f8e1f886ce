//! Against nested loops over what was not late, however it is run.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMillisecondArray};
use arrow::datatypes::{Int64Type, TimestampMillisecondType};
use datafusion::logical_expr::Operator as Sign;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{binary, col};
use ruslo_core::epoch::Epoch;
use ruslo_core::error::ErrorKind;
use ruslo_core::memory::MemoryPool;
use ruslo_core::operator::{Operator, Output, Progress};
use ruslo_core::rng::Rng;
use ruslo_core::schema::with_split_watermarks;
use ruslo_core::time::Timestamp;

use super::*;
use crate::testing::{Manners, MemoryState, Subtasks, TestContext};
use crate::window::WindowClock;

const KINDS: [TimedJoinKind; 6] = [
    TimedJoinKind::Inner,
    TimedJoinKind::Left,
    TimedJoinKind::Right,
    TimedJoinKind::Full,
    TimedJoinKind::Semi,
    TimedJoinKind::Anti,
];

/// Key, time, value.
type Row = (Option<i64>, i64, i64);
/// What comes out: rows of the left and the right, or NULLs.
type Pair = (Option<Row>, Option<Row>);

fn batch(prefix: &str, rows: &[Row]) -> RecordBatch {
    let keys: ArrayRef = Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.0)));
    let times: ArrayRef = Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.1)));
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2)));
    let columns = [("k", keys), ("t", times), ("v", values)];
    let columns = columns.map(|(name, column)| (format!("{prefix}{name}"), column, true));
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

fn input(prefix: &str) -> TimedJoinInput {
    TimedJoinInput { schema: batch(prefix, &[]).schema(), keys: vec![0], time: 1 }
}

fn inputs() -> [TimedJoinInput; 2] {
    [input("l"), input("r")]
}

/// `lv < rv`.
fn condition(spec: &TimedJoinSpec) -> Arc<dyn PhysicalExpr> {
    let both = &spec.both;
    binary(col("lv", both).unwrap(), Sign::Lt, col("rv", both).unwrap(), both).unwrap()
}

fn half(batch: &RecordBatch, from: usize, row: usize) -> Option<Row> {
    let keys = batch.column(from).as_primitive::<Int64Type>();
    let times = batch.column(from + 1).as_primitive::<TimestampMillisecondType>();
    let values = batch.column(from + 2).as_primitive::<Int64Type>();
    times.is_valid(row).then(|| (keys.is_valid(row).then(|| keys.value(row)), times.value(row), values.value(row)))
}

fn pairs(batches: &[RecordBatch]) -> Vec<Pair> {
    let of = |batch: &RecordBatch| {
        let right = |row| if batch.num_columns() > 3 { half(batch, 3, row) } else { None };
        (0..batch.num_rows()).map(|row| (half(batch, 0, row), right(row))).collect::<Vec<_>>()
    };
    let mut pairs: Vec<Pair> = batches.iter().flat_map(of).collect();
    pairs.sort();
    pairs
}

fn nested_loops(kind: TimedJoinKind, left: &[Row], right: &[Row], fits: impl Fn(&Row, &Row) -> bool) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for l in left {
        let partners: Vec<&Row> = right.iter().filter(|r| fits(l, r)).collect();
        match kind {
            TimedJoinKind::Semi if !partners.is_empty() => pairs.push((Some(*l), None)),
            TimedJoinKind::Anti if partners.is_empty() => pairs.push((Some(*l), None)),
            TimedJoinKind::Semi | TimedJoinKind::Anti => {}
            TimedJoinKind::Left | TimedJoinKind::Full if partners.is_empty() => pairs.push((Some(*l), None)),
            _ => pairs.extend(partners.into_iter().map(|r| (Some(*l), Some(*r)))),
        }
    }
    if matches!(kind, TimedJoinKind::Right | TimedJoinKind::Full) {
        let alone = right.iter().filter(|r| !left.iter().any(|l| fits(l, r)));
        pairs.extend(alone.map(|r| (None, Some(*r))));
    }
    pairs.sort();
    pairs
}

/// Rows after the watermark, and some that are late; `spread` says how far ahead.
fn draw(rng: &mut Rng, watermark: i64, spread: usize, value: &mut i64) -> (Vec<Row>, Vec<i64>) {
    let made = (0..rng.below(20)).map(|_| {
        *value += 1;
        let key = if rng.one_in(3) { 1 } else { rng.below(9) as i64 };
        let late = rng.one_in(8);
        let time = if late { watermark - rng.below(3) as i64 } else { watermark + 1 + rng.below(spread) as i64 };
        // A split may be further than all.
        let mark = if late || !rng.one_in(4) { watermark } else { time - 1 };
        (((key > 0).then_some(key), time, *value), mark)
    });
    made.unzip()
}

#[test]
fn it_is_the_join_of_what_is_not_late_however_it_is_run() {
    for seed in 0..96 {
        let mut rng = Rng::seeded(seed);
        let kind = KINDS[seed as usize % 6];
        let (lower, upper) = [(-10, 10), (0, 5_000), (-60_000, -20_000), (3_000, 3_000), (0, 0)][rng.below(5)];
        let (null_equals, is_conditional, is_window) = (rng.one_in(2), rng.one_in(2), rng.one_in(4));
        let mut spec = match is_window {
            true => TimedJoinSpec::window(kind, inputs(), WindowClock::plain()).unwrap(),
            false => TimedJoinSpec::interval(kind, inputs(), lower, upper).unwrap(),
        };
        if is_conditional {
            let on = condition(&spec);
            spec = spec.on(on);
        }
        if null_equals {
            spec = spec.with_equal_nulls();
        }
        let what = format!("seed {seed}: {kind:?} {lower} {upper} {null_equals} {is_conditional} {is_window}");
        let manners = Manners {
            batch_rows: [1, 7, 1024][rng.below(3)],
            parallelism_max: 4,
            short_of_memory: true,
            always_resumed: rng.one_in(2),
        };
        // What nobody asks to go on may come behind what was passed on.
        let is_told = manners.always_resumed;
        let (hold, before) = (spec.hold_ms(), i64::from(is_window));
        let mut subtasks = Subtasks::new(spec.factory(), manners, Rng::seeded(seed + 1_000)).unwrap();
        let (mut kept, mut late, mut value, mut out) = ([Vec::new(), Vec::new()], 0, 0, Vec::new());
        let spread = [30, 4_000, 50_000][rng.below(3)];
        for _ in 0..24 {
            let watermark = subtasks.watermark().millis().max(0);
            if rng.one_in(3) {
                let passed = subtasks.output_watermark();
                subtasks.raise(Timestamp(watermark + rng.below(spread) as i64)).unwrap();
                let made = subtasks.take();
                check_times(&pairs(&made), passed.millis(), before, is_told, &what);
                out.extend(made);
                assert!(subtasks.output_watermark().millis() <= subtasks.watermark().millis() - hold);
                continue;
            }
            let side = rng.below(2);
            let (rows, marks) = draw(&mut rng, watermark, spread, &mut value);
            for (row, mark) in rows.iter().zip(&marks) {
                if row.1 - before > *mark { kept[side].push(*row) } else { late += 1 }
            }
            let sent = batch(["l", "r"][side], &rows);
            let sent = with_split_watermarks(&sent, Int64Array::from(marks)).unwrap();
            let passed = subtasks.output_watermark();
            subtasks.send_to(side, &sent, &[Arc::clone(sent.column(0))]).unwrap();
            let made = subtasks.take();
            check_times(&pairs(&made), passed.millis(), before, is_told, &what);
            out.extend(made);
        }
        subtasks.raise(Timestamp::MAX).unwrap();
        let (rest, counted) = subtasks.finish().unwrap();
        out.extend(rest);
        let (lower, upper) = if is_window { (0, 0) } else { (lower, upper) };
        let fits = |l: &Row, r: &Row| {
            let by_key = if null_equals { l.0 == r.0 } else { l.0.is_some() && l.0 == r.0 };
            by_key && (lower..=upper).contains(&(l.1 - r.1)) && (!is_conditional || l.2 < r.2)
        };
        assert_eq!(pairs(&out), nested_loops(kind, &kept[0], &kept[1], fits), "{what}");
        assert_eq!(counted, late, "{what}");
    }
}

/// No time that comes out is at or before the watermark that was passed on.
fn check_times(pairs: &[Pair], passed: i64, before: i64, is_told: bool, what: &str) {
    for (left, right) in pairs {
        let times = left.iter().chain(right).map(|row| row.1 - before);
        assert!(!is_told || times.min().is_none_or(|time| time > passed), "{what}: {left:?} {right:?} behind {passed}");
    }
}

/// One row beside many: bounded steps, with a restore at each of them.
#[test]
fn a_hot_key_makes_progress_in_bounded_steps_through_a_restore_at_each() {
    const MANY: i64 = 2_000;
    for kind in [TimedJoinKind::Inner, TimedJoinKind::Full, TimedJoinKind::Semi] {
        let factory = TimedJoinSpec::interval(kind, inputs(), -100_000, 100_000).unwrap().factory();
        let mut test = TestContext::new();
        test.batch_rows = 16;
        let mut operator = factory.create().unwrap();
        operator.open(&mut test.context()).unwrap();
        let many: Vec<Row> = (0..MANY).map(|number| (Some(1), number * 10, number)).collect();
        let mut made = Vec::new();
        let give = |operator: &mut dyn Operator, side: usize, rows: RecordBatch, test: &mut TestContext| {
            let mut out = Output::default();
            let progress = operator.on_batch(side, rows, &mut test.context(), &mut out).unwrap();
            (progress, out.take().into_iter().map(|(_, batch)| batch).collect::<Vec<_>>())
        };
        for part in many.chunks(16) {
            let (progress, out) = give(operator.as_mut(), 1, batch("r", part), &mut test);
            assert!(progress == Progress::Done && out.is_empty());
        }
        let one: Vec<Row> = vec![(Some(1), 9_999, -1), (Some(2), 5, -2)];
        let (mut progress, out) = give(operator.as_mut(), 0, batch("l", &one), &mut test);
        made.extend(out);
        let mut steps = 0;
        while progress == Progress::More {
            operator.snapshot(Epoch(steps), &mut test.context(), &mut Output::default()).unwrap();
            let mut restored = TestContext::with_state(test.subtask, MemoryState::default().joined(&test.state));
            restored.batch_rows = 16;
            test = restored;
            operator = factory.create().unwrap();
            operator.open(&mut test.context()).unwrap();
            let mut out = Output::default();
            progress = operator.resume(&mut test.context(), &mut out).unwrap();
            let out: Vec<RecordBatch> = out.take().into_iter().map(|(_, batch)| batch).collect();
            assert!(out.len() <= 1 && out.iter().all(|batch| batch.num_rows() <= 16));
            made.extend(out);
            steps += 1;
        }
        assert!(steps >= 100, "{steps} steps");
        test.watermark = Timestamp::MAX;
        let mut out = Output::default();
        let mut progress = operator.on_watermark(Timestamp::MAX, &mut test.context(), &mut out).unwrap();
        while progress == Progress::More {
            progress = operator.resume(&mut test.context(), &mut out).unwrap();
        }
        made.extend(out.take().into_iter().map(|(_, batch)| batch));
        let expected = nested_loops(kind, &one, &many, |l, r| l.0 == r.0);
        assert_eq!(pairs(&made), expected, "{kind:?}");
    }
}

#[test]
fn unmatched_rows_leave_when_their_interval_is_over() {
    let spec = TimedJoinSpec::interval(TimedJoinKind::Left, inputs(), -1_000, 0).unwrap();
    assert_eq!(spec.hold_ms(), 1_000 + 999, "the bounds, and what a bucket waits");
    let mut operator = spec.factory().create().unwrap();
    let mut test = TestContext::new();
    operator.open(&mut test.context()).unwrap();
    let out = crate::testing::run_batch(operator.as_mut(), batch("l", &[(Some(1), 500, 1)]), &mut test).unwrap();
    assert!(out.is_empty());
    // A partner may come up to 1,500; the row's bucket ends at 999.
    let out = crate::testing::run_watermark(operator.as_mut(), Timestamp(1_998), &mut test).unwrap();
    assert!(out.is_empty());
    let out = crate::testing::run_watermark(operator.as_mut(), Timestamp(1_999), &mut test).unwrap();
    assert_eq!(pairs(&out), [(Some((Some(1), 500, 1)), None)]);
    assert_eq!(test.memory.bytes(), 0);
    assert_eq!(operator.output_watermark(Timestamp::MAX), Timestamp::MAX);
}

#[test]
fn more_rows_than_the_limit_is_an_error_that_says_what_to_do() {
    let mut test = TestContext::new();
    test.pool = MemoryPool::new(10_000);
    test.memory = test.pool.reserve("IntervalJoin #0");
    let spec = TimedJoinSpec::interval(TimedJoinKind::Inner, inputs(), 0, 1_000).unwrap();
    let mut operator = spec.factory().create().unwrap();
    operator.open(&mut test.context()).unwrap();
    let many: Vec<Row> = (0..100).map(|row| (Some(row), row, row)).collect();
    let mut more = || crate::testing::run_batch(operator.as_mut(), batch("l", &many), &mut test);
    let error = std::iter::repeat_with(|| more().err()).take(10).flatten().next().unwrap();
    assert_eq!(error.kind(), ErrorKind::Resource);
    let said = error.to_string();
    for part in ["memory limit of 9.8 KiB", "IntervalJoin #0", "until the watermark has passed their last partner"] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let other = TimedJoinInput { keys: vec![1], ..input("r") };
    assert!(TimedJoinSpec::interval(TimedJoinKind::Inner, [input("l"), other], 0, 0).is_err());
    let other = TimedJoinInput { time: 2, ..input("r") };
    assert!(TimedJoinSpec::window(TimedJoinKind::Inner, [input("l"), other], WindowClock::plain()).is_err());
}
