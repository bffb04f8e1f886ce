//! The operator: takes batches in, works through them a slice a call, keeps what is left at a barrier.

use std::collections::VecDeque;

use arrow::array::{BooleanArray, Int8Array};
use arrow::compute::{filter_record_batch, not};
use arrow::record_batch::RecordBatch;
use ruslo_core::epoch::Epoch;
use ruslo_core::error::{Error, Result};
use ruslo_core::operator::{InputId, Operator, OperatorContext, Output, Progress};
use ruslo_core::schema::visible;

use super::hot::Hot;
use super::lines::{emit, emit_alone, kinds};
use super::lookup::{Pairs, Slice};
use super::side::{LEFT, RIGHT};
use super::spec::{RegularJoinKind, RegularJoinSpec};
use super::work::{Work, directions, restore, store, stretches};

/// Batches that go out of a slice, or of a call, about; a slice that gives more is made smaller.
const BATCHES_MAX: usize = 4;

/// A [`RegularJoinSpec`] at work.
pub(super) struct RegularJoin {
    spec: RegularJoinSpec,
    /// In order of coming.
    work: VecDeque<Work>,
    /// Rows of a slice: fewer, the more partners they have.
    slice_rows: usize,
    /// Whether state has some of the work.
    is_stored: bool,
}

impl RegularJoin {
    pub(super) fn new(spec: RegularJoinSpec) -> Self {
        Self { spec, work: VecDeque::new(), slice_rows: usize::MAX, is_stored: false }
    }

    /// Takes a batch in; rows that can have no partner are done at once.
    fn take_in(&mut self, side: usize, batch: &RecordBatch, ctx: &OperatorContext<'_>, out: &mut Output) -> Result<()> {
        let own = self.spec.sides.get(side).ok_or_else(|| Error::internal(format!("a join has no input {side}")))?;
        let (mut rows, mut adds) = (visible(batch), directions(batch));
        if let Some(without) = own.without_partners(&rows)? {
            if self.spec.kind.preserves(side) {
                let all = adds.clone().unwrap_or_else(|| vec![true; rows.num_rows()]);
                let alone = all.iter().zip(without.values()).filter(|(_, without)| *without).map(|(adds, _)| *adds);
                let kinds: Int8Array =
                    alone.flat_map(|adds| kinds(adds, 1).values().to_vec()).collect::<Vec<_>>().into();
                emit_alone(&self.spec, side, &filter_record_batch(&rows, &without)?, &kinds, ctx, out)?;
            }
            let with = not(&without)?;
            rows = filter_record_batch(&rows, &with)?;
            adds = adds.map(|adds| {
                adds.into_iter().zip(with.values()).filter(|(_, with)| *with).map(|(adds, _)| adds).collect()
            });
        }
        if rows.num_rows() > 0 {
            self.work.extend(stretches(side, rows, adds)?);
        }
        Ok(())
    }

