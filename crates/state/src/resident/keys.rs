//! All keys of a key group: those in memory, and those that only runs have.

use arrow::array::ArrayRef;
use arrow::compute::{concat, filter};
use ruslo_core::error::{Error, Result};
use ruslo_core::key_group::KeyGroup;

use super::slab::ABSENT;
use super::{FREE, ResidentTable};
use crate::runs::Kind;

impl ResidentTable {
    /// The keys of a key group that have a row, in no particular order.
    pub(super) fn keys_of(&mut self, group: KeyGroup) -> Result<Vec<ArrayRef>> {
        self.want(Kind::Value)?;
        let mut pieces = vec![self.resident_keys_of(group)?];
        if self.groups.get(usize::from(group)).is_some_and(|group| group.is_partial) {
            self.settle_pending()?;
            pieces.extend(self.stored_keys_of(group)?);
        }
        let columns = (0..self.schema.key.len()).map(|column| {
            let parts: Vec<_> = pieces.iter().filter_map(|keys| keys.get(column)).map(|part| part.as_ref()).collect();
            Ok(concat(&parts)?)
        });
        columns.collect()
    }

    fn resident_keys_of(&self, group: KeyGroup) -> Result<Vec<ArrayRef>> {
        let index = self.groups.get(usize::from(group)).map(|group| &group.index);
        let is_there = |slot: &u32| {
            let header = self.heads.word(*slot, 0);
            header & FREE == 0 && self.is_alive(header)
        };
        let slots: Vec<_> = index.into_iter().flat_map(|index| index.slots()).filter(is_there).collect();
        self.key_columns(&slots)
    }

    /// The keys of a group that runs have and memory knows nothing of.
    fn stored_keys_of(&self, group: KeyGroup) -> Result<Vec<Vec<ArrayRef>>> {
        let lower = self.lower.as_ref().ok_or_else(|| Error::internal("a table without runs has evicted keys"))?;
        let unknown = |stored: Vec<ArrayRef>| {
            let keys = self.keys(&stored)?;
            let is_unknown = self.locate(&keys).into_iter().map(|slot| Some(slot == ABSENT)).collect();
            stored.iter().map(|column| Ok(filter(column, &is_unknown)?)).collect()
        };
        lower.keys(group, self.oldest)?.into_iter().map(unknown).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type};
    use ruslo_core::key_group::KEY_GROUPS;
    use ruslo_core::keyed::{KeyedTable, TableSchema};
    use ruslo_core::memory::MemoryPool;

    use super::*;

    fn keys(numbers: impl IntoIterator<Item = i64>) -> Vec<ArrayRef> {
        vec![Arc::new(Int64Array::from_iter_values(numbers))]
    }

    #[test]
    fn every_key_that_is_there_is_of_one_group() {
        let field = |name| Arc::new(Field::new(name, DataType::Int64, true));
        let schema = TableSchema::value(vec![field("k")], vec![field("v")]);
        let memory = MemoryPool::unbounded().reserve("t");
        let mut table = ResidentTable::new("t", schema, 0..KEY_GROUPS, memory, None).unwrap();
        table.upsert(&keys(0..1000), &keys(0..1000)).unwrap();
        table.remove(&keys(0..300)).unwrap();
        let _sealed = table.seal().unwrap();
        table.remove(&keys(300..500)).unwrap();
        table.upsert(&keys(100..101), &keys(7..8)).unwrap();
        let mut found = BTreeSet::new();
        for group in 0..KEY_GROUPS {
            let of_group = table.keys_of(group).unwrap();
            for key in of_group[0].as_primitive::<Int64Type>().values() {
                assert!(found.insert(*key), "{key} twice");
            }
        }
        assert_eq!(found, (500..1000).chain([100]).collect());
    }
}
