//! Records that cannot become rows: what is done about them, and what a dead letter says of one.
//!
//! A record is *rejected* by the reader, which could not decode it, or by the source task, where a computed column or
//! the watermark failed on it. A table says by `'on-error'` what becomes of such a record: the job fails, or the record
//! is counted and left out, or it is counted and goes to another table as a *dead letter*, in the checkpoint that also
//! says that it was read.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, StringArray, TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray,
};
use arrow::datatypes::{DataType, Field, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;

use crate::error::{Error, Result};
use crate::time::Timestamp;

/// What becomes of a record that cannot become a row.
#[derive(Debug, Clone, Default)]
pub enum OnError {
    /// The job fails with the record's place and what is wrong.
    #[default]
    Fail,
    /// It is counted.
    Skip,
    /// It is counted, and kept in another table.
    DeadLetter(Arc<DeadLetters>),
}

impl OnError {
    /// Whether the job fails.
    pub fn fails(&self) -> bool {
        matches!(self, Self::Fail)
    }

    /// Whether the record itself is wanted.
    pub fn keeps_records(&self) -> bool {
        matches!(self, Self::DeadLetter(_))
    }
}

/// A record that could not become a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Where it stands and what it says.
    pub record: Record,
    /// What is wrong with it: a sentence for a person.
    pub reason: String,
}

/// A record as the source has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// Where it stands: `in.csv byte 210`.
    pub position: String,
    /// Its bytes, without the newline that ends it; none where the format has no bytes for one row.
    pub raw: Option<Vec<u8>>,
}

/// Finds the records that the rows of one batch were made of; asked only for rows that turn out bad.
pub trait Origins: Send {
    /// The records of `rows`, which ascend; as many.
    ///
    /// # Errors
    /// `Internal`, if there is no such row.
    fn records(&self, rows: &[usize]) -> Result<Vec<Record>>;

    /// Bytes held to answer with.
    fn bytes(&self) -> usize;
}

/// The columns that a table of dead letters may have, as SQL declares them.
pub const COLUMNS: &str = "source STRING, position STRING, reason STRING, raw BYTES, `at` TIMESTAMP_LTZ(3)";

/// A table of dead letters as one source fills it.
#[derive(Debug, PartialEq, Eq)]
pub struct DeadLetters {
    source: String,
    schema: SchemaRef,
}

impl DeadLetters {
    /// The records of the table `source`, in the columns `schema`: some of [`COLUMNS`], in any order. `raw` may be a
    /// STRING, too, in which bytes that are no UTF-8 are replaced.
    ///
    /// # Errors
    /// `Usage`, naming the column that does not fit.
    pub fn new(source: impl Into<String>, schema: SchemaRef) -> Result<Self> {
        for field in schema.fields() {
            check(field)?;
        }
        Ok(Self { source: source.into(), schema })
    }

    /// The letters of `rejected`, which were found at the wall clock's `at`.
    ///
    /// # Errors
    /// `Internal` only.
    pub fn batch(&self, rejected: &[Rejected], at: Timestamp) -> Result<RecordBatch> {
        let columns = self.schema.fields().iter().map(|field| self.column(field, rejected, at));
        Ok(RecordBatch::try_new(self.schema.clone(), columns.collect::<Result<_>>()?)?)
    }

    fn column(&self, field: &Field, rejected: &[Rejected], at: Timestamp) -> Result<ArrayRef> {
        let texts = |text: fn(&Rejected) -> &str| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(rejected.iter().map(text)))
        };
        let raw = || rejected.iter().map(|rejected| rejected.record.raw.as_deref());
        Ok(match (field.name().as_str(), field.data_type()) {
            ("source", _) => Arc::new(StringArray::from_iter_values(rejected.iter().map(|_| &self.source))),
            ("position", _) => texts(|rejected| &rejected.record.position),
            ("reason", _) => texts(|rejected| &rejected.reason),
            ("raw", DataType::Binary) => Arc::new(BinaryArray::from_iter(raw())),
            ("raw", _) => Arc::new(StringArray::from_iter(raw().map(|raw| raw.map(String::from_utf8_lossy)))),
            ("at", DataType::Timestamp(unit, zone)) => times(at, *unit, rejected.len(), zone.clone()),
            (name, _) => return Err(Error::internal(format!("a dead letter has no column '{name}'"))),
        })
    }
}

