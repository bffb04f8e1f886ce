//! Joins with the version of a row that was valid at a time, as the nodes of a shape.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use ruslo_core::operator::SharedFactory;
use ruslo_core::rng::Rng;
use ruslo_operators::{AsOf, AsOfJoinInput, AsOfJoinSpec};

use crate::changes::Told;
use crate::dataset::column;
use crate::joined::{less, passed};
use crate::nodes::Windows;
use crate::shape::{EventTime, Kind, Shape, keyed, plain};

/// A join by key with the version that was valid at a row's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Temporal {
    /// Whether a version counts at its own time, too.
    pub as_of: AsOf,
    /// Whether left rows without a version come out.
    pub keeps_left: bool,
    /// Whether versions are changes, of which some end what was valid.
    pub has_changes: bool,
    /// Whether the left value must be less than the version's.
    pub is_less: bool,
}

impl Temporal {
    /// Over inputs with these columns.
    pub fn operator(self, inputs: &[SchemaRef]) -> (SchemaRef, SharedFactory) {
        let side = |input: &SchemaRef| AsOfJoinInput {
            schema: Arc::clone(input),
            keys: vec![column::KEY],
            time: column::TIME,
        };
        let (sides, width) = ([side(&inputs[0]), side(&inputs[1])], inputs[0].fields().len());
        let spec = AsOfJoinSpec::new(sides, self.as_of, self.keeps_left, self.has_changes).unwrap();
        let spec = if self.is_less { spec.on(less(column::VALUE, width)) } else { spec };
        let spec =
            if self.keeps_left { spec.clone().with_schema(relaxed(&spec.schema(), width)).unwrap() } else { spec };
        (spec.schema(), spec.factory())
    }
}

/// The same where all but the first columns, so many, may be NULL.
fn relaxed(schema: &SchemaRef, width: usize) -> SchemaRef {
    let fields = schema.fields().iter().enumerate();
    let fields = fields.map(|(at, field)| field.as_ref().clone().with_nullable(at >= width || field.is_nullable()));
    Arc::new(Schema::new(fields.collect::<Vec<Field>>()))
}

/// A source of rows, one of versions, the version of each row, a sink; sometimes windows over the rows' time.
pub fn temporal_shape(event_time: EventTime, rng: &mut Rng) -> Shape {
    let mut shape = Shape::new(Some(event_time));
    let has_changes = rng.one_in(2);
    let left = passed(&mut shape, 0, rng);
    let right = if has_changes {
        // Of one key and time the change that came last counts: they must not be passed by any subtask.
        shape.told[1] = Told::Versions;
        shape.add(Kind::Source(1), &[])
    } else {
        passed(&mut shape, 1, rng)
    };
    let as_of = if rng.one_in(3) { AsOf::Before } else { AsOf::AtOrBefore };
    let temporal = Temporal { as_of, keeps_left: rng.one_in(2), has_changes, is_less: rng.one_in(4) };
    let mut last = shape.add(Kind::Temporal(temporal), &[keyed(left), keyed(right)]);
    if rng.one_in(4) {
        let rows = shape.add(Kind::Side(0), &[plain(last)]);
        last = shape.add(Kind::Window(Windows::Tumble), &[keyed(rows)]);
    }
    shape.add(Kind::Sink(0), &[plain(last)]);
    shape
}
