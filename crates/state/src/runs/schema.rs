//! What a stored run of a keyed table looks like beside the table's own columns.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
pub use ruslo_core::keyed::{Kind, TableSchema, Ttl};

/// The column of hashes in a stored run.
pub(crate) const HASH_COLUMN: &str = "__hash";
/// The column of operations in a stored run.
pub(crate) const OP_COLUMN: &str = "__op";
/// The column of time buckets in a stored run of a table with a TTL.
pub(crate) const BUCKET_COLUMN: &str = "__bucket";

/// A table's schema as it is stored.
pub(crate) trait StoredSchema {
    /// The columns before a row's in a stored run.
    fn hidden(&self) -> Vec<FieldRef>;
    /// The columns of a stored run, with what the table is as metadata.
    fn stored(&self) -> SchemaRef;
}

impl StoredSchema for TableSchema {
    fn hidden(&self) -> Vec<FieldRef> {
        let mut fields = vec![
            Arc::new(Field::new(HASH_COLUMN, DataType::UInt64, false)),
            Arc::new(Field::new(OP_COLUMN, DataType::UInt8, false)),
        ];
        if self.ttl.is_some() {
            fields.push(Arc::new(Field::new(BUCKET_COLUMN, DataType::UInt32, false)));
        }
        fields
    }

    fn stored(&self) -> SchemaRef {
        let fields: Vec<_> = self.hidden().into_iter().chain(self.fields().map(relaxed)).collect();
        let mut metadata = HashMap::from([
            ("ruslo.kind".to_owned(), self.kind.name().to_owned()),
            ("ruslo.keys".to_owned(), self.key.len().to_string()),
            ("ruslo.sub-keys".to_owned(), self.sub_key.len().to_string()),
        ]);
        if let Some(ttl) = self.ttl {
            metadata.insert("ruslo.ttl-unit-ms".to_owned(), ttl.unit_ms.to_string());
        }
        Arc::new(Schema::new_with_metadata(fields, metadata))
    }
}

/// The table whose run has the schema `stored`; how long its rows live is not stored. `None`, if it is of none.
pub(crate) fn table_of(stored: &Schema) -> Option<TableSchema> {
    let number = |name: &str| stored.metadata().get(name)?.parse::<usize>().ok();
    let kind = stored.metadata().get("ruslo.kind")?;
    let kind = [Kind::Value, Kind::List, Kind::Map, Kind::Time].into_iter().find(|known| known.name() == kind)?;
    let unit_ms = number("ruslo.ttl-unit-ms");
    let hidden = 2 + usize::from(unit_ms.is_some());
    let fields: Vec<FieldRef> = stored.fields().iter().skip(hidden).cloned().collect();
    let (key, rest) = fields.split_at_checked(number("ruslo.keys")?)?;
    let (sub_key, value) = rest.split_at_checked(number("ruslo.sub-keys")?)?;
    let ttl = unit_ms.map(|unit_ms| Ttl { units: u32::MAX, unit_ms: unit_ms as u64 });
    Some(TableSchema {
        kind,
        key: key.to_vec(),
        sub_key: sub_key.to_vec(),
        value: value.to_vec(),
        ttl,
        order: None,
        by_value: false,
    })
}

/// Deleted rows may have NULL anywhere.
fn relaxed(field: &FieldRef) -> FieldRef {
    if field.is_nullable() { Arc::clone(field) } else { Arc::new(field.as_ref().clone().with_nullable(true)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str, data_type: DataType) -> FieldRef {
        Arc::new(Field::new(name, data_type, true))
    }

    #[test]
    fn a_stored_run_says_what_it_is() {
        let schema = TableSchema::list(vec![field("k", DataType::Utf8)], vec![field("v", DataType::Int64)]);
        let stored = schema.with_ttl(Some(Ttl { units: 8, unit_ms: 1_000 })).stored();
        let names: Vec<_> = stored.fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names, ["__hash", "__op", "__bucket", "k", "__seq", "v"]);
        assert_eq!(stored.metadata()["ruslo.kind"], "list");
        assert_eq!(stored.metadata()["ruslo.ttl-unit-ms"], "1000");
        let table = table_of(&stored).unwrap();
        assert_eq!((table.kind, table.key.len(), table.sub_key.len(), table.value.len()), (Kind::List, 1, 1, 1));
        assert_eq!(table.stored(), stored);
        assert_eq!(table_of(&Schema::empty()), None);
    }
}
