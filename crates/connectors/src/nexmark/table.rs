//! The three tables: which columns they have, and the rows of some of them.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray, TimestampMillisecondArray};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use ruslo_core::connector::TableDefinition;
use ruslo_core::error::{Error, Result};

use super::bid::Channels;
use super::event::{Place, time_ms};
use super::options::{Kind, NexmarkOptions};
use super::{auction, bid, person};
use crate::generate::Generator;
use crate::generate::stream::Streams;

/// A column of one of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: &'static str,
    /// Its place among all columns of the table: what its random numbers follow from.
    pub(super) place: u64,
}

const PERSON: [&str; 8] = ["id", "name", "emailAddress", "creditCard", "city", "state", TIME, "extra"];
const AUCTION: [&str; 10] =
    ["id", "itemName", "description", "initialBid", "reserve", TIME, "expires", "seller", "category", "extra"];
const BID: [&str; 7] = ["auction", "bidder", "price", "channel", "url", TIME, "extra"];
const TIME: &str = "dateTime";
const NUMBERS: [&str; 8] = ["id", "initialBid", "reserve", "seller", "category", "auction", "bidder", "price"];

impl Kind {
    fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Person => &PERSON,
            Self::Auction => &AUCTION,
            Self::Bid => &BID,
        }
    }

    fn place(self) -> Place {
        match self {
            Self::Person => Place::PERSON,
            Self::Auction => Place::AUCTION,
            Self::Bid => Place::BID,
        }
    }
}

/// The type of a column, and its name in SQL.
fn type_of(column: &str) -> (DataType, &'static str) {
    match column {
        TIME | "expires" => (DataType::Timestamp(TimeUnit::Millisecond, None), "TIMESTAMP(3)"),
        number if NUMBERS.contains(&number) => (DataType::Int64, "BIGINT"),
        _ => (DataType::Utf8, "STRING"),
    }
}

/// Events of one kind, some of their columns.
#[derive(Debug)]
pub(super) struct Events {
    options: NexmarkOptions,
    columns: Vec<Column>,
    schema: SchemaRef,
    channels: Channels,
}

impl Events {
    /// The columns `projection` of a table.
    pub(super) fn new(table: &TableDefinition, projection: &[usize]) -> Result<Self> {
        let options = NexmarkOptions::parse(table)?;
        for field in table.schema.fields() {
            check(options.kind, field.name(), field.data_type())?;
        }
        let schema: Schema = table.schema.project(projection)?;
        let columns: Vec<Column> =
            schema.fields().iter().filter_map(|field| find(options.kind, field.name())).collect();
        let texts = columns.iter().any(|column| matches!(column.name, "channel" | "url"));
        let channels = if options.kind == Kind::Bid && texts { Channels::new(options.seed) } else { Channels::none() };
        Ok(Self { options, columns, schema: Arc::new(schema), channels })
    }

    fn column(&self, column: Column, rows: &Rows) -> Result<ArrayRef> {
        if column.name == TIME {
            let times = rows.events().map(|event| time_ms(event, rows.rate));
            return Ok(Arc::new(TimestampMillisecondArray::from_iter_values(times)));
        }
        match self.options.kind {
            Kind::Person => person::column(column, rows),
            Kind::Auction => auction::column(column, rows),
            Kind::Bid => bid::column(column, rows, &self.channels),
        }
    }
}

fn find(kind: Kind, name: &str) -> Option<Column> {
    let place = kind.columns().iter().position(|column| *column == name)?;
    Some(Column { name: kind.columns().get(place)?, place: place as u64 })
}

fn check(kind: Kind, name: &str, given: &DataType) -> Result<()> {
    let Some(column) = find(kind, name) else {
        let columns = kind.columns().join(", ");
        return Err(Error::usage(format!("nexmark has no column '{name}' in this table; it has {columns}")));
    };
    let (data_type, sql) = type_of(column.name);
    if data_type == *given { Ok(()) } else { Err(Error::usage(format!("nexmark's column '{name}' is {sql}"))) }
}

impl Generator for Events {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn rows(&self) -> Option<u64> {
        self.options.events.map(|events| self.options.kind.place().rows(events))
    }

    fn generate(&self, range: Range<u64>) -> Result<RecordBatch> {
        let rows = Rows { place: self.options.kind.place(), range, rate: self.options.rate, seed: self.options.seed };
        let columns = self.columns.iter().map(|column| self.column(*column, &rows)).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }
}

/// Which rows of a table are made.
pub(super) struct Rows {
    place: Place,
    range: Range<u64>,
    /// Events a second.
    pub(super) rate: u64,
    seed: u64,
}

impl Rows {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.range.end.saturating_sub(self.range.start) as usize
    }

    /// Their numbers among all events.
    pub(super) fn events(&self) -> impl Iterator<Item = u64> + '_ {
        self.range.clone().map(|row| self.place.event(row))
    }

    /// The random numbers of a column.
    pub(super) fn streams(&self, column: Column) -> Streams {
        Streams::new(self.seed, column.place)
    }
}

