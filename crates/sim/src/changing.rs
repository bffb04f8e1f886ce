//! Operators over tables that change, as the nodes of a shape, and shapes of them.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::logical_expr::Operator as Sign;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, lit};
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};
use ruslo_core::operator::SharedFactory;
use ruslo_core::rng::Rng;
use ruslo_operators::{
    LastRowsSpec, NamedExpr, ProjectSpec, RegularJoinInput, RegularJoinKind, RegularJoinSpec, UpdatingAggregateSpec,
    UpdatingChanges, UpdatingTopN, UpdatingTopNSpec, UpsertMaterializeSpec, sum_udaf,
};

use crate::changelog::{Always, Changelog};
use crate::changes::Told;
use crate::dataset::column;
use crate::joined::less;
use crate::nodes::aggregate;
use crate::shape::{By, Kind, Link, Shape, by, plain};

/// An operator that takes changes or gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changing {
    /// COUNT(*), SUM, MIN, MAX and COUNT(DISTINCT) of a column by another, behind that.
    Group {
        /// By what; if there is none, of all rows.
        key: Option<usize>,
        /// Of what.
        value: usize,
        /// What comes and is said.
        changes: UpdatingChanges,
    },
    /// Rows side by side.
    Join {
        /// Which rows come out.
        kind: RegularJoinKind,
        /// Left and right.
        sides: [Side; 2],
        /// Whether the left value must be less than the right one, too.
        is_less: bool,
    },
    /// The rows with the greatest values.
    Ranked {
        /// Of what; if there is none, of all rows.
        key: Option<usize>,
        /// By what.
        value: usize,
        /// So many.
        limit: usize,
        /// Whether the rank stands behind them.
        has_rank: bool,
        /// What comes and is said.
        changes: UpdatingChanges,
    },
    /// The last row of each value of this column.
    Materialize(usize),
    /// What is there at the end; of each value of a column the last row.
    Last(Option<usize>),
    /// Who gives, and how much, negative; or who takes, and how much.
    Half(bool),
}

/// One input of a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Side {
    /// The column that is equal to that of the other side.
    pub key: usize,
    /// Whether rows only come.
    pub is_append_only: bool,
    /// Whether a key has one row at most.
    pub is_unique: bool,
}

/// Accounts that take.
pub const TAKERS: i64 = 5;

fn nth(input: &SchemaRef, at: usize) -> Arc<dyn PhysicalExpr> {
    Arc::new(Column::new(input.field(at).name(), at))
}

impl Changing {
    /// Over inputs with these columns.
    pub fn operator(self, inputs: &[SchemaRef]) -> (SchemaRef, SharedFactory) {
        let input = &inputs[0];
        match self {
            Self::Group { key, value, changes } => {
                let of = |function, name: &str| aggregate(function, nth(input, value), name, input);
                let distinct = of(count_udaf(), "distinct").distinct(input).unwrap();
                let calls = vec![
                    aggregate(count_udaf(), lit(1i64), "n", input),
                    of(sum_udaf(), "total"),
                    of(min_udaf(), "least"),
                    of(max_udaf(), "most"),
                    distinct,
                ];
                let keys = key.into_iter().collect();
                let spec = UpdatingAggregateSpec::new(input, keys, calls, changes, None).unwrap();
                (spec.schema(), spec.factory())
            }
            Self::Join { kind, sides, is_less } => {
                let side = |at: usize| RegularJoinInput {
                    schema: Arc::clone(&inputs[at]),
                    keys: vec![sides[at].key],
                    is_append_only: sides[at].is_append_only,
                    unique: sides[at].is_unique.then(|| vec![sides[at].key]),
                    lifetime: None,
                };
                let condition = is_less.then(|| less(column::VALUE, input.fields().len()));
                let spec = RegularJoinSpec::new(kind, [side(0), side(1)], &[false], condition.as_ref()).unwrap();
                (spec.schema(), spec.factory())
            }
            Self::Ranked { key, value, limit, has_rank, changes } => {
                let options = SortOptions { descending: true, nulls_first: false };
                let wanted = UpdatingTopN {
                    keys: key.into_iter().collect(),
                    order: vec![PhysicalSortExpr { expr: nth(input, value), options }],
                    arrival: None,
                    limit,
                    rank: has_rank.then(|| "rank".to_owned()),
                    takes_back: changes.takes_back,
                    says_before: changes.says_before,
                    lifetime: None,
                };
                let spec = UpdatingTopNSpec::new(input, wanted).unwrap();
                (spec.schema(), spec.factory())
            }
            Self::Materialize(key) => {
                let spec = UpsertMaterializeSpec::new(input, vec![key]).unwrap();
                (spec.schema(), spec.factory())
            }
            Self::Last(key) => {
                let spec = LastRowsSpec::new(input, key.into_iter().collect()).unwrap();
                (spec.schema(), spec.factory())
            }
            Self::Half(takes) => half(takes, input),
        }
    }

