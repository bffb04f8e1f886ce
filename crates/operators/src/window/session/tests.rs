//! Sessions by hand; `tests/session.rs` compares with a naive recomputation.

use arrow::array::{AsArray, Int64Array};
use arrow::datatypes::{Field, Int64Type, TimeUnit, TimestampMillisecondType};
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::{col, lit};
use ruslo_core::error::ErrorKind;
use ruslo_core::memory::MemoryPool;
use ruslo_core::operator::Subtask;
use ruslo_core::schema::with_split_watermarks;

use super::*;
use crate::testing::{TestContext, drain, run_batch, run_watermark};

fn schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Millisecond, None);
    Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("ts", time, true)]))
}

fn rows(rows: &[(i64, i64)]) -> RecordBatch {
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0)));
    let times: ArrayRef = Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.1)));
    RecordBatch::try_new(schema(), vec![keys, times]).unwrap()
}

fn spec(keys: &[&str], gap: i64) -> Result<SessionSpec> {
    let count = AggregateExprBuilder::new(count_udaf(), vec![lit(1i64)]).schema(schema()).alias("n").build().unwrap();
    let keys = keys.iter().map(|key| NamedExpr::new(col(key, &schema()).unwrap(), *key, &schema()).unwrap());
    SessionSpec::new(&schema(), keys.collect(), vec![AggregateCall::new(Arc::new(count))], 1, gap)
}

fn operator() -> Box<dyn Operator> {
    spec(&["k"], 10).unwrap().factory().create().unwrap()
}

fn snapshot(operator: &mut dyn Operator, test: &mut TestContext, epoch: u64) {
    operator.snapshot(Epoch(epoch), &mut test.context(), &mut Output::default()).unwrap();
}

/// (key, count, start, end) of each result row, as they came.
fn results(batches: &[RecordBatch]) -> Vec<(i64, i64, i64, i64)> {
    let mut found = Vec::new();
    for batch in batches {
        let int = |at: usize| batch.column(at).as_primitive::<Int64Type>().values();
        let time = |at: usize| batch.column(at).as_primitive::<TimestampMillisecondType>().values();
        for row in 0..batch.num_rows() {
            assert_eq!(time(4)[row], time(3)[row] - 1);
            found.push((int(0)[row], int(1)[row], time(2)[row], time(3)[row]));
        }
    }
    found
}

#[test]
fn a_session_fires_when_the_watermark_has_passed_its_end_and_not_before() {
    let (mut operator, mut test) = (operator(), TestContext::new());
    run_batch(operator.as_mut(), rows(&[(1, 3), (2, 9), (1, 10)]), &mut test).unwrap();
    assert!(run_watermark(operator.as_mut(), Timestamp(19), &mut test).unwrap().is_empty());
    let made = run_watermark(operator.as_mut(), Timestamp(20), &mut test).unwrap();
    assert_eq!(made[0].schema(), spec(&["k"], 10).unwrap().schema());
    assert_eq!(results(&made), [(2, 1, 9, 19)]);
    // A row at the very end touches: the session goes on.
    run_batch(operator.as_mut(), rows(&[(1, 20)]), &mut test).unwrap();
    assert!(run_watermark(operator.as_mut(), Timestamp(30), &mut test).unwrap().is_empty());
    assert_eq!(results(&run_watermark(operator.as_mut(), Timestamp(31), &mut test).unwrap()), [(1, 3, 3, 30)]);
    assert_eq!(test.memory.bytes(), 0);
}

#[test]
fn a_row_in_the_middle_bridges_two_sessions_wherever_their_states_are() {
    // Snapshots seal: both in the accumulators, the first sealed, both sealed, one in each of two generations.
    for seals in [[false, false], [true, false], [false, true], [true, true]] {
        let (mut operator, mut test) = (operator(), TestContext::new());
        for ((time, seal), epoch) in [100, 120].into_iter().zip(seals).zip(1..) {
            run_batch(operator.as_mut(), rows(&[(1, time), (1, time + 1)]), &mut test).unwrap();
            if seal {
                snapshot(operator.as_mut(), &mut test, epoch);
            }
        }
        run_batch(operator.as_mut(), rows(&[(2, 110), (1, 111), (1, 140), (1, 145)]), &mut test).unwrap();
        run_batch(operator.as_mut(), rows(&[(1, 131)]), &mut test).unwrap();
        let made = run_watermark(operator.as_mut(), Timestamp::MAX, &mut test).unwrap();
        assert_eq!(results(&made), [(2, 1, 110, 120), (1, 8, 100, 155)], "{seals:?}");
        assert_eq!(results(&made).len(), 2);
    }
}

