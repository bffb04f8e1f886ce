//! Partitions: folders whose names say the values of columns, as Hive and Flink write them: `day=2024-05-01/hour=7/`.
//!
//! A value is written as text. Characters that mean something in a path are `%XX`; NULL, and a text of no length, is
//! `__HIVE_DEFAULT_PARTITION__`, which is read back as NULL.

use std::collections::HashMap;
use std::path::{Component, Path};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{CastOptions, cast, cast_with_options, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use ruslo_core::error::{Error, Result};
use ruslo_core::schema::visible_columns;

/// The folder of NULL.
const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// How many partitions are remembered between batches.
const KNOWN_MAX: usize = 10_000;

/// Checks that a column's values can be the names of folders.
pub(super) fn check_type(field: &Field) -> Result<()> {
    use DataType::*;
    let name = field.name();
    if name.starts_with(['.', '_']) {
        let sentence =
            format!("PARTITIONED BY ({name}): files in folders whose names begin with '.' or '_' are not read");
        return Err(Error::usage(sentence));
    }
    match field.data_type() {
        Boolean | Int8 | Int16 | Int32 | Int64 | Utf8 | Date32 | Decimal128(..) | Timestamp(_, None) => Ok(()),
        _ => Err(Error::usage(format!(
            "PARTITIONED BY ({name}): a partition is a text, a whole number, a DECIMAL, a BOOLEAN, a DATE or a TIMESTAMP"
        ))),
    }
}

/// The value that a file's path spells for a column: an array of one value.
///
/// # Errors
/// `Data`, if none does, or it is not of the column's type.
pub(super) fn read(path: &str, field: &Field) -> Result<ArrayRef> {
    let name = field.name();
    let folders = Path::new(path).parent().into_iter().flat_map(Path::components);
    let value = folders.rev().find_map(|component| match component {
        Component::Normal(folder) => folder.to_str()?.split_once('=').filter(|(key, _)| unescape(key) == *name),
        _ => None,
    });
    let Some((_, text)) = value else {
        return Err(Error::data(format!("{path}: the file is in no folder '{name}=..', and '{name}' is a partition")));
    };
    let text = (text != NULL).then(|| unescape(text));
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let value = cast_with_options(&StringArray::from(vec![text.as_deref()]), field.data_type(), &options);
    value.map_err(|_| {
        let text = text.unwrap_or_default();
        Error::data(format!("{path}: the partition '{name}={text}' is no value of the column's type"))
    })
}

/// Appends a name or a value as a path has it.
fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '"'
            | '#'
            | '%'
            | '\''
            | '*'
            | '/'
            | ':'
            | '='
            | '?'
            | '\\'
            | '{'
            | '['
            | ']'
            | '^'
            | '\0'..='\x1f'
            | '\x7f' => {
                out.push_str(&format!("%{:02X}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
}

/// A text with `%XX` resolved; what is no such escape stays.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('%') {
        bytes.extend_from_slice(plain.as_bytes());
        match escape.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = escape.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(b'%');
                rest = escape;
            }
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether `folder` is the path of a partition below a table's folder: what a committable may name.
pub(super) fn is_folder(folder: &str) -> bool {
    folder.is_empty() || folder.split('/').all(|part| part.contains('=') && !part.starts_with('='))
}

/// Sends rows to the folders of their partitions.
pub(super) struct Partitioner {
    /// The partition columns, in the order of PARTITIONED BY, as indexes of the batches' columns.
    keys: Vec<usize>,
    names: Vec<String>,
    /// The other columns.
    rest: Vec<usize>,
    converter: RowConverter,
    /// The folder of each key seen.
    known: HashMap<Box<[u8]>, Arc<str>>,
}

impl Partitioner {
    /// A partitioner of rows of `schema` by the columns `keys`.
    ///
    /// # Errors
    /// `Usage`, if there is no such column, it cannot be a partition, or nothing else is left.
    pub(super) fn new(schema: &SchemaRef, keys: &[String]) -> Result<Self> {
        let index = |key: &String| {
            let found = schema.column_with_name(key);
            found.map(|(index, _)| index).ok_or_else(|| Error::usage(format!("PARTITIONED BY ({key}): no such column")))
        };
        let keys = keys.iter().map(index).collect::<Result<Vec<_>>>()?;
        let fields: Vec<_> = keys.iter().filter_map(|key| schema.fields().get(*key)).collect();
        fields.iter().try_for_each(|field| check_type(field))?;
        let rest: Vec<_> = (0..schema.fields().len()).filter(|index| !keys.contains(index)).collect();
        if rest.is_empty() {
            return Err(Error::usage("PARTITIONED BY names all columns: none is left to be written into the files"));
        }
        let sort_fields = fields.iter().map(|field| SortField::new(field.data_type().clone())).collect();
        let names = fields.iter().map(|field| field.name().clone()).collect();
        Ok(Self { names, rest, converter: RowConverter::new(sort_fields)?, keys, known: HashMap::new() })
    }

    /// The columns that files have.
    pub(super) fn in_files(&self, schema: &Schema) -> Result<SchemaRef> {
        Ok(Arc::new(schema.project(&self.rest)?))
    }

    /// The rows of each folder, in their order and with their kinds, without the partition columns.
    pub(super) fn split(&mut self, batch: &RecordBatch) -> Result<Vec<(Arc<str>, RecordBatch)>> {
        let keys = batch.project(&self.keys)?;
        let kinds = visible_columns(batch)..batch.num_columns();
        let rest = batch.project(&self.rest.iter().copied().chain(kinds).collect::<Vec<_>>())?;
        let rows = self.converter.convert_columns(keys.columns())?;
        if self.known.len() > KNOWN_MAX {
            self.known.clear();
        }
        let mut groups: Vec<(Arc<str>, Vec<u32>)> = Vec::new();
        let mut places: HashMap<&[u8], usize> = HashMap::new();
        for (index, row) in rows.iter().enumerate() {
            let key: &[u8] = row.data();
            let place = match places.get(key) {
                Some(place) => *place,
                None => {
                    let folder = Self::folder(&mut self.known, &self.names, key, &keys, index)?;
                    groups.push((folder, Vec::new()));
                    places.insert(key, groups.len() - 1);
                    groups.len() - 1
                }
            };
            if let Some((_, indexes)) = groups.get_mut(place) {
                indexes.push(index as u32);
            }
        }
        if let [(folder, _)] = groups.as_slice() {
            return Ok(vec![(Arc::clone(folder), rest)]);
        }
        let taken = |(folder, indexes): (Arc<str>, Vec<u32>)| {
            Ok((folder, take_record_batch(&rest, &UInt32Array::from(indexes))?))
        };
        groups.into_iter().map(taken).collect()
    }

    /// The folder of row `row`, whose key is `key`.
    fn folder(
        known: &mut HashMap<Box<[u8]>, Arc<str>>,
        names: &[String],
        key: &[u8],
        keys: &RecordBatch,
        row: usize,
    ) -> Result<Arc<str>> {
        if let Some(folder) = known.get(key) {
            return Ok(Arc::clone(folder));
        }
        let mut folder = String::new();
        for (name, column) in names.iter().zip(keys.columns()) {
            if !folder.is_empty() {
                folder.push('/');
            }
            escape(name, &mut folder);
            folder.push('=');
            let text = cast(&column.slice(row, 1), &DataType::Utf8)?;
            let text = text.as_string::<i32>();
            match text.is_valid(0).then(|| text.value(0)).filter(|text| !text.is_empty()) {
                Some(text) => escape(text, &mut folder),
                None => folder.push_str(NULL),
            }
        }
        let folder: Arc<str> = folder.into();
        known.insert(key.into(), Arc::clone(&folder));
        Ok(folder)
    }
}
