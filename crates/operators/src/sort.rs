//! Event-time sort: the whole stream in the order of its event time, for `ORDER BY ts`.
//!
//! Rows are held until the watermark has reached their time: from then on no earlier one can come. A row whose time its
//! split's watermark had reached before it is late: it is dropped and counted. One subtask sorts all rows.
//!
//! ```text
//! batch ─ sorted ─▶ runs ──────────────▶ up to the watermark, bucket by bucket ─▶ firing ─▶ out, in pieces
//!                    └ at a barrier ─▶ table "sort" ─ as the watermark comes near ─┘
//! ```
//!
//! Between two barriers rows wait in memory, in sorted runs. At a barrier they go into the table, under the bucket (a
//! minute) of their time, and memory is forgotten; a bucket is read again when the watermark comes to it. Then the table
//! holds what is not out, and nothing else: a bucket of which a part is out is written anew, so that a checkpoint uploads
//! each row once, but for the minute that the watermark is in. What was on its way out at the barrier is kept in the
//! table "sort_firing".

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::Array;
use arrow::buffer::ScalarBuffer;
use arrow::compute::{
    SortColumn, SortOptions, concat_batches, filter_record_batch, lexsort_to_indices, take_record_batch,
};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use ruslo_core::epoch::Epoch;
use ruslo_core::equation::Equation;
use ruslo_core::error::{Error, ErrorKind, Result};
use ruslo_core::key_group::{KeyGroup, key_groups};
use ruslo_core::memory::batch_bytes;
use ruslo_core::operator::{InputId, Operator, OperatorContext, Output, Progress, SharedFactory};
use ruslo_core::schema::{split_watermarks, visible};
use ruslo_core::state::OperatorState;
use ruslo_core::time::Timestamp;

use crate::StateTable;
use crate::event_time::millis;
use crate::pressure::{Holding, account};

/// Stored in checkpoints.
const TABLES: SortTables = SortTables { waiting: "sort", firing: "sort_firing" };
/// The length of a bucket. Stored in checkpoints.
const BUCKET_MS: i64 = 60_000;
/// From so many runs in memory on they become one.
const RUNS_MAX: usize = 64;

/// A column to sort by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SortKey {
    /// By place.
    pub column: usize,
    /// DESC.
    pub descending: bool,
    /// NULLS FIRST.
    pub nulls_first: bool,
}

/// What is sorted by what; cheap to clone.
#[derive(Debug, Clone)]
pub struct EventTimeSortSpec {
    schema: SchemaRef,
    keys: Arc<[SortKey]>,
    time_column: usize,
    /// The columns whose key group a row is kept under; none, if one subtask has all rows.
    partition: Arc<[usize]>,
    /// The bucket table of whoever takes the rows, where these must not be cut between rows of one time.
    beside: Option<&'static str>,
    tables: SortTables,
}

/// The tables of a sort. Stored in checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SortTables {
    /// Rows that wait, by the minute of their time.
    pub(crate) waiting: &'static str,
    /// Rows that were on their way out, in bucket 0.
    pub(crate) firing: &'static str,
}

impl EventTimeSortSpec {
    /// Sorts rows of `schema` by `keys`, of which the first is the event time, ascending.
    ///
    /// # Errors
    /// `Internal`, if it is not, or a column does not exist: the planner has checked that already.
    pub fn new(schema: &Schema, keys: Vec<SortKey>) -> Result<Self> {
        if keys.iter().any(|key| key.column >= schema.fields().len()) {
            return Err(Error::internal("a column to sort by does not exist"));
        }
        match keys.first() {
            Some(SortKey { column, descending: false, .. }) => Ok(Self {
                schema: Arc::new(schema.clone()),
                time_column: *column,
                keys: keys.into(),
                partition: Arc::default(),
                beside: None,
                tables: TABLES,
            }),
            _ => Err(Error::internal("a stream is sorted by its event time first, ascending")),
        }
    }

    /// The same for rows that are spread over the subtasks by the columns `partition`.
    #[must_use]
    pub(crate) fn of_keys(self, partition: Vec<usize>) -> Self {
        Self { partition: partition.into(), ..self }
    }

