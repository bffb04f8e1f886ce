use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::logical_expr::Operator as Sign;
use datafusion::physical_expr::expressions::{binary, col};
use ruslo_core::clock::{Clock, VirtualClock};
use ruslo_core::element::EndReason;
use ruslo_core::environment::Environment;
use ruslo_core::epoch::Epoch;
use ruslo_core::error::{Error, ErrorKind, Result};
use ruslo_core::io::{IoFuture, IoRequest, IoResult};
use ruslo_core::lookup::{Found, LookupSource};
use ruslo_core::operator::{Operator, Output, Progress, Subtask};
use ruslo_core::rng::Rng;
use ruslo_core::schema::{split_watermarks, with_split_watermarks};
use ruslo_core::time::Timestamp;

use super::spec::{LookupCache, LookupJoinKind, LookupJoinSpec, LookupOptions};
use crate::testing::TestContext;

/// Rows by key: a name, and a number that the condition compares.
type Content = BTreeMap<i64, Vec<(&'static str, i64)>>;

/// A table in the process that can be down.
#[derive(Default)]
struct Table {
    content: Content,
    /// So many answers from now on are errors.
    failures: AtomicUsize,
    asked: Mutex<Vec<Vec<i64>>>,
    is_in_memory: bool,
}

fn right() -> SchemaRef {
    let number = |name| Field::new(name, DataType::Int64, true);
    Arc::new(Schema::new(vec![number("id"), Field::new("name", DataType::Utf8, true), number("least")]))
}

impl Table {
    fn find(&self, keys: &RecordBatch) -> Found {
        let keys = keys.column(0).as_primitive::<Int64Type>();
        let (mut requests, mut rows) = (Vec::new(), Vec::new());
        for (request, key) in keys.values().iter().enumerate() {
            for (name, least) in self.content.get(key).into_iter().flatten() {
                requests.push(request as u32);
                rows.push((*key, *name, *least));
            }
        }
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.1))),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2))),
        ];
        Found { requests: UInt32Array::from(requests), columns }
    }
}

impl LookupSource for Table {
    fn schema(&self) -> SchemaRef {
        right()
    }

    fn lookup(&self, keys: RecordBatch) -> IoFuture<Result<Found>> {
        self.asked.lock().unwrap().push(keys.column(0).as_primitive::<Int64Type>().values().to_vec());
        let fails = self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        let answer = if fails { Err(Error::unavailable("connection refused")) } else { Ok(self.find(&keys)) };
        Box::pin(async move { answer })
    }

    fn look(&self, keys: &RecordBatch) -> Option<Result<Found>> {
        self.is_in_memory.then(|| Ok(self.find(keys)))
    }

    fn is_in_memory(&self) -> bool {
        self.is_in_memory
    }
}

/// Rows of the stream: a key and a number of their own.
fn rows(rows: &[(Option<i64>, i64)]) -> RecordBatch {
    let keys: ArrayRef = Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>());
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1)));
    RecordBatch::try_from_iter_with_nullable([("k", keys, true), ("n", numbers, true)]).unwrap()
}

type Joined = (Option<i64>, i64, Option<String>);

fn joined(batches: &[RecordBatch]) -> Vec<Joined> {
    let of = |batch: &RecordBatch| {
        let (keys, numbers) =
            (batch.column(0).as_primitive::<Int64Type>(), batch.column(1).as_primitive::<Int64Type>());
        let names = batch.column(3).as_string::<i32>();
        let rows = keys.iter().zip(numbers.values()).zip(names.iter());
        rows.map(|((key, number), name)| (key, *number, name.map(str::to_owned))).collect::<Vec<_>>()
    };
    batches.iter().flat_map(of).collect()
}

fn row(key: i64, number: i64, name: &str) -> Joined {
    (Some(key), number, Some(name.to_owned()))
}

fn content() -> Content {
    [(1, vec![("ada", 0)]), (2, vec![("bob", 0), ("ben", 5)]), (3, vec![("cy", 100)])].into()
}

fn spec(table: &Arc<Table>, kind: LookupJoinKind, options: LookupOptions, with_condition: bool) -> LookupJoinSpec {
    let left = rows(&[]).schema();
    let both = Schema::new(left.fields().iter().chain(right().fields()).cloned().collect::<Vec<_>>());
    let condition = || binary(col("n", &both).unwrap(), Sign::GtEq, col("least", &both).unwrap(), &both).unwrap();
    let condition = with_condition.then(condition);
    LookupJoinSpec::new(("dim", Arc::clone(table) as _), (&left, vec![0]), kind, condition, options).unwrap()
}

