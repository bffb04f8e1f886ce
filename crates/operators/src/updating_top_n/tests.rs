//! A Top-N against a recomputation from the rows that are there.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{AsArray, Int64Array, StringArray};
use arrow::compute::SortOptions;
use arrow::datatypes::Int64Type;
use datafusion::physical_expr::expressions::col;
use ruslo_core::changelog::{RowKind, with_row_kinds};
use ruslo_core::rng::Rng;

use super::*;
use crate::testing::{Manners, Subtasks, TestContext, run_batch};

/// Key, what is ranked by, something else.
type Row = (Option<String>, Option<i64>, i64);

fn batch(rows: &[(RowKind, Row)], with_kinds: bool) -> RecordBatch {
    let columns: [(&str, ArrayRef, bool); 3] = [
        ("k", Arc::new(rows.iter().map(|row| row.1.0.clone()).collect::<StringArray>()), true),
        ("x", Arc::new(rows.iter().map(|row| row.1.1).collect::<Int64Array>()), true),
        ("v", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1.2))), true),
    ];
    let plain = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    match with_kinds {
        true => with_row_kinds(&plain, rows.iter().map(|row| Some(row.0.number())).collect()).unwrap(),
        false => plain,
    }
}

/// By `x` descending, NULL last.
fn wanted(limit: usize, has_rank: bool, takes_back: bool, says_before: bool) -> UpdatingTopN {
    let schema = batch(&[], false).schema();
    let options = SortOptions { descending: true, nulls_first: false };
    UpdatingTopN {
        keys: vec![0],
        order: vec![PhysicalSortExpr { expr: col("x", &schema).unwrap(), options }],
        arrival: None,
        limit,
        rank: has_rank.then(|| "rn".to_owned()),
        takes_back,
        says_before,
        lifetime: None,
    }
}

fn spec(wanted: UpdatingTopN) -> UpdatingTopNSpec {
    UpdatingTopNSpec::new(&batch(&[], false).schema(), wanted).unwrap()
}

type Change = (RowKind, Row, Option<i64>);

fn changes(batches: &[RecordBatch]) -> Vec<Change> {
    let of = |batch: &RecordBatch| {
        let kinds = row_kinds(batch).unwrap();
        let shown = visible(batch);
        let integers = |at: usize| shown.columns().get(at).map(|column| column.as_primitive::<Int64Type>().clone());
        let (keys, x, v, ranks) =
            (shown.column(0).as_string::<i32>(), integers(1).unwrap(), integers(2).unwrap(), integers(3));
        let row = |at: usize| {
            let row = (keys.iter().nth(at).unwrap().map(str::to_owned), x.iter().nth(at).unwrap(), v.value(at));
            (RowKind::of(kinds.value(at)).unwrap(), row, ranks.as_ref().map(|ranks| ranks.value(at)))
        };
        (0..batch.num_rows()).map(row).collect::<Vec<_>>()
    };
    batches.iter().flat_map(of).collect()
}

fn run(wanted: UpdatingTopN, batches: &[&[(Option<i64>, i64)]]) -> Vec<Vec<String>> {
    let mut test = TestContext::new();
    let mut operator = spec(wanted).factory().create().unwrap();
    operator.open(&mut test.context()).unwrap();
    let mut said = Vec::new();
    for rows in batches {
        let rows: Vec<_> = rows.iter().map(|(x, v)| (RowKind::Insert, (Some("a".to_owned()), *x, *v))).collect();
        let out = run_batch(operator.as_mut(), batch(&rows, false), &mut test).unwrap();
        let text = |(kind, (_, x, v), rank): &Change| {
            let x = x.map_or("-".to_owned(), |x| x.to_string());
            format!("{kind} {x} {v}{}", rank.map_or(String::new(), |rank| format!(" #{rank}")))
        };
        said.push(changes(&out).iter().map(text).collect());
    }
    said
}

