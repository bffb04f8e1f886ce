//! An updating aggregate against a recomputation from the rows that are there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use arrow::array::{BooleanArray, Decimal128Array, Float64Array, StringArray};
use arrow::util::display::array_value_to_string;
use datafusion::functions_aggregate::bool_and_or::{bool_and_udaf, bool_or_udaf};
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::logical_expr::AggregateUDF;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::{col, lit};
use ruslo_core::changelog::{RowKind, with_row_kinds};
use ruslo_core::element::EndReason;
use ruslo_core::rng::Rng;

use super::*;
use crate::aggregate::{avg_udaf, collecting_udafs, sum_udaf};
use crate::testing::{Manners, Subtasks, TestContext, run_batch};

/// Key, integer, decimal with two digits after the point, quarters, text, condition.
type Row = (Option<String>, Option<i64>, Option<i64>, Option<i64>, Option<String>, Option<bool>);

fn batch(rows: &[(RowKind, Row)], with_kinds: bool) -> RecordBatch {
    let of = |row: &(RowKind, Row)| row.1.clone();
    let keys: StringArray = rows.iter().map(|row| of(row).0).collect();
    let integers: Int64Array = rows.iter().map(|row| of(row).1).collect();
    let decimals: Decimal128Array = rows.iter().map(|row| of(row).2.map(i128::from)).collect();
    let quarters: Float64Array = rows.iter().map(|row| of(row).3.map(|value| value as f64 / 4.0)).collect();
    let texts: StringArray = rows.iter().map(|row| of(row).4).collect();
    let conditions: BooleanArray = rows.iter().map(|row| of(row).5).collect();
    let columns: [(&str, ArrayRef, bool); 6] = [
        ("k", Arc::new(keys), true),
        ("i", Arc::new(integers), true),
        ("d", Arc::new(decimals.with_precision_and_scale(10, 2).unwrap()), true),
        ("f", Arc::new(quarters), true),
        ("s", Arc::new(texts), true),
        ("b", Arc::new(conditions), true),
    ];
    let plain = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    if !with_kinds {
        return plain;
    }
    with_row_kinds(&plain, rows.iter().map(|row| Some(row.0.number())).collect()).unwrap()
}

fn named(name: &str) -> Arc<AggregateUDF> {
    collecting_udafs().into_iter().find(|udaf| udaf.name() == name).unwrap()
}

fn call(udaf: Arc<AggregateUDF>, column: &str) -> AggregateCall {
    let schema = batch(&[], false).schema();
    let argument = if column == "*" { lit(1i64) } else { col(column, &schema).unwrap() };
    let name = format!("{}({column})", udaf.name());
    let built = AggregateExprBuilder::new(udaf, vec![argument]).schema(schema).alias(name).build().unwrap();
    AggregateCall::new(Arc::new(built))
}

fn filtered(call: AggregateCall) -> AggregateCall {
    call.with_filter(col("b", &batch(&[], false).schema()).unwrap())
}

fn distinct(call: AggregateCall) -> AggregateCall {
    call.distinct(&batch(&[], false).schema()).unwrap()
}

fn calls() -> Vec<AggregateCall> {
    vec![
        call(count_udaf(), "*"),
        call(count_udaf(), "i"),
        filtered(call(count_udaf(), "*")),
        call(sum_udaf(), "i"),
        call(avg_udaf(), "i"),
        filtered(call(sum_udaf(), "d")),
        call(avg_udaf(), "d"),
        call(sum_udaf(), "f"),
        call(min_udaf(), "i"),
        filtered(call(max_udaf(), "i")),
        call(max_udaf(), "s"),
        call(min_udaf(), "f"),
        distinct(call(count_udaf(), "i")),
        filtered(distinct(call(sum_udaf(), "i"))),
        distinct(call(avg_udaf(), "d")),
        call(bool_and_udaf(), "b"),
        filtered(call(bool_or_udaf(), "b")),
        call(named("var_pop"), "i"),
        call(named("stddev_samp"), "f"),
    ]
}

fn spec(keys: Vec<usize>, takes_back: bool, says_before: bool, lifetime: Option<Duration>) -> UpdatingAggregateSpec {
    let changes = UpdatingChanges { takes_back, says_before };
    UpdatingAggregateSpec::new(&batch(&[], false).schema(), keys, calls(), changes, lifetime).unwrap()
}