    /// What a sink behind it may see; none, if rows only come.
    pub fn changelog(self, width: usize) -> Option<Changelog> {
        let of = |key: Option<Vec<usize>>, is_upsert| Some(Changelog { key, is_upsert, always: None });
        match self {
            Self::Group { key, changes, .. } => of(Some(key.map(|_| 0).into_iter().collect()), !changes.says_before),
            Self::Join { .. } => of(None, false),
            Self::Ranked { key, has_rank: true, changes, .. } => {
                of(Some(key.into_iter().chain([width - 1]).collect()), !changes.says_before)
            }
            Self::Ranked { key, limit: 1, changes, .. } => of(Some(key.into_iter().collect()), !changes.says_before),
            Self::Ranked { .. } => of(None, false),
            Self::Materialize(key) => of(Some(vec![key]), true),
            Self::Last(_) | Self::Half(_) => None,
        }
    }

    /// How its rows go to a sink: a row of one key after the other.
    pub fn link(self, from: usize) -> Link {
        match self {
            Self::Group { key: Some(_), .. } => by(from, By::Column(0)),
            Self::Ranked { key: Some(key), .. } | Self::Materialize(key) => by(from, By::Column(key)),
            Self::Join { .. } => by(from, By::All),
            Self::Group { key: None, .. } | Self::Ranked { key: None, .. } => by(from, By::Nothing),
            Self::Last(_) | Self::Half(_) => plain(from),
        }
    }

    /// A memory limit, in bytes, under which it cannot keep many keys.
    pub fn tight_memory_bytes(self) -> u64 {
        match self {
            Self::Group { .. } | Self::Join { .. } => 24 << 10,
            Self::Ranked { .. } | Self::Materialize(_) | Self::Last(_) => 12 << 10,
            Self::Half(_) => 0,
        }
    }
}

fn half(takes: bool, input: &SchemaRef) -> (SchemaRef, SharedFactory) {
    let binary = |left, sign, right| Arc::new(BinaryExpr::new(left, sign, right)) as Arc<dyn PhysicalExpr>;
    let [account, amount] = match takes {
        true => [binary(nth(input, column::OFFSET), Sign::Modulo, lit(TAKERS)), nth(input, column::VALUE)],
        false => [nth(input, column::KEY), binary(lit(0i64), Sign::Minus, nth(input, column::VALUE))],
    };
    let named = |expr, name: &str| NamedExpr::new(expr, name, input).unwrap();
    let spec = ProjectSpec::new(vec![named(account, "account"), named(amount, "amount")]);
    (spec.schema(), spec.factory())
}

fn says(rng: &mut Rng, takes_back: bool) -> UpdatingChanges {
    UpdatingChanges { takes_back, says_before: rng.one_in(2) }
}

/// By the key of a source, with what was before.
fn by_key(takes_back: bool) -> Kind {
    let changes = UpdatingChanges { takes_back, says_before: true };
    Kind::Changing(Changing::Group { key: Some(column::KEY), value: column::VALUE, changes })
}

/// A source of changes, or of rows that only come, and whether it is of changes.
fn source(shape: &mut Shape, dataset: usize, rng: &mut Rng) -> (usize, bool) {
    let is_changing = !rng.one_in(3);
    if is_changing {
        shape.told[dataset] = Told::Changes;
    }
    (shape.add(Kind::Source(dataset), &[]), is_changing)
}

fn sink(shape: &mut Shape, number: usize, changing: Changing, from: usize) {
    shape.add(Kind::Sink(number), &[changing.link(from)]);
}

/// Two sources, of which one may be grouped; a join; a sink.
pub fn regular_join_shape(rng: &mut Rng) -> Shape {
    use RegularJoinKind as K;
    let mut shape = Shape::new(None);
    let grouped = [0, 1, 2, 2, 2][rng.below(5)];
    let inputs = [0, 1].map(|dataset| {
        let (source, is_changing) = source(&mut shape, dataset, rng);
        if dataset == grouped {
            let group = shape.add(by_key(is_changing), &[by(source, By::Column(column::KEY))]);
            return (group, Side { key: 0, is_append_only: false, is_unique: true });
        }
        (source, Side { key: column::KEY, is_append_only: !is_changing, is_unique: false })
    });
    let kind = [K::Inner, K::Inner, K::Left, K::Left, K::Right, K::Full, K::Semi, K::Anti][rng.below(8)];
    let sides = inputs.map(|(_, side)| side);
    // The value of both sides is in the same place.
    let is_less = grouped == 2 && rng.one_in(3);
    let join = Changing::Join { kind, sides, is_less };
    let links = inputs.map(|(from, side)| by(from, By::Column(side.key)));
    let node = shape.add(Kind::Changing(join), &links);
    sink(&mut shape, 0, join, node);
    shape
}

