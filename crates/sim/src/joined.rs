//! Joins that event time bounds, as the nodes of a shape.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::Operator as Sign;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Column};
use ruslo_core::operator::SharedFactory;
use ruslo_core::rng::Rng;
use ruslo_operators::{NamedExpr, ProjectSpec, TimedJoinInput, TimedJoinKind, TimedJoinSpec, WINDOW_END, WindowClock};

use crate::dataset::{column, schema};
use crate::nodes::Windows;
use crate::shape::{EventTime, Kind, Shape, keyed, plain};

/// A join by key and time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timed {
    /// Which rows come out.
    pub kind: TimedJoinKind,
    /// The left time minus the right one, at least and at most, in milliseconds; if there is none, rows of one window meet:
    /// the inputs are [`Kind::Assign`].
    pub bounds: Option<(i64, i64)>,
    /// Whether the left value must be less than the right one, too.
    pub is_less: bool,
}

/// `left.column < right.column`, where the left has so many columns.
pub fn less(column: usize, width: usize) -> Arc<dyn PhysicalExpr> {
    let [left, right] = [column, width + column].map(|at| Arc::new(Column::new("value", at)));
    Arc::new(BinaryExpr::new(left, Sign::Lt, right))
}

impl Timed {
    /// Over inputs with these columns.
    pub fn operator(self, inputs: &[SchemaRef]) -> (SchemaRef, SharedFactory) {
        let time = |input: &SchemaRef| input.column_with_name(WINDOW_END).map_or(column::TIME, |(at, _)| at);
        let side = |input: &SchemaRef| TimedJoinInput {
            schema: Arc::clone(input),
            keys: vec![column::KEY],
            time: time(input),
        };
        let sides = [side(&inputs[0]), side(&inputs[1])];
        let spec = match self.bounds {
            Some((lower, upper)) => TimedJoinSpec::interval(self.kind, sides, lower, upper),
            None => TimedJoinSpec::window(self.kind, sides, WindowClock::plain()),
        };
        let spec = spec.unwrap();
        let spec = if self.is_less { spec.on(less(column::VALUE, inputs[0].fields().len())) } else { spec };
        (spec.schema(), spec.factory())
    }

    /// Whether rows of both sides come out.
    pub fn has_pairs(self) -> bool {
        !matches!(self.kind, TimedJoinKind::Semi | TimedJoinKind::Anti)
    }
}

/// The columns of one side of a join's rows, as a source has them; left 0, right 1.
pub fn side(input: &SchemaRef, side: usize) -> (SchemaRef, SharedFactory) {
    let width = schema().fields().len();
    let columns = (0..width).map(|at| {
        let name = schema().field(at).name().clone();
        NamedExpr::new(Arc::new(Column::new(&name, side * width + at)), name.clone(), input).unwrap()
    });
    let spec = ProjectSpec::new(columns.collect());
    (spec.schema(), spec.factory())
}

fn kind(rng: &mut Rng) -> TimedJoinKind {
    use TimedJoinKind as K;
    [K::Inner, K::Left, K::Right, K::Full, K::Semi, K::Anti][rng.below(6)]
}

/// A source, perhaps a pass.
pub fn passed(shape: &mut Shape, dataset: usize, rng: &mut Rng) -> usize {
    let source = shape.add(Kind::Source(dataset), &[]);
    if rng.one_in(4) { shape.add(Kind::Pass(rng.below(3)), &[plain(source)]) } else { source }
}

/// Two sources, a join of rows whose times are near each other, a sink; sometimes windows over the time of one side.
pub fn interval_shape(event_time: EventTime, rng: &mut Rng) -> Shape {
    let mut shape = Shape::new(Some(event_time));
    let sides = [0, 1].map(|dataset| keyed(passed(&mut shape, dataset, rng)));
    let reach = [30, 300, 2_500][rng.below(3)];
    let lower = rng.below(2 * reach) as i64 - reach as i64;
    let bounds = Some((lower, lower + rng.below(reach) as i64));
    let timed = Timed { kind: kind(rng), bounds, is_less: rng.one_in(3) };
    let join = shape.add(Kind::Timed(timed), &sides);
    let columns = match timed.kind {
        TimedJoinKind::Full => None,
        TimedJoinKind::Inner => Some(rng.below(2)),
        TimedJoinKind::Right => Some(1),
        _ => Some(0),
    };
    let last = match columns.filter(|_| rng.one_in(2)) {
        Some(side) => {
            let side = shape.add(Kind::Side(side), &[plain(join)]);
            shape.add(Kind::Window(Windows::Tumble), &[keyed(side)])
        }
        None => join,
    };
    shape.add(Kind::Sink(0), &[plain(last)]);
    shape
}

/// Two sources whose rows have windows, a join of the rows of each window, a sink.
pub fn window_join_shape(event_time: EventTime, rng: &mut Rng) -> Shape {
    let mut shape = Shape::new(Some(event_time));
    let windows = [Windows::Tumble, Windows::Hop(2), Windows::Cumulate(2)][rng.below(3)];
    let sides = [0, 1].map(|dataset| {
        let last = passed(&mut shape, dataset, rng);
        keyed(shape.add(Kind::Assign(windows), &[plain(last)]))
    });
    let timed = Timed { kind: kind(rng), bounds: None, is_less: rng.one_in(3) };
    let join = shape.add(Kind::Timed(timed), &sides);
    shape.add(Kind::Sink(0), &[plain(join)]);
    shape
}