#[test]
fn without_the_rank_one_row_goes_for_one_that_comes() {
    let said = run(
        wanted(2, false, false, true),
        &[&[(Some(5), 1)], &[(Some(3), 2)], &[(Some(1), 3), (None, 3)], &[(Some(4), 4)], &[(Some(9), 5), (Some(8), 6)]],
    );
    assert_eq!(said[0], ["+I 5 1"]);
    assert_eq!(said[1], ["+I 3 2"]);
    assert_eq!(said[2], [""; 0]);
    assert_eq!(said[3], ["-D 3 2", "+I 4 4"]);
    assert_eq!(said[4], ["-D 5 1", "-D 4 4", "+I 9 5", "+I 8 6"]);
}

#[test]
fn with_the_rank_each_rank_that_has_another_row_changes() {
    let rows: [&[(Option<i64>, i64)]; 3] = [&[(Some(5), 1), (Some(3), 2)], &[(Some(4), 3)], &[(Some(4), 2)]];
    let said = run(wanted(3, true, false, true), &rows);
    assert_eq!(said[0], ["+I 5 1 #1", "+I 3 2 #2"]);
    assert_eq!(said[1], ["-U 3 2 #2", "+U 4 3 #2", "+I 3 2 #3"]);
    // Of equal rows the least by the other columns is first.
    assert_eq!(said[2], ["-U 4 3 #2", "+U 4 2 #2", "-U 3 2 #3", "+U 4 3 #3"]);
    let said = run(wanted(3, true, false, false), &rows);
    assert_eq!(said[2], ["+U 4 2 #2", "+U 4 3 #3"]);
}

#[test]
fn one_row_is_updated_and_an_equal_one_changes_nothing() {
    let rows: [&[(Option<i64>, i64)]; 4] =
        [&[(Some(5), 1)], &[(Some(5), 1), (Some(4), 0)], &[(Some(6), 7)], &[(None, 0)]];
    let said = run(wanted(1, false, false, true), &rows);
    assert_eq!(said, [vec!["+I 5 1"], vec![], vec!["-U 5 1", "+U 6 7"], vec![]]);
    assert_eq!(run(wanted(1, false, false, false), &rows)[2], ["+U 6 7"]);
}

#[test]
fn by_arrival_the_last_or_the_first_counts() {
    let rows: [&[(Option<i64>, i64)]; 3] =
        [&[(Some(5), 1), (Some(5), 0)], &[(Some(7), 3)], &[(Some(1), 4), (Some(2), 5)]];
    let by = |arrival, limit| UpdatingTopN { arrival: Some(arrival), ..wanted(limit, false, false, true) };
    let said = run(by(Arrival::Last, 1), &rows);
    assert_eq!(said, [vec!["+I 5 0"], vec!["-U 5 0", "+U 7 3"], vec!["-U 7 3", "+U 2 5"]]);
    let said = run(by(Arrival::Last, 2), &rows);
    assert_eq!(said[1], ["-D 5 1", "+I 7 3"]);
    assert_eq!(said[2], ["-D 7 3", "-D 5 0", "+I 2 5", "+I 1 4"]);
    assert_eq!(run(by(Arrival::First, 3), &rows), [vec!["+I 5 1", "+I 5 0"], vec!["+I 7 3"], vec![]]);
}

#[test]
fn no_more_than_the_first_rows_are_kept() {
    let mut test = TestContext::new();
    let spec = spec(wanted(2, false, false, true));
    let mut operator = spec.clone().factory().create().unwrap();
    operator.open(&mut test.context()).unwrap();
    for n in 0..50 {
        let row = (RowKind::Insert, (Some("a".to_owned()), Some(n * 7 % 50), n));
        run_batch(operator.as_mut(), batch(&[row], false), &mut test).unwrap();
    }
    let key: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
    let context = test.context();
    let table = context.state.keyed(ROWS, &spec.inner.kept.table).unwrap();
    let mut cursor = table.rows(&[key]).unwrap();
    let piece = table.next(&mut cursor, 100).unwrap().unwrap();
    let mut kept = piece.columns[1].as_primitive::<Int64Type>().values().to_vec();
    kept.sort_unstable();
    assert_eq!(kept, [48, 49]);
}