    /// The same for somebody who takes all rows of one time together, and has the bucket table `beside`, whose memory
    /// counts with this one's.
    #[must_use]
    pub(crate) fn with_whole_times(self, beside: &'static str) -> Self {
        Self { beside: Some(beside), ..self }
    }

    /// The same under other names, for an operator with several sorts.
    #[must_use]
    pub(crate) fn in_tables(self, tables: SortTables) -> Self {
        Self { tables, ..self }
    }

    /// The columns that come out: those that come in.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// The state table whose columns follow from this spec.
    pub fn state_table(&self) -> StateTable {
        (self.tables.waiting, self.schema.clone())
    }

    /// Makes the operator of each subtask.
    pub fn factory(self) -> SharedFactory {
        Arc::new(move || Ok(EventTimeSort::new(self.clone())))
    }

    fn times(&self, rows: &RecordBatch) -> Result<ScalarBuffer<i64>> {
        let column = rows.column(self.time_column);
        if column.null_count() > 0 {
            let name = self.schema.field(self.time_column).name();
            return Err(Error::data(format!(
                "the time column '{name}' is NULL; filter such rows with WHERE {name} IS NOT NULL before ORDER BY"
            )));
        }
        millis(column)
    }

    fn sorted(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let columns: Vec<SortColumn> = self
            .keys
            .iter()
            .map(|key| SortColumn {
                values: Arc::clone(rows.column(key.column)),
                options: Some(SortOptions { descending: key.descending, nulls_first: key.nulls_first }),
            })
            .collect();
        Ok(take_record_batch(rows, &lexsort_to_indices(&columns, None)?)?)
    }

    /// The key group that each row is kept under; `first` without a partition.
    fn groups(&self, rows: &RecordBatch, first: KeyGroup) -> Result<Vec<KeyGroup>> {
        if self.partition.is_empty() {
            return Ok(vec![first; rows.num_rows()]);
        }
        let columns: Vec<_> = self.partition.iter().filter_map(|column| rows.columns().get(*column)).cloned().collect();
        key_groups(&columns, rows.num_rows())
    }

    fn run(&self, rows: &RecordBatch) -> Result<Run> {
        let rows = self.sorted(rows)?;
        let times = self.times(&rows)?;
        let bytes = batch_bytes(&rows) + 8 * times.len();
        Ok(Run { rows, times, bytes })
    }
}

/// Rows in order, from the first that is not out.
struct Run {
    rows: RecordBatch,
    times: ScalarBuffer<i64>,
    bytes: usize,
}

impl Run {
    /// Takes the rows before `end` off the front.
    fn take_before(&mut self, end: i64) -> Option<RecordBatch> {
        let count = self.times.partition_point(|time| *time < end);
        let left = self.times.len() - count;
        let taken = self.rows.slice(0, count);
        self.rows = self.rows.slice(count, left);
        self.times = self.times.slice(count, left);
        (count > 0).then_some(taken)
    }
}

pub(crate) struct EventTimeSort {
    spec: EventTimeSortSpec,
    runs: Vec<Run>,
    /// Buckets of the table that have been read into `runs`: a part of each may be out.
    read: BTreeSet<i64>,
    /// Buckets of the table that have not, each with a time that no row of it is before.
    unread: BTreeMap<i64, i64>,
    /// Where the watermark is.
    target: i64,
    /// What is on its way out, in order.
    pub(crate) firing: Option<RecordBatch>,
    runs_bytes: usize,
}

impl EventTimeSort {
    pub(crate) fn new(spec: EventTimeSortSpec) -> Self {
        let (runs, read, unread) = (Vec::new(), BTreeSet::new(), BTreeMap::new());
        Self { spec, runs, read, unread, target: i64::MIN, firing: None, runs_bytes: 0 }
    }

    /// Takes up what a checkpoint has.
    pub(crate) fn restore(&mut self, ctx: &mut OperatorContext<'_>) -> Result<()> {
        let SortTables { waiting, firing } = self.spec.tables;
        self.unread = ctx.state.buckets(waiting).buckets().into_iter().map(|bucket| (bucket, bucket)).collect();
        self.raise(ctx.watermark);
        let firing = concat_batches(&self.spec.schema, &ctx.state.buckets(firing).scan(0)?)?;
        self.firing = (firing.num_rows() > 0).then_some(self.spec.sorted(&firing)?);
        Ok(())
    }

