//! Window Top-N against a naive recomputation, with snapshots, restores and another parallelism between any two calls.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test")]

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray, TimestampMillisecondArray};
use arrow::compute::SortOptions;
use arrow::datatypes::{Int64Type, SchemaRef, TimestampMillisecondType};
use arrow::record_batch::RecordBatch;
use datafusion::physical_expr::PhysicalSortExpr;
use datafusion::physical_expr::expressions::col;
use ruslo_core::epoch::Epoch;
use ruslo_core::error::ErrorKind;
use ruslo_core::operator::Output;
use ruslo_core::rng::Rng;
use ruslo_core::schema::with_split_watermarks;
use ruslo_core::time::Timestamp;
use ruslo_operators::WindowTopNSpec;
use ruslo_operators::testing::{Manners, Subtasks, TestContext, run_batch, run_watermark};

/// One input row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    key: Option<i64>,
    value: Option<i64>,
    text: String,
    end: i64,
}

fn batch(rows: &[Row]) -> RecordBatch {
    let columns: [(&str, ArrayRef); 4] = [
        ("key", Arc::new(rows.iter().map(|row| row.key).collect::<Int64Array>())),
        ("value", Arc::new(rows.iter().map(|row| row.value).collect::<Int64Array>())),
        ("text", Arc::new(rows.iter().map(|row| Some(row.text.clone())).collect::<StringArray>())),
        ("window_end", Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.end)))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
}

fn schema() -> SchemaRef {
    batch(&[]).schema()
}

struct Case {
    rows: Vec<Row>,
    keyed: bool,
    limit: usize,
    options: SortOptions,
    rows_in: usize,
    rows_out: usize,
}

impl Case {
    fn random(rng: &mut Rng) -> Self {
        let mut now = 0;
        let rows = (0..rng.below(300)).map(|_| {
            now += rng.below(3) as i64;
            Row {
                key: (!rng.one_in(6)).then(|| rng.below(4) as i64),
                value: (!rng.one_in(6)).then(|| rng.below(5) as i64),
                text: format!("t{}", rng.below(6)),
                end: (now + rng.below(20) as i64) / 10 * 10 + 10,
            }
        });
        Self {
            rows: rows.collect(),
            keyed: !rng.one_in(4),
            limit: 1 + rng.below(5),
            options: SortOptions { descending: rng.one_in(2), nulls_first: rng.one_in(2) },
            rows_in: [1, 7, 1000][rng.below(3)],
            rows_out: [1, 7, 1000][rng.below(3)],
        }
    }

    fn spec(&self) -> WindowTopNSpec {
        let keys = if self.keyed { vec![0] } else { Vec::new() };
        let order = vec![PhysicalSortExpr { expr: col("value", &schema()).unwrap(), options: self.options }];
        WindowTopNSpec::new(&schema(), keys, 3, 0, order, self.limit, "rank").unwrap()
    }

    /// Each row that must come out, with its rank.
    fn expected(&self) -> Vec<(Row, i64)> {
        let mut groups = BTreeMap::<(i64, Option<i64>), Vec<Row>>::new();
        for row in &self.rows {
            groups.entry((row.end, row.key.filter(|_| self.keyed))).or_default().push(row.clone());
        }
        let mut expected = Vec::new();
        for mut rows in groups.into_values() {
            let place = |value: Option<i64>| match value {
                None => {
                    if self.options.nulls_first {
                        i64::MIN
                    } else {
                        i64::MAX
                    }
                }
                Some(value) => {
                    if self.options.descending {
                        -value
                    } else {
                        value
                    }
                }
            };
            rows.sort_by_key(|row| (place(row.value), row.clone()));
            rows.truncate(self.limit);
            expected.extend(rows.into_iter().zip(1..));
        }
        expected.sort();
        expected
    }
}

/// What comes out of the operator, in order.
fn run(case: &Case, rng: Rng) -> Vec<(Row, i64)> {
    let parallelism_max = if case.keyed { 3 } else { 1 };
    let manners = Manners { batch_rows: case.rows_out, parallelism_max, short_of_memory: true, always_resumed: true };
    let mut subtasks = Subtasks::new(case.spec().factory(), manners, rng).unwrap();
    let mut left = case.rows.as_slice();
    while !left.is_empty() {
        let (now, later) = left.split_at(left.len().min(case.rows_in));
        left = later;
        let rows = batch(now);
        let keys = if case.keyed { vec![rows.column(0).clone()] } else { Vec::new() };
        subtasks.send(&rows, &keys).unwrap();
        let next = left.iter().map(|row| row.end).min().unwrap_or(0);
        subtasks.raise(Timestamp(next - 2)).unwrap();
    }
    subtasks.raise(Timestamp(i64::MAX - 1)).unwrap();
    let (made, _) = subtasks.finish().unwrap();
    made.iter().flat_map(rows_of).collect()
}

