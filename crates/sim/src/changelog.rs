//! What a changelog comes to: the table after each checkpoint, and whether each change fits the table before it.

use std::collections::BTreeMap;

use ruslo_core::changelog::RowKind;
use ruslo_core::epoch::Epoch;

use crate::sink::OutRow;

/// What a sink that takes changes may see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changelog {
    /// The columns that tell rows apart, if there are any: none of them twice, at no time.
    pub key: Option<Vec<usize>>,
    /// Whether what was before is not said: an update replaces the row of its key.
    pub is_upsert: bool,
    /// What is true of the table after every checkpoint.
    pub always: Option<Always>,
}

/// What is true of a table after every checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Always {
    /// The sum of that column is 0.
    SumIsZero(usize),
    /// The rows have two halves of that many columns, which are equal.
    HalvesAreEqual(usize),
}

impl Always {
    fn is_kept(self, table: &BTreeMap<OutRow, i64>) -> bool {
        match self {
            // NULL is the sum of nothing.
            Self::SumIsZero(at) => {
                let values = table.iter().filter(|(row, _)| row[at] != i64::MIN);
                values.map(|(row, times)| row[at] * times).sum::<i64>() == 0
            }
            Self::HalvesAreEqual(width) => table.keys().all(|row| row[..width] == row[width..2 * width]),
        }
    }
}

impl Changelog {
    fn key_of(&self, row: &OutRow) -> OutRow {
        self.key.iter().flatten().map(|at| row[*at]).collect()
    }

    /// The table that the `changes` of each checkpoint come to: each row, and how often.
    ///
    /// # Errors
    /// What is wrong with a change, or with the table after a checkpoint.
    pub fn table(&self, changes: &[(Epoch, Vec<OutRow>)]) -> Result<BTreeMap<OutRow, i64>, String> {
        let (mut table, mut by_key) = (BTreeMap::<OutRow, i64>::new(), BTreeMap::<OutRow, OutRow>::new());
        for (epoch, rows) in changes {
            for row in rows {
                let (kind, row) = row.split_last().unwrap();
                let (kind, row) = (RowKind::of(*kind as i8).unwrap(), row.to_vec());
                let wrong = |what: &str| Err(format!("epoch {epoch}: {kind} {row:?}, but {what}"));
                let count = table.get(&row).copied().unwrap_or(0);
                let key = self.key_of(&row);
                let known = by_key.get(&key).filter(|_| self.key.is_some()).cloned();
                match (kind, self.is_upsert) {
                    (RowKind::UpdateBefore, true) => return wrong("nobody asked"),
                    (RowKind::UpdateAfter, true) => match known {
                        None => return wrong("its key is not there"),
                        Some(old) => drop(table.remove(&old)),
                    },
                    _ if kind.adds() && known.is_some() => return wrong(&format!("{known:?} is there")),
                    _ if !kind.adds() && count == 0 => return wrong("it is not there"),
                    _ => {}
                }
                if kind.adds() {
                    *table.entry(row.clone()).or_default() += 1;
                    by_key.insert(key, row.clone());
                } else {
                    table.insert(row.clone(), count - 1);
                    by_key.remove(&key);
                }
                if table.get(&row) == Some(&0) {
                    table.remove(&row);
                }
            }
            if self.always.is_some_and(|always| !always.is_kept(&table)) {
                return Err(format!("epoch {epoch}: {:?} is not true of {table:?}", self.always));
            }
        }
        Ok(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(changelog: &Changelog, epochs: &[&[[i64; 3]]]) -> Result<Vec<OutRow>, String> {
        let epochs: Vec<_> = (1..)
            .zip(epochs)
            .map(|(epoch, rows)| (Epoch(epoch), rows.iter().map(|row| row.to_vec()).collect()))
            .collect();
        changelog.table(&epochs).map(|table| table.into_keys().collect())
    }

    const INSERT: i64 = 0;
    const BEFORE: i64 = 1;
    const AFTER: i64 = 2;
    const DELETE: i64 = 3;

    #[test]
    fn what_is_taken_back_must_be_there() {
        let any = Changelog::default();
        assert_eq!(table(&any, &[&[[1, 5, INSERT], [1, 5, INSERT]], &[[1, 5, DELETE]]]).unwrap(), [[1, 5]]);
        assert!(table(&any, &[&[[1, 5, INSERT], [1, 6, BEFORE]]]).unwrap_err().contains("-U [1, 6], but it is not"));
        let keyed = Changelog { key: Some(vec![0]), ..Changelog::default() };
        assert_eq!(table(&keyed, &[&[[1, 5, INSERT], [1, 5, BEFORE], [1, 6, AFTER]]]).unwrap(), [[1, 6]]);
        let wrong = table(&keyed, &[&[[1, 5, INSERT], [1, 6, AFTER], [1, 5, BEFORE]]]);
        assert!(wrong.unwrap_err().contains("[1, 5]) is there"));
    }

    #[test]
    fn an_update_by_key_replaces() {
        let upsert = Changelog { key: Some(vec![0]), is_upsert: true, always: None };
        assert_eq!(table(&upsert, &[&[[1, 5, INSERT], [2, 7, INSERT]], &[[1, 6, AFTER]]]).unwrap(), [[1, 6], [2, 7]]);
        for (wrong, why) in [
            (vec![[1, 5, AFTER]], "its key is not there"),
            (vec![[1, 5, INSERT], [1, 6, INSERT]], "is there"),
            (vec![[1, 5, INSERT], [1, 5, BEFORE]], "nobody asked"),
            (vec![[1, 5, INSERT], [1, 6, DELETE]], "it is not there"),
        ] {
            assert!(table(&upsert, &[&wrong]).unwrap_err().contains(why), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_always_true_is_asked_after_each_checkpoint() {
        let zero = Changelog { always: Some(Always::SumIsZero(1)), ..Changelog::default() };
        table(&zero, &[&[[1, 5, INSERT], [2, -5, INSERT]], &[[3, i64::MIN, INSERT]]]).unwrap();
        assert!(table(&zero, &[&[[1, 5, INSERT]], &[[2, -5, INSERT]]]).unwrap_err().contains("epoch 1: "));
        let halves = Changelog { always: Some(Always::HalvesAreEqual(1)), ..Changelog::default() };
        table(&halves, &[&[[1, 2, INSERT], [1, 2, DELETE], [4, 4, INSERT]]]).unwrap();
        assert!(table(&halves, &[&[[1, 2, INSERT]]]).is_err());
    }
}