fn times(at: Timestamp, unit: TimeUnit, rows: usize, zone: Option<Arc<str>>) -> ArrayRef {
    let repeated = |per_milli: i64| vec![at.millis().saturating_mul(per_milli); rows];
    match unit {
        TimeUnit::Nanosecond => Arc::new(TimestampNanosecondArray::from(repeated(1_000_000)).with_timezone_opt(zone)),
        TimeUnit::Microsecond => Arc::new(TimestampMicrosecondArray::from(repeated(1_000)).with_timezone_opt(zone)),
        _ => Arc::new(TimestampMillisecondArray::from(repeated(1)).with_timezone_opt(zone)),
    }
}

fn check(field: &Field) -> Result<()> {
    let name = field.name();
    let (fits, declared) = match (name.as_str(), field.data_type()) {
        ("source" | "position" | "reason", data_type) => (*data_type == DataType::Utf8, "STRING"),
        ("raw", DataType::Binary | DataType::Utf8) if !field.is_nullable() => {
            let sentence = "the column 'raw' is NOT NULL, but a record of a format without lines has no bytes";
            return Err(Error::usage(sentence));
        }
        ("raw", data_type) => (matches!(data_type, DataType::Binary | DataType::Utf8), "BYTES or STRING"),
        ("at", DataType::Timestamp(unit, Some(_))) => (*unit != TimeUnit::Second, "TIMESTAMP_LTZ"),
        ("at", _) => (false, "TIMESTAMP_LTZ"),
        _ => return Err(Error::usage(format!("a dead letter has no column '{name}'; it has {COLUMNS}"))),
    };
    if fits { Ok(()) } else { Err(Error::usage(format!("the column '{name}' of a dead letter is {declared}"))) }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{Schema, TimestampMicrosecondType};

    use super::*;

    fn letters(fields: Vec<Field>) -> Result<DeadLetters> {
        DeadLetters::new("flights", Arc::new(Schema::new(fields)))
    }

    fn rejected(raw: Option<&[u8]>) -> Rejected {
        let record = Record { position: "a.csv byte 7".to_owned(), raw: raw.map(<[u8]>::to_vec) };
        Rejected { record, reason: "no number".to_owned() }
    }

    #[test]
    fn a_letter_has_the_columns_that_its_table_declares() {
        let zone = Some(Arc::from("UTC"));
        let fields = vec![
            Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, zone), false),
            Field::new("raw", DataType::Binary, true),
            Field::new("source", DataType::Utf8, false),
            Field::new("reason", DataType::Utf8, true),
        ];
        let batch = letters(fields).unwrap().batch(&[rejected(Some(b"\xff\0")), rejected(None)], Timestamp(3)).unwrap();
        assert_eq!(batch.column(0).as_primitive::<TimestampMicrosecondType>().values(), &[3000, 3000]);
        let raw = batch.column(1).as_binary::<i32>();
        assert_eq!((raw.value(0), raw.is_null(1)), (&b"\xff\0"[..], true));
        assert_eq!(batch.column(2).as_string::<i32>().value(1), "flights");
        assert_eq!(batch.column(3).as_string::<i32>().value(0), "no number");
    }

    #[test]
    fn raw_bytes_as_text_are_replaced_where_they_are_none() {
        let letters = letters(vec![Field::new("raw", DataType::Utf8, true)]).unwrap();
        let batch = letters.batch(&[rejected(Some(b"a\xffb"))], Timestamp(0)).unwrap();
        assert_eq!(batch.column(0).as_string::<i32>().value(0), "a\u{fffd}b");
    }

    #[test]
    fn another_column_or_type_is_refused_by_name() {
        let refusal =
            |name, data_type, nullable| letters(vec![Field::new(name, data_type, nullable)]).unwrap_err().to_string();
        assert_eq!(
            refusal("line", DataType::Utf8, true),
            format!("a dead letter has no column 'line'; it has {COLUMNS}")
        );
        assert_eq!(refusal("reason", DataType::Int32, true), "the column 'reason' of a dead letter is STRING");
        assert_eq!(refusal("raw", DataType::Int32, false), "the column 'raw' of a dead letter is BYTES or STRING");
        assert!(refusal("raw", DataType::Utf8, false).contains("NOT NULL"));
        let local = DataType::Timestamp(TimeUnit::Millisecond, None);
        assert_eq!(refusal("at", local, true), "the column 'at' of a dead letter is TIMESTAMP_LTZ");
    }
}