/// Texts of a row's columns as arrow shows them.
fn shown<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

/// A scaled integer as a decimal.
fn decimal(value: i128, scale: u32) -> String {
    let one = 10i128.pow(scale);
    let sign = if value < 0 { "-" } else { "" };
    format!("{sign}{}.{:0width$}", value.abs() / one, value.abs() % one, width = scale as usize)
}

/// What the aggregates of [`calls`] are over `rows`, which all have one key.
fn expected(rows: &[Row]) -> Vec<String> {
    let kept: Vec<&Row> = rows.iter().filter(|row| row.5 == Some(true)).collect();
    let integers: Vec<i64> = rows.iter().filter_map(|row| row.1).collect();
    let kept_integers: Vec<i64> = kept.iter().filter_map(|row| row.1).collect();
    let sum = |values: &[i64]| (!values.is_empty()).then(|| values.iter().sum::<i64>());
    let avg = |values: &[i64]| sum(values).map(|sum| sum / values.len() as i64);
    // Scale 2 to 6, rounded half away from zero.
    let decimal_avg = |values: &[i64]| {
        sum(values).map(|sum| {
            let (sum, count) = (i128::from(sum) * 10_000, values.len() as i128);
            decimal(sum.signum() * ((sum.abs() * 2 + count) / (2 * count)), 6)
        })
    };
    let decimals: Vec<i64> = rows.iter().filter_map(|row| row.2).collect();
    let kept_decimals: Vec<i64> = kept.iter().filter_map(|row| row.2).collect();
    let quarters: Vec<i64> = rows.iter().filter_map(|row| row.3).collect();
    let once = |values: &[i64]| values.iter().copied().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>();
    let conditions: Vec<bool> = rows.iter().filter_map(|row| row.5).collect();
    let variance = avg(&integers).map(|_| {
        let (n, sum): (i64, i64) = (integers.len() as i64, integers.iter().sum());
        (n * integers.iter().map(|value| value * value).sum::<i64>() - sum * sum) / (n * n)
    });
    let spread = (quarters.len() > 1).then(|| {
        let n = quarters.len() as f64;
        let mean = quarters.iter().sum::<i64>() as f64 / 4.0 / n;
        let squares = quarters.iter().map(|value| (*value as f64 / 4.0 - mean).powi(2)).sum::<f64>();
        format!("{:.6}", (squares / (n - 1.0)).sqrt())
    });
    let float = |value: Option<i64>| value.map(|value| format!("{:?}", value as f64 / 4.0));
    vec![
        rows.len().to_string(),
        integers.len().to_string(),
        kept.len().to_string(),
        shown(sum(&integers)),
        shown(avg(&integers)),
        shown(sum(&kept_decimals).map(|sum| decimal(i128::from(sum), 2))),
        shown(decimal_avg(&decimals)),
        shown(float(sum(&quarters))),
        shown(integers.iter().min()),
        shown(kept_integers.iter().max()),
        shown(rows.iter().filter_map(|row| row.4.clone()).max()),
        shown(float(quarters.iter().min().copied())),
        once(&integers).len().to_string(),
        shown(sum(&once(&kept_integers))),
        shown(decimal_avg(&once(&decimals))),
        shown((!conditions.is_empty()).then(|| conditions.iter().all(|value| *value))),
        shown(kept.first().map(|_| true)),
        shown(variance),
        shown(spread),
    ]
}

/// The rows that are there after a changelog; every row that is taken away must have been there, as must every key that is
/// changed, and only those.
#[derive(Default)]
struct Table {
    rows: HashMap<String, Vec<String>>,
    /// Keys whose old row was taken away, and whose new one has not come.
    between: BTreeSet<String>,
}

impl Table {
    fn apply(&mut self, batches: &[RecordBatch], keys: usize, says_before: bool) {
        for batch in batches {
            let shown = visible(batch);
            for (row, kind) in kinds_of(batch).into_iter().enumerate() {
                let text = |column: &ArrayRef| match column.data_type() {
                    DataType::Float64 if std::ptr::eq(column, shown.columns().last().unwrap()) => {
                        let value = column.as_primitive::<arrow::datatypes::Float64Type>();
                        if column.is_null(row) { String::new() } else { format!("{:.6}", value.value(row)) }
                    }
                    _ => array_value_to_string(column, row).unwrap(),
                };
                let mut texts: Vec<String> = shown.columns().iter().map(text).collect();
                let values = texts.split_off(keys);
                self.change(RowKind::of(kind).unwrap(), texts.join("|"), values, says_before);
            }
        }
    }

