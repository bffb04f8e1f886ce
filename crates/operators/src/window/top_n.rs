//! Window Top-N: the first N rows of each key and window, with their rank, when the window is complete.
//!
//! Rows come with their window in a column. A window's rows since the last checkpoint are held in memory, and pruned to
//! the first N of each key whenever they have doubled. A snapshot appends them to state under the window's end; now and
//! then the batches of a long window are ranked into one. When the watermark completes a window, all its rows are ranked
//! once and leave in pieces, by key and rank; a snapshot in between stores the rest with its ranks, so that it leaves
//! after a restore as it would have left before, at any parallelism. Windows leave in the order of their ends.
//!
//! Deduplication by window is N = 1.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array, new_null_array};
use arrow::compute::{concat_batches, filter_record_batch, is_null, not, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::physical_expr::PhysicalSortExpr;
use ruslo_core::element::EndReason;
use ruslo_core::epoch::Epoch;
use ruslo_core::equation::Equation;
use ruslo_core::error::{Error, Result};
use ruslo_core::memory::batch_bytes;
use ruslo_core::operator::{InputId, Operator, OperatorContext, Output, Progress, SharedFactory};
use ruslo_core::schema::{split_watermarks, visible};
use ruslo_core::state::OperatorState;
use ruslo_core::time::Timestamp;

use super::clock::WindowClock;
use super::partition::time_column;
use super::ranking::{Ranked, Ranking};
use crate::StateTable;
use crate::pressure::{Holding, account};

/// The state table. Stored in checkpoints: the rows' columns, then their rank.
const TABLE: &str = "rows";
/// The column behind the rows' own in state: the rank, or NULL as long as the window is open.
const RANK: &str = "rank";
/// Fewer rows than this are not worth a pruning.
const PRUNE_ROWS: usize = 4_096;
/// From so many stored batches of one window on, a snapshot may rank them into one.
const BATCHES_MIN: usize = 8;

/// `ROW_NUMBER() OVER (PARTITION BY window, keys ORDER BY ..) <= N`; cheap to clone.
#[derive(Debug, Clone)]
pub struct WindowTopNSpec {
    ranking: Arc<Ranking>,
    end_column: usize,
    /// How many milliseconds before the window's end the column's time is.
    before_end_ms: i64,
    clock: WindowClock,
    schema: SchemaRef,
    stored: SchemaRef,
}

impl WindowTopNSpec {
    /// Keeps the first `limit` rows of `input`, in `order`, of each window and each value of the columns `keys`. The
    /// window is told by column `end_column`, a TIMESTAMP that is `before_end_ms` milliseconds before its end. The rank,
    /// a BIGINT from 1, comes out as the last column, under the name `rank`.
    ///
    /// Rows must come through an exchange by `keys`. Equal rows follow by their columns from left to right.
    ///
    /// # Errors
    /// `Usage`, if a key cannot be one, a column has no order, or `limit` is 0.
    pub fn new(
        input: &Schema,
        keys: Vec<usize>,
        end_column: usize,
        before_end_ms: i64,
        order: Vec<PhysicalSortExpr>,
        limit: usize,
        rank: &str,
    ) -> Result<Self> {
        match input.fields().get(end_column).map(|field| field.data_type()) {
            Some(DataType::Timestamp(..)) => {}
            other => return Err(Error::internal(format!("a Top-N by a window of type {other:?}"))),
        }
        let schema = with_column(input.fields().iter().cloned(), Field::new(rank, DataType::Int64, false));
        let names = input.fields().iter().enumerate();
        let stored = names.map(|(at, field)| Field::new(format!("column{at}"), field.data_type().clone(), true));
        let stored = with_column(stored.map(Arc::new), Field::new(RANK, DataType::Int64, true));
        let ranking = Ranking::new(Arc::new(input.clone()), keys, order, limit)?;
        Ok(Self { ranking: Arc::new(ranking), end_column, before_end_ms, clock: WindowClock::plain(), schema, stored })
    }

    /// The same for windows whose bounds are by `clock`.
    #[must_use]
    pub fn by(self, clock: WindowClock) -> Self {
        Self { clock, ..self }
    }

    /// The columns that come out: the input's, then the rank.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// The state table whose columns follow from this spec.
    pub fn state_table(&self) -> StateTable {
        (TABLE, self.stored.clone())
    }

    /// Makes the operator of each subtask.
    pub fn factory(self) -> SharedFactory {
        Arc::new(move || Ok(WindowTopN::new(self.clone())))
    }

    /// Rows of state as they came in, and whether each is ranked.
    fn restored(&self, stored: &RecordBatch) -> Result<(RecordBatch, ArrayRef)> {
        match stored.columns().split_last() {
            Some((ranks, rows)) => {
                Ok((RecordBatch::try_new(self.ranking.schema().clone(), rows.to_vec())?, ranks.clone()))
            }
            None => Err(Error::internal("stored rows of a Top-N have no rank")),
        }
    }

    /// Rows as state keeps them.
    fn to_store(&self, rows: &RecordBatch, ranks: ArrayRef) -> Result<RecordBatch> {
        let columns = rows.columns().iter().cloned().chain([ranks]).collect();
        Ok(RecordBatch::try_new(self.stored.clone(), columns)?)
    }
}

fn with_column(fields: impl Iterator<Item = Arc<Field>>, last: Field) -> SchemaRef {
    Arc::new(Schema::new(fields.chain([Arc::new(last)]).collect::<Vec<_>>()))
}

/// The rows of a window since the last checkpoint.
#[derive(Debug, Default)]
struct Rows {
    batches: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
    /// How many rows the last pruning left.
    pruned: usize,
}

impl Rows {
    fn push(&mut self, batch: RecordBatch, ranking: &Ranking) -> Result<()> {
        self.rows += batch.num_rows();
        self.bytes += batch_bytes(&batch);
        self.batches.push(batch);
        if self.rows >= 2 * self.pruned + PRUNE_ROWS {
            let kept = ranking.rank(&self.batches)?.rows;
            (self.rows, self.pruned, self.bytes) = (kept.num_rows(), kept.num_rows(), batch_bytes(&kept));
            self.batches = vec![kept];
        }
        Ok(())
    }
}

/// A complete window on its way out.
struct Firing {
    end: i64,
    /// Result rows that have not left.
    left: RecordBatch,
    bytes: usize,
}

struct WindowTopN {
    spec: WindowTopNSpec,
    /// By window end.
    open: BTreeMap<i64, Rows>,
    open_bytes: usize,
    /// How many batches state has of each window, by its end.
    stored: BTreeMap<i64, usize>,
    stored_bytes: usize,
    firing: Option<Firing>,
    /// As the windows' clock shows it.
    watermark: Timestamp,
}

impl WindowTopN {
    fn new(spec: WindowTopNSpec) -> Self {
        Self {
            spec,
            open: BTreeMap::new(),
            open_bytes: 0,
            stored: BTreeMap::new(),
            stored_bytes: 0,
            firing: None,
            watermark: Timestamp::MIN,
        }
    }

    fn raise(&mut self, watermark: Timestamp) {
        let local = self.spec.clock.watermark(watermark.millis());
        self.watermark = self.watermark.max(Timestamp(local));
    }

    fn is_complete(&self, end: i64) -> bool {
        end.saturating_sub(1) <= self.watermark.millis()
    }

    fn add(&mut self, end: i64, rows: RecordBatch) -> Result<()> {
        if self.is_complete(end) {
            return Err(Error::internal(format!(
                "rows of the window that ends at {} came to a Top-N after the watermark {}",
                Timestamp(end),
                self.watermark
            )));
        }
        let window = self.open.entry(end).or_default();
        self.open_bytes -= window.bytes;
        window.push(rows, &self.spec.ranking)?;
        self.open_bytes += window.bytes;
        Ok(())
    }

    /// The earliest complete window that still has rows.
    fn due(&self) -> Option<i64> {
        let open = self.open.keys().next().copied();
        let first = open.into_iter().chain(self.stored.keys().next().copied()).min()?;
        self.is_complete(first).then_some(first)
    }

    /// Fires complete windows, at most a piece of `ctx.batch_rows` rows.
    fn advance(&mut self, ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<Progress> {
        let mut budget = ctx.batch_rows.max(1);
        let mut pieces = Vec::new();
        while budget > 0
            && let Some(firing) = self.next_firing(ctx)?
        {
            let rows = firing.left.num_rows().min(budget);
            pieces.push(firing.left.slice(0, rows));
            if rows < firing.left.num_rows() {
                let left = firing.left.slice(rows, firing.left.num_rows() - rows);
                self.firing = Some(Firing { bytes: batch_bytes(&left), left, ..firing });
            } else {
                // What a snapshot put back meanwhile goes.
                self.take_stored(firing.end, ctx.state)?;
            }
            // A window without many rows is work, too.
            budget -= rows.clamp(1, budget);
        }
        if !pieces.is_empty() {
            out.emit(concat_batches(&self.spec.schema, &pieces)?);
        }
        account(self, ctx)?;
        let done = self.firing.is_none() && self.due().is_none();
        Ok(if done { Progress::Done } else { Progress::More })
    }

    fn next_firing(&mut self, ctx: &mut OperatorContext<'_>) -> Result<Option<Firing>> {
        if let Some(firing) = self.firing.take() {
            return Ok(Some(firing));
        }
        let Some(end) = self.due() else { return Ok(None) };
        let rows = self.open.remove(&end).unwrap_or_default();
        self.open_bytes -= rows.bytes;
        let stored = self.take_stored(end, ctx.state)?;
        let left = self.results(rows.batches, &stored)?;
        Ok(Some(Firing { end, bytes: batch_bytes(&left), left }))
    }

    /// The result rows of a window: those that were ranked before a restore, and the first of the others.
    fn results(&self, mut unranked: Vec<RecordBatch>, stored: &[RecordBatch]) -> Result<RecordBatch> {
        let mut results = Vec::new();
        for batch in stored {
            let (rows, ranks) = self.spec.restored(batch)?;
            let open = is_null(&ranks)?;
            unranked.push(filter_record_batch(&rows, &open)?);
            let ranked = not(&open)?;
            let ranks = arrow::compute::filter(&ranks, &ranked)?;
            results.push(self.ranked(&filter_record_batch(&rows, &ranked)?, ranks)?);
        }
        let Ranked { rows, ranks } = self.spec.ranking.rank(&unranked)?;
        results.push(self.ranked(&rows, Arc::new(ranks))?);
        Ok(concat_batches(&self.spec.schema, &results)?)
    }

    fn ranked(&self, rows: &RecordBatch, ranks: ArrayRef) -> Result<RecordBatch> {
        let columns = rows.columns().iter().cloned().chain([ranks]).collect();
        Ok(RecordBatch::try_new(self.spec.schema.clone(), columns)?)
    }

    /// The stored rows of a window; state forgets them.
    fn take_stored(&mut self, end: i64, state: &mut dyn OperatorState) -> Result<Vec<RecordBatch>> {
        if self.stored.remove(&end).is_none() {
            return Ok(Vec::new());
        }
        let table = state.buckets(TABLE);
        let batches = table.scan(end)?;
        table.expire(end);
        self.stored_bytes = table.bytes();
        Ok(batches)
    }

    /// Moves the rows of an open window into state; if it has many batches there, they become one.
    fn store_open(&mut self, end: i64, rows: Rows, state: &mut dyn OperatorState) -> Result<()> {
        let mut batches = rows.batches;
        if self.stored.get(&end).is_some_and(|count| *count >= BATCHES_MIN) {
            for stored in self.take_stored(end, state)? {
                batches.push(self.spec.restored(&stored)?.0);
            }
        }
        let kept = self.spec.ranking.rank(&batches)?.rows;
        let open = new_null_array(&DataType::Int64, kept.num_rows());
        self.store(end, &self.spec.to_store(&kept, open)?, state)
    }

    fn store(&mut self, end: i64, rows: &RecordBatch, state: &mut dyn OperatorState) -> Result<()> {
        let table = state.buckets(TABLE);
        table.append(end, &self.spec.ranking.key_groups(rows)?, rows)?;
        self.stored_bytes = table.bytes();
        *self.stored.entry(end).or_default() += 1;
        Ok(())
    }

    fn store_firing(&mut self, state: &mut dyn OperatorState) -> Result<()> {
        let Some(firing) = &self.firing else { return Ok(()) };
        let (end, left) = (firing.end, firing.left.clone());
        self.take_stored(end, state)?;
        let rows = RecordBatch::try_new(self.spec.stored.clone(), left.columns().to_vec())?;
        self.store(end, &rows, state)
    }
}

impl Holding for WindowTopN {
    fn held_bytes(&self, _: &mut OperatorContext<'_>) -> usize {
        self.open_bytes + self.stored_bytes + self.firing.as_ref().map_or(0, |firing| firing.bytes)
    }

    fn put_away(&mut self, ctx: &mut OperatorContext<'_>) -> Result<()> {
        for (end, rows) in std::mem::take(&mut self.open) {
            self.store_open(end, rows, ctx.state)?;
        }
        self.open_bytes = 0;
        Ok(())
    }

    fn look_again(&mut self, ctx: &mut OperatorContext<'_>) {
        self.stored_bytes = ctx.state.buckets(TABLE).bytes();
    }
}

/// The rows of each window, by its end, without those that came late; and how many did.
fn by_window(batch: &RecordBatch, spec: &WindowTopNSpec) -> Result<(Vec<(i64, RecordBatch)>, usize)> {
    let times = time_column(batch, spec.end_column)?;
    let ends = times.iter().map(|time| time.saturating_add(spec.before_end_ms));
    let watermarks = split_watermarks(batch).map(|marks| spec.clock.watermarks(marks.values().clone()));
    let rows = visible(batch);
    if watermarks.is_none()
        && let Some(first) = ends.clone().next()
        && ends.clone().all(|end| end == first)
    {
        return Ok((vec![(first, rows)], 0));
    }
    let mut slots: Vec<(i64, Vec<u32>)> = Vec::new();
    let mut slot_of = HashMap::new();
    let mut late = 0;
    for (row, end) in ends.enumerate() {
        let mark = watermarks.as_ref().and_then(|marks| marks.get(row)).copied().unwrap_or(i64::MIN);
        if end.saturating_sub(1) <= mark {
            late += 1;
            continue;
        }
        let slot = *slot_of.entry(end).or_insert_with(|| {
            slots.push((end, Vec::new()));
            slots.len() - 1
        });
        if let Some((_, places)) = slots.get_mut(slot) {
            places.push(row as u32);
        }
    }
    let taken = slots.into_iter().map(|(end, places)| Ok((end, take_record_batch(&rows, &UInt32Array::from(places))?)));
    Ok((taken.collect::<Result<_>>()?, late))
}

impl Operator for WindowTopN {
    fn equation(&self) -> Equation {
        Equation::Keeps
    }

    fn open(&mut self, ctx: &mut OperatorContext<'_>) -> Result<()> {
        self.raise(ctx.watermark);
        let table = ctx.state.buckets(TABLE);
        self.stored = table.buckets().into_iter().map(|end| (end, table.batches(end))).collect();
        self.stored_bytes = table.bytes();
        account(self, ctx)
    }

    fn on_batch(
        &mut self,
        _input: InputId,
        batch: RecordBatch,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        self.raise(ctx.watermark);
        let (windows, late_rows) = by_window(&batch, &self.spec)?;
        ctx.metrics.late_rows.add(late_rows);
        for (end, rows) in windows {
            ctx.metrics.kept_rows.add(rows.num_rows());
            self.add(end, rows)?;
        }
        self.advance(ctx, out)
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
        self.raise(ctx.watermark);
        self.advance(ctx, out)
    }

    fn snapshot(&mut self, _epoch: Epoch, ctx: &mut OperatorContext<'_>, _out: &mut Output) -> Result<()> {
        self.put_away(ctx)?;
        self.store_firing(ctx.state)?;
        account(self, ctx)
    }

    fn on_end(
        &mut self,
        _input: InputId,
        reason: EndReason,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        match reason {
            EndReason::Drain => self.advance(ctx, out),
            // What is not out stays in state, for a resume.
            EndReason::Stop => Ok(Progress::Done),
        }
    }
}