/// A column of texts of about `bytes` bytes each, which `append` writes.
pub(super) fn strings(rows: &Rows, bytes: usize, mut append: impl FnMut(u64, &mut Vec<u8>)) -> Result<StringArray> {
    let mut text = Vec::with_capacity(rows.len() * bytes);
    let mut offsets = Vec::with_capacity(rows.len() + 1);
    offsets.push(0);
    for event in rows.events() {
        append(event, &mut text);
        offsets.push(i32::try_from(text.len()).map_err(|_| Error::internal("a generated batch is too large"))?);
    }
    let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
    Ok(StringArray::try_new(offsets, Buffer::from_vec(text), None)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::AsArray;
    use arrow::compute::concat_batches;
    use arrow::datatypes::{Field, Int64Type};
    use ruslo_core::environment::Environment;
    use ruslo_core::source::{Budget, Polled, Source};

    use super::*;
    use crate::generate::GeneratedSource;

    fn table(name: &str, options: &[(&str, &str)]) -> TableDefinition {
        let kind = match name {
            "person" => Kind::Person,
            "auction" => Kind::Auction,
            _ => Kind::Bid,
        };
        let fields: Vec<_> = kind.columns().iter().map(|column| Field::new(*column, type_of(column).0, true)).collect();
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        TableDefinition::new(name, Arc::new(Schema::new(fields)), options)
    }

    fn events(table: &TableDefinition, projection: &[usize]) -> Events {
        Events::new(table, projection).unwrap()
    }

    #[test]
    fn every_kind_has_its_share_of_rows_and_all_of_its_columns() {
        for (name, expected) in [("person", 20), ("auction", 60), ("bid", 920)] {
            let table = table(name, &[("events.num", "1000")]);
            let all: Vec<usize> = (0..table.schema.fields().len()).collect();
            let events = events(&table, &all);
            assert_eq!(events.rows(), Some(expected));
            let batch = events.generate(0..expected).unwrap();
            assert_eq!((batch.num_rows() as u64, batch.num_columns()), (expected, all.len()));
            assert_eq!(batch.schema(), table.schema);
        }
    }

    #[test]
    fn a_value_is_the_same_however_it_is_asked_for() {
        let table = table("bid", &[]);
        let whole = events(&table, &[0, 1, 2, 3, 4, 5, 6]).generate(100..200).unwrap();
        let part = events(&table, &[4]).generate(150..160).unwrap();
        assert_eq!(part.column(0), &whole.column(4).slice(50, 10));
        let other = events(&self::table("bid", &[("seed", "43")]), &[2]).generate(100..200).unwrap();
        assert_ne!(other.column(0), whole.column(2));
    }

    #[test]
    fn nine_of_ten_cold_channels_say_their_id_in_the_address() {
        let batch = events(&table("bid", &[]), &[3, 4]).generate(0..10_000).unwrap();
        let (channels, urls) = (batch.column(0).as_string::<i32>(), batch.column(1).as_string::<i32>());
        let cold = channels.iter().zip(urls).filter(|(channel, _)| channel.unwrap().starts_with("channel-"));
        let (with, without): (Vec<_>, Vec<_>) = cold.partition(|(_, url)| url.unwrap().contains("&channel_id="));
        assert!((4_300..4_700).contains(&with.len()) && (400..600).contains(&without.len()));
    }

    #[test]
    fn a_source_reads_every_row_once_and_goes_on_where_it_was() {
        let table = table("bid", &[("events.num", "30000")]);
        let source = GeneratedSource::new(events(&table, &[2]));
        let environment = Environment::local();
        let mut batches = Vec::new();
        for split in source.splits(&environment).unwrap() {
            let mut reader = source.reader(&environment).unwrap();
            reader.add_split(split.clone(), None).unwrap();
            while let Polled::Batch { batch, position, .. } = reader.poll(Budget { rows_max: 1000 }).unwrap() {
                batches.push((split.description["first"].as_u64(), batch));
                reader = source.reader(&environment).unwrap();
                reader.add_split(split.clone(), Some(position)).unwrap();
            }
        }
        batches.sort_by_key(|(first, _)| *first);
        let read = concat_batches(&source.schema(), batches.iter().map(|(_, batch)| batch)).unwrap();
        let expected = events(&table, &[2]).generate(0..27_600).unwrap();
        assert_eq!(read.column(0).as_primitive::<Int64Type>(), expected.column(0).as_primitive::<Int64Type>());
    }

    #[test]
    fn a_wrong_column_names_those_there_are() {
        let mut wrong = table("bid", &[]);
        wrong.schema = Arc::new(Schema::new(vec![Field::new("prise", DataType::Int64, true)]));
        let error = Events::new(&wrong, &[0]).unwrap_err().to_string();
        assert!(error.contains("no column 'prise'") && error.contains("auction, bidder, price"), "{error}");
        wrong.schema = Arc::new(Schema::new(vec![Field::new("price", DataType::Utf8, true)]));
        assert_eq!(Events::new(&wrong, &[0]).unwrap_err().to_string(), "nexmark's column 'price' is BIGINT");
        let unnamed = TableDefinition::new("t", wrong.schema.clone(), BTreeMap::new());
        let error = Events::new(&unnamed, &[0]).unwrap_err().to_string();
        assert_eq!(error, "option 'table' = 't': expected 'person', 'auction' or 'bid'");
    }
}
