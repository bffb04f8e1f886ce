//! What a timed join is: its inputs, which rows meet, and what comes out.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::physical_expr::PhysicalExpr;
use ruslo_core::error::{Error, Result};
use ruslo_core::key_group::hash_rows;
use ruslo_core::operator::SharedFactory;

use super::operator::TimedJoin;
use crate::StateTable;
use crate::window::WindowClock;

/// A bucket is a 32nd of the distance that the bounds leave, and between these.
const BUCKET_MS: (i64, i64) = (1_000, 600_000);
const BUCKETS_OF_A_DISTANCE: i64 = 32;

/// Which rows come out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimedJoinKind {
    /// Pairs.
    Inner,
    /// Pairs, and left rows without a partner beside NULLs.
    Left,
    /// Pairs, and right rows without a partner beside NULLs.
    Right,
    /// Pairs, and rows of either side without a partner beside NULLs.
    Full,
    /// Left rows that have a partner, alone.
    Semi,
    /// Left rows that have none, alone.
    Anti,
}

impl TimedJoinKind {
    /// Whether the left rows come out alone.
    pub(super) fn is_of_left(self) -> bool {
        matches!(self, Self::Semi | Self::Anti)
    }

    /// Whether rows of a side, 0 or 1, come out when they have found no partner.
    pub(super) fn gives_unmatched(self, side: usize) -> bool {
        match side {
            0 => matches!(self, Self::Left | Self::Full | Self::Anti),
            _ => matches!(self, Self::Right | Self::Full),
        }
    }

    /// Whether it matters if a row of a side has found a partner.
    pub(super) fn is_marked(self, side: usize) -> bool {
        self.gives_unmatched(side) || (side == 0 && self == Self::Semi)
    }
}

/// One of the inputs of a join.
#[derive(Debug, Clone)]
pub struct TimedJoinInput {
    /// Its columns, without hidden ones.
    pub schema: SchemaRef,
    /// The columns that equal those of the other side, in the same order and of the same types.
    pub keys: Vec<usize>,
    /// The event time, or the end of the window.
    pub time: usize,
}

/// How far the times of two rows may be apart, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// The left time minus the right one, at least.
    lower_ms: i64,
    /// At most.
    upper_ms: i64,
    /// Rows are kept and forgotten by so many milliseconds of time.
    pub(super) bucket_ms: i64,
    /// How long before what the time column says a row's time is.
    pub(super) before_ms: i64,
    pub(super) clock: WindowClock,
}

impl Bounds {
    /// The times that partners of a row of `side` may have.
    pub(super) fn partners(self, side: usize, time: i64) -> (i64, i64) {
        match side {
            0 => (time.saturating_sub(self.upper_ms), time.saturating_sub(self.lower_ms)),
            _ => (time.saturating_add(self.lower_ms), time.saturating_add(self.upper_ms)),
        }
    }

    pub(super) fn bucket_of(self, time: i64) -> i64 {
        time.saturating_sub(time.rem_euclid(self.bucket_ms))
    }

    /// Whether no row that is to come can be a partner of one in a bucket of `side`.
    pub(super) fn is_over(self, side: usize, bucket: i64, watermark: i64) -> bool {
        let last = bucket.saturating_add(self.bucket_ms - 1);
        self.partners(side, last).1 <= watermark
    }
}

/// A join by time; cheap to clone.
#[derive(Debug, Clone)]
pub struct TimedJoinSpec {
    pub(super) kind: TimedJoinKind,
    pub(super) sides: [Arc<SideSpec>; 2],
    pub(super) condition: Option<Arc<dyn PhysicalExpr>>,
    pub(super) nulls_are_equal: bool,
    pub(super) bounds: Bounds,
    /// The columns of both sides, which the condition is over.
    pub(super) both: SchemaRef,
    pub(super) schema: SchemaRef,
}

/// What is known of the rows of one side.
#[derive(Debug)]
pub(super) struct SideSpec {
    pub(super) schema: SchemaRef,
    pub(super) keys: Vec<usize>,
    pub(super) time: usize,
    /// Whether it matters if a row has found a partner.
    pub(super) is_marked: bool,
    /// The rows' columns, their number, whether they have found a partner.
    pub(super) stored: SchemaRef,
    pub(super) tables: Tables,
}

/// The names of a side's state tables. Stored in checkpoints.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tables {
    /// The rows.
    pub(super) rows: &'static str,
    /// Stored rows that have found a partner since.
    pub(super) matched: &'static str,
    /// Rows that have not seen all of the other side.
    pub(super) pending: &'static str,
}

const TABLES: [Tables; 2] = [
    Tables { rows: "left", matched: "left_matched", pending: "left_pending" },
    Tables { rows: "right", matched: "right_matched", pending: "right_pending" },
];

impl TimedJoinSpec {
    /// Joins rows of which the left time minus the right one is from `lower_ms` to `upper_ms`.
    ///
    /// # Errors
    /// `Usage`, if a column's type cannot be a key; `Internal`, if the inputs do not fit: the planner made them.
    pub fn interval(kind: TimedJoinKind, inputs: [TimedJoinInput; 2], lower_ms: i64, upper_ms: i64) -> Result<Self> {
        let distance = upper_ms.saturating_sub(lower_ms).max(0);
        let bucket_ms = (distance / BUCKETS_OF_A_DISTANCE).clamp(BUCKET_MS.0, BUCKET_MS.1);
        let bounds = Bounds { lower_ms, upper_ms, bucket_ms, before_ms: 0, clock: WindowClock::plain() };
        Self::new(kind, inputs, bounds)
    }