/// A source, groups, perhaps groups of groups, a sink.
pub fn group_shape(rng: &mut Rng) -> Shape {
    let mut shape = Shape::new(None);
    let (source, is_changing) = source(&mut shape, 0, rng);
    let links = [by(source, By::Column(column::KEY))];
    let is_cascade = rng.one_in(2);
    let changes = if is_cascade {
        UpdatingChanges { takes_back: is_changing, says_before: true }
    } else {
        says(rng, is_changing)
    };
    let mut group = Changing::Group { key: Some(column::KEY), value: column::VALUE, changes };
    let mut last = shape.add(Kind::Changing(group), &links);
    if is_cascade {
        // By the count, of the total; or all of them.
        let key = (!rng.one_in(3)).then_some(1);
        let link = by(last, key.map_or(By::Nothing, By::Column));
        group = Changing::Group { key, value: 2, changes: says(rng, true) };
        last = shape.add(Kind::Changing(group), &[link]);
    }
    sink(&mut shape, 0, group, last);
    shape
}

/// A source, perhaps groups, the first rows of each key or of all, a sink.
pub fn updating_top_n_shape(rng: &mut Rng) -> Shape {
    let mut shape = Shape::new(None);
    let (source, is_changing) = source(&mut shape, 0, rng);
    let (limit, has_rank) = ([1, 2, 5][rng.below(3)], rng.one_in(2));
    let by_source = by(source, By::Column(column::KEY));
    let (from, ranked) = match rng.one_in(3) {
        true => {
            let group = shape.add(by_key(is_changing), &[by_source]);
            // The keys with the greatest totals.
            let ranked = Changing::Ranked { key: None, value: 2, limit, has_rank, changes: says(rng, true) };
            (by(group, By::Nothing), ranked)
        }
        false => {
            let (key, value, changes) = (Some(column::KEY), column::VALUE, says(rng, is_changing));
            (by_source, Changing::Ranked { key, value, limit, has_rank, changes })
        }
    };
    let last = shape.add(Kind::Changing(ranked), &[from]);
    sink(&mut shape, 0, ranked, last);
    shape
}

/// A source, groups, and what a sink needs that is written by another key, or at the end.
pub fn final_shape(rng: &mut Rng) -> Shape {
    let mut shape = Shape::new(None);
    let (source, is_changing) = source(&mut shape, 0, rng);
    let mut last = shape.add(by_key(is_changing), &[by(source, By::Column(column::KEY))]);
    let is_materialized = rng.one_in(2);
    let mut changing = Changing::Materialize(1);
    if is_materialized {
        last = shape.add(Kind::Changing(changing), &[by(last, By::Column(1))]);
    }
    if !is_materialized || rng.one_in(2) {
        let (key, way) = match (is_materialized, rng.one_in(2)) {
            (true, _) => (Some(1), By::Column(1)),
            (false, true) => (Some(0), By::Column(0)),
            (false, false) => (None, By::All),
        };
        changing = Changing::Last(key);
        last = shape.add(Kind::Changing(changing), &[by(last, way)]);
    }
    sink(&mut shape, 0, changing, last);
    shape
}

/// Transfers between accounts: the balances, their total, and the balances beside themselves.
pub fn transfers_shape(rng: &mut Rng) -> Shape {
    let mut shape = Shape::new(None);
    let source = shape.add(Kind::Source(0), &[]);
    let halves = [false, true].map(|takes| shape.add(Kind::Changing(Changing::Half(takes)), &[plain(source)]));
    let balances =
        Changing::Group { key: Some(0), value: 1, changes: UpdatingChanges { takes_back: false, says_before: true } };
    let accounts = shape.add(Kind::Changing(balances), &halves.map(|half| by(half, By::Column(0))));
    sink(&mut shape, 0, balances, accounts);
    shape.always.insert(0, Always::SumIsZero(2));
    let sum = Changing::Group { key: None, value: 2, changes: says(rng, true) };
    let total = shape.add(Kind::Changing(sum), &[by(accounts, By::Nothing)]);
    sink(&mut shape, 1, sum, total);
    shape.always.insert(1, Always::SumIsZero(1));
    let side = Side { key: 0, is_append_only: false, is_unique: true };
    let join = Changing::Join { kind: RegularJoinKind::Inner, sides: [side; 2], is_less: false };
    let twice = shape.add(Kind::Changing(join), &[by(accounts, By::Column(0)); 2]);
    sink(&mut shape, 2, join, twice);
    shape.always.insert(2, Always::HalvesAreEqual(6));
    shape
}
