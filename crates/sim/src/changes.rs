//! Sources of tables that change: rows that take back one that came before them.
//!
//! Such a row has a negative key: see [`Row::takes_back`]. Of a table that changes only the lineage, the key and the value
//! of a row are told, so that many rows are equal.
//!
//! And sources of versions: changes with a time, of which some say that there is no row of their key from then on.

use arrow::array::{ArrayRef, AsArray, Int8Array, Int64Array, TimestampMillisecondArray};
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use ruslo_core::changelog::{RowKind, row_kinds, with_row_kinds};
use ruslo_core::rng::Rng;
use ruslo_core::schema::visible;
use std::sync::Arc;

use crate::dataset::{Dataset, Lineage, Row, column};
use crate::sink::{OutRow, rows_of};

/// What the rows of a source are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Told {
    /// Rows that only come.
    #[default]
    Rows,
    /// Changes of a table: see [`changing`].
    Changes,
    /// Versions of a table's rows: see [`versions`].
    Versions,
}

impl Told {
    /// `data` as rows that are this.
    pub fn data(self, data: Dataset, rng: &mut Rng) -> Dataset {
        match self {
            Self::Rows => data,
            Self::Changes => changing(data, rng),
            Self::Versions => versions(data),
        }
    }

    /// The batch of a source as it is read.
    pub fn read(self, batch: RecordBatch) -> RecordBatch {
        match self {
            Self::Rows => batch,
            Self::Changes => marked(&batch),
            Self::Versions => with_row_kinds(&batch, kinds_of_versions(&batch)).unwrap(),
        }
    }
}

impl Row {
    /// The row that this one takes back, if it does that.
    pub fn takes_back(&self) -> Option<Self> {
        (self.key < 0).then(|| Self { key: -1 - self.key, ..*self })
    }
}

/// The same where a third of the rows take back an earlier one of their lineage. A lineage is one split, so that a row comes
/// after that which it takes back.
pub fn changing(data: Dataset, rng: &mut Rng) -> Dataset {
    let changing = |lineage: Lineage| {
        let mut there: Vec<Row> = Vec::new();
        let rows: Vec<_> = lineage
            .rows
            .into_iter()
            .map(|row| {
                if !there.is_empty() && rng.one_in(3) {
                    let gone = there.swap_remove(rng.below(there.len()));
                    return Row { key: -1 - gone.key, ..gone };
                }
                let row = Row { time: 0, ..row };
                there.push(row);
                row
            })
            .collect();
        Lineage { cuts: vec![0, rows.len()], rows, ..lineage }
    };
    Dataset { lineages: data.lineages.into_iter().map(changing).collect() }
}

/// The same where the times of one lineage are none of the other's, of at most two: of one key and time the change that came
/// last counts, and which of two lineages comes first is chance. A lineage is one split.
pub fn versions(data: Dataset) -> Dataset {
    let apart = |(place, lineage): (i64, Lineage)| {
        let rows: Vec<_> =
            lineage.rows.into_iter().map(|row| Row { time: row.time.div_euclid(2) * 2 + place, ..row }).collect();
        Lineage { cuts: vec![0, rows.len()], rows, ..lineage }
    };
    Dataset { lineages: (0..).zip(data.lineages).map(apart).collect() }
}

/// What a version of this value is.
pub fn kind_of_version(value: i64) -> RowKind {
    match value.rem_euclid(4) {
        1 => RowKind::Delete,
        2 => RowKind::UpdateAfter,
        3 => RowKind::UpdateBefore,
        _ => RowKind::Insert,
    }
}

fn kinds_of_versions(batch: &RecordBatch) -> Int8Array {
    let values = batch.column(column::VALUE).as_primitive::<Int64Type>().values();
    Int8Array::from_iter_values(values.iter().map(|value| kind_of_version(*value).number()))
}

/// The rows of a table that changes, with their kinds.
pub fn marked(batch: &RecordBatch) -> RecordBatch {
    let integers = |at: usize| batch.column(at).as_primitive::<Int64Type>().values();
    let (keys, values) = (integers(column::KEY), integers(column::VALUE));
    let kinds = keys.iter().zip(values).map(|(key, value)| match (*key < 0, value.rem_euclid(2)) {
        (true, 0) => RowKind::Delete,
        (true, _) => RowKind::UpdateBefore,
        (false, 0) => RowKind::Insert,
        (false, _) => RowKind::UpdateAfter,
    });
    let kinds = Int8Array::from_iter_values(kinds.map(RowKind::number));
    let mut columns = batch.columns().to_vec();
    let keys = keys.iter().map(|key| if *key < 0 { -1 - key } else { *key });
    columns[column::KEY] = Arc::new(Int64Array::from_iter_values(keys)) as ArrayRef;
    columns[column::OFFSET] = Arc::new(Int64Array::from(vec![0; batch.num_rows()]));
    columns[column::TIME] = Arc::new(TimestampMillisecondArray::from(vec![0; batch.num_rows()]));
    with_row_kinds(&RecordBatch::try_new(batch.schema(), columns).unwrap(), kinds).unwrap()
}

/// The rows of a batch, with their kinds as a last column.
pub fn changes_of(batch: &RecordBatch) -> Vec<OutRow> {
    let kinds = row_kinds(batch).map(|kinds| kinds.values().to_vec());
    let mut rows = rows_of(&visible(batch));
    for (place, row) in rows.iter_mut().enumerate() {
        row.push(i64::from(kinds.as_ref().map_or(RowKind::Insert.number(), |kinds| kinds[place])));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{DataSpec, batch};

    #[test]
    fn versions_of_two_lineages_have_times_of_their_own() {
        let rows = |times: &[i64]| times.iter().map(|time| Row { key: 1, value: *time, time: *time }).collect();
        let lineage = |id| Lineage { id, rows: rows(&[-3, 4, 5]), cuts: vec![0, 1, 3] };
        let data = versions(Dataset { lineages: vec![lineage(7), lineage(8)] });
        let times = data.lineages.iter().map(|lineage| lineage.rows.iter().map(|row| row.time).collect::<Vec<_>>());
        assert_eq!(times.collect::<Vec<_>>(), [[-4, 4, 4], [-3, 5, 5]]);
        assert!(data.lineages.iter().all(|lineage| lineage.cuts == [0, 3]));
        let read = changes_of(&Told::Versions.read(batch(&data.lineages[1], 0, 3)));
        let kinds: Vec<_> = read.iter().map(|row| *row.last().unwrap()).collect();
        // -3 is 1 of 4, a deletion.
        assert_eq!(kinds, [RowKind::Delete, RowKind::Insert, RowKind::Delete].map(|kind| i64::from(kind.number())));
    }

    #[test]
    fn what_is_taken_back_was_there_and_has_its_kind() {
        let spec = DataSpec { lineages_max: 2, rows_max: 60, keys: 3, values: 4, disorder_ms: 5, pace_max: 5 };
        let mut taken = 0;
        for seed in 0..20 {
            let mut rng = Rng::seeded(seed);
            let data = changing(spec.make(0, &mut rng), &mut rng);
            for lineage in &data.lineages {
                let mut there = std::collections::BTreeMap::<OutRow, i64>::new();
                for mut row in changes_of(&marked(&batch(lineage, 0, lineage.rows.len()))) {
                    let kind = row.pop().unwrap();
                    assert!(row[column::KEY] >= 0 && row[column::TIME] == 0);
                    let count = there.entry(row).or_default();
                    *count += if kind % 2 == 0 { 1 } else { -1 };
                    assert!(*count >= 0);
                    taken += kind % 2;
                }
            }
        }
        assert!(taken > 100);
    }
}