    fn change(&mut self, kind: RowKind, key: String, values: Vec<String>, says_before: bool) {
        match kind {
            RowKind::Insert => assert_eq!(self.rows.insert(key, values), None),
            RowKind::Delete => assert_eq!(self.rows.remove(&key), Some(values)),
            RowKind::UpdateBefore => {
                assert_eq!(self.rows.remove(&key), Some(values));
                assert!(self.between.insert(key));
            }
            RowKind::UpdateAfter if says_before => {
                assert!(self.between.remove(&key));
                assert_eq!(self.rows.insert(key, values), None);
            }
            RowKind::UpdateAfter => assert!(self.rows.insert(key, values).is_some()),
        }
    }
}

fn random_row(rng: &mut Rng) -> Row {
    let key = rng.below(8);
    let number = |rng: &mut Rng, below| (!rng.one_in(6)).then(|| rng.below(below) as i64 - below as i64 / 2);
    let text = (!rng.one_in(5)).then(|| format!("a text that is long {}", rng.below(5)));
    let condition = (!rng.one_in(4)).then(|| rng.one_in(2));
    ((key > 0).then(|| format!("key {key}")), number(rng, 9), number(rng, 2000), number(rng, 40), text, condition)
}

/// Rows that come and go, through crashes, restores and other parallelisms.
fn check(seed: u64, keys: Vec<usize>, takes_back: bool, says_before: bool) {
    let mut rng = Rng::seeded(seed);
    let manners = Manners {
        batch_rows: [1, 7, 1024][seed as usize % 3],
        parallelism_max: if keys.is_empty() { 1 } else { 4 },
        short_of_memory: true,
        always_resumed: true,
    };
    let factory = spec(keys.clone(), takes_back, says_before, None).factory();
    let mut subtasks = Subtasks::new(factory, manners, Rng::seeded(seed + 1000)).unwrap();
    let (mut live, mut table): (Vec<Row>, Table) = Default::default();
    for step in 0..30 {
        let mut changes = Vec::new();
        for _ in 0..1 + rng.below(20) {
            let goes = takes_back && !live.is_empty() && (rng.one_in(2) || step > 24);
            if goes {
                let row = live.swap_remove(rng.below(live.len()));
                changes.push((if rng.one_in(2) { RowKind::Delete } else { RowKind::UpdateBefore }, row));
            } else {
                let row = random_row(&mut rng);
                live.push(row.clone());
                changes.push((if takes_back && rng.one_in(2) { RowKind::UpdateAfter } else { RowKind::Insert }, row));
            }
        }
        let rows = batch(&changes, takes_back && !rng.one_in(3) || changes.iter().any(|row| !row.0.adds()));
        let key_columns: Vec<ArrayRef> = keys.iter().map(|key| Arc::clone(rows.column(*key))).collect();
        subtasks.send(&rows, &key_columns).unwrap();
        table.apply(&subtasks.take(), keys.len(), says_before);
    }
    let (last, _) = subtasks.finish().unwrap();
    table.apply(&last, keys.len(), says_before);
    assert!(table.between.is_empty());
    let mut groups: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    for row in live {
        groups.entry(if keys.is_empty() { String::new() } else { shown(row.0.clone()) }).or_default().push(row);
    }
    let expected: BTreeMap<_, _> = groups.into_iter().map(|(key, rows)| (key, expected(&rows))).collect();
    assert_eq!(table.rows.into_iter().collect::<BTreeMap<_, _>>(), expected, "seed {seed}");
}

#[test]
fn rows_that_come_and_go_are_aggregated_however_it_is_run() {
    for seed in 0..15 {
        check(seed, vec![0], true, seed % 2 == 0);
    }
}

#[test]
fn rows_that_are_only_added_are_aggregated_however_it_is_run() {
    for seed in 0..9 {
        check(seed, vec![0], false, seed % 2 == 0);
    }
}

#[test]
fn without_keys_there_is_one_row() {
    for seed in 0..6 {
        check(seed, vec![], seed % 3 > 0, seed % 2 == 0);
    }
}

