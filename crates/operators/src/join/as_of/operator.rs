//! The operator: rows of both sides wait, and go out a minute after the other.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, UInt32Array, new_empty_array};
use arrow::compute::{filter_record_batch, interleave, take, take_record_batch};
use arrow::datatypes::{Schema, SchemaRef};
use ruslo_core::epoch::Epoch;
use ruslo_core::error::{Error, ErrorKind, Result};
use ruslo_core::operator::{InputId, Operator, OperatorContext, Output, Progress};
use ruslo_core::time::Timestamp;

use super::keys::{KeyEncoder, comparable};
use super::side::VERSIONS;
use super::spec::AsOfJoinSpec;
use super::versions::Versions;
use crate::expression::evaluate_condition;
use crate::pressure::{Holding, account};
use crate::sort::EventTimeSort;

/// An [`AsOfJoinSpec`] at work.
pub(super) struct AsOfJoin {
    spec: AsOfJoinSpec,
    encoder: KeyEncoder,
    left: EventTimeSort,
    right: EventTimeSort,
    /// Those right rows that are on their way out; made again when it is asked for.
    versions: Option<Versions>,
    /// The number of the next change of the right side.
    number: i64,
}

/// Where the right row of a left one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// Among those on their way out.
    Firing(u32),
    /// Among those that were kept, by the place among those that were asked for.
    Kept(u32),
    Nowhere,
}

/// What was kept of some keys.
#[derive(Default)]
struct Kept {
    keys: Vec<ArrayRef>,
    columns: Vec<ArrayRef>,
}

impl AsOfJoin {
    pub(super) fn new(spec: AsOfJoinSpec) -> Result<Self> {
        let encoder = KeyEncoder::new(&spec.right.key_types())?;
        let (left, right) = (EventTimeSort::new(spec.left.sort.clone()), EventTimeSort::new(spec.right.sort.clone()));
        Ok(Self { spec, encoder, left, right, versions: None, number: 0 })
    }