    /// Goes on until the work is done, or much has gone out for the `rows` that came, or a key is hot: so that, but for
    /// that, a barrier comes before or after all that a batch changes.
    fn advance(&mut self, rows: usize, ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<Progress> {
        let rows_max = out.rows() + BATCHES_MAX * ctx.batch_rows.max(rows).max(1);
        loop {
            let progress = self.go_on(ctx, out)?;
            let is_hot = self.work.front().is_some_and(|work| work.hot.is_some());
            if progress == Progress::Done || is_hot || out.rows() >= rows_max {
                return Ok(progress);
            }
        }
    }

    /// One piece of the work.
    fn go_on(&mut self, ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<Progress> {
        let Some(work) = self.work.front_mut() else { return Ok(Progress::Done) };
        set_time(&self.spec, ctx)?;
        let done = match &mut work.hot {
            Some(hot) => {
                let slice = Slice::new(&self.spec, work.side, work.adds, work.rows.slice(0, 1))?;
                if hot.go_on(&slice, ctx, out)? {
                    finish(&slice, &[hot.done.partners], ctx, out)?;
                    1
                } else {
                    0
                }
            }
            None => {
                let done = join_slice(&self.spec, work, &mut self.slice_rows, ctx, out)?;
                if done == 0 && work.hot.is_none() {
                    return Err(Error::internal("a join makes no progress"));
                }
                done
            }
        };
        if done > 0 {
            work.advance(done);
        }
        if work.rows.num_rows() == 0 {
            self.work.pop_front();
        }
        ctx.memory.hold(self.work.iter().map(|work| work.bytes() as u64).sum());
        Ok(if self.work.is_empty() { Progress::Done } else { Progress::More })
    }
}

fn set_time(spec: &RegularJoinSpec, ctx: &mut OperatorContext<'_>) -> Result<()> {
    let now = ctx.now();
    for side in spec.sides.iter().filter(|side| side.table.ttl.is_some()) {
        ctx.state.keyed(side.name, &side.table)?.set_time(now);
    }
    Ok(())
}

/// Joins the first rows of `work`; how many. None, if the first one has very many partners, and is hot now.
fn join_slice(
    spec: &RegularJoinSpec,
    work: &mut Work,
    slice_rows: &mut usize,
    ctx: &mut OperatorContext<'_>,
    out: &mut Output,
) -> Result<usize> {
    let rows_max = ctx.batch_rows.max(1);
    let pairs_max = BATCHES_MAX * rows_max;
    *slice_rows = (*slice_rows).min(rows_max);
    loop {
        let count = (*slice_rows).clamp(1, rows_max).min(work.rows.num_rows());
        let slice = Slice::new(spec, work.side, work.adds, work.rows.slice(0, count))?;
        let Some(pieces) = slice.find(pairs_max, ctx)? else {
            if count == 1 {
                work.hot = Some(Hot::default());
                return Ok(0);
            }
            *slice_rows = count / 2;
            continue;
        };
        if pieces.iter().map(|pairs| pairs.requests.len()).sum::<usize>() * BATCHES_MAX <= pairs_max {
            *slice_rows = slice_rows.saturating_mul(2);
        }
        let partners = give(&slice, pieces, ctx, out)?;
        finish(&slice, &partners, ctx, out)?;
        return Ok(count);
    }
}

/// Gives out the pairs of a slice; how many partners each of its rows has, if that matters.
fn give(slice: &Slice<'_>, pieces: Vec<Pairs>, ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<Vec<i64>> {
    let (own, other) = (slice.own()?, slice.other()?);
    let mut partners = vec![0; if own.counts_partners { slice.rows.num_rows() } else { 0 }];
    let mut met = Vec::with_capacity(pieces.len());
    for pairs in pieces {
        let pairs = slice.met(pairs)?;
        count(&pairs, other.copies(&pairs.kept), &mut partners);
        let is_plain =
            !other.counts_partners && other.copies(&pairs.kept).is_none_or(|copies| copies.iter().all(|n| *n == 1));
        match (is_plain, slice.spec.kind.has_pairs()) {
            (true, true) => emit(slice.spec, slice.joined(&pairs)?, kinds(slice.adds, pairs.requests.len()), out)?,
            (true, false) => {}
            (false, _) => met.push(pairs),
        }
    }
    if let Some(pairs) = Pairs::concat(met)? {
        let copies = |pair: usize| match other.copies(&pairs.kept) {
            Some(copies) => 0..copies.get(pair).and_then(|copies| u64::try_from(*copies).ok()).unwrap_or(0),
            None => 0..1,
        };
        let (lines, partners) = slice.lines(&pairs, copies)?;
        if lines.len() > 0 {
            let columns = slice.other_columns(&pairs)?;
            lines.emit(slice.spec, slice.side, [slice.rows.columns(), &columns], ctx, out)?;
        }
        partners.write(other, pairs.rows.generation(), ctx)?;
    }
    Ok(partners)
}

fn count(pairs: &Pairs, copies: Option<&[i64]>, partners: &mut [i64]) {
    if partners.is_empty() {
        return;
    }
    for (pair, request) in pairs.requests.values().iter().enumerate() {
        let copies = copies.map_or(1, |copies| copies.get(pair).copied().unwrap_or(0));
        partners.get_mut(*request as usize).into_iter().for_each(|partners| *partners += copies);
    }
}

/// Gives out the rows of a slice that go out alone, and puts all of them into their table or takes them out.
fn finish(slice: &Slice<'_>, partners: &[i64], ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<()> {
    let own = slice.own()?;
    if own.counts_partners {
        let wants_partners = slice.spec.kind == RegularJoinKind::Semi;
        let alone: BooleanArray = partners.iter().map(|partners| Some((*partners > 0) == wants_partners)).collect();
        let kinds = kinds(slice.adds, alone.true_count());
        emit_alone(slice.spec, slice.side, &filter_record_batch(&slice.rows, &alone)?, &kinds, ctx, out)?;
    }
    let table = ctx.state.keyed(own.name, &own.table)?;
    if slice.adds { own.add(table, &slice.rows, partners) } else { own.remove(table, &slice.rows) }
}

impl Operator for RegularJoin {
    fn open(&mut self, ctx: &mut OperatorContext<'_>) -> Result<()> {
        for (input, side) in self.spec.sides.iter().enumerate() {
            ctx.state.keyed(side.name, &side.table)?;
            self.work.extend(restore(side, input, ctx.state)?);
        }
        self.is_stored = !self.work.is_empty();
        Ok(())
    }

    fn on_batch(
        &mut self,
        input: InputId,
        batch: RecordBatch,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        // What was left comes first: it must not see this batch.
        while self.go_on(ctx, out)? == Progress::More {}
        self.take_in(input, &batch, ctx, out)?;
        self.advance(batch.num_rows(), ctx, out)
    }

    fn resume(&mut self, ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<Progress> {
        self.advance(0, ctx, out)
    }

    fn snapshot(&mut self, _: Epoch, ctx: &mut OperatorContext<'_>, _: &mut Output) -> Result<()> {
        if self.work.is_empty() && !self.is_stored {
            return Ok(());
        }
        for input in [LEFT, RIGHT] {
            let Some(side) = self.spec.sides.get(input) else { continue };
            let works: Vec<&Work> = self.work.iter().filter(|work| work.side == input).collect();
            store(side, &works, ctx.state)?;
        }
        self.is_stored = !self.work.is_empty();
        Ok(())
    }
}
