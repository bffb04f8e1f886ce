//! Against a search through all versions for each row, however it is run.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int8Array, Int64Array, RecordBatch, TimestampMicrosecondArray, TimestampMillisecondArray,
};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType, TimestampMillisecondType};
use datafusion::logical_expr::Operator as Sign;
use datafusion::physical_expr::expressions::{binary, col};
use ruslo_core::changelog::{RowKind, with_row_kinds};
use ruslo_core::error::ErrorKind;
use ruslo_core::memory::MemoryPool;
use ruslo_core::rng::Rng;
use ruslo_core::schema::with_split_watermarks;
use ruslo_core::time::Timestamp;

use super::*;
use crate::testing::{Manners, Subtasks, TestContext, run_batch, run_watermark};

/// Key, time in milliseconds, value.
type LeftRow = (Option<i64>, i64, i64);
/// Key, time in microseconds, value.
type RightRow = (Option<i64>, i64, i64);
/// What comes out.
type Pair = (LeftRow, Option<RightRow>);

fn batch(prefix: &str, keys: ArrayRef, times: ArrayRef, values: ArrayRef) -> RecordBatch {
    let columns =
        [("k", keys), ("t", times), ("v", values)].map(|(name, column)| (format!("{prefix}{name}"), column, true));
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

fn left(rows: &[LeftRow]) -> RecordBatch {
    let keys = Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.0)));
    let times = Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.1)));
    batch("l", keys, times, Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2))))
}

fn right(rows: &[RightRow]) -> RecordBatch {
    let keys = Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.0)));
    let times = Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.1)));
    batch("r", keys, times, Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2))))
}

fn inputs() -> [AsOfJoinInput; 2] {
    [left(&[]), right(&[])].map(|batch| AsOfJoinInput { schema: batch.schema(), keys: vec![0], time: 1 })
}

fn spec(as_of: AsOf, keeps_left: bool, changes: bool) -> AsOfJoinSpec {
    AsOfJoinSpec::new(inputs(), as_of, keeps_left, changes).unwrap()
}

fn pairs(batches: &[RecordBatch]) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for batch in batches {
        let [lk, lv, rk, rv] = [0, 2, 3, 5].map(|place| batch.column(place).as_primitive::<Int64Type>());
        let lt = batch.column(1).as_primitive::<TimestampMillisecondType>();
        let rt = batch.column(4).as_primitive::<TimestampMicrosecondType>();
        for row in 0..batch.num_rows() {
            let key = |keys: &Int64Array| keys.is_valid(row).then(|| keys.value(row));
            let version = rt.is_valid(row).then(|| (key(rk), rt.value(row), rv.value(row)));
            pairs.push(((key(lk), lt.value(row), lv.value(row)), version));
        }
    }
    pairs
}

/// A version, how many came before it, from when on it is valid in microseconds, and what it says.
#[derive(Debug, Clone, Copy)]
struct Came {
    row: RightRow,
    number: i64,
    valid: i64,
    kind: RowKind,
}

/// The version that counts for a row of `key` at `time` in milliseconds.
fn version_at(came: &[Came], key: Option<i64>, time: i64, as_of: AsOf, changes: bool) -> Option<RightRow> {
    let is_valid = |valid: i64| if as_of == AsOf::Before { valid < time * 1_000 } else { valid <= time * 1_000 };
    let of_key = came.iter().filter(|came| key.is_some() && came.row.0 == key && came.kind != RowKind::UpdateBefore);
    let tie = |came: &Came| if changes { came.number } else { -came.row.2 };
    let last = of_key.filter(|came| is_valid(came.valid)).max_by_key(|came| (came.row.1, came.valid, tie(came)))?;
    (last.kind != RowKind::Delete).then_some(last.row)
}

struct Case {
    as_of: AsOf,
    keeps_left: bool,
    changes: bool,
    is_conditional: bool,
}

impl Case {
    fn expected(&self, rows: &[LeftRow], came: &[Came]) -> Vec<Pair> {
        let of = |row: &LeftRow| {
            let version = version_at(came, row.0, row.1, self.as_of, self.changes);
            let version = version.filter(|version| !self.is_conditional || row.2 < version.2);
            (version.is_some() || self.keeps_left).then_some((*row, version))
        };
        let mut pairs: Vec<Pair> = rows.iter().filter_map(of).collect();
        pairs.sort_unstable();
        pairs
    }
}

fn key(rng: &mut Rng) -> Option<i64> {
    let key = if rng.one_in(3) { 1 } else { rng.below(9) as i64 };
    (key > 0).then_some(key)
}