/// One subtask, and what it has asked and not been told.
struct Run {
    operator: Box<dyn Operator>,
    test: TestContext,
    clock: Arc<VirtualClock>,
    open: Vec<(Duration, IoRequest)>,
    out: Output,
    progress: Progress,
}

impl Run {
    fn new(spec: &LookupJoinSpec) -> Self {
        Self::of(spec, TestContext::new(), Arc::default())
    }

    fn of(spec: &LookupJoinSpec, mut test: TestContext, clock: Arc<VirtualClock>) -> Self {
        test.environment = Environment { clock: Arc::clone(&clock) as _, ..Environment::local() };
        let operator = spec.clone().factory().create().unwrap();
        let (open, out) = Default::default();
        let mut run = Self { operator, test, clock, open, out, progress: Progress::Done };
        run.operator.open(&mut run.test.context()).unwrap();
        run.call(|operator, test, out| operator.resume(&mut test.context(), out)).unwrap();
        run
    }

    fn call(
        &mut self,
        work: impl FnOnce(&mut dyn Operator, &mut TestContext, &mut Output) -> Result<Progress>,
    ) -> Result<()> {
        self.progress = work(self.operator.as_mut(), &mut self.test, &mut self.out)?;
        let now = self.clock.now();
        self.open.extend(std::mem::take(&mut self.test.requests).into_iter().map(|asked| (now + asked.delay, asked)));
        Ok(())
    }

    fn drained(&mut self) -> Result<()> {
        while self.progress == Progress::More {
            self.call(|operator, test, out| operator.resume(&mut test.context(), out))?;
        }
        Ok(())
    }

    fn send(&mut self, batch: RecordBatch) -> Result<Vec<Joined>> {
        self.call(|operator, test, out| operator.on_batch(0, batch, &mut test.context(), out))?;
        self.drained()?;
        Ok(self.take())
    }

    fn take(&mut self) -> Vec<Joined> {
        let out: Vec<_> = self.out.take().into_iter().map(|(_, batch)| batch).collect();
        assert!(out.iter().all(|batch| batch.num_rows() <= self.test.batch_rows), "a batch is too large");
        joined(&out)
    }