#[test]
fn late_rows_are_counted_and_change_nothing() {
    let (mut operator, mut test) = (operator(), TestContext::new());
    let marks = Int64Array::from(vec![i64::MIN, 5, 6, 7]);
    let batch = with_split_watermarks(&rows(&[(1, 5), (1, 5), (1, 5), (1, 5)]), marks).unwrap();
    run_batch(operator.as_mut(), batch, &mut test).unwrap();
    let made = run_watermark(operator.as_mut(), Timestamp(16), &mut test).unwrap();
    assert_eq!(results(&made), [(1, 2, 5, 15)]);
    assert_eq!(test.metrics.late_rows.get(), 2);
}

#[test]
fn the_watermark_that_is_forwarded_is_before_every_later_result() {
    let operator = operator();
    assert_eq!(operator.output_watermark(Timestamp(20)), Timestamp(18));
    assert_eq!(operator.output_watermark(Timestamp::MAX), Timestamp::MAX);
    assert_eq!(operator.output_watermark(Timestamp::MIN), Timestamp::MIN);
}

#[test]
fn a_row_behind_the_watermark_that_is_not_late_is_our_fault() {
    let (mut operator, mut test) = (operator(), TestContext::new());
    test.watermark = Timestamp(10);
    let error = run_batch(operator.as_mut(), rows(&[(1, 9)]), &mut test).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.to_string().contains("a row at 1970-01-01 00:00:00.009"), "{error}");
}

#[test]
fn a_firing_cut_by_a_restore_goes_on_with_whatever_is_called_next() {
    for next in 0..4 {
        let (mut operator, mut test) = (operator(), TestContext::new());
        test.batch_rows = 1;
        run_batch(operator.as_mut(), rows(&[(1, 1), (2, 2), (3, 3), (4, 50)]), &mut test).unwrap();
        snapshot(operator.as_mut(), &mut test, 1);
        test.watermark = Timestamp(20);
        let mut out = Output::default();
        assert_eq!(operator.on_watermark(Timestamp(20), &mut test.context(), &mut out).unwrap(), Progress::More);
        assert_eq!(out.take().len(), 1);
        snapshot(operator.as_mut(), &mut test, 2);
        let mut restored = self::operator();
        let mut test = TestContext::with_state(Subtask { index: 0, parallelism: 1 }, test.state);
        test.watermark = Timestamp(20);
        restored.open(&mut test.context()).unwrap();
        let made = match next {
            0 => run_watermark(restored.as_mut(), Timestamp(21), &mut test).unwrap(),
            1 => run_batch(restored.as_mut(), rows(&[(1, 100)]), &mut test).unwrap(),
            2 => drain(restored.as_mut(), Progress::More, &mut test, &mut Output::default()).unwrap(),
            _ => {
                let end = restored.on_end(0, EndReason::Drain, &mut test.context(), &mut out).unwrap();
                drain(restored.as_mut(), end, &mut test, &mut out).unwrap()
            }
        };
        assert_eq!(results(&made), [(2, 1, 2, 12), (3, 1, 3, 13)]);
    }
}

#[test]
fn a_session_that_was_stored_again_and_again_is_restored_once() {
    let (mut operator, mut test) = (operator(), TestContext::new());
    // A large session that keeps the first bucket alive.
    run_batch(operator.as_mut(), rows(&[(9, 1_000), (1, 1), (2, 1)]), &mut test).unwrap();
    snapshot(operator.as_mut(), &mut test, 1);
    // The same span again, then a longer one.
    run_batch(operator.as_mut(), rows(&[(1, 1)]), &mut test).unwrap();
    snapshot(operator.as_mut(), &mut test, 2);
    run_batch(operator.as_mut(), rows(&[(1, 5)]), &mut test).unwrap();
    snapshot(operator.as_mut(), &mut test, 3);
    assert_eq!(results(&run_watermark(operator.as_mut(), Timestamp(12), &mut test).unwrap()), [(2, 1, 1, 11)]);
    snapshot(operator.as_mut(), &mut test, 4);
    let mut restored = self::operator();
    let mut test = TestContext::with_state(Subtask { index: 0, parallelism: 1 }, test.state);
    test.watermark = Timestamp(12);
    restored.open(&mut test.context()).unwrap();
    let made = run_watermark(restored.as_mut(), Timestamp::MAX, &mut test).unwrap();
    assert_eq!(results(&made), [(1, 3, 1, 15), (9, 1, 1_000, 1_010)]);
    assert_eq!(made.len(), 1);
}

