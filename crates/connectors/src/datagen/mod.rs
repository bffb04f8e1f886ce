//! `'connector' = 'datagen'`: random rows or sequences, with Flink's options.
//!
//! Values follow from the seed, the row's number and the column; times are taken from the clock as rows are read.

mod options;
mod values;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use ruslo_core::clock::Clock;
use ruslo_core::connector::{Connector, OptionSpec, TableDefinition};
use ruslo_core::environment::Environment;
use ruslo_core::error::{Error, Result};
use ruslo_core::sink::{Guarantee, Sink};
use ruslo_core::source::Source;

use self::options::FieldOptions;
use self::values::Values;
use crate::generate::{GeneratedSource, Generator};

/// The connector; see the module.
#[derive(Debug, Clone, Copy)]
pub struct Datagen;

impl Connector for Datagen {
    fn name(&self) -> &'static str {
        "datagen"
    }

    fn options(&self, _given: &BTreeMap<String, String>) -> Result<Vec<OptionSpec>> {
        Ok(options::SPECS.to_vec())
    }

    fn source_guarantee(&self) -> Option<Guarantee> {
        Some(Guarantee::ExactlyOnce)
    }

    fn source(
        &self,
        table: &TableDefinition,
        projection: &[usize],
        environment: &Environment,
    ) -> Result<Arc<dyn Source>> {
        let rows = MadeUpRows::new(table, projection, Arc::clone(&environment.clock))?;
        Ok(Arc::new(GeneratedSource::new(rows)))
    }

    fn sink(&self, _: &TableDefinition, _: &Environment) -> Result<Arc<dyn Sink>> {
        Err(Error::usage("connector 'datagen' makes rows up; it cannot be written"))
    }
}

/// A table of made-up rows, some of its columns.
struct MadeUpRows {
    schema: SchemaRef,
    columns: Vec<Values>,
    rows: Option<u64>,
    rate: u64,
    clock: Arc<dyn Clock>,
}

impl MadeUpRows {
    fn new(table: &TableDefinition, projection: &[usize], clock: Arc<dyn Clock>) -> Result<Self> {
        let given = &table.options;
        options::check_columns(given, |column| table.schema.field_with_name(column).is_ok())?;
        let seed = options::seed(given)?;
        let values = table.schema.fields().iter().enumerate().map(|(place, field)| {
            let of_field = FieldOptions::new(given, field.name());
            Values::new(&of_field, field.data_type(), field.name(), seed, place as u64)
        });
        // All columns, read or not: a sequence ends the table whoever looks at it.
        let values = values.collect::<Result<Vec<_>>>()?;
        let ends = values.iter().filter_map(Values::rows).chain(options::rows(given)?);
        let rows = ends.min();
        let columns = projection.iter().filter_map(|place| values.get(*place).cloned()).collect();
        let schema: Schema = table.schema.project(projection)?;
        Ok(Self { schema: Arc::new(schema), columns, rows, rate: options::rate(given)?, clock })
    }
}

impl Generator for MadeUpRows {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn rows(&self) -> Option<u64> {
        self.rows
    }

    fn rows_per_second(&self) -> Option<u64> {
        Some(self.rate)
    }

