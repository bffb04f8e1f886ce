//! The operator of a timed join: it keeps what comes, looks for partners in pieces, and lets go.

use std::collections::{BTreeMap, VecDeque};

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, new_null_array};
use arrow::compute::kernels::cmp::{eq, not_distinct};
use arrow::compute::{and, filter_record_batch, interleave, prep_null_mask_filter};
use ruslo_core::epoch::Epoch;
use ruslo_core::error::{Error, ErrorKind, Result};
use ruslo_core::operator::{InputId, Operator, OperatorContext, Output, Progress};
use ruslo_core::schema::{split_watermarks, visible};
use ruslo_core::time::Timestamp;

use super::side::{Probe, RowRef, Side, Stop};
use super::spec::{Bounds, SideSpec, TimedJoinKind, TimedJoinSpec};
use crate::event_time::millis;
use crate::expression::evaluate_condition;
use crate::pressure::{Holding, account};

/// Rows that are looked at in a piece of work, for each row of a batch that comes out at most.
const LOOKS_OF_A_ROW: usize = 8;

pub(super) struct TimedJoin {
    spec: TimedJoinSpec,
    sides: [Side; 2],
    /// Rows of each side that have not seen all of the other one.
    pending: [VecDeque<Probe>; 2],
    /// The number of the next row.
    next: i64,
    /// As the bounds' clock shows it.
    watermark: i64,
}

/// A pair that has the same hash and fits by time.
struct Candidate {
    /// The left row and the right one.
    rows: [RowRef; 2],
}

impl TimedJoin {
    pub(super) fn new(spec: TimedJoinSpec) -> Self {
        let [left, right] = spec.sides.clone();
        let sides = [Side::new(left, spec.nulls_are_equal), Side::new(right, spec.nulls_are_equal)];
        Self { spec, sides, pending: Default::default(), next: 0, watermark: i64::MIN }
    }

    fn raise(&mut self, watermark: Timestamp) {
        self.watermark = self.watermark.max(self.spec.bounds.clock.watermark(watermark.millis()));
    }

    /// Keeps the rows of `batch` that are not late.
    fn keep(&mut self, input: InputId, batch: &RecordBatch, ctx: &OperatorContext<'_>) -> Result<()> {
        let bounds = self.spec.bounds;
        let ([side, _], [pending, _]) = match input {
            0 => (two(&mut self.sides), two(&mut self.pending)),
            _ => (swapped(&mut self.sides), swapped(&mut self.pending)),
        };
        let mut rows = visible(batch);
        let mut times = times(&rows, &side.spec, bounds)?;
        if let Some(marks) = split_watermarks(batch) {
            let marks = bounds.clock.watermarks(marks.values().clone());
            let keep: Vec<bool> = times.iter().zip(marks.iter()).map(|(time, mark)| time > mark).collect();
            let kept = filter_record_batch(&rows, &BooleanArray::from(keep.clone()))?;
            ctx.metrics.late_rows.add(rows.num_rows() - kept.num_rows());
            rows = kept;
            times = times.into_iter().zip(keep).filter_map(|(time, keep)| keep.then_some(time)).collect();
        }
        let refs = side.insert(rows, times, bounds, &mut self.next)?;
        pending.extend(refs.into_iter().map(|row| Probe { row, at: None }));
        Ok(())
    }

