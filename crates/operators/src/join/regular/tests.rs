//! Joins against nested loops over what is there, and against sums by hand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, Int8Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow::util::display::array_value_to_string;
use datafusion::logical_expr::Operator as Sign;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Column};
use ruslo_core::changelog::{adds, row_kinds, with_row_kinds};
use ruslo_core::epoch::Epoch;
use ruslo_core::operator::{Output, Progress};
use ruslo_core::rng::Rng;
use ruslo_core::schema::visible;

use super::{RegularJoinInput, RegularJoinKind as Kind, RegularJoinSpec};
use crate::testing::{Manners, MemoryState, Subtasks, TestContext, drain};

/// A key, a number, a text.
type Row = (Option<i64>, i64, String);

const KINDS: [Kind; 6] = [Kind::Inner, Kind::Left, Kind::Right, Kind::Full, Kind::Semi, Kind::Anti];

fn row(key: i64, number: i64) -> Row {
    (Some(key), number, format!("text of {number}"))
}

fn schema(side: &str) -> SchemaRef {
    let field = |name: &str, data_type, nullable| Field::new(format!("{side}_{name}"), data_type, nullable);
    Arc::new(Schema::new(vec![
        field("text", DataType::Utf8, false),
        field("k", DataType::Int64, true),
        field("n", DataType::Int64, false),
    ]))
}

fn batch(side: &str, rows: &[Row]) -> RecordBatch {
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.2)));
    let keys: ArrayRef = Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>());
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1)));
    RecordBatch::try_new(schema(side), vec![texts, keys, numbers]).unwrap()
}

fn changes(side: &str, changes: &[(bool, Row)]) -> RecordBatch {
    let rows: Vec<Row> = changes.iter().map(|change| change.1.clone()).collect();
    let batch = batch(side, &rows);
    if changes.iter().all(|change| change.0) {
        return batch;
    }
    let kinds = changes.iter().enumerate().map(|(n, (adds, _))| i8::from(!adds) * (1 + 2 * (n as i8 % 2)));
    with_row_kinds(&batch, Int8Array::from_iter_values(kinds)).unwrap()
}

/// left.n < right.n
fn condition() -> Arc<dyn PhysicalExpr> {
    Arc::new(BinaryExpr::new(Arc::new(Column::new("l_n", 2)), Sign::Lt, Arc::new(Column::new("r_n", 5))))
}

fn input(side: &str, is_append_only: bool, unique: Option<Vec<usize>>) -> RegularJoinInput {
    RegularJoinInput { schema: schema(side), keys: vec![1], is_append_only, unique, lifetime: None }
}

fn texts(batch: &RecordBatch) -> Vec<String> {
    let text = |row| {
        let values = batch.columns().iter().map(|column| match column.is_null(row) {
            true => "NULL".to_owned(),
            false => array_value_to_string(column, row).unwrap(),
        });
        values.collect::<Vec<_>>().join("|")
    };
    (0..batch.num_rows()).map(text).collect()
}

/// What changes come to; nothing may be taken back that is not there.
#[derive(Default)]
struct Table(BTreeMap<String, i64>);

impl Table {
    fn apply(&mut self, batches: &[RecordBatch]) {
        for batch in batches {
            let kinds = row_kinds(batch).map(|kinds| kinds.values().to_vec());
            for (place, text) in texts(&visible(batch)).into_iter().enumerate() {
                let comes = kinds.as_ref().is_none_or(|kinds| adds(kinds[place]));
                let count = self.0.entry(text.clone()).or_default();
                *count += if comes { 1 } else { -1 };
                assert!(*count >= 0, "'{text}' is taken back, but is not there");
                if *count == 0 {
                    self.0.remove(&text);
                }
            }
        }
    }

    fn rows(&self) -> Vec<String> {
        self.0.iter().flat_map(|(text, count)| std::iter::repeat_n(text.clone(), *count as usize)).collect()
    }
}