    /// A piece of work: joins a batch of left rows on their way out, keeps a batch of right ones, or takes up a minute.
    fn advance(&mut self, ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<Progress> {
        let rows_max = ctx.batch_rows.max(1);
        if let Some(rows) = take_first(&mut self.left.firing, rows_max) {
            self.join(&rows, ctx, out)?;
        } else if let Some(rows) = take_first(&mut self.right.firing, rows_max) {
            self.versions = None;
            self.keep(&rows, ctx)?;
        } else if let Some(bucket) = self.next_bucket() {
            self.left.fire(bucket, ctx.state)?;
            self.right.fire(bucket, ctx.state)?;
        }
        account(self, ctx).map_err(too_much)?;
        let is_firing = self.left.firing.is_some() || self.right.firing.is_some();
        Ok(if is_firing || self.next_bucket().is_some() { Progress::More } else { Progress::Done })
    }

    /// The first minute of which a row goes out.
    fn next_bucket(&self) -> Option<i64> {
        self.left.next_bucket().into_iter().chain(self.right.next_bucket()).min()
    }

    /// Gives out left rows, each beside the right row that counts.
    fn join(&mut self, rows: &RecordBatch, ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<()> {
        if let (None, Some(firing)) = (&self.versions, &self.right.firing) {
            self.versions = Some(Versions::new(&self.spec.right, &self.encoder, firing)?);
        }
        let (mut found, kept) = self.find(rows, ctx)?;
        let rows = if self.spec.keeps_left { rows.clone() } else { only_found(rows, &mut found)? };
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let columns = self.side_by_side(&rows, &found, &kept)?;
        let Some(condition) = self.spec.condition.clone() else { return self.emit(columns, out) };
        let with: UInt32Array =
            (0u32..).zip(&found).filter(|(_, found)| **found != Found::Nowhere).map(|(row, _)| row).collect();
        let pairs = take_record_batch(&RecordBatch::try_new(relaxed(&self.spec), columns)?, &with)?;
        let holds = evaluate_condition(&condition, &pairs)?;
        for (row, holds) in with.values().iter().zip(holds.iter()) {
            if holds != Some(true) {
                found.get_mut(*row as usize).into_iter().for_each(|found| *found = Found::Nowhere);
            }
        }
        let rows = if self.spec.keeps_left { rows } else { only_found(&rows, &mut found)? };
        if rows.num_rows() > 0 { self.emit(self.side_by_side(&rows, &found, &kept)?, out) } else { Ok(()) }
    }

    fn emit(&self, columns: Vec<ArrayRef>, out: &mut Output) -> Result<()> {
        out.emit(RecordBatch::try_new(self.spec.schema(), columns)?);
        Ok(())
    }

    /// Where the right row of each of `rows` is, and what was kept of those keys that have none among the rows on their
    /// way out.
    fn find(&self, rows: &RecordBatch, ctx: &mut OperatorContext<'_>) -> Result<(Vec<Found>, Kept)> {
        let keys = self.spec.left.keys(rows);
        let nulls = comparable(&keys);
        let mut found = self.find_firing(rows, &keys)?;
        let is_late = |row: u32| self.versions.as_ref().is_some_and(|versions| versions.is_late(row));
        let asks = |(row, found): &(u32, &Found)| match found {
            Found::Firing(version) => is_late(*version),
            _ => nulls.as_ref().is_none_or(|nulls| nulls.is_valid(*row as usize)),
        };
        let asked: UInt32Array = (0u32..).zip(&found).filter(asks).map(|(row, _)| row).collect();
        if asked.is_empty() {
            return Ok((self.without_gone(found), Kept::default()));
        }
        let keys = keys.iter().map(|key| Ok(take(key, &asked, None)?)).collect::<Result<Vec<_>>>()?;
        let values = ctx.state.keyed(VERSIONS, self.spec.table())?.get(&keys)?;
        let (times, gone) = (self.spec.right.kept_times(&values.columns), self.spec.right.kept_gone(&values.columns));
        for (place, row) in asked.values().iter().enumerate() {
            if values.present.as_ref().is_some_and(|present| !present.is_valid(place)) {
                continue;
            }
            let Some(found) = found.get_mut(*row as usize) else { continue };
            let time = times.map_or(i64::MIN, |times| times.value(place));
            let is_newer = |row: u32| self.versions.as_ref().is_some_and(|versions| versions.time(row) >= time);
            if matches!(found, Found::Firing(version) if is_newer(*version)) {
                continue;
            }
            *found =
                if gone.is_some_and(|gone| gone.value(place)) { Found::Nowhere } else { Found::Kept(place as u32) };
        }
        Ok((self.without_gone(found), Kept { keys, columns: values.columns }))
    }

    fn find_firing(&self, rows: &RecordBatch, keys: &[ArrayRef]) -> Result<Vec<Found>> {
        let Some(versions) = &self.versions else { return Ok(vec![Found::Nowhere; rows.num_rows()]) };
        let (keys, times) = (self.encoder.encode(keys)?, self.spec.left.times(rows)?);
        let of = |(key, time)| match versions.find(key, time, self.spec.as_of) {
            Some(row) => Found::Firing(row),
            None => Found::Nowhere,
        };
        Ok(keys.iter().zip(times).map(of).collect())
    }

    /// Without those that say that there is no row any more.
    fn without_gone(&self, found: Vec<Found>) -> Vec<Found> {
        let is_gone = |row: u32| self.versions.as_ref().is_some_and(|versions| versions.is_gone(row));
        let of = |found| match found {
            Found::Firing(row) if is_gone(row) => Found::Nowhere,
            other => other,
        };
        found.into_iter().map(of).collect()
    }

    /// The columns of `rows`, then those of the right rows.
    fn side_by_side(&self, rows: &RecordBatch, found: &[Found], kept: &Kept) -> Result<Vec<ArrayRef>> {
        let places: Vec<(usize, usize)> = found
            .iter()
            .map(|found| match found {
                Found::Firing(row) => (0, *row as usize),
                Found::Kept(row) => (1, *row as usize),
                Found::Nowhere => (2, 0),
            })
            .collect();
        let mut columns = rows.columns().to_vec();
        for place in 0..self.spec.both.fields().len().saturating_sub(columns.len()) {
            let null = self.spec.right.null(place)?;
            let none = || new_empty_array(null.data_type());
            let firing = self.right.firing.as_ref().and_then(|rows| rows.columns().get(place)).cloned();
            let kept = match kept.columns.is_empty() {
                true => none(),
                false => self.spec.right.kept_column(place, &kept.keys, &kept.columns)?,
            };
            let firing = firing.unwrap_or_else(none);
            columns.push(interleave(&[firing.as_ref(), kept.as_ref(), null.as_ref()], &places)?);
        }
        Ok(columns)
    }

    /// Keeps the last of each key of `rows`, which are in order of validity.
    fn keep(&self, rows: &RecordBatch, ctx: &mut OperatorContext<'_>) -> Result<()> {
        let side = &self.spec.right;
        let mut rows = rows.clone();
        if let Some(nulls) = comparable(&side.keys(&rows)).filter(|nulls| nulls.null_count() > 0) {
            rows = filter_record_batch(&rows, &BooleanArray::new(nulls.inner().clone(), None))?;
        }
        if side.valid(&rows)?.iter().any(|(_, is_late)| *is_late) {
            rows = self.without_older(&rows, ctx)?;
        }
        if rows.num_rows() == 0 {
            return Ok(());
        }
        ctx.state.keyed(VERSIONS, self.spec.table())?.upsert(&side.keys(&rows), &side.values(&rows)?)
    }

    /// `rows` without those that are older than what is kept of their key, or what stands before them.
    fn without_older(&self, rows: &RecordBatch, ctx: &mut OperatorContext<'_>) -> Result<RecordBatch> {
        let side = &self.spec.right;
        let keys = side.keys(rows);
        let kept = ctx.state.keyed(VERSIONS, self.spec.table())?.get(&keys)?;
        let before = side.kept_times(&kept.columns);
        let is_there = |row: usize| kept.present.as_ref().is_none_or(|present| present.is_valid(row));
        let (encoded, times) = (self.encoder.encode(&keys)?, side.times(rows)?);
        let mut newest = HashMap::with_capacity(times.len());
        let mut keep = Vec::with_capacity(times.len());
        for (row, (key, time)) in encoded.iter().zip(&times).enumerate() {
            let before = before.filter(|_| is_there(row)).map_or(i64::MIN, |before: &Int64Array| before.value(row));
            let newest = newest.entry(key).or_insert(before);
            keep.push(*time >= *newest);
            *newest = (*newest).max(*time);
        }
        Ok(filter_record_batch(rows, &BooleanArray::from(keep))?)
    }
}

/// Takes `rows_max` rows off the front.
fn take_first(rows: &mut Option<RecordBatch>, rows_max: usize) -> Option<RecordBatch> {
    let all = rows.take()?;
    let first = all.slice(0, rows_max.min(all.num_rows()));
    if first.num_rows() < all.num_rows() {
        *rows = Some(all.slice(first.num_rows(), all.num_rows() - first.num_rows()));
    }
    Some(first)
}

/// The rows that have a right one, and where it is.
fn only_found(rows: &RecordBatch, found: &mut Vec<Found>) -> Result<RecordBatch> {
    let keep: BooleanArray = found.iter().map(|found| Some(*found != Found::Nowhere)).collect();
    if keep.true_count() == keep.len() {
        return Ok(rows.clone());
    }
    found.retain(|found| *found != Found::Nowhere);
    Ok(filter_record_batch(rows, &keep)?)
}

/// The columns of both under the condition's names; any may be NULL.
fn relaxed(spec: &AsOfJoinSpec) -> SchemaRef {
    let fields = spec.both.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Says what can be done about rows that are too many to wait in memory.
fn too_much(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Resource => Error::resource(format!(
            "{error}. A join as of a time takes up the rows of a minute of both sides together: a higher parallelism with \
             more memory helps"
        )),
        _ => error,
    }
}

impl Holding for AsOfJoin {
    fn held_bytes(&self, ctx: &mut OperatorContext<'_>) -> usize {
        let versions = self.versions.as_ref().map_or(0, Versions::bytes);
        self.left.held_bytes(ctx) + self.right.held_bytes(ctx) + versions
    }

    fn put_away(&mut self, ctx: &mut OperatorContext<'_>) -> Result<()> {
        self.left.put_away(ctx)?;
        self.right.put_away(ctx)
    }

    fn look_again(&mut self, _: &mut OperatorContext<'_>) {}
}

impl Operator for AsOfJoin {
    fn open(&mut self, ctx: &mut OperatorContext<'_>) -> Result<()> {
        ctx.state.keyed(VERSIONS, self.spec.table())?;
        self.number = self.spec.right.next_number(ctx.state)?;
        self.left.restore(ctx)?;
        self.right.restore(ctx)?;
        account(self, ctx).map_err(too_much)
    }

    fn on_batch(
        &mut self,
        input: InputId,
        batch: RecordBatch,
        ctx: &mut OperatorContext<'_>,
        _: &mut Output,
    ) -> Result<Progress> {
        match input {
            0 => self.left.hold(&self.spec.left.incoming(&batch)?, ctx)?,
            _ => self.right.hold(&self.spec.right.incoming(&batch, &mut self.number)?, ctx)?,
        }
        account(self, ctx).map_err(too_much)?;
        let is_firing = self.left.firing.is_some() || self.right.firing.is_some();
        Ok(if is_firing || self.next_bucket().is_some() { Progress::More } else { Progress::Done })
    }

    fn on_watermark(
        &mut self,
        watermark: Timestamp,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        self.left.raise(watermark);
        self.right.raise(watermark);
        self.advance(ctx, out)
    }

    fn resume(&mut self, ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<Progress> {
        self.advance(ctx, out)
    }

    fn snapshot(&mut self, _: Epoch, ctx: &mut OperatorContext<'_>, _: &mut Output) -> Result<()> {
        let group = ctx.subtask.key_groups().start;
        self.left.seal(ctx.state, group)?;
        self.right.seal(ctx.state, group)?;
        ctx.metrics.waiting_rows.set(self.left.stored_rows(ctx.state) + self.right.stored_rows(ctx.state));
        account(self, ctx).map_err(too_much)
    }
}