fn kinds(batches: &[RecordBatch]) -> Vec<i8> {
    batches.iter().flat_map(kinds_of).collect()
}

fn kinds_of(batch: &RecordBatch) -> Vec<i8> {
    row_kinds(batch).map_or_else(|| vec![0; batch.num_rows()], |kinds| kinds.values().to_vec())
}

fn row(key: &str, value: i64) -> Row {
    (Some(key.to_owned()), Some(value), None, None, None, None)
}

#[test]
fn a_change_that_shows_nowhere_is_not_said() {
    let mut test = TestContext::new();
    let schema = batch(&[], false).schema();
    let changes = UpdatingChanges { takes_back: true, says_before: true };
    let spec = UpdatingAggregateSpec::new(&schema, vec![0], vec![call(max_udaf(), "i")], changes, None).unwrap();
    let mut operator = spec.factory().create().unwrap();
    let mut run = |rows: &[(RowKind, Row)]| kinds(&run_batch(operator.as_mut(), batch(rows, true), &mut test).unwrap());
    assert_eq!(run(&[(RowKind::Insert, row("a", 5)), (RowKind::Insert, row("b", 1))]), [0, 0]);
    assert!(run(&[(RowKind::Insert, row("a", 3)), (RowKind::Delete, row("a", 3))]).is_empty());
    assert!(run(&[(RowKind::Insert, row("a", 4))]).is_empty());
    assert_eq!(run(&[(RowKind::Delete, row("a", 5))]), [1, 2]);
    assert_eq!(run(&[(RowKind::Delete, row("a", 4)), (RowKind::Delete, row("b", 1))]), [3, 3]);
    // Nothing is there to be taken away.
    assert!(run(&[(RowKind::Delete, row("c", 4))]).is_empty());
    assert_eq!(run(&[(RowKind::UpdateBefore, row("c", 4)), (RowKind::UpdateAfter, row("c", 6))]), [0]);
}

#[test]
fn distinct_rows_are_only_added() {
    let mut test = TestContext::new();
    let schema = batch(&[], false).schema();
    let changes = UpdatingChanges { takes_back: false, says_before: true };
    let spec = UpdatingAggregateSpec::new(&schema, vec![0, 3], Vec::new(), changes, None).unwrap();
    assert_eq!(spec.state_tables()[0].1.fields().len(), 2);
    let mut operator = spec.factory().create().unwrap();
    let rows: Vec<_> =
        [None, Some(0), Some(0), None].map(|value| (RowKind::Insert, (None, None, None, value, None, None))).into();
    let mut run = || {
        let rows = batch(&rows, false);
        let zero = Arc::new(Float64Array::from(vec![None, Some(0.0), Some(-0.0), None]));
        let columns = rows.columns().iter().enumerate();
        let columns = columns.map(|(at, column)| if at == 3 { zero.clone() as ArrayRef } else { Arc::clone(column) });
        let rows = RecordBatch::try_new(rows.schema(), columns.collect()).unwrap();
        kinds(&run_batch(operator.as_mut(), rows, &mut test).unwrap())
    };
    assert_eq!(run(), [0, 0]);
    assert!(run().is_empty());
}

#[test]
fn other_aggregates_keep_their_own_state_and_cannot_take_back() {
    let mut test = TestContext::new();
    let schema = batch(&[], false).schema();
    let calls = || {
        vec![call(named("array_agg"), "i"), call(named("approx_count_distinct"), "i"), call(named("last_value"), "i")]
    };
    let make = |takes_back| {
        let changes = UpdatingChanges { takes_back, says_before: false };
        UpdatingAggregateSpec::new(&schema, vec![0], calls(), changes, None)
    };
    let error = make(true).unwrap_err().to_string();
    assert!(error.contains("ARRAY_AGG cannot take rows back"), "{error}");
    let mut operator = make(false).unwrap().factory().create().unwrap();
    let mut table = Table::default();
    for part in [&[("a", 2), ("b", 9), ("a", 1)][..], &[("a", 7)], &[("c", 3), ("b", 9)]] {
        let rows: Vec<_> = part.iter().map(|(key, value)| (RowKind::Insert, row(key, *value))).collect();
        table.apply(&run_batch(operator.as_mut(), batch(&rows, false), &mut test).unwrap(), 1, false);
    }
    let of = |key: &str| table.rows[key].join(" ");
    assert_eq!((of("a").as_str(), of("b").as_str(), of("c").as_str()), ("[1, 2, 7] 3 7", "[9, 9] 1 9", "[3] 1 3"));
}