#[test]
fn it_is_the_last_version_of_each_row_however_it_is_run() {
    for seed in 0..120 {
        let mut rng = Rng::seeded(seed);
        let as_of = if seed % 3 == 0 { AsOf::Before } else { AsOf::AtOrBefore };
        let case = Case { as_of, keeps_left: rng.one_in(2), changes: rng.one_in(2), is_conditional: rng.one_in(3) };
        let mut made = spec(as_of, case.keeps_left, case.changes);
        if case.is_conditional {
            let both = Arc::clone(&made.both);
            made = made.on(binary(col("lv", &both).unwrap(), Sign::Lt, col("rv", &both).unwrap(), &both).unwrap());
        }
        let what = format!("seed {seed}: {as_of:?} {} {} {}", case.keeps_left, case.changes, case.is_conditional);
        let manners = Manners {
            batch_rows: [1, 7, 1024][rng.below(3)],
            parallelism_max: 4,
            short_of_memory: true,
            always_resumed: rng.one_in(2),
        };
        let mut subtasks = Subtasks::new(made.factory(), manners, Rng::seeded(seed + 1_000)).unwrap();
        let (mut kept, mut came, mut late, mut out) = (Vec::new(), Vec::new(), 0, Vec::new());
        let spread = [5, 300, 90_000][rng.below(3)];
        for step in 0..30 {
            let watermark = subtasks.watermark().millis().max(0);
            if rng.one_in(3) {
                subtasks.raise(Timestamp(watermark + rng.below(spread) as i64)).unwrap();
                let fired = subtasks.take();
                let is_behind = |pair: &Pair| pair.0.1 <= watermark && subtasks.watermark().millis() > watermark;
                assert!(!manners.always_resumed || !pairs(&fired).iter().any(is_behind), "{what}");
                out.extend(fired);
                continue;
            }
            let rows = (0..rng.below(20)).map(|_| {
                let is_late = rng.one_in(6);
                let back = rng.below(20) as i64;
                let time = if is_late { watermark - back } else { watermark + 1 + rng.below(spread) as i64 };
                // A split may be further than all.
                let mark = if is_late || !rng.one_in(4) { watermark } else { time - 1 };
                (key(&mut rng), time, mark, rng.below(50) as i64)
            });
            let rows: Vec<(Option<i64>, i64, i64, i64)> = rows.collect();
            let marks = Int64Array::from_iter_values(rows.iter().map(|row| row.2));
            if step % 2 == 0 {
                let sent: Vec<LeftRow> = rows.iter().map(|(key, time, _, value)| (*key, *time, *value)).collect();
                let on_time = |(row, mark): (&LeftRow, &i64)| (row.1 > *mark).then_some(*row);
                let before = kept.len();
                kept.extend(sent.iter().zip(marks.values()).filter_map(on_time));
                late += (sent.len() - (kept.len() - before)) as u64;
                let sent = with_split_watermarks(&left(&sent), marks).unwrap();
                subtasks.send_to(0, &sent, &[Arc::clone(sent.column(0))]).unwrap();
            } else {
                let mut kinds = Vec::new();
                let mut sent = Vec::new();
                for (key, time, mark, value) in rows {
                    let micros = time * 1_000 + if rng.one_in(2) { rng.below(1_000) as i64 } else { 0 };
                    let kind = RowKind::of(if case.changes { rng.below(4) as i8 } else { 0 }).unwrap();
                    let valid = if time <= mark { (mark + 1) * 1_000 } else { micros };
                    let row = (key, micros, value);
                    came.push(Came { row, number: came.len() as i64, valid, kind });
                    sent.push(row);
                    kinds.push(kind.number());
                }
                let sent = right(&sent);
                let sent = if case.changes { with_row_kinds(&sent, Int8Array::from(kinds)).unwrap() } else { sent };
                let sent = with_split_watermarks(&sent, marks).unwrap();
                subtasks.send_to(1, &sent, &[Arc::clone(sent.column(0))]).unwrap();
            }
            out.extend(subtasks.take());
        }
        subtasks.raise(Timestamp::MAX).unwrap();
        let (rest, counted) = subtasks.finish().unwrap();
        out.extend(rest);
        let mut found = pairs(&out);
        found.sort_unstable();
        assert_eq!(found, case.expected(&kept, &came), "{what}");
        assert_eq!(counted, late, "{what}");
    }
}