#[test]
fn stopping_leaves_sessions_in_state() {
    let (mut operator, mut test) = (operator(), TestContext::new());
    run_batch(operator.as_mut(), rows(&[(1, 1)]), &mut test).unwrap();
    snapshot(operator.as_mut(), &mut test, 1);
    let mut out = Output::default();
    assert_eq!(operator.on_end(0, EndReason::Stop, &mut test.context(), &mut out).unwrap(), Progress::Done);
    assert!(out.take().is_empty());
    assert!(test.memory.bytes() > 0);
}

#[test]
fn what_has_fired_leaves_state_with_the_next_snapshot() {
    let (mut operator, mut test) = (operator(), TestContext::new());
    run_batch(operator.as_mut(), rows(&[(1, 1)]), &mut test).unwrap();
    snapshot(operator.as_mut(), &mut test, 1);
    run_watermark(operator.as_mut(), Timestamp(100), &mut test).unwrap();
    snapshot(operator.as_mut(), &mut test, 2);
    assert_eq!(test.memory.bytes(), 0);
}

#[test]
fn a_long_pause_between_many_keys_is_cheap_to_account_for() {
    // Sessions come and go; nothing of them is left behind.
    let (mut operator, mut test) = (operator(), TestContext::new());
    let mut peak = 0;
    let mut fired = 0;
    for round in 0..50i64 {
        let batch: Vec<_> = (0..500).map(|key| (round * 500 + key, round * 100 + key % 50)).collect();
        run_batch(operator.as_mut(), rows(&batch), &mut test).unwrap();
        fired += results(&run_watermark(operator.as_mut(), Timestamp(round * 100 + 60), &mut test).unwrap()).len();
        peak = peak.max(test.memory.bytes());
    }
    assert_eq!(fired, 50 * 500);
    assert!(peak < 512 << 10, "{peak}");
}

#[test]
fn the_memory_limit_stops_it_and_names_it() {
    let (mut operator, mut test) = (operator(), TestContext::new());
    test.pool = MemoryPool::new(4096);
    test.memory = test.pool.reserve("session 'k'");
    let all: Vec<_> = (0..10_000).map(|key| (key, 1)).collect();
    let error = run_batch(operator.as_mut(), rows(&all), &mut test).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Resource);
    assert!(error.to_string().contains("session 'k'"), "{error}");
}

#[test]
fn bad_times_are_the_datas_fault() {
    let mut operator = operator();
    let times: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![None]));
    let batch = RecordBatch::try_new(schema(), vec![Arc::new(Int64Array::from(vec![1])), times]).unwrap();
    let error = run_batch(operator.as_mut(), batch, &mut TestContext::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    let far = rows(&[(1, i64::MAX - 3)]);
    assert_eq!(run_batch(operator.as_mut(), far, &mut TestContext::new()).unwrap_err().kind(), ErrorKind::Data);
}

#[test]
fn without_keys_all_rows_are_of_one_key() {
    let mut operator = spec(&[], 10).unwrap().factory().create().unwrap();
    let mut test = TestContext::new();
    run_batch(operator.as_mut(), rows(&[(1, 1), (2, 8), (3, 40)]), &mut test).unwrap();
    snapshot(operator.as_mut(), &mut test, 1);
    let made = run_watermark(operator.as_mut(), Timestamp::MAX, &mut test).unwrap();
    assert_eq!(made[0].column(0).as_primitive::<Int64Type>().values(), &[2, 1]);
    assert_eq!(made[0].column(1).as_primitive::<TimestampMillisecondType>().values(), &[1, 40]);
}

#[test]
fn what_cannot_be_is_refused_when_planned() {
    assert_eq!(spec(&["k"], 0).unwrap_err().kind(), ErrorKind::Usage);
    let error = SessionSpec::new(&schema(), Vec::new(), Vec::new(), 0, 10).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
}
