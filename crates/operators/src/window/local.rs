//! The local half of a two-phase window aggregation: groups the rows of one sender before they are exchanged by key, so
//! that a key which comes often crosses the exchange once for each slice and not once for each row.
//!
//! ```text
//! rows ─▶ LocalAggregate ─ partial groups, by key ─▶ the window's operator, which merges them ─▶ results
//! ```
//!
//! It holds groups until the window's operator needs them, and no longer than is good for memory:
//!
//! - a watermark that completes a slice's first window lets out that slice;
//! - a barrier, the end, and reaching a bound let out everything: so a checkpoint has nothing of it.
//!
//! It is not for senders that may fall idle: receivers would go on without what it holds.
//!
//! Which rows are late is judged here, as everywhere by the split's watermark; partial groups say for which windows
//! they count, so that late rows and partly late ones are the same in one phase and in two.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use ruslo_core::epoch::Epoch;
use ruslo_core::equation::Equation;
use ruslo_core::error::Result;
use ruslo_core::operator::{InputId, Operator, OperatorContext, Output, Progress, SharedFactory};
use ruslo_core::time::Timestamp;

use super::groups::GroupSet;
use super::partial::{partial_schema, to_partials};
use super::partition::{SliceKey, partition};
use super::shape::is_complete;
use super::spec::WindowAggregateSpec;

/// Groups held at most.
const GROUPS_MAX: usize = 1 << 15;
/// Slices held at most.
const SLICES_MAX: usize = 1 << 10;
/// Bytes held at most, soft by one batch's groups.
const BYTES_MAX: usize = 16 << 20;

/// The local half of a [`WindowAggregateSpec`]: see [`WindowAggregateSpec::two_phases`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LocalAggregateSpec {
    whole: WindowAggregateSpec,
    schema: SchemaRef,
}

impl LocalAggregateSpec {
    /// What comes before `whole`, which takes rows.
    pub(super) fn new(whole: WindowAggregateSpec) -> Self {
        let schema = partial_schema(whole.plan.sealed_schema());
        Self { whole, schema }
    }

    /// The columns that come out: the keys, from the first column on; then the states of the aggregates and what the
    /// window's operator must know of them.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Makes the operator of each subtask.
    pub fn factory(self) -> SharedFactory {
        Arc::new(move || Ok(LocalAggregate::new(self.clone())))
    }
}

/// The groups of a slice that are still here.
struct Slice {
    groups: GroupSet,
    count: usize,
    bytes: usize,
}

struct LocalAggregate {
    spec: LocalAggregateSpec,
    slices: BTreeMap<SliceKey, Slice>,
    /// Over all slices.
    groups: usize,
    bytes: usize,
}

impl LocalAggregate {
    fn new(spec: LocalAggregateSpec) -> Self {
        Self { spec, slices: BTreeMap::new(), groups: 0, bytes: 0 }
    }

    fn update(&mut self, key: SliceKey, rows: &RecordBatch) -> Result<()> {
        let slice = match self.slices.entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                entry.insert(Slice { groups: GroupSet::new(&self.spec.whole.plan)?, count: 0, bytes: 0 })
            }
        };
        slice.groups.update(rows)?;
        let count = std::mem::replace(&mut slice.count, slice.groups.len());
        let bytes = std::mem::replace(&mut slice.bytes, slice.groups.bytes());
        self.groups = self.groups - count + slice.count;
        self.bytes = self.bytes - bytes + slice.bytes;
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.groups >= GROUPS_MAX || self.slices.len() >= SLICES_MAX || self.bytes >= BYTES_MAX
    }

    /// Lets out the slices that `is_due` names, as one batch.
    fn flush(&mut self, is_due: impl Fn(SliceKey) -> bool, ctx: &OperatorContext<'_>, out: &mut Output) -> Result<()> {
        let mut partials = Vec::new();
        let due: Vec<SliceKey> = self.slices.keys().copied().filter(|key| is_due(*key)).collect();
        for (key, slice) in due.into_iter().filter_map(|key| Some((key, self.slices.remove(&key)?))) {
            self.groups -= slice.count;
            self.bytes -= slice.bytes;
            partials.push(to_partials(key, &slice.groups.seal()?, &self.spec.schema)?);
        }
        if !partials.is_empty() {
            out.emit(concat_batches(&self.spec.schema, &partials)?);
        }
        self.account(ctx)
    }

    fn account(&self, ctx: &OperatorContext<'_>) -> Result<()> {
        let bytes = self.bytes as u64;
        if bytes == ctx.memory.bytes() { Ok(()) } else { ctx.memory.resize(bytes) }
    }
}