fn rows_of(batch: &RecordBatch) -> Vec<(Row, i64)> {
    let int = |at: usize, row: usize| {
        let column = batch.column(at).as_primitive::<Int64Type>();
        column.is_valid(row).then(|| column.value(row))
    };
    let read = |row| Row {
        key: int(0, row),
        value: int(1, row),
        text: batch.column(2).as_string::<i32>().value(row).to_owned(),
        end: batch.column(3).as_primitive::<TimestampMillisecondType>().value(row),
    };
    (0..batch.num_rows()).map(|row| (read(row), int(4, row).unwrap())).collect()
}

#[test]
fn agrees_with_the_naive_way_whatever_happens_in_between() {
    for seed in 0..200 {
        let mut rng = Rng::seeded(seed);
        let case = Case::random(&mut rng);
        let mut found = run(&case, rng);
        // Windows leave in the order of their ends, and a key's rows in that of their ranks.
        let mut last = BTreeMap::new();
        for (row, rank) in &found {
            let key = row.key.filter(|_| case.keyed);
            let before = last.insert(key, (row.end, *rank)).unwrap_or((i64::MIN, 0));
            assert!(before.0 < row.end || before == (row.end, rank - 1), "seed {seed}: {row:?} after {before:?}");
        }
        found.sort();
        assert_eq!(found, case.expected(), "seed {seed}");
    }
}

fn row(key: i64, value: i64, end: i64) -> Row {
    Row { key: Some(key), value: Some(value), text: String::new(), end }
}

fn case(limit: usize) -> Case {
    let options = SortOptions { descending: true, nulls_first: false };
    Case { rows: Vec::new(), keyed: true, limit, options, rows_in: 1, rows_out: 1000 }
}

#[test]
fn late_rows_are_counted_and_change_nothing() {
    let mut operator = case(2).spec().factory().create().unwrap();
    let mut test = TestContext::new();
    let rows = batch(&[row(1, 1, 10), row(1, 9, 10), row(1, 5, 20)]);
    let marks = Int64Array::from(vec![8, 9, 9]);
    run_batch(operator.as_mut(), with_split_watermarks(&rows, marks).unwrap(), &mut test).unwrap();
    assert_eq!(test.metrics.counts().late_rows, 1);
    let made = run_watermark(operator.as_mut(), Timestamp(19), &mut test).unwrap();
    let found: Vec<_> = made.iter().flat_map(rows_of).collect();
    assert_eq!(found, [(row(1, 1, 10), 1), (row(1, 5, 20), 1)]);
}

#[test]
fn a_long_window_holds_little_more_than_its_first_rows() {
    let mut operator = case(3).spec().factory().create().unwrap();
    let mut test = TestContext::new();
    let mut most = 0;
    for part in 0..200 {
        let rows: Vec<Row> = (0..500).map(|value| row(value % 4, part * 500 + value, 10)).collect();
        run_batch(operator.as_mut(), batch(&rows), &mut test).unwrap();
        if part % 20 == 0 {
            operator.snapshot(Epoch(1), &mut test.context(), &mut Output::default()).unwrap();
        }
        most = most.max(test.memory.bytes());
    }
    assert!(most < 400_000, "{most} bytes held");
    let made = run_watermark(operator.as_mut(), Timestamp(9), &mut test).unwrap();
    let values: Vec<_> = made.iter().flat_map(rows_of).map(|(row, _)| row.value.unwrap()).collect();
    assert_eq!(
        values,
        [99_996, 99_992, 99_988, 99_997, 99_993, 99_989, 99_998, 99_994, 99_990, 99_999, 99_995, 99_991]
    );
}

#[test]
fn what_cannot_be_is_refused() {
    let error = WindowTopNSpec::new(&schema(), vec![0], 3, 0, Vec::new(), 0, "rank").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    let error = WindowTopNSpec::new(&schema(), vec![0], 1, 0, Vec::new(), 1, "rank").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    let mut operator = case(1).spec().factory().create().unwrap();
    let mut test = TestContext::new();
    test.watermark = Timestamp(9);
    let error = run_batch(operator.as_mut(), batch(&[row(1, 1, 10)]), &mut test).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
}