    /// Notes where the watermark is.
    pub(crate) fn raise(&mut self, watermark: Timestamp) {
        self.target = self.target.max(watermark.millis());
    }

    /// Keeps the rows that are not late.
    pub(crate) fn hold(&mut self, batch: &RecordBatch, ctx: &OperatorContext<'_>) -> Result<()> {
        let rows = visible(batch);
        let times = self.spec.times(&rows)?;
        let rows = match split_watermarks(batch) {
            None => rows,
            Some(marks) => {
                let keep = times.iter().zip(marks.values()).map(|(time, mark)| Some(time > mark)).collect();
                let kept = filter_record_batch(&rows, &keep)?;
                ctx.metrics.late_rows.add(rows.num_rows() - kept.num_rows());
                kept
            }
        };
        ctx.metrics.kept_rows.add(rows.num_rows());
        if rows.num_rows() > 0 {
            self.add(self.spec.run(&rows)?);
        }
        if self.runs.len() >= RUNS_MAX { self.merge_runs() } else { Ok(()) }
    }

    fn add(&mut self, run: Run) {
        self.runs_bytes += run.bytes;
        self.runs.push(run);
    }

    /// Makes one run of many.
    fn merge_runs(&mut self) -> Result<()> {
        let rows = concat_batches(&self.spec.schema, self.runs.iter().map(|run| &run.rows))?;
        let run = self.spec.run(&rows)?;
        self.runs_bytes = run.bytes;
        self.runs = vec![run];
        Ok(())
    }