#[test]
fn decimals_are_as_wide_as_flinks() {
    let fields = spec(vec![0], true, true, None).schema();
    let types: Vec<_> = fields.fields().iter().map(|field| field.data_type().clone()).collect();
    assert_eq!(types[6], DataType::Decimal128(38, 2));
    assert_eq!(types[7], DataType::Decimal128(38, 6));
}

/// Thousands of values of one key, of which the least and the greatest go again and again, and some under no filter.
#[test]
fn the_next_extreme_of_very_many_values_follows_the_one_that_goes() {
    let mut test = TestContext::new();
    let schema = batch(&[], false).schema();
    let changes = UpdatingChanges { takes_back: true, says_before: false };
    let calls = vec![
        call(min_udaf(), "i"),
        call(max_udaf(), "i"),
        filtered(call(min_udaf(), "i")),
        filtered(call(max_udaf(), "i")),
    ];
    let spec = UpdatingAggregateSpec::new(&schema, vec![0], calls, changes, None).unwrap();
    let mut operator = spec.factory().create().unwrap();
    let of = |value: i64| (Some("a".to_owned()), Some(value), None, None, None, Some(value % 50 == 7));
    let values: Vec<i64> = (0..4000).map(|n| n * 7919 % 4000).collect();
    let mut live: BTreeSet<i64> = values.iter().copied().collect();
    let mut table = Table::default();
    for part in values.chunks(500) {
        let rows: Vec<_> = part.iter().map(|value| (RowKind::Insert, of(*value))).collect();
        table.apply(&run_batch(operator.as_mut(), batch(&rows, true), &mut test).unwrap(), 1, false);
    }
    for step in 0..60 {
        let mut rows = Vec::new();
        for _ in 0..1 + step % 40 {
            let gone = if step % 3 == 0 { live.pop_last() } else { live.pop_first() }.unwrap();
            rows.push((RowKind::Delete, of(gone)));
        }
        if step % 5 == 0 {
            live.insert(2000 - step);
            rows.push((RowKind::Delete, of(2000 - step)));
            rows.push((RowKind::Insert, of(2000 - step)));
        }
        table.apply(&run_batch(operator.as_mut(), batch(&rows, true), &mut test).unwrap(), 1, false);
        let kept: Vec<i64> = live.iter().copied().filter(|value| value % 50 == 7).collect();
        let expected = [live.first(), live.last(), kept.first(), kept.last()].map(shown);
        assert_eq!(table.rows["a"], expected, "step {step}");
    }
}

/// The aggregates of [`calls`] that can be computed in two phases.
fn in_phases(index: &usize) -> bool {
    !(12..15).contains(index)
}