#[test]
fn rows_come_out_in_order_of_time_and_one_version_of_a_key_stays() {
    let mut test = TestContext::new();
    let mut operator = spec(AsOf::AtOrBefore, true, false).factory().create().unwrap();
    operator.open(&mut test.context()).unwrap();
    let versions = right(&[(Some(1), 10_000, 1), (Some(1), 20_000, 2), (Some(2), 5_000, 3)]);
    let mut out = ruslo_core::operator::Output::default();
    let _ = operator.on_batch(1, versions, &mut test.context(), &mut out).unwrap();
    let rows = left(&[(Some(1), 25, 1), (Some(1), 9, 2), (Some(1), 19, 3), (Some(2), 15, 4), (None, 15, 5)]);
    assert!(run_batch(operator.as_mut(), rows, &mut test).unwrap().is_empty());
    let out = run_watermark(operator.as_mut(), Timestamp(30), &mut test).unwrap();
    let found = pairs(&out);
    let times: Vec<i64> = found.iter().map(|pair| pair.0.1).collect();
    assert_eq!(times, [9, 15, 15, 19, 25]);
    let values: Vec<Option<i64>> = found.iter().map(|pair| pair.1.map(|version| version.2)).collect();
    assert!(values == [None, Some(3), None, Some(1), Some(2)] || values == [None, None, Some(3), Some(1), Some(2)]);
    // The watermark has passed all: a later row sees the last version.
    run_batch(operator.as_mut(), left(&[(Some(1), 40, 6)]), &mut test).unwrap();
    let out = run_watermark(operator.as_mut(), Timestamp(50), &mut test).unwrap();
    assert_eq!(pairs(&out), [((Some(1), 40, 6), Some((Some(1), 20_000, 2)))]);
    assert_eq!(test.memory.bytes(), 0);
}

#[test]
fn a_hot_key_goes_out_a_batch_at_a_time() {
    const MANY: i64 = 3_000;
    let mut test = TestContext::new();
    test.batch_rows = 16;
    let mut operator = spec(AsOf::AtOrBefore, false, false).factory().create().unwrap();
    operator.open(&mut test.context()).unwrap();
    let mut out = ruslo_core::operator::Output::default();
    let versions: Vec<RightRow> = (0..MANY).map(|n| (Some(1), n * 1_000, n)).collect();
    let _ = operator.on_batch(1, right(&versions), &mut test.context(), &mut out).unwrap();
    let rows: Vec<LeftRow> = (0..MANY).map(|n| (Some(1), n, n)).collect();
    let _ = operator.on_batch(0, left(&rows), &mut test.context(), &mut out).unwrap();
    test.watermark = Timestamp(MANY);
    let mut progress = operator.on_watermark(Timestamp(MANY), &mut test.context(), &mut out).unwrap();
    let mut found = Vec::new();
    while progress == ruslo_core::operator::Progress::More {
        let mut out = ruslo_core::operator::Output::default();
        progress = operator.resume(&mut test.context(), &mut out).unwrap();
        let made: Vec<RecordBatch> = out.take().into_iter().map(|(_, batch)| batch).collect();
        assert!(made.iter().map(RecordBatch::num_rows).sum::<usize>() <= 16);
        found.extend(pairs(&made));
    }
    assert_eq!(found, rows.iter().map(|row| (*row, Some((row.0, row.1 * 1_000, row.2)))).collect::<Vec<_>>());
}

#[test]
fn more_rows_than_the_limit_is_an_error_that_says_what_to_do() {
    let mut test = TestContext::new();
    test.pool = MemoryPool::new(10_000);
    test.memory = test.pool.reserve("TemporalJoin #0");
    let mut operator = spec(AsOf::AtOrBefore, false, false).factory().create().unwrap();
    operator.open(&mut test.context()).unwrap();
    let many: Vec<LeftRow> = (0..100).map(|row| (Some(row), row, row)).collect();
    let mut more = || run_batch(operator.as_mut(), left(&many), &mut test);
    let error = std::iter::repeat_with(|| more().err()).take(10).flatten().next().unwrap();
    assert_eq!(error.kind(), ErrorKind::Resource);
    assert!(error.to_string().contains("TemporalJoin #0"), "{error}");
}

#[test]
fn a_row_without_a_time_is_refused() {
    let mut test = TestContext::new();
    let mut operator = spec(AsOf::AtOrBefore, false, false).factory().create().unwrap();
    operator.open(&mut test.context()).unwrap();
    let keys = Arc::new(Int64Array::from(vec![1]));
    let rows = batch("l", keys.clone(), Arc::new(TimestampMillisecondArray::from(vec![None])), keys);
    let error = run_batch(operator.as_mut(), rows, &mut test).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.to_string().contains("'lt' is NULL"), "{error}");
}

#[test]
fn what_does_not_fit_is_refused() {
    let [one, other] = inputs();
    let wrong = AsOfJoinInput { keys: vec![1], ..other.clone() };
    assert!(AsOfJoinSpec::new([one.clone(), wrong], AsOf::Before, true, false).is_err());
    let wrong = AsOfJoinInput { time: 2, ..other };
    assert!(AsOfJoinSpec::new([one, wrong], AsOf::Before, true, false).is_err());
}