    fn generate(&self, rows: Range<u64>) -> Result<RecordBatch> {
        let columns = self.columns.iter().map(|column| column.column(rows.clone(), self.clock.as_ref()));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let count = RecordBatchOptions::new().with_row_count(Some(rows.end.saturating_sub(rows.start) as usize));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &count)?)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{DataType, Decimal128Type, Field, Int32Type, Int64Type, TimeUnit, TimestampMillisecondType};
    use ruslo_core::clock::VirtualClock;

    use super::*;

    fn rows(columns: &[(&str, DataType)], options: &[(&str, &str)]) -> Result<MadeUpRows> {
        let fields: Vec<_> = columns.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect();
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let table = TableDefinition::new("t", Arc::new(Schema::new(fields)), options);
        let all: Vec<usize> = (0..columns.len()).collect();
        let clock = VirtualClock::default();
        clock.advance(std::time::Duration::from_secs(1_000_000));
        MadeUpRows::new(&table, &all, Arc::new(clock))
    }

    fn refused(columns: &[(&str, DataType)], options: &[(&str, &str)]) -> String {
        rows(columns, options).err().unwrap().to_string()
    }

    #[test]
    fn the_shortest_sequence_ends_the_table() {
        let columns = [("a", DataType::Int64), ("b", DataType::Utf8)];
        let sequence = |column: &'static str, end: &'static str| {
            [
                (format!("fields.{column}.kind"), "sequence"),
                (format!("fields.{column}.start"), "-1"),
                (format!("fields.{column}.end"), end),
            ]
        };
        let options: Vec<_> = sequence("a", "7").into_iter().chain(sequence("b", "3")).collect();
        let options: Vec<_> = options.iter().map(|(key, value)| (key.as_str(), *value)).collect();
        let rows = rows(&columns, &options).unwrap();
        assert_eq!(rows.rows(), Some(5));
        let batch = rows.generate(0..5).unwrap();
        assert_eq!(batch.column(0).as_primitive::<Int64Type>().values(), &[-1, 0, 1, 2, 3]);
        assert_eq!(batch.column(1).as_string::<i32>().value(4), "3");
    }

    #[test]
    fn random_numbers_keep_to_their_ends() {
        let columns = [("i", DataType::Int32), ("d", DataType::Decimal128(5, 2)), ("l", DataType::Int64)];
        let options =
            [("fields.i.min", "-2"), ("fields.i.max", "3"), ("fields.d.min", "1.25"), ("fields.d.max", "1.50")];
        let batch = rows(&columns, &options).unwrap().generate(0..5_000).unwrap();
        let mut seen = [0; 6];
        batch.column(0).as_primitive::<Int32Type>().values().iter().for_each(|value| seen[(value + 2) as usize] += 1);
        assert!(seen.iter().all(|count| *count > 700), "{seen:?}");
        assert!(
            batch.column(1).as_primitive::<Decimal128Type>().values().iter().all(|value| (125..=150).contains(value))
        );
        let negative = batch.column(2).as_primitive::<Int64Type>().values().iter().filter(|value| **value < 0).count();
        assert!((2_300..2_700).contains(&negative), "the whole of BIGINT: {negative}");
    }

    #[test]
    fn texts_have_their_length_and_nulls_their_rate() {
        let columns = [("s", DataType::Utf8), ("v", DataType::Binary)];
        let options = [
            ("fields.s.length", "7"),
            ("fields.s.null-rate", "0.25"),
            ("fields.v.length", "3"),
            ("fields.v.var-len", "true"),
        ];
        let batch = rows(&columns, &options).unwrap().generate(0..4_000).unwrap();
        let texts = batch.column(0).as_string::<i32>();
        assert!((900..1_100).contains(&texts.null_count()), "{}", texts.null_count());
        assert!(texts.iter().flatten().all(|text| text.len() == 7));
        let lengths: Vec<_> = batch.column(1).as_binary::<i32>().iter().flatten().map(<[u8]>::len).collect();
        assert!(
            (1..=3).all(|length| lengths.contains(&length)) && lengths.iter().all(|length| (1..=3).contains(length))
        );
    }

    #[test]
    fn times_are_the_clocks() {
        let columns = [
            ("t", DataType::Timestamp(TimeUnit::Millisecond, None)),
            ("u", DataType::Timestamp(TimeUnit::Millisecond, None)),
        ];
        let batch = rows(&columns, &[("fields.u.max-past", "10 s")]).unwrap().generate(0..100).unwrap();
        let column = |at: usize| batch.column(at).as_primitive::<TimestampMillisecondType>().values().to_vec();
        assert!(column(0).iter().all(|time| *time == 1_000_000_000));
        assert!(column(1).iter().all(|time| (999_990_000..=1_000_000_000).contains(time)));
        assert_ne!(column(1).iter().min(), column(1).iter().max());
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let int = [("a", DataType::Int32)];
        assert_eq!(
            refused(&int, &[("fields.b.kind", "random")]),
            "option 'fields.b.kind': the table has no column 'b'"
        );
        assert_eq!(refused(&int, &[("fields.a.kind", "sequence")]), "a sequence needs the option 'fields.a.start'");
        assert_eq!(
            refused(&int, &[("fields.a.min", "4"), ("fields.a.max", "3")]),
            "option 'fields.a.min' = '4': expected at most 'fields.a.max', 3"
        );
        assert_eq!(
            refused(&int, &[("fields.a.null-rate", "2")]),
            "option 'fields.a.null-rate' = '2': expected a number from 0 to 1"
        );
        let list = [("a", DataType::new_list(DataType::Int32, true))];
        assert!(refused(&list, &[]).starts_with("datagen does not make values of column 'a' yet"));
        assert_eq!(rows(&int, &[]).unwrap().rows(), None);
    }
}
