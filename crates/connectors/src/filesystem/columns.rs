//! What is read of each file: columns in it, and columns whose value is one for the whole file.
//!
//! The latter are the partition columns, whose values the file's path spells (`day=2024-05-01/`), and the metadata
//! columns: `file.path`, `file.name`, `file.size` and `file.modification-time`, as when the file was listed.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, UInt32Array, make_array};
use arrow::compute::take;
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef, TimeUnit};
use ruslo_core::connector::{Bound, MetadataColumn, TableDefinition};
use ruslo_core::error::{Error, Result};
use ruslo_core::schema::{carry_hidden, visible_columns};
use ruslo_formats::{Decoder, DecoderConfig, Format};

use super::partition;
use super::piece::Piece;

/// What a metadata column can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Metadata {
    Path,
    Name,
    Size,
    ModificationTime,
}

/// The keys of METADATA FROM.
const METADATA: [(&str, Metadata); 4] = [
    ("file.path", Metadata::Path),
    ("file.name", Metadata::Name),
    ("file.size", Metadata::Size),
    ("file.modification-time", Metadata::ModificationTime),
];

/// Those keys alone.
pub(super) const METADATA_KEYS: [&str; 4] = ["file.path", "file.name", "file.size", "file.modification-time"];

/// What is read of each file.
#[derive(Debug)]
pub(super) struct Columns {
    pub(super) format: Arc<dyn Format>,
    /// What comes out.
    pub(super) schema: SchemaRef,
    /// The columns that files have.
    in_files: SchemaRef,
    /// The same, each of which may be NULL.
    in_files_nullable: SchemaRef,
    /// Those of them that are read.
    projection: Vec<usize>,
    /// What rows satisfy that are wanted, of columns that files have.
    wanted: Vec<Bound>,
    /// The columns of `schema` that files do not have: where, and what.
    constants: Vec<(usize, Constant)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Constant {
    Metadata(Metadata),
    Partition,
}

impl Columns {
    /// The columns `projection` of a table.
    ///
    /// # Errors
    /// `Usage`, if there is no such metadata or a column's type does not fit it.
    pub(super) fn new(format: Arc<dyn Format>, table: &TableDefinition, projection: &[usize]) -> Result<Self> {
        let kinds = table.schema.fields().iter().map(|field| constant(table, field)).collect::<Result<Vec<_>>>()?;
        let in_files: Vec<_> = (0..kinds.len()).filter(|index| kinds.get(*index) == Some(&None)).collect();
        let place = |index: &usize| in_files.binary_search(index).ok();
        let constants = projection.iter().enumerate().filter_map(|(at, index)| Some((at, (*kinds.get(*index)?)?)));
        let in_files = table.schema.project(&in_files)?;
        let nullable = in_files.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        let in_file = |bound: &&Bound| in_files.field_with_name(&bound.column).is_ok();
        Ok(Self {
            wanted: table.wanted.iter().filter(in_file).cloned().collect(),
            schema: Arc::new(table.schema.project(projection)?),
            projection: projection.iter().filter_map(place).collect(),
            constants: constants.collect(),
            in_files_nullable: Arc::new(Schema::new(nullable.collect::<Vec<_>>())),
            in_files: Arc::new(in_files),
            format,
        })
    }

    /// What files are read for.
    pub(super) fn config(&self) -> DecoderConfig<'_> {
        DecoderConfig { wanted: &self.wanted, ..DecoderConfig::new(&self.in_files, &self.projection) }
    }

    /// The same where a row with a NULL that must not be is left out, rather than an error.
    pub(super) fn lenient_config(&self) -> DecoderConfig<'_> {
        DecoderConfig::new(&self.in_files_nullable, &self.projection)
    }

    /// The columns that are read of files, as the table has them.
    pub(super) fn read_schema(&self) -> Result<Schema> {
        Ok(self.in_files.project(&self.projection)?)
    }

    pub(super) fn decoder(&self, header: Option<&[u8]>) -> Result<Box<dyn Decoder>> {
        self.format.decoder(&DecoderConfig { header, ..self.config() })
    }

    /// Whether the time of a file's last change is wanted.
    pub(super) fn wants_modification_time(&self) -> bool {
        self.constants.iter().any(|(_, constant)| *constant == Constant::Metadata(Metadata::ModificationTime))
    }

    /// The values that all rows of the piece's file have: arrays of one value.
    ///
    /// # Errors
    /// `Data`, if the path does not spell a partition column's value.
    pub(super) fn constants(&self, piece: &Piece) -> Result<Vec<ArrayRef>> {
        let value = |(at, constant): &(usize, Constant)| {
            let field = self.schema.fields().get(*at).ok_or_else(|| Error::internal("a constant of no column"))?;
            match constant {
                Constant::Partition => partition::read(&piece.path, field),
                Constant::Metadata(metadata) => metadata.value(piece, field.data_type()),
            }
        };
        self.constants.iter().map(value).collect()
    }

    /// Puts the constants between the columns that were read.
    pub(super) fn assemble(&self, batch: RecordBatch, constants: &[ArrayRef]) -> Result<RecordBatch> {
        if self.constants.is_empty() && batch.schema_ref() == &self.schema {
            return Ok(batch);
        }
        let rows = batch.num_rows();
        let first = UInt32Array::from(vec![0; rows]);
        let mut arrays = batch.columns().iter().take(visible_columns(&batch)).cloned().collect::<Vec<_>>();
        for ((at, _), value) in self.constants.iter().zip(constants) {
            arrays.insert((*at).min(arrays.len()), take(value, &first, None)?);
        }
        carry_hidden(&batch, &self.schema, arrays)
    }
}