/// The join of what is there, by nested loops.
fn nested_loops(kind: Kind, left: &[Row], right: &[Row], null_equals: bool, is_conditional: bool) -> Vec<String> {
    let is_pair = |l: &Row, r: &Row| l.0 == r.0 && (l.0.is_some() || null_equals) && (!is_conditional || l.1 < r.1);
    let shown = |row: &Row| format!("{}|{}|{}", row.2, row.0.map_or("NULL".to_owned(), |key| key.to_string()), row.1);
    let nulls = "NULL|NULL|NULL";
    let mut found = Vec::new();
    for l in left {
        let partners: Vec<&Row> = right.iter().filter(|r| is_pair(l, r)).collect();
        match kind {
            Kind::Semi => found.extend((!partners.is_empty()).then(|| shown(l))),
            Kind::Anti => found.extend(partners.is_empty().then(|| shown(l))),
            _ => found.extend(partners.iter().map(|r| format!("{}|{}", shown(l), shown(r)))),
        }
        if partners.is_empty() && matches!(kind, Kind::Left | Kind::Full) {
            found.push(format!("{}|{nulls}", shown(l)));
        }
    }
    if matches!(kind, Kind::Right | Kind::Full) {
        let alone = right.iter().filter(|r| !left.iter().any(|l| is_pair(l, r)));
        found.extend(alone.map(|r| format!("{nulls}|{}", shown(r))));
    }
    found.sort();
    found
}

/// How the rows of a side come.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Append,
    Changes,
    /// Changes; rows of a key differ by their number.
    Unique,
    /// Changes; a key has one row.
    One,
}

impl Way {
    fn input(self, side: &str) -> RegularJoinInput {
        let unique = match self {
            Self::Unique => Some(vec![1, 2]),
            Self::One => Some(vec![1]),
            _ => None,
        };
        input(side, self == Self::Append, unique)
    }

    /// Some changes of `there`.
    fn draw(self, there: &mut Vec<Row>, rng: &mut Rng) -> Vec<(bool, Row)> {
        let mut made = Vec::new();
        for _ in 0..1 + rng.below(25) {
            if self != Self::Append && !there.is_empty() && rng.one_in(2) {
                let gone = there.swap_remove(rng.below(there.len()));
                made.push((false, gone));
                continue;
            }
            // One key is hot.
            let key = if rng.one_in(3) { 1 } else { rng.below(12) as i64 };
            let texts = if self == Self::Changes { 2 } else { 50 };
            let new = ((key > 0).then_some(key), rng.below(6) as i64, format!("t{}", rng.below(texts)));
            let same = |old: &&mut Row| match self {
                Self::Unique => old.0 == new.0 && old.1 == new.1,
                Self::One => old.0 == new.0,
                _ => false,
            };
            match there.iter_mut().find(same) {
                Some(old) => {
                    made.push((false, std::mem::replace(old, new.clone())));
                }
                None => there.push(new.clone()),
            }
            made.push((true, new));
        }
        made
    }
}

#[test]
fn it_is_the_join_of_what_is_there_however_it_is_run() {
    let ways = [Way::Append, Way::Changes, Way::Unique, Way::One];
    for seed in 0..72 {
        let mut rng = Rng::seeded(seed);
        let kind = KINDS[seed as usize % 6];
        let (left_way, right_way) = (ways[rng.below(4)], ways[rng.below(4)]);
        let (null_equals, is_conditional) = (rng.one_in(2), rng.one_in(2));
        let condition = is_conditional.then(condition);
        let inputs = [left_way.input("l"), right_way.input("r")];
        let spec = RegularJoinSpec::new(kind, inputs, &[null_equals], condition.as_ref()).unwrap();
        let what = format!("seed {seed}: {kind:?} of {left_way:?} and {right_way:?}, {null_equals} {is_conditional}");
        let manners = Manners {
            batch_rows: [1, 7, 1024][rng.below(3)],
            parallelism_max: 4,
            short_of_memory: true,
            always_resumed: true,
        };
        let is_append_only = spec.is_append_only();
        let mut subtasks = Subtasks::new(spec.factory(), manners, Rng::seeded(seed + 1000)).unwrap();
        let mut there: [Vec<Row>; 2] = Default::default();
        let mut table = Table::default();
        for _ in 0..16 {
            let side = rng.below(2);
            let way = [left_way, right_way][side];
            let made = changes(["l", "r"][side], &way.draw(&mut there[side], &mut rng));
            subtasks.send_to(side, &made, &[Arc::clone(made.column(1))]).unwrap();
            let out = subtasks.take();
            assert!(!is_append_only || out.iter().all(|batch| row_kinds(batch).is_none()), "{what}");
            table.apply(&out);
            let expected = nested_loops(kind, &there[0], &there[1], null_equals, is_conditional);
            assert_eq!(table.rows(), expected, "{what}");
        }
        subtasks.finish().unwrap();
    }
}

