//! Deduplication: of the rows of each key the first one, by event time or as they come.
//!
//! By event time, rows wait in their order ([`EventTimeSort`]) until the watermark has reached them; then the first of a
//! key goes out, and later ones are dropped. Of rows of one time the least by their other columns is the first, so the
//! answer does not depend on who came first. Rows that their split's watermark had reached are late: dropped and
//! counted. By arrival, a row goes out at once.
//!
//! ```text
//! batch ─▶ sorted ─ watermark ─▶ first of its key? ─▶ out
//!                                       └ table "dedup_seen"
//! ```
//!
//! The keys that are out stand in the keyed table "dedup_seen", for ever or for a lifetime after the row that went out:
//! counted in event time, or by the clock where rows are taken as they come. The state is described in
//! `docs/design/deduplicate-state.md`.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use ruslo_core::epoch::Epoch;
use ruslo_core::equation::Equation;
use ruslo_core::error::{Error, Result};
use ruslo_core::keyed::{TableSchema, Ttl};
use ruslo_core::operator::{InputId, Operator, OperatorContext, Output, Port, Progress, SharedFactory};
use ruslo_core::schema::visible;
use ruslo_core::time::Timestamp;

use crate::StateTable;
use crate::event_time::millis;
use crate::sort::{EventTimeSort, EventTimeSortSpec, SortKey};

/// The keys whose first row is out. Stored in checkpoints.
const SEEN: &str = "dedup_seen";

/// Which row of a key is its first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstBy {
    /// The one with the least event time, which is this column.
    EventTime(usize),
    /// The one that comes first.
    Arrival,
}

/// What is deduplicated by what; cheap to clone.
#[derive(Debug, Clone)]
pub struct DeduplicateSpec {
    schema: SchemaRef,
    keys: Arc<[usize]>,
    time: Option<usize>,
    sort: Option<EventTimeSortSpec>,
    seen: Arc<TableSchema>,
}

impl DeduplicateSpec {
    /// Of rows of `schema` the first of each value of the columns `keys`. A key is forgotten `lifetime` after its row went
    /// out, if there is one.
    ///
    /// # Errors
    /// `Internal`, if a column does not exist or there are no keys: the planner has checked that already.
    pub fn new(schema: &Schema, keys: Vec<usize>, first: FirstBy, lifetime: Option<Duration>) -> Result<Self> {
        let columns = schema.fields().len();
        if keys.is_empty() || keys.iter().any(|key| *key >= columns) {
            return Err(Error::internal("a deduplication has no keys, or keys that do not exist"));
        }
        let types = keys.iter().filter_map(|key| schema.fields().get(*key)).map(|field| field.data_type());
        let fields = types.enumerate().map(|(n, data_type)| Field::new(format!("key{n}"), data_type.clone(), true));
        let seen = TableSchema::value(fields.map(Arc::new).collect(), Vec::new());
        let (time, sort) = match first {
            FirstBy::Arrival => (None, None),
            FirstBy::EventTime(time) => (Some(time), Some(by_time(schema, time, &keys)?)),
        };
        let seen = Arc::new(seen.with_ttl(lifetime.map(Ttl::of)));
        Ok(Self { schema: Arc::new(schema.clone()), keys: keys.into(), time, sort, seen })
    }

    /// The columns that come out: those that come in.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The state tables whose columns follow from this spec.
    pub fn state_tables(&self) -> Vec<StateTable> {
        let waiting = self.sort.as_ref().map(EventTimeSortSpec::state_table);
        std::iter::once((SEEN, self.seen.rows())).chain(waiting).collect()
    }

    /// Makes the operator of each subtask.
    pub fn factory(self) -> SharedFactory {
        Arc::new(move || {
            let waiting = self.sort.clone().map(EventTimeSort::new);
            Ok(Deduplicate { spec: self.clone(), waiting })
        })
    }
}

/// Rows in order of time; of one time in order of whatever else has one.
fn by_time(schema: &Schema, time: usize, keys: &[usize]) -> Result<EventTimeSortSpec> {
    let others = schema.fields().iter().enumerate().filter(|(n, field)| *n != time && !field.data_type().is_nested());
    let columns = std::iter::once(time).chain(others.map(|(n, _)| n));
    let keys_of_order = columns.map(|column| SortKey { column, descending: false, nulls_first: true }).collect();
    Ok(EventTimeSortSpec::new(schema, keys_of_order)?.of_keys(keys.to_vec()))
}