    /// Answers the open request at `place`, once its delay is over.
    fn answer(&mut self, place: usize) -> Result<Vec<Joined>> {
        let (at, IoRequest { id, work, .. }) = self.open.remove(place);
        self.clock.advance(at.saturating_sub(self.clock.now()));
        let polled = work().as_mut().poll(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(answer) = polled else { panic!("the table answers at once") };
        self.give(IoResult { id, answer })
    }

    fn give(&mut self, done: IoResult) -> Result<Vec<Joined>> {
        self.call(|operator, test, out| operator.on_io(done, &mut test.context(), out))?;
        self.drained()?;
        Ok(self.take())
    }

    fn raise(&mut self, watermark: i64) {
        self.test.watermark = Timestamp(watermark);
        let at = Timestamp(watermark);
        self.call(|operator, test, out| operator.on_watermark(at, &mut test.context(), out)).unwrap();
    }

    fn given(&self) -> i64 {
        self.operator.output_watermark(self.test.watermark).millis()
    }

    /// A snapshot, a crash, and another process that goes on.
    fn restored(mut self, spec: &LookupJoinSpec) -> Self {
        self.operator.snapshot(Epoch(1), &mut self.test.context(), &mut self.out).unwrap();
        let subtask = Subtask { index: 0, parallelism: 1 };
        let mut test = TestContext::with_state(subtask, self.test.state.clone());
        (test.batch_rows, test.watermark) = (self.test.batch_rows, self.test.watermark);
        Self::of(spec, test, self.clock)
    }
}

fn table() -> Arc<Table> {
    Arc::new(Table { content: content(), ..Table::default() })
}

#[test]
fn an_inner_join_gives_rows_that_find_something_and_a_left_join_all() {
    let table = table();
    let batch = || rows(&[(Some(2), 10), (None, 11), (Some(9), 12), (Some(1), 13), (Some(2), 14)]);
    let mut run = Run::new(&spec(&table, LookupJoinKind::Inner, LookupOptions::default(), false));
    assert!(run.send(batch()).unwrap().is_empty() && run.operator.holds_rows());
    let pairs =
        [row(2, 10, "bob"), row(2, 10, "ben"), row(1, 13, "ada"), row(2, 14, "bob"), row(2, 14, "ben")].to_vec();
    assert_eq!(run.answer(0).unwrap(), pairs);
    assert_eq!(*table.asked.lock().unwrap(), [[2, 9, 1]], "each key once, and no NULL");
    assert!(!run.operator.holds_rows() && run.test.memory.bytes() == 0);
    let mut run = Run::new(&spec(&table, LookupJoinKind::Left, LookupOptions::default(), false));
    run.send(batch()).unwrap();
    let mut all = pairs;
    all.splice(2..2, [(None, 11, None), (Some(9), 12, None)]);
    assert_eq!(run.answer(0).unwrap(), all);
}

#[test]
fn who_meets_no_condition_has_found_nothing() {
    let batch = || rows(&[(Some(2), 1), (Some(3), 1), (Some(3), 200)]);
    let mut run = Run::new(&spec(&table(), LookupJoinKind::Left, LookupOptions::default(), true));
    run.send(batch()).unwrap();
    assert_eq!(run.answer(0).unwrap(), [row(2, 1, "bob"), (Some(3), 1, None), row(3, 200, "cy")]);
    let mut run = Run::new(&spec(&table(), LookupJoinKind::Inner, LookupOptions::default(), true));
    run.send(batch()).unwrap();
    assert_eq!(run.answer(0).unwrap(), [row(2, 1, "bob"), row(3, 200, "cy")]);
}

#[test]
fn ordered_batches_wait_for_each_other_and_unordered_ones_only_at_watermarks() {
    for is_ordered in [true, false] {
        let options = LookupOptions { is_ordered, ..LookupOptions::default() };
        let mut run = Run::new(&spec(&table(), LookupJoinKind::Inner, options, false));
        run.raise(5);
        run.send(rows(&[(Some(1), 1)])).unwrap();
        run.send(rows(&[(Some(1), 2)])).unwrap();
        run.raise(7);
        run.send(rows(&[(Some(1), 3)])).unwrap();
        assert_eq!(run.given(), 5);
        assert_eq!(run.answer(2).unwrap(), [], "a watermark stands before it");
        let second = run.answer(1).unwrap();
        assert_eq!((second.len(), run.given()), (usize::from(!is_ordered), 5));
        let numbers: Vec<i64> = run.answer(0).unwrap().iter().map(|row| row.1).collect();
        assert_eq!(numbers, if is_ordered { vec![1, 2, 3] } else { vec![1, 3] });
        assert_eq!(run.given(), 7);
    }
}

#[test]
fn no_more_is_asked_than_may_be() {
    let options = LookupOptions { requests_max: 2, ..LookupOptions::default() };
    let mut run = Run::new(&spec(&table(), LookupJoinKind::Inner, options, false));
    run.send(rows(&[(Some(1), 1)])).unwrap();
    assert_eq!(run.progress, Progress::Done);
    run.send(rows(&[(Some(1), 2)])).unwrap();
    assert_eq!(run.progress, Progress::Waiting);
    run.answer(1).unwrap();
    assert_eq!(run.progress, Progress::Done, "one more may be asked");
}

#[test]
fn a_table_that_is_down_is_asked_again_later_each_time_and_then_named() {
    let table = table();
    let spec = spec(&table, LookupJoinKind::Inner, LookupOptions::default(), false);
    table.failures.store(3, Ordering::SeqCst);
    let mut run = Run::new(&spec);
    run.send(rows(&[(Some(1), 1)])).unwrap();
    for expected in [0, 100, 300] {
        assert_eq!(run.open[0].0, Duration::from_millis(expected));
        assert!(run.answer(0).unwrap().is_empty());
    }
    assert_eq!(run.open[0].0, Duration::from_millis(700));
    assert_eq!(run.answer(0).unwrap(), [row(1, 1, "ada")]);
    table.failures.store(4, Ordering::SeqCst);
    run.send(rows(&[(Some(2), 1), (Some(3), 1)])).unwrap();
    let error = std::iter::repeat_with(|| run.answer(0)).find_map(Result::err).unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(
        error.to_string(),
        "the lookup table 'dim' did not answer: connection refused; it was asked 4 times in 0.7 s for 2 keys such as 2; see \
         to it, then resume; 'lookup.max-retries' and 'table.exec.async-lookup.timeout' say how long it is tried"
    );
}

#[test]
fn what_cannot_get_better_is_not_tried_again() {
    let mut run = Run::new(&spec(&table(), LookupJoinKind::Inner, LookupOptions::default(), false));
    run.send(rows(&[(Some(1), 1)])).unwrap();
    let id = run.open.remove(0).1.id;
    let error = run.give(IoResult { id, answer: Err(Error::usage("no such table")) }).unwrap_err();
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Usage, "the lookup table 'dim': no such table".into()));
}