/// One row of a key beside many: bounded steps, a barrier at each of them, restored every time.
#[test]
fn a_hot_key_makes_progress_in_bounded_steps_through_a_restore_at_each() {
    const MANY: i64 = 500;
    const BATCH_ROWS: usize = 16;
    for (way, kind) in
        [(Way::Append, Kind::Inner), (Way::Changes, Kind::Full), (Way::Unique, Kind::Right), (Way::Append, Kind::Left)]
    {
        let spec = RegularJoinSpec::new(kind, [Way::Changes.input("l"), way.input("r")], &[false], None).unwrap();
        let factory = spec.factory();
        let mut test = TestContext::new();
        test.batch_rows = BATCH_ROWS;
        let mut operator = factory.create().unwrap();
        operator.open(&mut test.context()).unwrap();
        let mut table = Table::default();
        let many: Vec<Row> = (0..MANY).map(|number| row(1, number)).collect();
        for part in many.chunks(BATCH_ROWS) {
            let mut out = Output::default();
            let progress = operator.on_batch(1, batch("r", part), &mut test.context(), &mut out).unwrap();
            table.apply(&drain(operator.as_mut(), progress, &mut test, &mut out).unwrap());
        }
        for comes in [true, false] {
            let change = [(comes, row(1, -1)), (comes, row(1, -2)), (comes, row(2, -3))];
            let mut out = Output::default();
            let mut progress = operator.on_batch(0, changes("l", &change), &mut test.context(), &mut out).unwrap();
            let (mut steps, mut epoch) = (0, Epoch::ZERO);
            loop {
                let made: Vec<RecordBatch> = out.take().into_iter().map(|(_, batch)| batch).collect();
                assert!(
                    made.len() <= 8 && made.iter().all(|batch| batch.num_rows() <= BATCH_ROWS),
                    "{} batches",
                    made.len()
                );
                table.apply(&made);
                if progress == Progress::Done {
                    break;
                }
                epoch = epoch.next();
                operator.snapshot(epoch, &mut test.context(), &mut out).unwrap();
                assert!(out.take().is_empty());
                let mut restored = TestContext::with_state(test.subtask, MemoryState::default().joined(&test.state));
                restored.batch_rows = BATCH_ROWS;
                test = restored;
                operator = factory.create().unwrap();
                operator.open(&mut test.context()).unwrap();
                // Between two restores it lists places, sixteen pieces a call, and joins some.
                for _ in 0..3 + MANY / BATCH_ROWS as i64 / 16 {
                    let _ = operator.resume(&mut test.context(), &mut out).unwrap();
                }
                progress = operator.resume(&mut test.context(), &mut out).unwrap();
                steps += 1;
                assert!(steps < 1_000, "it makes no progress");
            }
            assert!(steps > 10, "{steps} steps");
            let left = if comes { vec![row(1, -1), row(1, -2), row(2, -3)] } else { Vec::new() };
            assert_eq!(table.rows(), nested_loops(kind, &left, &many, false, false), "{kind:?} {way:?} {comes}");
        }
    }
}