/// The rows that are there after a changelog; what is taken away must have been there, and of one rank there is one row.
#[derive(Default)]
struct Table {
    rows: BTreeMap<(Row, Option<i64>), usize>,
}

impl Table {
    fn apply(&mut self, said: Vec<Change>, is_by_key: bool) {
        for (kind, row, rank) in said {
            if kind == RowKind::UpdateAfter && is_by_key {
                self.rows.retain(|(known, of), _| known.0 != row.0 || *of != rank);
            }
            let count = self.rows.entry((row, rank)).or_default();
            match kind.adds() {
                true => *count += 1,
                false => *count = count.checked_sub(1).expect("what is not there is not taken away"),
            }
        }
        self.rows.retain(|_, count| *count > 0);
    }
}

/// The first rows of each key by (`x` descending, NULL last; then by the columns).
fn expected(rows: &[Row], wanted: &UpdatingTopN) -> BTreeMap<(Row, Option<i64>), usize> {
    let mut made = BTreeMap::new();
    for key in rows.iter().map(|row| row.0.clone()).collect::<BTreeSet<_>>() {
        let mut own: Vec<&Row> = rows.iter().filter(|row| row.0 == key).collect();
        own.sort_by_key(|row| (row.1.map_or(i64::MAX, |x| -x), row.2));
        for (rank, row) in (1..).zip(own.into_iter().take(wanted.limit)) {
            *made.entry((row.clone(), wanted.rank.as_ref().map(|_| rank))).or_default() += 1;
        }
    }
    made
}

#[test]
fn it_is_the_first_rows_of_each_key_however_it_is_run() {
    for seed in 0..96u64 {
        check(seed, 25, 20, 12);
    }
}

#[test]
fn it_is_the_first_rows_of_very_many_of_a_key() {
    for seed in [10, 15, 30, 35, 50, 55, 70, 90] {
        check(seed, 12, 600, 900);
    }
}

/// So many batches of rows that come and go.
fn check(seed: u64, batches: usize, rows_max: usize, values: usize) {
    let mut rng = Rng::seeded(seed);
    let (has_rank, takes_back, says_before) = (seed.is_multiple_of(2), seed % 4 > 1, seed % 8 > 3);
    let limit = [1, 2, 5][seed as usize / 8 % 3];
    let wanted = UpdatingTopN {
        keys: if seed.is_multiple_of(5) { Vec::new() } else { vec![0] },
        ..wanted(limit, has_rank, takes_back, says_before)
    };
    let is_keyed = !wanted.keys.is_empty();
    let manners = Manners {
        batch_rows: [1, 7, 1024][seed as usize % 3],
        parallelism_max: if is_keyed { 4 } else { 1 },
        short_of_memory: true,
        always_resumed: true,
    };
    let mut subtasks = Subtasks::new(spec(wanted.clone()).factory(), manners, Rng::seeded(seed + 1000)).unwrap();
    let (mut there, mut table): (Vec<Row>, Table) = Default::default();
    let is_by_key = !says_before && (has_rank || limit == 1);
    for _ in 0..batches {
        let mut made = Vec::new();
        for _ in 0..1 + rng.below(rows_max) {
            if takes_back && !there.is_empty() && rng.one_in(3) {
                let gone = there.swap_remove(rng.below(there.len()));
                made.push((RowKind::Delete, gone));
                continue;
            }
            let key = if is_keyed { rng.below(6) } else { 1 };
            let x = (!rng.one_in(8)).then(|| rng.below(values) as i64 - 4);
            let row = ((key > 0).then(|| format!("key {key}")), x, rng.below(3) as i64);
            there.push(row.clone());
            made.push((RowKind::Insert, row));
        }
        let rows = batch(&made, takes_back);
        let keys: Vec<ArrayRef> = if is_keyed { vec![Arc::clone(rows.column(0))] } else { Vec::new() };
        subtasks.send(&rows, &keys).unwrap();
        table.apply(changes(&subtasks.take()), is_by_key);
        assert_eq!(table.rows, expected(&there, &wanted), "seed {seed}");
    }
}