/// Two senders group rows, hold them for a while, and one operator behind them, or several, merge what comes.
#[test]
fn two_phases_give_what_one_gives() {
    for seed in 0..12u64 {
        let mut rng = Rng::seeded(seed);
        let keys = if seed % 4 == 3 { vec![] } else { vec![0] };
        let changes = UpdatingChanges { takes_back: false, says_before: seed.is_multiple_of(2) };
        let calls = calls().into_iter().enumerate().filter(|(n, _)| in_phases(n)).map(|(_, call)| call).collect();
        let schema = batch(&[], false).schema();
        let whole = UpdatingAggregateSpec::new(&schema, keys.clone(), calls, changes, None).unwrap();
        let bounds = MiniBatch { rows: [1, 30, 500][seed as usize % 3], latency: Duration::from_secs(5) };
        let (local, global) = whole.two_phases(bounds).unwrap();
        assert_eq!(global.state_tables(), whole.state_tables());
        let mut senders: Vec<_> =
            (0..2).map(|_| (local.clone().factory().create().unwrap(), TestContext::new())).collect();
        let manners = Manners {
            batch_rows: [1, 7, 1024][seed as usize % 3],
            parallelism_max: if keys.is_empty() { 1 } else { 4 },
            short_of_memory: true,
            always_resumed: true,
        };
        let mut merging = Subtasks::new(global.factory(), manners, Rng::seeded(seed + 1000)).unwrap();
        let (mut live, mut table): (Vec<Row>, Table) = Default::default();
        for step in 0..40 {
            let (sender, test) = &mut senders[rng.below(2)];
            let rows: Vec<Row> = (0..1 + rng.below(40)).map(|_| random_row(&mut rng)).collect();
            live.extend(rows.iter().cloned());
            let rows: Vec<_> = rows.into_iter().map(|row| (RowKind::Insert, row)).collect();
            let mut partials = run_batch(sender.as_mut(), batch(&rows, false), test).unwrap();
            if rng.one_in(4) || step > 37 {
                let mut out = Output::default();
                match rng.below(3) {
                    0 => sender.snapshot(ruslo_core::epoch::Epoch(step), &mut test.context(), &mut out).unwrap(),
                    1 => drop(sender.on_wake(&mut test.context(), &mut out).unwrap()),
                    _ => drop(sender.on_end(0, EndReason::Drain, &mut test.context(), &mut out).unwrap()),
                }
                assert_eq!(sender.wakes_at(), None, "nothing is held");
                partials.extend(out.take().into_iter().map(|(_, batch)| batch));
            }
            for partials in partials {
                let columns: Vec<ArrayRef> = keys.iter().map(|key| Arc::clone(partials.column(*key))).collect();
                merging.send(&partials, &columns).unwrap();
            }
        }
        for (sender, test) in &mut senders {
            let mut out = Output::default();
            let _ = sender.on_end(0, EndReason::Drain, &mut test.context(), &mut out).unwrap();
            for (_, partials) in out.take() {
                let columns: Vec<ArrayRef> = keys.iter().map(|key| Arc::clone(partials.column(*key))).collect();
                merging.send(&partials, &columns).unwrap();
            }
        }
        let (made, _) = merging.finish().unwrap();
        table.apply(&made, keys.len(), changes.says_before);
        let mut groups: BTreeMap<String, Vec<Row>> = BTreeMap::new();
        for row in live {
            groups.entry(if keys.is_empty() { String::new() } else { shown(row.0.clone()) }).or_default().push(row);
        }
        let of_phases = |rows: &[Row]| -> Vec<String> {
            expected(rows).into_iter().enumerate().filter(|(n, _)| in_phases(n)).map(|(_, text)| text).collect()
        };
        let expected: BTreeMap<_, _> = groups.into_iter().map(|(key, rows)| (key, of_phases(&rows))).collect();
        assert_eq!(table.rows.into_iter().collect::<BTreeMap<_, _>>(), expected, "seed {seed}");
    }
}

#[test]
fn rows_are_held_so_long_and_crossed_once_for_each_key() {
    let schema = batch(&[], false).schema();
    let changes = UpdatingChanges { takes_back: false, says_before: true };
    let whole = |calls| UpdatingAggregateSpec::new(&schema, vec![0], calls, changes, None).unwrap();
    let bounds = MiniBatch { rows: 100, latency: Duration::from_millis(250) };
    let (local, _) = whole(vec![call(count_udaf(), "*")]).two_phases(bounds).unwrap();
    let (mut operator, mut test) = (local.factory().create().unwrap(), TestContext::new());
    let rows: Vec<_> = (0..30).map(|n| (RowKind::Insert, row(["a", "b"][n % 2], 1))).collect();
    let mut run = || run_batch(operator.as_mut(), batch(&rows, false), &mut test).unwrap();
    assert!(run().is_empty() && run().is_empty() && run().is_empty());
    let made = run();
    assert_eq!(made.iter().map(|batch| batch.num_rows()).sum::<usize>(), 2);
    assert_eq!(made[0].column(1).as_primitive::<Int64Type>().values(), &[60, 60]);
    let now = test.context().now();
    assert!(run_batch(operator.as_mut(), batch(&rows, false), &mut test).unwrap().is_empty());
    let due = operator.wakes_at().unwrap();
    assert!((now.millis()..=test.context().now().millis()).contains(&(due.millis() - 250)), "{due:?} {now:?}");
    // What one phase keeps of single values cannot be in two.
    let refused = |calls| whole(calls).two_phases(bounds).unwrap_err();
    assert_eq!(refused(vec![distinct(call(count_udaf(), "i"))]), "count(i) is of single values");
    assert_eq!(refused(vec![call(named("array_agg"), "i")]), "array_agg(i) is of single values");
}
