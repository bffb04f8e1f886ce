//! What the rows of a keyed table look like.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use ruslo_core::error::{Error, Result};

/// How many rows a key has, and in which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// At most one.
    Value,
    /// Many, by a sequence number: one sub-key column, UInt64.
    List,
    /// Many, by sub-key.
    Map,
    /// Many, by time and sequence number: two sub-key columns, Int64 and UInt64.
    Time,
}

impl Kind {
    /// As it is stored.
    pub fn name(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::List => "list",
            Self::Map => "map",
            Self::Time => "time",
        }
    }
}

/// How long a row lives after its last write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ttl {
    /// A row written so many units ago is gone.
    pub units: u32,
    /// Milliseconds per unit: what buckets count.
    pub unit_ms: u64,
}

impl Ttl {
    /// The oldest bucket that is alive when the time is `now`, in units.
    pub fn oldest_alive(self, now: u32) -> u32 {
        now.saturating_sub(self.units)
    }
}

/// What a table's rows look like: key, sub-key and value columns in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSchema {
    /// Rows per key.
    pub kind: Kind,
    /// The key.
    pub key: Vec<FieldRef>,
    /// What tells rows of a key apart; as [`Kind`] wants it.
    pub sub_key: Vec<FieldRef>,
    /// The rest.
    pub value: Vec<FieldRef>,
    /// How long rows live; for ever, if none.
    pub ttl: Option<Ttl>,
}

/// The column of hashes in a stored run.
pub(crate) const HASH_COLUMN: &str = "__hash";
/// The column of operations in a stored run.
pub(crate) const OP_COLUMN: &str = "__op";
/// The column of time buckets in a stored run of a table with a TTL.
pub(crate) const BUCKET_COLUMN: &str = "__bucket";

impl TableSchema {
    /// A table of one row a key that lives for ever.
    pub fn value(key: Vec<FieldRef>, value: Vec<FieldRef>) -> Self {
        Self { kind: Kind::Value, key, sub_key: Vec::new(), value, ttl: None }
    }

    /// A table of many rows a key, by sequence number, that live for ever.
    pub fn list(key: Vec<FieldRef>, value: Vec<FieldRef>) -> Self {
        let sub_key = vec![Arc::new(Field::new("__seq", DataType::UInt64, false))];
        Self { kind: Kind::List, key, sub_key, value, ttl: None }
    }

    /// A table of many rows a key, by `sub_key`, that live for ever.
    pub fn map(key: Vec<FieldRef>, sub_key: Vec<FieldRef>, value: Vec<FieldRef>) -> Self {
        Self { kind: Kind::Map, key, sub_key, value, ttl: None }
    }

    /// A table of many rows a key, by time and sequence number, that live for ever.
    pub fn time(key: Vec<FieldRef>, value: Vec<FieldRef>) -> Self {
        let time = Arc::new(Field::new("__time", DataType::Int64, false));
        let sequence = Arc::new(Field::new("__seq", DataType::UInt64, false));
        Self { kind: Kind::Time, key, sub_key: vec![time, sequence], value, ttl: None }
    }

    /// The same with rows that live as long as `ttl` says.
    #[must_use]
    pub fn with_ttl(self, ttl: Option<Ttl>) -> Self {
        Self { ttl, ..self }
    }

    /// That the sub-key is as the kind wants it.
    ///
    /// # Errors
    /// `Internal`, if it is not.
    pub fn check(&self) -> Result<()> {
        let types: Vec<_> = self.sub_key.iter().map(|field| field.data_type()).collect();
        let fits = match self.kind {
            Kind::Value => types.is_empty(),
            Kind::List => types == [&DataType::UInt64],
            Kind::Map => !types.is_empty(),
            Kind::Time => types == [&DataType::Int64, &DataType::UInt64],
        };
        let wrong = || Error::internal(format!("a {} table has the sub-key {types:?}", self.kind.name()));
        fits.then_some(()).ok_or_else(wrong)
    }

    /// The columns of the key within a row.
    pub fn key_columns(&self) -> Range<usize> {
        0..self.key.len()
    }

    /// The columns of the sub-key within a row.
    pub fn sub_key_columns(&self) -> Range<usize> {
        self.key.len()..self.key.len() + self.sub_key.len()
    }

    /// The columns of a row: key, sub-key, value. All may be NULL: rows that delete have no values.
    pub fn rows(&self) -> SchemaRef {
        Arc::new(Schema::new(self.fields().map(relaxed).collect::<Vec<_>>()))
    }

    fn fields(&self) -> impl Iterator<Item = &FieldRef> {
        self.key.iter().chain(&self.sub_key).chain(&self.value)
    }

    /// The columns before a row's in a stored run.
    pub(crate) fn hidden(&self) -> Vec<FieldRef> {
        let mut fields = vec![
            Arc::new(Field::new(HASH_COLUMN, DataType::UInt64, false)),
            Arc::new(Field::new(OP_COLUMN, DataType::UInt8, false)),
        ];
        if self.ttl.is_some() {
            fields.push(Arc::new(Field::new(BUCKET_COLUMN, DataType::UInt32, false)));
        }
        fields
    }

    /// The columns of a stored run, with what the table is as metadata.
    pub(crate) fn stored(&self) -> SchemaRef {
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

    #[test]
    fn a_sub_key_that_the_kind_does_not_have_is_refused() {
        let mut schema = TableSchema::value(vec![field("k", DataType::Utf8)], vec![]);
        schema.check().unwrap();
        schema.kind = Kind::List;
        assert!(schema.check().is_err());
    }
}
