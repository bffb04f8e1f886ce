//! How often each value of each key is there: what DISTINCT counts by, and where the next MIN or MAX is found when one
//! goes.
//!
//! One table for each argument, with a count for each FILTER under which some aggregate asks for it. What it gives on is
//! which values have *come* and which have *gone*: those are the rows of an aggregate over distinct values. Over rows that
//! are never taken back only whether a value was there is kept, so a value that comes again changes nothing.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, UInt32Array, new_null_array};
use arrow::compute::{filter, is_not_null, take};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema, UInt32Type};
use datafusion::error::Result as DfResult;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;
use ruslo_core::error::{Error, Result};
use ruslo_core::keyed::{End, KeyedTable, Rows as TableRows, TableSchema, Ttl};

use super::accumulate::Rows;
use super::pick::{Which, canonical, pick};
use crate::expression::execution_error;

/// The names of these tables, stored in checkpoints: so many arguments can have one.
pub(super) const NAMES: [&str; 16] = [
    "updating_values0",
    "updating_values1",
    "updating_values2",
    "updating_values3",
    "updating_values4",
    "updating_values5",
    "updating_values6",
    "updating_values7",
    "updating_values8",
    "updating_values9",
    "updating_values10",
    "updating_values11",
    "updating_values12",
    "updating_values13",
    "updating_values14",
    "updating_values15",
];

/// One table of values.
#[derive(Debug)]
pub(super) struct Values {
    pub(super) name: &'static str,
    pub(super) table: TableSchema,
    /// The filters that are counted apart, by their place among the operator's.
    pub(super) filters: Vec<usize>,
    /// Whether rows may be taken back.
    takes_back: bool,
}

/// What came of the rows of a batch: values that have come or gone.
pub(super) struct Turned {
    /// Of which group each value is.
    pub(super) groups: Vec<u32>,
    pub(super) values: ArrayRef,
    /// For each filter, 1 where the value has come, -1 where it has gone.
    pub(super) signs: Vec<Vec<i8>>,
}

impl Values {
    /// The table `name` of values of type `value` by `key`.
    pub(super) fn new(
        name: &'static str,
        key: Vec<FieldRef>,
        value: DataType,
        filters: Vec<usize>,
        (takes_back, ttl): (bool, Option<Ttl>),
    ) -> Self {
        let counts = (0..filters.len()).map(|at| Arc::new(Field::new(format!("count{at}"), DataType::Int64, false)));
        let table = TableSchema::map(key, vec![Arc::new(Field::new("value", value, true))], counts.collect());
        Self { name, table: table.with_ttl(ttl).with_order(Some(Vec::new())), filters, takes_back }
    }

    fn value_type(&self) -> DataType {
        self.table.sub_key.first().map_or(DataType::Null, |field| field.data_type().clone())
    }

    /// Counts `values`, one a row: `groups` has the group of each, `keys` the key of each group, `signs` for each filter
    /// what each row does.
    pub(super) fn count(
        &self,
        table: &mut dyn KeyedTable,
        keys: &[ArrayRef],
        values: &ArrayRef,
        groups: &[u32],
        signs: &[&[i8]],
    ) -> Result<Turned> {
        let pairs = self.pairs(values, groups, signs).map_err(execution_error)?;
        let places = UInt32Array::from(pairs.groups.clone());
        let pair_keys = keys.iter().map(|key| Ok(take(key, &places, None)?)).collect::<Result<Vec<_>>>()?;
        let found = table.load_rows(&pair_keys, &[Arc::clone(&pairs.values)])?;
        let old = self.counts(table, &found)?;
        let new = old.iter().zip(&pairs.deltas).map(|(old, deltas)| self.added(old, deltas)).collect::<Vec<_>>();
        self.write(table, &pair_keys, &pairs.values, &found, (&old, &new))?;
        let turned = |(old, new): (&Vec<i64>, &Vec<i64>)| {
            old.iter().zip(new).map(|(old, new)| i8::from(*new > 0) - i8::from(*old > 0)).collect()
        };
        Ok(Turned { signs: old.iter().zip(&new).map(turned).collect(), groups: pairs.groups, values: pairs.values })
    }

    /// Each value of each group once, and what the rows add to its counts.
    fn pairs(&self, values: &ArrayRef, groups: &[u32], signs: &[&[i8]]) -> DfResult<Pairs> {
        let counts = |row: usize| signs.iter().any(|signs| signs.get(row).is_some_and(|sign| *sign != 0));
        let counted: BooleanArray = (0..groups.len()).map(|row| Some(counts(row))).collect();
        let counted = arrow::compute::and(&counted, &is_not_null(values)?)?;
        let group_of_rows: ArrayRef = Arc::new(UInt32Array::from(groups.to_vec()));
        let columns = [filter(&group_of_rows, &counted)?, filter(&canonical(values), &counted)?];
        let fields = vec![Field::new("group", DataType::UInt32, false), Field::new("value", self.value_type(), true)];
        let mut seen = new_group_values(Arc::new(Schema::new(fields)), &GroupOrdering::None)?;
        let mut places = Vec::new();
        seen.intern(&columns, &mut places)?;
        let deltas = signs.iter().map(|signs| {
            let mut deltas = vec![0; seen.len()];
            let signs = signs.iter().zip(counted.values()).filter(|(_, counted)| *counted).map(|(sign, _)| *sign);
            for (place, sign) in places.iter().zip(signs) {
                if let Some(delta) = deltas.get_mut(*place) {
                    *delta += i64::from(sign);
                }
            }
            deltas
        });
        let deltas = deltas.collect();
        let (groups, values) = emitted(seen)?;
        Ok(Pairs { groups, values, deltas })
    }