    /// Joins rows of one window, which is told by its end.
    ///
    /// # Errors
    /// As [`Self::interval`].
    pub fn window(kind: TimedJoinKind, inputs: [TimedJoinInput; 2], clock: WindowClock) -> Result<Self> {
        let bounds = Bounds { lower_ms: 0, upper_ms: 0, bucket_ms: 1, before_ms: 1, clock };
        Self::new(kind, inputs, bounds)
    }

    fn new(kind: TimedJoinKind, inputs: [TimedJoinInput; 2], bounds: Bounds) -> Result<Self> {
        let key_types = |input: &TimedJoinInput| {
            let fields = input.keys.iter().map(|key| input.schema.fields().get(*key));
            fields.map(|field| field.map(|field| field.data_type().clone())).collect::<Option<Vec<_>>>()
        };
        let [left, right] = &inputs;
        if key_types(left).is_none() || key_types(left) != key_types(right) {
            return Err(Error::internal("the keys of a join differ in type"));
        }
        for input in &inputs {
            let is_time = |field: &Arc<Field>| matches!(field.data_type(), DataType::Timestamp(..));
            if !input.schema.fields().get(input.time).is_some_and(is_time) {
                return Err(Error::internal("a join by time needs a TIMESTAMP"));
            }
            let empty = RecordBatch::new_empty(input.schema.clone()).project(&input.keys)?;
            hash_rows(empty.columns(), 0)?;
        }
        let of_both = |fields: [Vec<Arc<Field>>; 2]| Arc::new(Schema::new(fields.concat()));
        let fields = |side: usize, padded: bool| {
            let fields = inputs.get(side).map(|input| input.schema.fields().iter()).into_iter().flatten();
            let padded = |field: &Arc<Field>| match padded {
                true => Arc::new(field.as_ref().clone().with_nullable(true)),
                false => Arc::clone(field),
            };
            fields.map(padded).collect::<Vec<_>>()
        };
        let both = of_both([fields(0, true), fields(1, true)]);
        let schema = match kind.is_of_left() {
            true => left.schema.clone(),
            false => of_both([fields(0, kind.gives_unmatched(1)), fields(1, kind.gives_unmatched(0))]),
        };
        let [left, right] = inputs;
        let sides = [Arc::new(SideSpec::new(left, 0, kind)), Arc::new(SideSpec::new(right, 1, kind))];
        Ok(Self { kind, sides, condition: None, nulls_are_equal: false, bounds, both, schema })
    }

    /// The same, of pairs for which `condition`, a BOOLEAN over the columns of left and right, is true.
    #[must_use]
    pub fn on(self, condition: Arc<dyn PhysicalExpr>) -> Self {
        Self { condition: Some(condition), ..self }
    }

    /// The same, where a NULL in a key equals another one.
    #[must_use]
    pub fn with_equal_nulls(self) -> Self {
        Self { nulls_are_equal: true, ..self }
    }

    /// The same under other names: the columns that come out.
    ///
    /// # Errors
    /// `Internal`, if types differ.
    pub fn with_schema(self, schema: SchemaRef) -> Result<Self> {
        let types = |schema: &Schema| schema.fields().iter().map(|field| field.data_type().clone()).collect::<Vec<_>>();
        if types(&schema) != types(&self.schema) {
            return Err(Error::internal("a join's columns have other types than planned"));
        }
        Ok(Self { schema, ..self })
    }

    /// The columns that come out: those of the left, then those of the right; of a semi or anti join the left's.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// The state tables whose columns follow from this spec.
    pub fn state_tables(&self) -> Vec<StateTable> {
        self.sides.iter().map(|side| (side.tables.rows, side.stored.clone())).collect()
    }

    /// How far behind its input its output may be, in milliseconds.
    pub fn hold_ms(&self) -> i64 {
        let Bounds { lower_ms, upper_ms, bucket_ms, .. } = self.bounds;
        let pads = self.kind.gives_unmatched(0) || self.kind.gives_unmatched(1);
        // Rows without a partner leave with their bucket.
        let late = if pads { bucket_ms - 1 } else { 0 };
        upper_ms.max(lower_ms.saturating_neg()).max(0).saturating_add(late)
    }

    /// Makes the operator of each subtask.
    pub fn factory(self) -> SharedFactory {
        Arc::new(move || Ok(TimedJoin::new(self.clone())))
    }
}

impl SideSpec {
    fn new(input: TimedJoinInput, side: usize, kind: TimedJoinKind) -> Self {
        let columns = input.schema.fields().iter().enumerate();
        let columns =
            columns.map(|(place, field)| Field::new(format!("column{place}"), field.data_type().clone(), true));
        let own = [Field::new("row", DataType::Int64, false), Field::new("matched", DataType::Boolean, false)];
        let stored = Arc::new(Schema::new(columns.chain(own).collect::<Vec<_>>()));
        let tables = if side == 0 { TABLES[0] } else { TABLES[1] };
        let TimedJoinInput { schema, keys, time } = input;
        Self { schema, keys, time, is_marked: kind.is_marked(side), stored, tables }
    }
}