    /// A piece of work.
    fn advance(&mut self, ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<Progress> {
        if !self.is_probed() {
            self.probe(ctx.batch_rows.max(1), out)?;
        } else if let Some((side, bucket)) = self.due() {
            self.let_go(side, bucket, ctx, out)?;
        }
        account(self, ctx).map_err(too_much)?;
        let done = self.is_probed() && self.due().is_none();
        Ok(if done { Progress::Done } else { Progress::More })
    }

    fn is_probed(&self) -> bool {
        self.pending.iter().all(VecDeque::is_empty)
    }

    /// Looks for partners of pending rows.
    fn probe(&mut self, rows_max: usize, out: &mut Output) -> Result<()> {
        let mut candidates = Vec::new();
        let mut looks = rows_max.saturating_mul(LOOKS_OF_A_ROW);
        let ([left, right], [of_left, of_right]) = (&self.sides, &mut self.pending);
        for (side, own, other, pending) in [(0, left, right, of_left), (1, right, left, of_right)] {
            let mut walk = Walk { side, own, other, bounds: self.spec.bounds };
            while let Some(probe) = pending.front_mut() {
                if candidates.len() >= rows_max || looks == 0 {
                    break;
                }
                let room = rows_max - candidates.len();
                if walk.go_on(probe, room, &mut looks, &mut candidates) {
                    pending.pop_front();
                }
            }
        }
        if candidates.is_empty() { Ok(()) } else { self.join(&candidates, out) }
    }

    /// Gives out what `candidates` are pairs of.
    fn join(&mut self, candidates: &[Candidate], out: &mut Output) -> Result<()> {
        let [left, right] = &self.sides;
        let of_left = gather(left, candidates.iter().map(|candidate| candidate.rows[0]))?;
        let of_right = gather(right, candidates.iter().map(|candidate| candidate.rows[1]))?;
        let keys = self.equal_keys(&of_left, &of_right)?;
        let columns = of_left.into_iter().chain(of_right).collect();
        let both = RecordBatch::try_new(self.spec.both.clone(), columns)?;
        let keep = match keys {
            Some(keys) if keys.true_count() < keys.len() => keys,
            _ => BooleanArray::from(vec![true; both.num_rows()]),
        };
        let keep = match &self.spec.condition {
            None => keep,
            // Only of rows with the same key may it be asked.
            Some(condition) => {
                let asked = filter_record_batch(&both, &keep)?;
                let holds = evaluate_condition(condition, &asked)?;
                spread(&keep, &holds)
            }
        };
        self.give(candidates, &both, &keep, out)
    }

    fn equal_keys(&self, left: &[ArrayRef], right: &[ArrayRef]) -> Result<Option<BooleanArray>> {
        let [of_left, of_right] = &self.spec.sides;
        let mut all: Option<BooleanArray> = None;
        for (left_key, right_key) in of_left.keys.iter().zip(&of_right.keys) {
            let (Some(left), Some(right)) = (left.get(*left_key), right.get(*right_key)) else {
                return Err(Error::internal("a join lost a key"));
            };
            let equal = if self.spec.nulls_are_equal { not_distinct(left, right)? } else { eq(left, right)? };
            let equal = known(&equal);
            all = Some(match all {
                None => equal,
                Some(all) => and(&all, &equal)?,
            });
        }
        Ok(all)
    }

    /// Marks the pairs that `keep` names and gives them out; of a semi join each left row once, of an anti join none.
    fn give(&mut self, pairs: &[Candidate], both: &RecordBatch, keep: &BooleanArray, out: &mut Output) -> Result<()> {
        let kind = self.spec.kind;
        let mut first = vec![false; pairs.len()];
        for ((pair, keep), first) in pairs.iter().zip(keep.values()).zip(&mut first) {
            if keep {
                let [left, right] = &mut self.sides;
                *first = left.buckets.get_mut(&pair.rows[0].bucket).is_some_and(|bucket| bucket.mark(pair.rows[0].row));
                right.buckets.get_mut(&pair.rows[1].bucket).map(|bucket| bucket.mark(pair.rows[1].row));
            }
        }
        let (keep, width) = match kind {
            TimedJoinKind::Anti => return Ok(()),
            TimedJoinKind::Semi => (&BooleanArray::from(first), self.spec.schema.fields().len()),
            _ => (keep, both.num_columns()),
        };
        let kept = filter_record_batch(both, keep)?;
        let columns = kept.columns().iter().take(width).cloned().collect();
        out.emit(RecordBatch::try_new(self.spec.schema.clone(), columns)?);
        Ok(())
    }

    /// The first bucket whose rows can find no more partners, and its side.
    fn due(&self) -> Option<(usize, i64)> {
        self.sides.iter().enumerate().find_map(|(side, rows)| {
            let first = *rows.buckets.first_key_value()?.0;
            self.spec.bounds.is_over(side, first, self.watermark).then_some((side, first))
        })
    }

    /// Gives out rows of a bucket that have found no partner, where that is asked for; then forgets it.
    fn let_go(&mut self, side: usize, time: i64, ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<()> {
        let gives = self.spec.kind.gives_unmatched(side);
        let [rows, _] = if side == 0 { two(&mut self.sides) } else { swapped(&mut self.sides) };
        let Some(bucket) = rows.buckets.get_mut(&time) else { return Ok(()) };
        let mut alone = Vec::new();
        if gives {
            let (from, to) = (bucket.passed, bucket.len());
            for row in (from..to).map(|row| row as u32) {
                if alone.len() >= ctx.batch_rows.max(1) {
                    break;
                }
                bucket.passed += 1;
                // What is out must not leave again after a restore.
                if bucket.mark(row) {
                    alone.push(RowRef { bucket: time, row });
                }
            }
        }
        let is_out = !gives || bucket.passed == bucket.len();
        if !alone.is_empty() {
            let columns = gather(rows, alone.iter().copied())?;
            out.emit(self.padded(side, columns, alone.len())?);
        }
        if is_out {
            let [rows, _] = if side == 0 { two(&mut self.sides) } else { swapped(&mut self.sides) };
            rows.expire(time, ctx.state);
        }
        Ok(())
    }

    /// Rows of a side beside NULLs, or alone.
    fn padded(&self, side: usize, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
        let [left, right] = &self.spec.sides;
        let nulls = |of: &SideSpec| {
            of.schema.fields().iter().map(|field| new_null_array(field.data_type(), rows)).collect::<Vec<_>>()
        };
        let columns = match side {
            _ if self.spec.kind.is_of_left() => columns,
            0 => columns.into_iter().chain(nulls(right)).collect(),
            _ => nulls(left).into_iter().chain(columns).collect(),
        };
        Ok(RecordBatch::try_new(self.spec.schema.clone(), columns)?)
    }

    fn save(&mut self, ctx: &mut OperatorContext<'_>) -> Result<()> {
        for (side, pending) in self.sides.iter_mut().zip(&mut self.pending) {
            side.save(pending.make_contiguous(), ctx.state)?;
        }
        Ok(())
    }
}

/// The walk of a row along those of the other side.
struct Walk<'a> {
    side: usize,
    own: &'a Side,
    other: &'a Side,
    bounds: Bounds,
}

impl Walk<'_> {
    /// Adds partners of `probe` to `found`, `room` at most, and looks at so many rows at most; whether it has seen all.
    fn go_on(&mut self, probe: &mut Probe, room: usize, looks: &mut usize, found: &mut Vec<Candidate>) -> bool {
        let Some(own) = self.own.buckets.get(&probe.row.bucket) else { return true };
        let (hash, number) = (own.hash(probe.row.row), own.number(probe.row.row));
        let (first, last) = self.bounds.partners(self.side, own.time(probe.row.row));
        let (mut room, from) = (room, probe.at.map_or(self.bounds.bucket_of(first), |at| at.bucket));
        if from > last {
            return true;
        }
        for (time, bucket) in self.other.buckets.range(from..=last) {
            let stop = probe.at.filter(|at| at.bucket == *time);
            let below = stop.map_or(number, |stop| stop.below);
            let mut next = stop.and_then(|stop| stop.next).or_else(|| bucket.last(hash));
            *looks = looks.saturating_sub(1);
            while let Some(row) = next {
                if bucket.number(row) >= below {
                    next = bucket.before(row);
                    continue;
                }
                if room == 0 || *looks == 0 {
                    probe.at = Some(Stop { bucket: *time, below: bucket.number(row).saturating_add(1), next });
                    return false;
                }
                next = bucket.before(row);
                *looks -= 1;
                let partner = bucket.time(row);
                if first <= partner && partner <= last {
                    room -= 1;
                    let partner = RowRef { bucket: *time, row };
                    let rows = if self.side == 0 { [probe.row, partner] } else { [partner, probe.row] };
                    found.push(Candidate { rows });
                }
            }
        }
        true
    }
}