struct Deduplicate {
    spec: DeduplicateSpec,
    /// Rows that the watermark has not reached; by event time only.
    waiting: Option<EventTimeSort>,
}

impl Deduplicate {
    fn keys(&self, rows: &RecordBatch) -> Vec<ArrayRef> {
        self.spec.keys.iter().filter_map(|key| rows.columns().get(*key)).cloned().collect()
    }

    /// Those of `rows` whose key is not out yet.
    fn unseen(&self, rows: &RecordBatch, ctx: &mut OperatorContext<'_>) -> Result<RecordBatch> {
        let table = ctx.state.keyed(SEEN, &self.spec.seen)?;
        match table.load(&self.keys(rows))?.present() {
            None => Ok(rows.slice(0, 0)),
            Some(seen) => Ok(filter_record_batch(rows, &BooleanArray::new(!seen.inner(), None))?),
        }
    }

    /// Gives out the first row of each key that is not out yet, and notes the key.
    fn emit_first(
        &self,
        rows: &RecordBatch,
        now: Timestamp,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<()> {
        ctx.state.keyed(SEEN, &self.spec.seen)?.set_time(now);
        // A key that is out is read, not written again: its lifetime begins with the row that went out.
        let unseen = self.unseen(rows, ctx)?;
        ctx.metrics.duplicate_rows.add(rows.num_rows() - unseen.num_rows());
        if unseen.num_rows() == 0 {
            return Ok(());
        }
        let (_, added) = ctx.state.keyed(SEEN, &self.spec.seen)?.load_or_insert(&self.keys(&unseen))?;
        let added = BooleanArray::from(added);
        ctx.metrics.duplicate_rows.add(added.false_count());
        out.emit(filter_record_batch(&unseen, &added)?);
        Ok(())
    }

    /// Passes on what the sort has let go.
    fn pass(&self, sorted: &mut Output, ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<()> {
        for (port, rows) in sorted.take() {
            match self.spec.time {
                Some(time) if port == Port::MAIN => {
                    let times = millis(rows.column(time))?;
                    let now = times.first().copied().unwrap_or_default();
                    self.emit_first(&rows, Timestamp(now), ctx, out)?;
                }
                _ => out.emit_to(port, rows),
            }
        }
        Ok(())
    }

    /// Has the sort do something, and passes on what comes of it.
    fn sorting(
        &mut self,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
        work: impl FnOnce(&mut EventTimeSort, &mut OperatorContext<'_>, &mut Output) -> Result<Progress>,
    ) -> Result<Progress> {
        let Some(waiting) = &mut self.waiting else { return Ok(Progress::Done) };
        let mut sorted = Output::default();
        let progress = work(waiting, ctx, &mut sorted)?;
        self.pass(&mut sorted, ctx, out)?;
        Ok(progress)
    }
}

impl Operator for Deduplicate {
    fn equation(&self) -> Equation {
        Equation::Deduplicates
    }

    fn open(&mut self, ctx: &mut OperatorContext<'_>) -> Result<()> {
        ctx.state.keyed(SEEN, &self.spec.seen)?;
        self.waiting.as_mut().map_or(Ok(()), |waiting| waiting.open(ctx))
    }

    fn on_batch(
        &mut self,
        input: InputId,
        batch: RecordBatch,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        if self.waiting.is_none() {
            let now = ctx.environment.clock.wall();
            self.emit_first(&visible(&batch), now, ctx, out)?;
            return Ok(Progress::Done);
        }
        self.sorting(ctx, out, |waiting, ctx, sorted| waiting.on_batch(input, batch, ctx, sorted))
    }

    fn on_watermark(
        &mut self,
        watermark: Timestamp,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        self.sorting(ctx, out, |waiting, ctx, sorted| waiting.on_watermark(watermark, ctx, sorted))
    }

    fn resume(&mut self, ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<Progress> {
        self.sorting(ctx, out, |waiting, ctx, sorted| waiting.resume(ctx, sorted))
    }

    fn snapshot(&mut self, epoch: Epoch, ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<()> {
        self.waiting.as_mut().map_or(Ok(()), |waiting| waiting.snapshot(epoch, ctx, out))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use arrow::array::{AsArray, Int64Array, StringArray, TimestampMillisecondArray};
    use arrow::datatypes::{Int64Type, TimestampMillisecondType};
    use ruslo_core::rng::Rng;
    use ruslo_core::schema::with_split_watermarks;

    use super::*;
    use crate::testing::{Manners, Subtasks, TestContext, run_batch, run_watermark};

    type Row = (Option<String>, i64, i64);

    fn batch(rows: &[Row]) -> RecordBatch {
        let keys: ArrayRef = Arc::new(rows.iter().map(|row| row.0.clone()).collect::<StringArray>());
        let times: ArrayRef = Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.1)));
        let values: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2)));
        RecordBatch::try_from_iter_with_nullable([("k", keys, true), ("ts", times, true), ("v", values, true)]).unwrap()
    }