/// Very many equal rows are one row of state, and as many pairs.
#[test]
fn equal_rows_are_kept_once_and_joined_as_often_as_they_are_there() {
    for kind in KINDS {
        let inputs = [Way::Changes.input("l"), Way::Changes.input("r")];
        let factory = RegularJoinSpec::new(kind, inputs, &[false], None).unwrap().factory();
        let mut test = TestContext::new();
        test.batch_rows = 16;
        let mut operator = factory.create().unwrap();
        operator.open(&mut test.context()).unwrap();
        let mut table = Table::default();
        let mut send = |side: usize, change: &[(bool, Row)], test: &mut TestContext, table: &mut Table| {
            let mut out = Output::default();
            let rows = changes(["l", "r"][side], change);
            let mut progress = operator.on_batch(side, rows, &mut test.context(), &mut out).unwrap();
            loop {
                let made: Vec<RecordBatch> = out.take().into_iter().map(|(_, batch)| batch).collect();
                assert!(made.iter().map(RecordBatch::num_rows).sum::<usize>() <= 9 * change.len().max(16));
                table.apply(&made);
                if progress == Progress::Done {
                    break;
                }
                progress = operator.resume(&mut test.context(), &mut out).unwrap();
            }
        };
        let equal = |count: usize, comes: bool| vec![(comes, row(1, 5)); count];
        let (mut left, mut right) = (Vec::new(), Vec::new());
        for (side, count, comes) in
            [(1, 1000, true), (0, 3, true), (0, 1, false), (1, 999, false), (1, 1, false), (1, 2, true), (0, 2, false)]
        {
            send(side, &equal(count, comes), &mut test, &mut table);
            let there = if side == 0 { &mut left } else { &mut right };
            there.resize(if comes { there.len() + count } else { there.len() - count }, row(1, 5));
            assert_eq!(table.rows(), nested_loops(kind, &left, &right, false, false), "{kind:?}");
        }
    }
}

/// So that a checkpoint shows all of a change, or nothing.
#[test]
fn a_batch_is_joined_in_one_call_where_keys_have_few_rows() {
    let inputs = [Way::One.input("l"), Way::One.input("r")];
    let factory = RegularJoinSpec::new(Kind::Left, inputs, &[false], None).unwrap().factory();
    let mut test = TestContext::new();
    test.batch_rows = 1;
    let mut operator = factory.create().unwrap();
    operator.open(&mut test.context()).unwrap();
    let (old, new) = (|key| row(key, 1), |key| row(key, 2));
    let came: Vec<_> = (1..40).map(|key| (true, old(key))).collect();
    let changed: Vec<_> = (1..40).flat_map(|key| [(false, old(key)), (true, new(key))]).collect();
    let mut table = Table::default();
    for (side, batch) in [(0, changes("l", &came)), (1, changes("r", &came)), (0, changes("l", &changed))] {
        let mut out = Output::default();
        let progress = operator.on_batch(side, batch, &mut test.context(), &mut out).unwrap();
        assert_eq!(progress, Progress::Done);
        table.apply(&out.take().into_iter().map(|(_, batch)| batch).collect::<Vec<_>>());
    }
    let [left, right]: [Vec<Row>; 2] = [(1..40).map(new).collect(), (1..40).map(old).collect()];
    assert_eq!(table.rows(), nested_loops(Kind::Left, &left, &right, false, false));
}

#[test]
fn what_a_batch_adds_and_takes_away_again_does_not_go_out() {
    let inputs = [Way::Changes.input("l"), Way::Append.input("r")];
    let factory = RegularJoinSpec::new(Kind::Left, inputs, &[false], None).unwrap().factory();
    let mut test = TestContext::new();
    let mut operator = factory.create().unwrap();
    operator.open(&mut test.context()).unwrap();
    let mut out = Output::default();
    let change = [
        (true, row(1, 1)),
        (false, row(1, 1)),
        (true, row(1, 1)),
        (true, row(2, 2)),
        (false, row(2, 2)),
        (true, row(2, 3)),
    ];
    let progress = operator.on_batch(0, changes("l", &change), &mut test.context(), &mut out).unwrap();
    let made = drain(operator.as_mut(), progress, &mut test, &mut out).unwrap();
    let shown: Vec<String> = made.iter().flat_map(texts).collect();
    assert_eq!(shown, ["text of 1|1|1|NULL|NULL|NULL|0", "text of 3|2|3|NULL|NULL|NULL|0"]);
}