    /// Emits a piece of what is on its way out; then fires the next bucket that the watermark has come to.
    fn advance(&mut self, ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<Progress> {
        if let Some(firing) = self.firing.take() {
            let now = self.cut(&firing, firing.num_rows().min(ctx.batch_rows.max(1)))?;
            out.emit(firing.slice(0, now));
            if now < firing.num_rows() {
                self.firing = Some(firing.slice(now, firing.num_rows() - now));
            }
            return self.accounted(ctx, Progress::More);
        }
        match self.next_bucket() {
            Some(bucket) => {
                self.fire(bucket, ctx.state)?;
                self.accounted(ctx, Progress::More)
            }
            None => self.accounted(ctx, Progress::Done),
        }
    }

    /// How many of the rows in order go out now: `now`, and those of the last one's time.
    fn cut(&self, firing: &RecordBatch, now: usize) -> Result<usize> {
        let (total, mut ahead) = (firing.num_rows(), now);
        if self.spec.beside.is_none() || now == 0 {
            return Ok(now);
        }
        loop {
            let end = (now + ahead).min(total);
            let times = self.spec.times(&firing.slice(now - 1, end - now + 1))?;
            let last = times.first().copied().unwrap_or(i64::MAX);
            let same = times.partition_point(|time| *time <= last);
            if same < times.len() || end == total {
                return Ok(now - 1 + same);
            }
            ahead = ahead.saturating_mul(2);
        }
    }

    /// The time that the watermark has come to.
    pub(crate) fn reached(&self) -> i64 {
        self.target
    }

    /// Whether all rows up to there are out.
    pub(crate) fn is_drained(&self) -> bool {
        self.firing.is_none() && self.next_bucket().is_none()
    }

    /// Says again how much memory is held.
    pub(crate) fn recount(&mut self, ctx: &mut OperatorContext<'_>) -> Result<()> {
        self.accounted(ctx, Progress::Done).map(drop)
    }

    fn accounted(&mut self, ctx: &mut OperatorContext<'_>, progress: Progress) -> Result<Progress> {
        account(self, ctx).map_err(too_much)?;
        Ok(progress)
    }

    /// The first bucket that has a row that the watermark has come to, as far as that can be told without reading it.
    pub(crate) fn next_bucket(&self) -> Option<i64> {
        // Later buckets have later rows.
        let unread =
            self.unread.first_key_value().filter(|(_, first)| **first <= self.target).map(|(bucket, _)| *bucket);
        let head = self.runs.iter().filter_map(|run| run.times.first().copied()).min();
        let head = head.filter(|head| *head <= self.target);
        unread.into_iter().chain(head.map(bucket_of)).min()
    }

    /// Takes what the watermark has come to of one bucket, and nothing is before; nothing may be on its way out.
    pub(crate) fn fire(&mut self, bucket: i64, state: &mut dyn OperatorState) -> Result<()> {
        if self.unread.remove(&bucket).is_some() {
            let rows = concat_batches(&self.spec.schema, &state.buckets(self.spec.tables.waiting).scan(bucket)?)?;
            self.add(self.spec.run(&rows)?);
            self.read.insert(bucket);
        }
        let bucket_end = bucket.saturating_add(BUCKET_MS);
        let end = bucket_end.min(self.target.saturating_add(1));
        let taken: Vec<_> = self.runs.iter_mut().filter_map(|run| run.take_before(end)).collect();
        self.runs.retain(|run| !run.times.is_empty());
        self.runs_bytes = self.runs.iter().map(|run| run.bytes).sum();
        if !taken.is_empty() {
            let rows = concat_batches(&self.spec.schema, &taken)?;
            self.firing = Some(if taken.len() == 1 { rows } else { self.spec.sorted(&rows)? });
        }
        if end == bucket_end && self.read.remove(&bucket) {
            state.buckets(self.spec.tables.waiting).expire(bucket);
        }
        Ok(())
    }

    /// Writes what is not out, as far as the table does not have it untouched.
    pub(crate) fn seal(&mut self, state: &mut dyn OperatorState, group: KeyGroup) -> Result<()> {
        let firing = state.buckets(self.spec.tables.firing);
        firing.expire(0);
        if let Some(rows) = &self.firing {
            firing.append(0, &self.spec.groups(rows, group)?, rows)?;
        }
        self.put_runs_away(state, group)
    }

    /// How many rows its tables have: after [`Self::seal`] all that are not out.
    pub(crate) fn stored_rows(&self, state: &mut dyn OperatorState) -> usize {
        let SortTables { waiting, firing } = self.spec.tables;
        state.buckets(waiting).rows() + state.buckets(firing).rows()
    }

    /// Moves the rows that wait in memory into the table, which then has all that is not out but for what is on its way.
    pub(crate) fn put_runs_away(&mut self, state: &mut dyn OperatorState, group: KeyGroup) -> Result<()> {
        for bucket in std::mem::take(&mut self.read) {
            state.buckets(self.spec.tables.waiting).expire(bucket);
        }
        self.runs_bytes = 0;
        for mut run in std::mem::take(&mut self.runs) {
            while let Some(first) = run.times.first().copied() {
                let bucket = bucket_of(first);
                let Some(rows) = run.take_before(bucket.saturating_add(BUCKET_MS)) else {
                    return Err(Error::internal("a row is in no bucket"));
                };
                state.buckets(self.spec.tables.waiting).append(bucket, &self.spec.groups(&rows, group)?, &rows)?;
                let first_before = self.unread.entry(bucket).or_insert(first);
                *first_before = first.min(*first_before);
            }
        }
        Ok(())
    }
}

impl Holding for EventTimeSort {
    fn held_bytes(&self, ctx: &mut OperatorContext<'_>) -> usize {
        let firing = self.firing.as_ref().map_or(0, batch_bytes);
        let beside = self.spec.beside.map_or(0, |table| ctx.state.buckets(table).bytes());
        self.runs_bytes
            + firing
            + ctx.state.buckets(self.spec.tables.waiting).bytes()
            + ctx.state.buckets(self.spec.tables.firing).bytes()
            + beside
    }

    fn put_away(&mut self, ctx: &mut OperatorContext<'_>) -> Result<()> {
        let group = ctx.subtask.key_groups().start;
        self.put_runs_away(ctx.state, group)
    }

    fn look_again(&mut self, _: &mut OperatorContext<'_>) {}
}

/// Says what can be done about rows that are too many to wait in memory.
fn too_much(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Resource => Error::resource(format!(
            "{error}. ORDER BY holds the rows that are ahead of the watermark: a WATERMARK FOR with a smaller delay holds \
             fewer, and over tables that end, 'execution.runtime-mode' = 'batch' sorts on disk"
        )),
        _ => error,
    }
}

fn bucket_of(time: i64) -> i64 {
    time.saturating_sub(time.rem_euclid(BUCKET_MS))
}

impl Operator for EventTimeSort {
    fn equation(&self) -> Equation {
        Equation::Waits
    }