impl Operator for LocalAggregate {
    fn equation(&self) -> Equation {
        Equation::Keeps
    }

    fn on_batch(
        &mut self,
        _input: InputId,
        batch: RecordBatch,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        let rows = partition(&batch, self.spec.whole.time_column, self.spec.whole.shape)?;
        ctx.metrics.late_rows.add(rows.late_rows);
        for (slice, rows) in &rows.slices {
            ctx.metrics.kept_rows.add(rows.num_rows());
            self.update(*slice, rows)?;
        }
        // What the pipeline's memory has no room for needs none here.
        if self.is_full() || self.account(ctx).is_err() {
            self.flush(|_| true, ctx, out)?;
        }
        Ok(Progress::Done)
    }

    fn on_watermark(
        &mut self,
        watermark: Timestamp,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        let reached = self.spec.whole.shape.clock().watermark(watermark.millis());
        self.flush(|key| is_complete(key.from, reached), ctx, out)?;
        Ok(Progress::Done)
    }

    fn snapshot(&mut self, _epoch: Epoch, ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<()> {
        self.flush(|_| true, ctx, out)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::{ArrayRef, AsArray, Int64Array, TimestampMillisecondArray};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit, TimestampMillisecondType};
    use datafusion::functions_aggregate::count::count_udaf;
    use datafusion::physical_expr::aggregate::AggregateExprBuilder;
    use datafusion::physical_expr::expressions::col;
    use ruslo_core::element::EndReason;
    use ruslo_core::memory::MemoryPool;
    use ruslo_core::rng::Rng;
    use ruslo_core::schema::with_split_watermarks;

    use super::*;
    use crate::expression::NamedExpr;
    use crate::testing::{TestContext, drain, run_batch, run_watermark};
    use crate::window::{AggregateCall, WindowShape};

    fn schema() -> SchemaRef {
        let time = DataType::Timestamp(TimeUnit::Millisecond, None);
        Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("ts", time, true)]))
    }

    fn rows(rows: &[(i64, i64)]) -> RecordBatch {
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0)));
        let times: ArrayRef = Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.1)));
        RecordBatch::try_new(schema(), vec![keys, times]).unwrap()
    }

    fn whole(shape: WindowShape) -> WindowAggregateSpec {
        let k = col("k", &schema()).unwrap();
        let key = NamedExpr::new(Arc::clone(&k), "k", &schema()).unwrap();
        let count = AggregateExprBuilder::new(count_udaf(), vec![k]).schema(schema()).alias("n").build().unwrap();
        WindowAggregateSpec::new(&schema(), vec![key], vec![AggregateCall::new(Arc::new(count))], 1, shape).unwrap()
    }

    fn local(shape: WindowShape) -> Box<dyn Operator> {
        whole(shape).two_phases().unwrap().0.factory().create().unwrap()
    }

    fn tumble() -> WindowShape {
        WindowShape::tumble(10, 0).unwrap()
    }

    /// (key, count, slice end, first window) of each partial group.
    fn partials(batches: &[RecordBatch]) -> Vec<[i64; 4]> {
        let mut found = Vec::new();
        for batch in batches {
            let column = |at: usize| batch.column(at).as_primitive::<Int64Type>().values();
            found.extend((0..batch.num_rows()).map(|row| [0, 1, 2, 3].map(|at| column(at)[row])));
        }
        found
    }

    #[test]
    fn a_slice_leaves_once_its_first_window_can_fire_and_not_before() {
        let (mut operator, mut test) = (local(tumble()), TestContext::new());
        let made = run_batch(operator.as_mut(), rows(&[(1, 3), (2, 9), (1, 10), (1, 0)]), &mut test).unwrap();
        assert!(made.is_empty() && test.memory.bytes() > 0);
        assert!(run_watermark(operator.as_mut(), Timestamp(8), &mut test).unwrap().is_empty());
        let made = run_watermark(operator.as_mut(), Timestamp(9), &mut test).unwrap();
        assert_eq!(partials(&made), [[1, 2, 10, 10], [2, 1, 10, 10]]);
        let made = run_watermark(operator.as_mut(), Timestamp::MAX, &mut test).unwrap();
        assert_eq!(partials(&made), [[1, 1, 20, 20]]);
        assert_eq!(test.memory.bytes(), 0);
    }

    #[test]
    fn a_barrier_and_a_bound_let_out_everything() {
        let (mut operator, mut test) = (local(tumble()), TestContext::new());
        let mut out = Output::default();
        run_batch(operator.as_mut(), rows(&[(1, 3), (1, 13)]), &mut test).unwrap();
        operator.snapshot(Epoch(1), &mut test.context(), &mut out).unwrap();
        let made = drain(operator.as_mut(), Progress::Done, &mut test, &mut out).unwrap();
        assert_eq!(partials(&made), [[1, 1, 10, 10], [1, 1, 20, 20]]);
        assert_eq!(test.memory.bytes(), 0);

        let many: Vec<_> = (0..GROUPS_MAX as i64).map(|key| (key, 25)).collect();
        let made = run_batch(operator.as_mut(), rows(&many), &mut test).unwrap();
        assert_eq!(made.iter().map(RecordBatch::num_rows).sum::<usize>(), GROUPS_MAX);
    }

    #[test]
    fn a_pool_without_room_is_no_error() {
        let (mut operator, mut test) = (local(tumble()), TestContext::new());
        test.pool = MemoryPool::new(16);
        test.memory = test.pool.reserve("local");
        let made = run_batch(operator.as_mut(), rows(&[(1, 1), (1, 2), (2, 3)]), &mut test).unwrap();
        assert_eq!(partials(&made), [[1, 2, 10, 10], [2, 1, 10, 10]]);
    }

    #[test]
    fn late_rows_are_counted_here_and_partly_late_ones_say_for_what_they_count() {
        let (mut operator, mut test) = (local(WindowShape::hop(10, 30, 0).unwrap()), TestContext::new());
        let marks = Int64Array::from(vec![8, 9, 18, 19, 28, 29]);
        let batch = rows(&[(1, 5), (1, 6), (1, 7), (1, 8), (1, 9), (1, 5)]);
        run_batch(operator.as_mut(), with_split_watermarks(&batch, marks).unwrap(), &mut test).unwrap();
        assert_eq!(test.metrics.late_rows.get(), 1);
        let made = run_watermark(operator.as_mut(), Timestamp(19), &mut test).unwrap();
        assert_eq!(partials(&made), [[1, 1, 10, 10], [1, 2, 10, 20]]);
        let made = run_watermark(operator.as_mut(), Timestamp(29), &mut test).unwrap();
        assert_eq!(partials(&made), [[1, 2, 10, 30]]);
    }

    /// (window end, key) → count.
    type Results = BTreeMap<(i64, i64), i64>;

    fn add_results(batches: &[RecordBatch], into: &mut Results) {
        for batch in batches {
            let keys = batch.column(0).as_primitive::<Int64Type>().values();
            let counts = batch.column(1).as_primitive::<Int64Type>().values();
            let ends = batch.column(3).as_primitive::<TimestampMillisecondType>().values();
            for ((key, count), end) in keys.iter().zip(counts).zip(ends) {
                assert_eq!(into.insert((*end, *key), *count), None, "twice: key {key}, window {end}");
            }
        }
    }

    /// Runs one sender and the window's operator through random rows; checkpoints, restores, changes of the phases.
    fn run_random(shape: WindowShape, rng: &mut Rng) -> (Results, Vec<(i64, i64)>) {
        let (mut found, mut sent) = (Results::new(), Vec::new());
        let mut test = TestContext::new();
        let (mut local, mut global) = (None, whole(shape).factory().create().unwrap());
        global.open(&mut test.context()).unwrap();
        let mut watermark = 0;
        for _ in 0..30 {
            if rng.one_in(3) {
                // A checkpoint and a restore, in one phase or in two.
                if let Some(mut local) = local.take() {
                    let local: &mut dyn Operator = Box::as_mut(&mut local);
                    let mut out = Output::default();
                    local.snapshot(Epoch(1), &mut TestContext::new().context(), &mut out).unwrap();
                    for batch in drain(local, Progress::Done, &mut TestContext::new(), &mut out).unwrap() {
                        add_results(&run_batch(global.as_mut(), batch, &mut test).unwrap(), &mut found);
                    }
                }
                global.snapshot(Epoch(1), &mut test.context(), &mut Output::default()).unwrap();
                let (first, second) = whole(shape).two_phases().unwrap();
                let in_two = rng.one_in(2);
                local = in_two.then(|| first.factory().create().unwrap());
                global = if in_two { second } else { whole(shape) }.factory().create().unwrap();
                global.open(&mut test.context()).unwrap();
            }
            let mut row = || (rng.below(4) as i64, watermark + 1 + rng.below(60) as i64);
            let some: Vec<_> = (0..7).map(|_| row()).collect();
            sent.extend(&some);
            let batches = match &mut local {
                Some(local) => run_batch(local.as_mut(), rows(&some), &mut TestContext::new()).unwrap(),
                None => vec![rows(&some)],
            };
            watermark += rng.below(15) as i64;
            let flushed = local
                .as_mut()
                .map(|local| run_watermark(local.as_mut(), Timestamp(watermark), &mut TestContext::new()).unwrap());
            for batch in batches.into_iter().chain(flushed.into_iter().flatten()) {
                add_results(&run_batch(global.as_mut(), batch, &mut test).unwrap(), &mut found);
            }
            add_results(&run_watermark(global.as_mut(), Timestamp(watermark), &mut test).unwrap(), &mut found);
        }
        if let Some(mut local) = local {
            let rest = run_watermark(local.as_mut(), Timestamp::MAX, &mut TestContext::new()).unwrap();
            let end = local.on_end(0, EndReason::Drain, &mut TestContext::new().context(), &mut Output::default());
            assert_eq!(end.unwrap(), Progress::Done);
            for batch in rest {
                add_results(&run_batch(global.as_mut(), batch, &mut test).unwrap(), &mut found);
            }
        }
        add_results(&run_watermark(global.as_mut(), Timestamp::MAX, &mut test).unwrap(), &mut found);
        (found, sent)
    }

    #[test]
    fn two_phases_answer_as_one_does_and_a_checkpoint_of_either_goes_on_as_the_other() {
        let shapes = [tumble(), WindowShape::hop(10, 30, 3).unwrap(), WindowShape::cumulate(10, 40, 0).unwrap()];
        for seed in 0..40 {
            for shape in shapes {
                let (found, sent) = run_random(shape, &mut Rng::seeded(seed));
                let mut expected = Results::new();
                for (key, time) in sent {
                    for end in shape.ends_of(shape.slice_of(time).unwrap()) {
                        *expected.entry((end, key)).or_default() += 1;
                    }
                }
                assert_eq!(found, expected, "{shape:?}, seed {seed}");
            }
        }
    }
}