#[test]
fn what_is_in_memory_needs_no_request() {
    let table = Arc::new(Table { content: content(), is_in_memory: true, ..Table::default() });
    let mut run = Run::new(&spec(&table, LookupJoinKind::Left, LookupOptions::default(), false));
    let found = run.send(rows(&[(Some(1), 1), (None, 2), (Some(9), 3), (Some(1), 4)])).unwrap();
    assert_eq!(found, [row(1, 1, "ada"), (None, 2, None), (Some(9), 3, None), row(1, 4, "ada")]);
    assert!(run.open.is_empty());
}

fn cached(cache: LookupCache) -> LookupOptions {
    LookupOptions { cache: Some(cache), ..LookupOptions::default() }
}

#[test]
fn a_cache_asks_for_what_it_does_not_know_only() {
    let table = table();
    let options = cached(LookupCache { rows_max: 10, keeps_missing: true, ..LookupCache::default() });
    let mut run = Run::new(&spec(&table, LookupJoinKind::Left, options, false));
    run.send(rows(&[(Some(1), 1), (Some(9), 2)])).unwrap();
    run.answer(0).unwrap();
    run.send(rows(&[(Some(9), 3), (Some(2), 4), (Some(1), 5)])).unwrap();
    let expected = [(Some(9), 3, None), row(2, 4, "bob"), row(2, 4, "ben"), row(1, 5, "ada")];
    assert_eq!(run.answer(0).unwrap(), expected);
    let at_once = run.send(rows(&[(Some(2), 6), (Some(9), 7)])).unwrap();
    assert_eq!(at_once, [row(2, 6, "bob"), row(2, 6, "ben"), (Some(9), 7, None)]);
    assert_eq!(run.send(rows(&[(Some(9), 8)])).unwrap(), [(Some(9), 8, None)]);
    assert_eq!(*table.asked.lock().unwrap(), [vec![1, 9], vec![2]]);
    assert!(run.test.memory.bytes() > 0);
}

#[test]
fn a_cache_keeps_so_many_rows_those_that_were_used_last_and_so_long() {
    let table = table();
    let limits = LookupCache {
        rows_max: 3,
        expire_after_write: Some(Duration::from_secs(60)),
        expire_after_access: Some(Duration::from_secs(10)),
        keeps_missing: false,
    };
    let mut run = Run::new(&spec(&table, LookupJoinKind::Left, cached(limits), false));
    let asked = |run: &mut Run, key: i64| {
        run.send(rows(&[(Some(key), 0)])).unwrap();
        let asked = !run.open.is_empty();
        if asked {
            run.answer(0).unwrap();
        }
        asked
    };
    // One row of 1 and two of 2 are three; then 1 was used last.
    assert!(asked(&mut run, 1) && asked(&mut run, 2) && !asked(&mut run, 1));
    assert!(asked(&mut run, 3), "not known so far");
    assert!(!asked(&mut run, 1) && asked(&mut run, 2), "2 has made room for 3");
    assert!(asked(&mut run, 9) && asked(&mut run, 9), "it is not kept in mind that there is none");
    for _ in 0..12 {
        run.clock.advance(Duration::from_secs(5));
        asked(&mut run, 2);
    }
    assert!(asked(&mut run, 1), "it was not asked for within ten seconds");
    assert_eq!(table.asked.lock().unwrap().iter().filter(|keys| **keys == [2]).count(), 3, "after a minute once more");
}

#[test]
fn rows_that_wait_are_asked_for_again_after_a_restore_with_their_split_watermarks() {
    let spec = spec(&table(), LookupJoinKind::Left, LookupOptions::default(), false);
    let mut run = Run::new(&spec);
    run.raise(5);
    let first = with_split_watermarks(&rows(&[(Some(1), 1), (Some(9), 2)]), Int64Array::from(vec![3, 4])).unwrap();
    run.send(first).unwrap();
    run.send(rows(&[(Some(2), 3)])).unwrap();
    let mut run = run.restored(&spec);
    assert_eq!((run.open.len(), run.given()), (2, i64::MIN));
    run.call(|operator, test, out| operator.on_end(0, EndReason::Drain, &mut test.context(), out)).unwrap();
    assert!(run.operator.holds_rows());
    let asked = run.open.remove(0).1;
    let mut answer = (asked.work)();
    let Poll::Ready(answer) = answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) else { panic!() };
    run.call(|operator, test, out| operator.on_io(IoResult { id: asked.id, answer }, &mut test.context(), out))
        .unwrap();
    run.drained().unwrap();
    let made: Vec<_> = run.out.take().into_iter().map(|(_, batch)| batch).collect();
    assert_eq!(split_watermarks(&made[0]).unwrap().values(), &[3, 4]);
    assert_eq!(joined(&made), [row(1, 1, "ada"), (Some(9), 2, None)]);
    assert_eq!(run.answer(0).unwrap(), [row(2, 3, "bob"), row(2, 3, "ben")]);
    assert_eq!((run.given(), run.operator.holds_rows()), (5, false));
    // Nothing of it is left in state.
    assert!(run.restored(&spec).open.is_empty());
}

