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
    }
}