/// What a column is that is not in the files.
fn constant(table: &TableDefinition, field: &FieldRef) -> Result<Option<Constant>> {
    if let Some(column) = table.metadata.iter().find(|column| column.column == *field.name()) {
        return metadata(column, field.data_type()).map(Constant::Metadata).map(Some);
    }
    let is_partition = table.partition_keys.contains(field.name());
    if is_partition {
        partition::check_type(field)?;
    }
    Ok(is_partition.then_some(Constant::Partition))
}

fn metadata(column: &MetadataColumn, data_type: &DataType) -> Result<Metadata> {
    let MetadataColumn { column, key, .. } = column;
    let Some((_, metadata)) = METADATA.iter().find(|(known, _)| known == key) else {
        let known: Vec<_> = METADATA.iter().map(|(known, _)| format!("'{known}'")).collect();
        return Err(Error::usage(format!(
            "column '{column}': connector 'filesystem' has no metadata '{key}'; it has {}",
            known.join(", ")
        )));
    };
    let (fits, name) = match metadata {
        Metadata::Path | Metadata::Name => (*data_type == DataType::Utf8, "STRING"),
        Metadata::Size => (*data_type == DataType::Int64, "BIGINT"),
        Metadata::ModificationTime => (matches!(data_type, DataType::Timestamp(..)), "TIMESTAMP_LTZ(3)"),
    };
    match fits {
        true => Ok(*metadata),
        false => Err(Error::usage(format!("column '{column}': the metadata '{key}' is {name}; declare it so"))),
    }
}

/// The columns of a table that a sink writes: all but virtual ones.
///
/// # Errors
/// `Usage`, if one is metadata: files say that of themselves.
pub(super) fn written(table: &TableDefinition) -> Result<SchemaRef> {
    if let Some(column) = table.metadata.iter().find(|column| !column.is_virtual) {
        let MetadataColumn { column, key, .. } = column;
        let sentence =
            format!("column '{column}': the metadata '{key}' cannot be written; declare it METADATA VIRTUAL");
        return Err(Error::usage(sentence));
    }
    let is_virtual = |field: &&FieldRef| table.metadata.iter().any(|column| column.column == *field.name());
    let fields: Vec<_> = table.schema.fields().iter().filter(|field| !is_virtual(field)).cloned().collect();
    Ok(Arc::new(Schema::new(fields)))
}

impl Metadata {
    fn value(self, piece: &Piece, data_type: &DataType) -> Result<ArrayRef> {
        let name = || Path::new(&piece.path).file_name().and_then(|name| name.to_str());
        Ok(match (self, data_type) {
            (Self::Path, _) => Arc::new(StringArray::from(vec![piece.path.as_str()])),
            (Self::Name, _) => Arc::new(StringArray::from(vec![name()])),
            (Self::Size, _) => Arc::new(Int64Array::from(vec![i64::try_from(piece.size).unwrap_or(i64::MAX)])),
            (Self::ModificationTime, DataType::Timestamp(unit, _)) => {
                let scaled = |milliseconds: i64| match unit {
                    TimeUnit::Second => milliseconds.div_euclid(1000),
                    TimeUnit::Millisecond => milliseconds,
                    TimeUnit::Microsecond => milliseconds.saturating_mul(1000),
                    TimeUnit::Nanosecond => milliseconds.saturating_mul(1_000_000),
                };
                let numbers = Int64Array::from(vec![piece.modified.map(scaled)]);
                make_array(arrow::array::Array::to_data(&numbers).into_builder().data_type(data_type.clone()).build()?)
            }
            (Self::ModificationTime, _) => return Err(Error::internal("a modification time of another type")),
        })
    }
}