/// The columns of `rows` of a side.
fn gather(side: &Side, rows: impl Iterator<Item = RowRef>) -> Result<Vec<ArrayRef>> {
    let mut sources: Vec<&RecordBatch> = Vec::new();
    let mut first_of = BTreeMap::<i64, usize>::new();
    let mut places = Vec::new();
    for at in rows {
        let bucket = side.buckets.get(&at.bucket).ok_or_else(|| Error::internal("a join lost a row"))?;
        let first = *first_of.entry(at.bucket).or_insert_with(|| {
            sources.extend(bucket.batches());
            sources.len() - bucket.batch_count()
        });
        let (batch, place) = bucket.place(at.row);
        places.push((first + batch, place));
    }
    let column = |place: usize| {
        let columns: Vec<&dyn Array> =
            sources.iter().filter_map(|batch| batch.columns().get(place)).map(AsRef::as_ref).collect();
        Ok(interleave(&columns, &places)?)
    };
    (0..side.spec.schema.fields().len()).map(column).collect()
}

/// The same with false for NULL.
fn known(values: &BooleanArray) -> BooleanArray {
    if values.null_count() > 0 { prep_null_mask_filter(values) } else { values.clone() }
}

/// `keep` where of its true ones those stay true that `holds` says.
fn spread(keep: &BooleanArray, holds: &BooleanArray) -> BooleanArray {
    let mut holds = known(holds).values().iter().collect::<Vec<_>>().into_iter();
    keep.values().iter().map(|keep| Some(keep && holds.next().unwrap_or(false))).collect()
}