    fn rows(batches: &[RecordBatch]) -> Vec<Row> {
        let of = |batch: &RecordBatch| {
            let keys = batch.column(0).as_string::<i32>().iter().map(|key| key.map(str::to_owned));
            let times = batch.column(1).as_primitive::<TimestampMillisecondType>().values().to_vec();
            let values = batch.column(2).as_primitive::<Int64Type>().values().to_vec();
            keys.zip(times).zip(values).map(|((key, time), value)| (key, time, value)).collect::<Vec<_>>()
        };
        batches.iter().flat_map(of).collect()
    }

    fn row(key: &str, time: i64, value: i64) -> Row {
        (Some(key.to_owned()), time, value)
    }

    fn spec(first: FirstBy, lifetime: Option<Duration>) -> DeduplicateSpec {
        DeduplicateSpec::new(&batch(&[]).schema(), vec![0], first, lifetime).unwrap()
    }

    #[test]
    fn the_earliest_row_goes_out_once_the_watermark_has_reached_it() {
        let mut test = TestContext::new();
        let mut operator = spec(FirstBy::EventTime(1), None).factory().create().unwrap();
        operator.open(&mut test.context()).unwrap();
        let first = batch(&[row("a", 30, 1), row("a", 20, 2), (None, 25, 3), row("b", 90, 4)]);
        assert!(run_batch(operator.as_mut(), first, &mut test).unwrap().is_empty());
        assert!(run_batch(operator.as_mut(), batch(&[row("a", 10, 5), (None, 25, 2)]), &mut test).unwrap().is_empty());
        let out = run_watermark(operator.as_mut(), Timestamp(40), &mut test).unwrap();
        assert_eq!(rows(&out), [row("a", 10, 5), (None, 25, 2)]);
        // A second row of a key that is out, and late rows: one counts as late, whatever its key.
        let marks = Int64Array::from(vec![40, 40, 40]);
        let late = with_split_watermarks(&batch(&[row("a", 50, 6), row("b", 40, 7), row("b", 80, 8)]), marks).unwrap();
        assert!(run_batch(operator.as_mut(), late, &mut test).unwrap().is_empty());
        let out = run_watermark(operator.as_mut(), Timestamp::MAX, &mut test).unwrap();
        assert_eq!(rows(&out), [row("b", 80, 8)]);
        assert_eq!((test.metrics.late_rows.get(), test.metrics.duplicate_rows.get()), (1, 5));
    }

    #[test]
    fn rows_that_wait_at_a_barrier_are_counted_wherever_they_are() {
        let mut test = TestContext::new();
        test.batch_rows = 1;
        let mut operator = spec(FirstBy::EventTime(1), None).factory().create().unwrap();
        operator.open(&mut test.context()).unwrap();
        let first = batch(&[row("a", 30, 1), row("a", 20, 2), row("c", 25, 3), row("b", 90_000, 4), row("b", 95, 1)]);
        assert!(run_batch(operator.as_mut(), first, &mut test).unwrap().is_empty());
        let mut out = Output::default();
        let waiting = |operator: &mut dyn Operator, test: &mut TestContext| {
            operator.snapshot(Epoch(1), &mut test.context(), &mut Output::default()).unwrap();
            (test.metrics.waiting_rows.get(), test.metrics.duplicate_rows.get())
        };
        assert_eq!(waiting(operator.as_mut(), &mut test), (5, 0));
        // Three are on their way out; one call lets one of them go.
        assert_eq!(operator.on_watermark(Timestamp(40), &mut test.context(), &mut out).unwrap(), Progress::More);
        assert_eq!(waiting(operator.as_mut(), &mut test), (5, 0));
        for left in [(4, 0), (3, 0), (2, 1)] {
            let _ = operator.resume(&mut test.context(), &mut out).unwrap();
            assert_eq!(waiting(operator.as_mut(), &mut test), left);
        }
    }