/// Any batches, answers in any order, failures, restores between any two calls: each row with what is there for it, once.
#[test]
fn every_row_goes_out_once_with_what_it_finds_however_it_is_run() {
    for seed in 0..120 {
        let mut rng = Rng::seeded(seed);
        let names = ["a", "b", "c", "d", "e", "f", "g"];
        let mut content = Content::new();
        for key in 0..30 {
            let count = if key == 7 { 60 } else { rng.below(4) };
            content.insert(key, (0..count).map(|n| (names[n % names.len()], rng.below(40) as i64)).collect());
        }
        let table = Arc::new(Table { content, ..Table::default() });
        let kind = if rng.one_in(2) { LookupJoinKind::Inner } else { LookupJoinKind::Left };
        let with_condition = rng.one_in(2);
        let cache = rng.one_in(2).then(|| LookupCache {
            rows_max: 1 + rng.below(40),
            expire_after_write: rng.one_in(2).then(|| Duration::from_millis(300)),
            expire_after_access: None,
            keeps_missing: rng.one_in(2),
        });
        let is_ordered = rng.one_in(2);
        let options = LookupOptions {
            is_ordered,
            requests_max: 1 + rng.below(4),
            retries_max: 30,
            cache,
            ..LookupOptions::default()
        };
        let spec = spec(&table, kind, options, with_condition);
        let mut test = TestContext::new();
        test.batch_rows = [1, 7, 1024][seed as usize % 3];
        let mut run = Run::of(&spec, test, Arc::default());
        let (mut expected, mut found, mut number, mut watermark) = (Vec::new(), Vec::new(), 0, 0);
        let mut sent = 0;
        while sent < 30 || run.operator.holds_rows() {
            let is_open = run.progress == Progress::Done && sent < 30;
            if is_open && rng.one_in(2) {
                sent += 1;
                let mut batch = Vec::new();
                for _ in 0..1 + rng.below(6) {
                    let key = rng.below(33) as i64;
                    let key = (key < 32).then_some(key);
                    number += 1;
                    batch.push((key, number));
                    let under = key.and_then(|key| table.content.get(&key)).cloned().unwrap_or_default();
                    let met = under.into_iter().filter(|(_, least)| !with_condition || number >= *least);
                    let met: Vec<Joined> = met.map(|(name, _)| (key, number, Some(name.to_owned()))).collect();
                    if met.is_empty() && kind == LookupJoinKind::Left {
                        expected.push((key, number, None));
                    }
                    expected.extend(met);
                }
                let batch = rows(&batch);
                run.call(|operator, test, out| operator.on_batch(0, batch, &mut test.context(), out)).unwrap();
            } else if is_open && rng.one_in(4) {
                watermark += 1;
                run.raise(watermark);
            } else if run.progress == Progress::More {
                run.call(|operator, test, out| operator.resume(&mut test.context(), out)).unwrap();
            } else if !run.open.is_empty() {
                if rng.one_in(4) {
                    table.failures.store(1, Ordering::SeqCst);
                }
                let place = rng.below(run.open.len());
                let (at, IoRequest { id, work, .. }) = run.open.remove(place);
                run.clock.advance(at.saturating_sub(run.clock.now()));
                let Poll::Ready(answer) = work().as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
                    panic!()
                };
                let done = IoResult { id, answer };
                run.call(|operator, test, out| operator.on_io(done, &mut test.context(), out)).unwrap();
            }
            found.extend(run.take());
            if rng.one_in(12) {
                run = run.restored(&spec);
            }
        }
        found.extend(run.take());
        assert!(!is_ordered || found == expected, "seed {seed}");
        expected.sort();
        found.sort();
        assert!(found == expected, "seed {seed}: {} rows, not {}", found.len(), expected.len());
        assert_eq!(run.given(), if watermark == 0 { i64::MIN } else { watermark }, "seed {seed}");
    }
}
