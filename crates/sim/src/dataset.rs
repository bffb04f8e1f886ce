//! Input made from a seed: lineages of rows, cut into splits, out of order in event time.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, Int64Array, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use ruslo_core::rng::Rng;
use ruslo_core::source::Split;
use serde_json::json;

/// The columns that a source brings: who a row is, what it says, when it happened, and the way it has come (which the
/// operators of [`crate::operators`] write down).
pub mod column {
    /// Which lineage; with [`OFFSET`] the identity of a row.
    pub const LINEAGE: usize = 0;
    /// Which row of the lineage.
    pub const OFFSET: usize = 1;
    /// What windows group by.
    pub const KEY: usize = 2;
    /// What windows add up.
    pub const VALUE: usize = 3;
    /// Event time.
    pub const TIME: usize = 4;
    /// See [`crate::shape::via`].
    pub const VIA: usize = 5;
}

/// One row of input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// What windows group by.
    pub key: i64,
    /// What windows add up.
    pub value: i64,
    /// Event time in milliseconds.
    pub time: i64,
}

impl Row {
    /// Whether it cannot become a row, where a source is told that such records come.
    pub fn is_bad(&self) -> bool {
        self.value.rem_euclid(9) == 4
    }
}

/// What a dead letter says of the record of that lineage and offset: its position, as a number.
pub fn position(lineage: i64, offset: usize) -> i64 {
    lineage * 1_000_000 + offset as i64
}

/// Rows in the order of one file.
#[derive(Debug, Clone)]
pub struct Lineage {
    /// Different from every other's of the run.
    pub id: i64,
    /// The rows; a row's place is its offset.
    pub rows: Vec<Row>,
    /// Where splits begin, and the end of the last: ascending, from 0 to the number of rows.
    pub cuts: Vec<usize>,
}

/// What one source has.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// Its lineages.
    pub lineages: Vec<Lineage>,
}

/// How data is to be made.
#[derive(Debug, Clone, Copy)]
pub struct DataSpec {
    /// Lineages at most.
    pub lineages_max: usize,
    /// Rows of a lineage at most.
    pub rows_max: usize,
    /// How many keys.
    pub keys: usize,
    /// How many values, about 0.
    pub values: usize,
    /// How far a row's time may be from its place, in milliseconds.
    pub disorder_ms: usize,
    /// How far places are apart at most, in milliseconds.
    pub pace_max: usize,
}

impl DataSpec {
    /// Makes a dataset; its lineages are numbered from `first_id`.
    pub fn make(self, first_id: i64, rng: &mut Rng) -> Dataset {
        let count = 1 + rng.below(self.lineages_max);
        let lineages = (0..count).map(|index| {
            // Now and then a file is empty, or ends long before the others.
            let rows_max =
                if rng.one_in(4) { rng.below(4) } else { self.rows_max / 2 + rng.below(self.rows_max / 2 + 1) };
            self.lineage(first_id + index as i64, rows_max, rng)
        });
        Dataset { lineages: lineages.collect() }
    }

    fn lineage(self, id: i64, rows: usize, rng: &mut Rng) -> Lineage {
        let start = rng.below(3 * self.disorder_ms + 1) as i64;
        let pace = 1 + rng.below(self.pace_max) as i64;
        let rows: Vec<_> = (0..rows as i64)
            .map(|place| Row {
                key: rng.below(self.keys) as i64,
                value: rng.below(self.values) as i64 - self.values as i64 / 2,
                time: start + place * pace + rng.below(2 * self.disorder_ms + 1) as i64 - self.disorder_ms as i64,
            })
            .collect();
        let mut cuts: Vec<_> = (0..rng.below(5)).map(|_| rng.below(rows.len() + 1)).collect();
        cuts.extend([0, rows.len()]);
        cuts.sort_unstable();
        Lineage { id, rows, cuts }
    }
}

impl Lineage {
    /// Its name; names sort as ids do.
    pub fn name(&self) -> String {
        format!("lineage-{:04}", self.id)
    }

    fn splits(&self) -> impl Iterator<Item = Split> + '_ {
        self.cuts.windows(2).enumerate().map(|(sequence, cut)| Split {
            lineage: self.name(),
            sequence: sequence as u64,
            is_endless: false,
            description: json!({ "lineage": self.id, "from": cut[0], "to": cut[1] }),
        })
    }
}

impl Dataset {
    /// All splits, in order.
    pub fn splits(&self) -> Vec<Split> {
        self.lineages.iter().flat_map(Lineage::splits).collect()
    }

    /// The lineage numbered `id`.
    pub fn lineage(&self, id: i64) -> Option<&Lineage> {
        self.lineages.iter().find(|lineage| lineage.id == id)
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.lineages.iter().map(|lineage| lineage.rows.len()).sum()
    }
}

/// The schema of every source; see [`mod@column`].
pub fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let integer = |name: &str| Field::new(name, DataType::Int64, false);
        let time = Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, None), false);
        let fields =
            vec![integer("lineage"), integer("offset"), integer("key"), integer("value"), time, integer("via")];
        Arc::new(Schema::new(fields))
    });
    Arc::clone(&SCHEMA)
}

/// The rows `from..to` of a lineage.
pub fn batch(lineage: &Lineage, from: usize, to: usize) -> RecordBatch {
    let rows = &lineage.rows[from..to];
    let integers = |of: fn(&Row) -> i64| Arc::new(Int64Array::from_iter_values(rows.iter().map(of))) as ArrayRef;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![lineage.id; rows.len()])),
        Arc::new(Int64Array::from_iter_values((from..to).map(|offset| offset as i64))),
        integers(|row| row.key),
        integers(|row| row.value),
        Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.time))),
        Arc::new(Int64Array::from(vec![0; rows.len()])),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: DataSpec =
        DataSpec { lineages_max: 3, rows_max: 40, keys: 5, values: 9, disorder_ms: 30, pace_max: 20 };

    #[test]
    fn splits_cover_each_lineage_in_order_without_gaps() {
        for seed in 0..50 {
            let data = SPEC.make(7, &mut Rng::seeded(seed));
            for lineage in &data.lineages {
                let splits: Vec<_> = lineage.splits().collect();
                assert!(!splits.is_empty());
                assert_eq!(splits[0].description["from"], json!(0));
                assert_eq!(splits.last().unwrap().description["to"], json!(lineage.rows.len()));
                assert!(splits.iter().enumerate().all(|(at, split)| split.sequence == at as u64));
            }
            let names: Vec<_> = data.splits().into_iter().map(|split| split.id()).collect();
            assert!(names.is_sorted());
        }
    }

    #[test]
    fn the_same_seed_makes_the_same_rows_out_of_order() {
        let make = || SPEC.make(0, &mut Rng::seeded(3));
        assert_eq!(make().lineages[0].rows, make().lineages[0].rows);
        let disordered = (0..20).any(|seed| {
            let data = SPEC.make(0, &mut Rng::seeded(seed));
            data.lineages.iter().any(|lineage| !lineage.rows.is_sorted_by_key(|row| row.time))
        });
        assert!(disordered);
    }

    #[test]
    fn a_batch_says_who_its_rows_are() {
        let lineage = Lineage { id: 9, rows: vec![Row { key: 1, value: 2, time: 3 }; 4], cuts: vec![0, 4] };
        let rows = crate::sink::rows_of(&batch(&lineage, 1, 3));
        assert_eq!(rows, vec![vec![9, 1, 1, 2, 3, 0], vec![9, 2, 1, 2, 3, 0]]);
    }
}