    #[test]
    fn by_arrival_the_first_row_goes_out_at_once() {
        let mut test = TestContext::new();
        let mut operator = spec(FirstBy::Arrival, None).factory().create().unwrap();
        operator.open(&mut test.context()).unwrap();
        let out = run_batch(operator.as_mut(), batch(&[row("a", 3, 1), row("a", 1, 2), row("b", 2, 3)]), &mut test);
        assert_eq!(rows(&out.unwrap()), [row("a", 3, 1), row("b", 2, 3)]);
        let out = run_batch(operator.as_mut(), batch(&[(None, 0, 4), row("b", 0, 5), (None, 9, 6)]), &mut test);
        assert_eq!(rows(&out.unwrap()), [(None, 0, 4)]);
    }

    #[test]
    fn a_key_is_forgotten_a_lifetime_after_the_row_that_went_out() {
        let mut test = TestContext::new();
        let lifetime = Some(Duration::from_secs(8));
        let mut operator = spec(FirstBy::EventTime(1), lifetime).factory().create().unwrap();
        operator.open(&mut test.context()).unwrap();
        let mut seen = Vec::new();
        for second in 0..20 {
            let time = 1_000 * second;
            run_batch(operator.as_mut(), batch(&[row("a", time, second)]), &mut test).unwrap();
            seen.extend(rows(&run_watermark(operator.as_mut(), Timestamp(time), &mut test).unwrap()));
        }
        // Each second there is a row, but none of them renews the lifetime.
        assert_eq!(seen.iter().map(|row| row.2).collect::<Vec<_>>(), [0, 9, 18]);
    }

    /// The least row of each key by (time, value), computed apart, at any parallelism and through crashes.
    #[test]
    fn it_is_the_least_row_of_each_key_however_it_is_run() {
        for seed in 0..40 {
            let mut rng = Rng::seeded(seed);
            let manners = Manners {
                batch_rows: [1, 7, 1024][seed as usize % 3],
                parallelism_max: 4,
                short_of_memory: true,
                always_resumed: true,
            };
            let factory = spec(FirstBy::EventTime(1), None).factory();
            let mut subtasks = Subtasks::new(factory, manners, Rng::seeded(seed + 1000)).unwrap();
            let mut expected: HashMap<Option<String>, (i64, i64)> = HashMap::new();
            let mut watermark = 0;
            for _ in 0..30 {
                let made: Vec<Row> = (0..1 + rng.below(20))
                    .map(|_| {
                        let key = rng.below(40);
                        let time = watermark + 1 + rng.below(150_000) as i64;
                        ((key > 0).then(|| format!("key {key}")), time, rng.below(5) as i64)
                    })
                    .collect();
                for (key, time, value) in &made {
                    let least = expected.entry(key.clone()).or_insert((*time, *value));
                    *least = (*least).min((*time, *value));
                }
                let rows = batch(&made);
                let keys = [Arc::clone(rows.column(0))];
                subtasks.send(&rows, &keys).unwrap();
                if rng.one_in(2) {
                    watermark += rng.below(40_000) as i64;
                    subtasks.raise(Timestamp(watermark)).unwrap();
                }
            }
            subtasks.raise(Timestamp::MAX).unwrap();
            let (found, late_rows) = subtasks.finish().unwrap();
            let mut found = rows(&found);
            assert_eq!(late_rows, 0);
            let mut expected: Vec<Row> = expected.into_iter().map(|(key, (time, value))| (key, time, value)).collect();
            expected.sort();
            found.sort();
            assert_eq!(found, expected, "seed {seed}");
        }
    }
}