    /// The counts of rows of the table, for each filter; 0 where there is none.
    fn counts(&self, table: &dyn KeyedTable, found: &TableRows) -> Result<Vec<Vec<i64>>> {
        let columns = table.read_rows(found)?;
        let counts = columns.iter().skip(1).map(|column| match column.as_primitive_opt::<Int64Type>() {
            Some(counts) => Ok(counts.iter().map(Option::unwrap_or_default).collect()),
            None => Err(Error::internal("a count of values is no BIGINT")),
        });
        counts.collect()
    }

    fn added(&self, old: &[i64], deltas: &[i64]) -> Vec<i64> {
        // What is taken away without having been there has outlived its table's rows.
        let most = if self.takes_back { i64::MAX } else { 1 };
        old.iter().zip(deltas).map(|(old, delta)| (old + delta).clamp(0, most)).collect()
    }

    /// Writes the counts that have changed; values that are there no more are removed.
    fn write(
        &self,
        table: &mut dyn KeyedTable,
        keys: &[ArrayRef],
        values: &ArrayRef,
        found: &TableRows,
        (old, new): (&[Vec<i64>], &[Vec<i64>]),
    ) -> Result<()> {
        let rows = values.len();
        let at =
            |counts: &[Vec<i64>], row: usize| counts.iter().map(|of| of.get(row).copied().unwrap_or(0)).sum::<i64>();
        let is_there: Vec<bool> = (0..rows).map(|row| at(new, row) > 0).collect();
        let is_same = |row: usize| old.iter().zip(new).all(|(old, new)| old.get(row) == new.get(row));
        // With a lifetime, using a value renews it.
        let is_renewed = self.table.ttl.is_some();
        let gone = found.slots().iter().zip(&is_there).map(|(slot, there)| if *there { u32::MAX } else { *slot });
        let gone: Vec<u32> = gone.filter(|slot| *slot != u32::MAX).collect();
        if !gone.is_empty() {
            table.remove_rows(&TableRows::new(gone, found.generation()))?;
        }
        let written: BooleanArray =
            is_there.iter().enumerate().map(|(row, there)| Some(*there && (is_renewed || !is_same(row)))).collect();
        if written.true_count() == 0 {
            return Ok(());
        }
        let keys = keys.iter().map(|key| Ok(filter(key, &written)?)).collect::<Result<Vec<_>>>()?;
        let counts = new.iter().map(|counts| Ok(filter(&Int64Array::from(counts.clone()), &written)?));
        let counts = counts.collect::<Result<Vec<_>>>()?;
        table.put(&keys, &[filter(values, &written)?], &counts)
    }

    /// The least or the greatest value of each of `keys` under the filter at place `filter` of this table. They are asked for
    /// from the end on, more at a time where the first ones are not under the filter.
    pub(super) fn extremes(
        &self,
        table: &mut dyn KeyedTable,
        keys: &[ArrayRef],
        (which, filter): (Which, usize),
    ) -> Result<ArrayRef> {
        let total = keys.first().map_or(0, |key| key.len());
        let added = vec![true; total];
        let mut best = new_null_array(&self.value_type(), total);
        let end = if which == Which::Least { End::First } else { End::Last };
        let mut sought: Vec<u32> = (0..total as u32).collect();
        let mut most = 1;
        while !sought.is_empty() {
            let places = UInt32Array::from(sought.clone());
            let wanted = keys.iter().map(|key| Ok(take(key, &places, None)?)).collect::<Result<Vec<_>>>()?;
            let piece = table.ends(&wanted, end, &vec![most; sought.len()])?;
            let counts = piece.columns.get(1 + filter).and_then(|column| column.as_primitive_opt::<Int64Type>());
            let (Some(values), Some(counts)) = (piece.columns.first(), counts) else {
                return Err(Error::internal("a table of values lost a column"));
            };
            let signs: Vec<i8> = counts.values().iter().map(|count| i8::from(*count > 0)).collect();
            let of_row = |request: &u32| sought.get(*request as usize).copied().unwrap_or_default();
            let groups: Vec<u32> = piece.requests.values().iter().map(of_row).collect();
            let rows = Rows { columns: &[], groups: &groups, signs: &signs, added: &added };
            best = pick(which, &best, values, &rows).map_err(execution_error)?;
            let mut found = vec![0u32; total];
            groups.iter().filter_map(|group| found.get_mut(*group as usize).map(|found| *found += 1)).for_each(drop);
            // Fewer than were asked for are all of a key.
            let has_more = |group: &u32| found.get(*group as usize).is_some_and(|found| *found >= most);
            sought.retain(|group| best.is_null(*group as usize) && has_more(group));
            most = most.saturating_mul(16);
        }
        Ok(best)
    }
}

/// The values of a batch.
struct Pairs {
    groups: Vec<u32>,
    values: ArrayRef,
    /// For each filter.
    deltas: Vec<Vec<i64>>,
}

fn emitted(mut seen: Box<dyn GroupValues>) -> DfResult<(Vec<u32>, ArrayRef)> {
    let columns = seen.emit(datafusion::logical_expr::EmitTo::All)?;
    match columns.as_slice() {
        [groups, values] => Ok((groups.as_primitive::<UInt32Type>().values().to_vec(), Arc::clone(values))),
        _ => datafusion::common::internal_err!("values lost their groups"),
    }
}