#[test]
fn rows_are_forgotten_a_lifetime_after_they_came() {
    let lifetime = |input| RegularJoinInput { lifetime: Some(Duration::from_secs(3600)), ..input };
    let inputs = [Way::Append.input("l"), lifetime(Way::Append.input("r"))];
    let spec = RegularJoinSpec::new(Kind::Inner, inputs, &[false], None).unwrap();
    assert!(spec.sides[0].table.ttl.is_none() && spec.sides[1].table.ttl.is_some());
}

#[test]
fn without_keys_each_row_is_beside_each() {
    let no_keys = |side| RegularJoinInput { keys: Vec::new(), ..Way::Append.input(side) };
    let spec = RegularJoinSpec::new(Kind::Inner, [no_keys("l"), no_keys("r")], &[], Some(&condition())).unwrap();
    let mut operator = spec.factory().create().unwrap();
    let mut test = TestContext::new();
    operator.open(&mut test.context()).unwrap();
    let mut table = Table::default();
    for (side, rows) in [(0, vec![row(1, 1), row(2, 4)]), (1, vec![row(7, 3), (None, 5, "e".to_owned())])] {
        let mut out = Output::default();
        let rows = batch(["l", "r"][side], &rows);
        let progress = operator.on_batch(side, rows, &mut test.context(), &mut out).unwrap();
        table.apply(&drain(operator.as_mut(), progress, &mut test, &mut out).unwrap());
    }
    let expected = ["text of 1|1|1|e|NULL|5", "text of 1|1|1|text of 3|7|3", "text of 4|2|4|e|NULL|5"];
    assert_eq!(table.rows(), expected);
}

#[test]
fn a_semi_join_keeps_no_more_than_a_row_a_key_of_keys_alone() {
    let keys_alone = Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true)]));
    let right = RegularJoinInput {
        schema: keys_alone.clone(),
        keys: vec![0],
        is_append_only: true,
        unique: None,
        lifetime: None,
    };
    let spec = RegularJoinSpec::new(Kind::Semi, [Way::Append.input("l"), right], &[false], None).unwrap();
    assert!(spec.is_append_only());
    let mut operator = spec.clone().factory().create().unwrap();
    let mut test = TestContext::new();
    operator.open(&mut test.context()).unwrap();
    let keys =
        |keys: Vec<i64>| RecordBatch::try_new(keys_alone.clone(), vec![Arc::new(Int64Array::from(keys))]).unwrap();
    let mut out = Output::default();
    let _ = operator.on_batch(1, keys(vec![1; 500]), &mut test.context(), &mut out).unwrap();
    let _ = operator.on_batch(0, batch("l", &[row(1, 1), row(2, 2)]), &mut test.context(), &mut out).unwrap();
    let _ = operator.on_batch(1, keys(vec![2, 1, 2]), &mut test.context(), &mut out).unwrap();
    let made: Vec<String> = out.take().iter().flat_map(|(_, batch)| texts(batch)).collect();
    assert_eq!(made, ["text of 1|1|1", "text of 2|2|2"]);
    let side = &spec.sides[1];
    let table = test.context().state.keyed(side.name, &side.table).map(|table| {
        let mut cursor = table.rows(&[Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef]).unwrap();
        table.next(&mut cursor, 100).unwrap().unwrap()
    });
    let kept = table.unwrap();
    assert_eq!(kept.columns[1].as_primitive::<Int64Type>().values(), &[501, 2]);
}

#[test]
fn changing_rows_that_cannot_be_told_apart_are_refused() {
    let nested = DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true)));
    let of = |is_append_only| {
        let schema =
            Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("list", nested.clone(), true)]);
        let schema = Arc::new(schema);
        RegularJoinInput { schema, keys: vec![0], is_append_only, unique: None, lifetime: None }
    };
    RegularJoinSpec::new(Kind::Full, [of(true), of(true)], &[false], None).unwrap();
    let error = RegularJoinSpec::new(Kind::Inner, [of(true), of(false)], &[false], None).unwrap_err();
    assert!(error.to_string().contains("'list'"), "{error}");
}