    fn open(&mut self, ctx: &mut OperatorContext<'_>) -> Result<()> {
        self.restore(ctx)?;
        self.accounted(ctx, Progress::Done).map(drop)
    }

    fn on_batch(
        &mut self,
        _input: InputId,
        batch: RecordBatch,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        self.hold(&batch, ctx)?;
        if self.firing.is_some() { self.advance(ctx, out) } else { self.accounted(ctx, Progress::Done) }
    }

    fn on_watermark(
        &mut self,
        watermark: Timestamp,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        self.raise(watermark);
        self.advance(ctx, out)
    }

    fn resume(&mut self, ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<Progress> {
        self.advance(ctx, out)
    }

    fn snapshot(&mut self, _epoch: Epoch, ctx: &mut OperatorContext<'_>, _out: &mut Output) -> Result<()> {
        let group = ctx.subtask.key_groups().start;
        self.seal(ctx.state, group)?;
        ctx.metrics.waiting_rows.set(self.stored_rows(ctx.state));
        self.accounted(ctx, Progress::Done).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int64Array, TimestampMillisecondArray};
    use arrow::datatypes::{Int64Type, TimestampMillisecondType};
    use ruslo_core::memory::MemoryPool;
    use ruslo_core::rng::Rng;
    use ruslo_core::schema::with_split_watermarks;

    use super::*;
    use crate::testing::{TestContext, drain, run_batch, run_watermark};

    fn batch(rows: &[(Option<i64>, i64)]) -> RecordBatch {
        let times: ArrayRef = Arc::new(TimestampMillisecondArray::from_iter(rows.iter().map(|row| row.0)));
        let values: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1)));
        RecordBatch::try_from_iter_with_nullable([("ts", times, true), ("v", values, true)]).unwrap()
    }

    fn timed(rows: &[(i64, i64)]) -> RecordBatch {
        batch(&rows.iter().map(|(time, value)| (Some(*time), *value)).collect::<Vec<_>>())
    }

    fn rows(batches: &[RecordBatch]) -> Vec<(i64, i64)> {
        let of = |batch: &RecordBatch| {
            let times = batch.column(0).as_primitive::<TimestampMillisecondType>().values().to_vec();
            let values = batch.column(1).as_primitive::<Int64Type>().values().to_vec();
            times.into_iter().zip(values).collect::<Vec<_>>()
        };
        batches.iter().flat_map(of).collect()
    }

    fn key(column: usize, descending: bool) -> SortKey {
        SortKey { column, descending, nulls_first: true }
    }

    fn opened(test: &mut TestContext) -> Box<dyn Operator> {
        let spec = EventTimeSortSpec::new(&batch(&[]).schema(), vec![key(0, false), key(1, true)]).unwrap();
        let mut operator = spec.factory().create().unwrap();
        operator.open(&mut test.context()).unwrap();
        operator
    }

    #[test]
    fn rows_come_out_in_order_once_the_watermark_has_reached_them() {
        let mut test = TestContext::new();
        let mut operator = opened(&mut test);
        assert!(run_batch(operator.as_mut(), timed(&[(30, 1), (10, 1), (20, 1)]), &mut test).unwrap().is_empty());
        run_batch(operator.as_mut(), timed(&[(20, 2), (100_000, 5), (-5, 9)]), &mut test).unwrap();
        let out = run_watermark(operator.as_mut(), Timestamp(20), &mut test).unwrap();
        assert_eq!(rows(&out), [(-5, 9), (10, 1), (20, 2), (20, 1)]);
        run_batch(operator.as_mut(), timed(&[(25, 7)]), &mut test).unwrap();
        let out = run_watermark(operator.as_mut(), Timestamp::MAX, &mut test).unwrap();
        assert_eq!(rows(&out), [(25, 7), (30, 1), (100_000, 5)]);
        assert_eq!(test.memory.bytes(), 0);
    }

    #[test]
    fn a_row_that_its_splits_watermark_had_reached_is_late() {
        let mut test = TestContext::new();
        let mut operator = opened(&mut test);
        let marked = with_split_watermarks(&timed(&[(5, 1), (6, 2), (7, 3)]), Int64Array::from(vec![4, 6, 6])).unwrap();
        run_batch(operator.as_mut(), marked, &mut test).unwrap();
        let out = run_watermark(operator.as_mut(), Timestamp::MAX, &mut test).unwrap();
        assert_eq!(rows(&out), [(5, 1), (7, 3)]);
        assert_eq!(test.metrics.late_rows.get(), 1);
    }

    #[test]
    fn a_null_time_is_the_datas_fault() {
        let mut test = TestContext::new();
        let mut operator = opened(&mut test);
        let error = run_batch(operator.as_mut(), batch(&[(None, 1)]), &mut test).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(error.to_string().contains("'ts' is NULL"), "{error}");
    }

    #[test]
    fn more_rows_than_the_limit_is_an_error_that_says_what_to_do() {
        let mut test = TestContext::new();
        test.pool = MemoryPool::new(10_000);
        test.memory = test.pool.reserve("EventTimeSort ts #0");
        let mut operator = opened(&mut test);
        let many: Vec<_> = (0..100).map(|row| (row, row)).collect();
        run_batch(operator.as_mut(), timed(&many), &mut test).unwrap();
        let mut more = || run_batch(operator.as_mut(), timed(&many), &mut test);
        let error = std::iter::repeat_with(|| more().err()).take(10).flatten().next().unwrap();
        assert_eq!(error.kind(), ErrorKind::Resource);
        let said = error.to_string();
        for part in
            ["memory limit of 9.8 KiB", "EventTimeSort ts #0", "'pipeline.memory-limit'", "WATERMARK", "'batch'"]
        {
            assert!(said.contains(part), "{said}");
        }
    }

    #[test]
    fn a_stream_cannot_be_sorted_backwards() {
        assert!(EventTimeSortSpec::new(&batch(&[]).schema(), vec![key(0, true)]).is_err());
        assert!(EventTimeSortSpec::new(&batch(&[]).schema(), vec![key(2, false)]).is_err());
    }

    /// Random rows and watermarks; barriers and restores at random places, in the middle of a firing too.
    #[test]
    fn order_and_rows_survive_barriers_and_restores() {
        for seed in 0..60 {
            let rng = &mut Rng::seeded(seed);
            let mut test = TestContext::new();
            test.batch_rows = 1 + rng.below(9);
            let mut operator = opened(&mut test);
            let (mut watermark, mut given, mut out) = (0, Vec::new(), Vec::new());
            let spread = [30, 5_000, 300_000][rng.below(3)];
            for step in 0..60 {
                match rng.below(4) {
                    0 | 1 => {
                        let made: Vec<_> =
                            (0..rng.below(12)).map(|_| (watermark + 1 + rng.below(spread) as i64, step)).collect();
                        given.extend(made.iter().copied());
                        out.extend(run_batch(operator.as_mut(), timed(&made), &mut test).unwrap());
                    }
                    2 => {
                        watermark += rng.below(spread) as i64;
                        test.watermark = Timestamp(watermark);
                        let mut emitted = Output::default();
                        let wm = Timestamp(watermark);
                        let mut progress = operator.on_watermark(wm, &mut test.context(), &mut emitted).unwrap();
                        while progress == Progress::More {
                            if rng.one_in(4) {
                                operator = barrier(operator, &mut test, rng.one_in(2));
                            }
                            progress = operator.resume(&mut test.context(), &mut emitted).unwrap();
                        }
                        out.extend(emitted.take().into_iter().map(|(_, batch)| batch));
                    }
                    _ => {
                        operator = barrier(operator, &mut test, rng.one_in(2));
                        let progress = operator.resume(&mut test.context(), &mut Output::default()).unwrap();
                        assert!(
                            drain(operator.as_mut(), progress, &mut test, &mut Output::default()).unwrap().is_empty()
                        );
                    }
                }
            }
            out.extend(run_watermark(operator.as_mut(), Timestamp::MAX, &mut test).unwrap());
            given.sort_by_key(|(time, value)| (*time, -value));
            assert_eq!(rows(&out), given, "seed {seed}");
        }
    }

    /// A barrier; and then perhaps another operator over the state of the first.
    fn barrier(mut operator: Box<dyn Operator>, test: &mut TestContext, restore: bool) -> Box<dyn Operator> {
        operator.snapshot(Epoch(1), &mut test.context(), &mut Output::default()).unwrap();
        if restore { opened(test) } else { operator }
    }
}