/// The times of rows in milliseconds, as the bounds' clock shows them.
pub(super) fn times(rows: &RecordBatch, side: &SideSpec, bounds: Bounds) -> Result<Vec<i64>> {
    let Some(column) = rows.columns().get(side.time) else { return Err(Error::internal("a join lost its time")) };
    if column.null_count() > 0 {
        let name = side.schema.fields().get(side.time).map_or("", |field| field.name());
        return Err(Error::data(format!(
            "the time column '{name}' is NULL; filter such rows with WHERE {name} IS NOT NULL before the join"
        )));
    }
    let times = millis(column)?;
    Ok(times.iter().map(|time| time.saturating_sub(bounds.before_ms)).collect())
}

/// Says what can be done about rows that are too many to wait in memory.
fn too_much(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Resource => Error::resource(format!(
            "{error}. A join by time holds the rows of both sides until the watermark has passed their last partner: \
             narrower bounds or windows hold fewer, and so does a higher parallelism with more memory"
        )),
        _ => error,
    }
}

fn two<T>(pair: &mut [T; 2]) -> [&mut T; 2] {
    pair.each_mut()
}

fn swapped<T>(pair: &mut [T; 2]) -> [&mut T; 2] {
    let [left, right] = pair;
    [right, left]
}

impl Holding for TimedJoin {
    fn held_bytes(&self, ctx: &mut OperatorContext<'_>) -> usize {
        let own: usize = self.sides.iter().map(Side::bytes).sum();
        let pending: usize = self.pending.iter().map(|pending| pending.len() * size_of::<Probe>()).sum();
        let tables = self.sides.iter().flat_map(Side::tables);
        own + pending + tables.map(|table| ctx.state.buckets(table).bytes()).sum::<usize>()
    }

    fn put_away(&mut self, ctx: &mut OperatorContext<'_>) -> Result<()> {
        self.save(ctx)
    }

    fn look_again(&mut self, _: &mut OperatorContext<'_>) {}
}

impl Operator for TimedJoin {
    fn open(&mut self, ctx: &mut OperatorContext<'_>) -> Result<()> {
        self.raise(ctx.watermark);
        for (side, pending) in self.sides.iter_mut().zip(&mut self.pending) {
            *pending = side.restore(self.spec.bounds, ctx.state)?.into();
        }
        let greatest = self.sides.iter().filter_map(Side::greatest).max();
        self.next = greatest.map_or(0, |number| number.saturating_add(1));
        account(self, ctx).map_err(too_much)
    }

    fn on_batch(
        &mut self,
        input: InputId,
        batch: RecordBatch,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        self.raise(ctx.watermark);
        self.keep(input, &batch, ctx)?;
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

    fn output_watermark(&self, watermark: Timestamp) -> Timestamp {
        match watermark {
            Timestamp::MAX => watermark,
            _ => Timestamp(watermark.millis().saturating_sub(self.spec.hold_ms())),
        }
    }

    fn resume(&mut self, ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<Progress> {
        self.raise(ctx.watermark);
        self.advance(ctx, out)
    }

    fn snapshot(&mut self, _epoch: Epoch, ctx: &mut OperatorContext<'_>, _out: &mut Output) -> Result<()> {
        self.save(ctx)?;
        account(self, ctx).map_err(too_much)
    }
}
