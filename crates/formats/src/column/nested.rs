//! Columns within columns: ARRAY, MAP and ROW.
//!
//! A nested column's parts are columns of their own. A reader fills the parts, then says with [`Nested::close`] that a
//! value is complete; before that, [`Rows::truncate`] takes back what is in the parts, too.

use std::sync::Arc;

use arrow::array::{ArrayRef, ListArray, MapArray, StructArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::DataType;
use ruslo_core::error::{Error, Result};

use crate::column::{Column, Rows, bytes};

/// Values that are made of other values.
#[derive(Debug)]
pub(crate) enum Nested {
    /// ARRAY: where each value's elements end.
    List { ends: Vec<i32>, element: Column },
    /// MAP with keys of STRING: where each value's entries end.
    Map { ends: Vec<i32>, key: Column, value: Column },
    /// ROW: how many values are complete.
    Row { rows: usize, fields: Vec<Column> },
}

impl Nested {
    /// No values of a type; `None` if it is not nested. `path` names the column in messages.
    ///
    /// # Errors
    /// `Usage`, if something in it cannot be read.
    pub(super) fn new(data_type: &DataType, path: &str, format: &str) -> Result<Option<Self>> {
        if format != "json" {
            return Ok(None);
        }
        Ok(Some(match data_type {
            DataType::List(element) => Self::List { ends: Vec::new(), element: Column::part(element, path, format)? },
            DataType::Map(entries, _) => {
                let DataType::Struct(parts) = entries.data_type() else { return Ok(None) };
                let [key, value] = parts.as_ref() else { return Ok(None) };
                if key.data_type() != &DataType::Utf8 {
                    let sentence = "format 'json' knows only text as the keys of a MAP; declare it as MAP<STRING, ..>";
                    return Err(Error::usage(format!("{sentence} (column '{path}')")));
                }
                Self::Map {
                    ends: Vec::new(),
                    key: Column::part(key, path, format)?,
                    value: Column::part(value, path, format)?,
                }
            }
            DataType::Struct(parts) => {
                let fields = parts.iter().map(|field| Column::part(field, path, format)).collect::<Result<_>>()?;
                Self::Row { rows: 0, fields }
            }
            _ => return Ok(None),
        }))
    }

    /// The parts are filled: the next value is complete.
    pub(crate) fn close(&mut self) {
        match self {
            Self::List { ends, element } => ends.push(element.len() as i32),
            Self::Map { ends, value, .. } => ends.push(value.len() as i32),
            Self::Row { rows, .. } => *rows += 1,
        }
    }

    /// [`Column::settle`] of all parts.
    pub(super) fn settle(&mut self, block: &str) -> Result<()> {
        self.parts().try_for_each(|part| part.settle(block))
    }

    /// Takes all values.
    pub(super) fn finish(&mut self, data_type: &DataType, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        let arrays = self.parts().map(Column::finish).collect::<Result<Vec<_>>>()?;
        match (self, data_type) {
            (Self::List { ends, .. }, DataType::List(field)) => {
                let [element] =
                    <[ArrayRef; 1]>::try_from(arrays).map_err(|_| Error::internal("an array of no part"))?;
                let offsets = bytes::offsets(std::mem::take(ends));
                Ok(Arc::new(ListArray::try_new(Arc::clone(field), offsets, element, nulls).map_err(null_inside)?))
            }
            (Self::Map { ends, .. }, DataType::Map(field, ordered)) => {
                let DataType::Struct(parts) = field.data_type() else {
                    return Err(Error::internal("the entries of a map are no rows"));
                };
                let entries = StructArray::try_new(parts.clone(), arrays, None).map_err(null_inside)?;
                let offsets = bytes::offsets(std::mem::take(ends));
                Ok(Arc::new(MapArray::try_new(Arc::clone(field), offsets, entries, nulls, *ordered)?))
            }
            (Self::Row { rows, .. }, DataType::Struct(parts)) => {
                let length = std::mem::take(rows);
                let array = StructArray::try_new_with_length(parts.clone(), arrays, nulls, length);
                Ok(Arc::new(array.map_err(null_inside)?))
            }
            _ => Err(Error::internal("a nested column is of another type")),
        }
    }

    fn parts(&mut self) -> impl Iterator<Item = &mut Column> {
        let (first, second, fields): (_, _, &mut [Column]) = match self {
            Self::List { element, .. } => (Some(element), None, &mut []),
            Self::Map { key, value, .. } => (Some(key), Some(value), &mut []),
            Self::Row { fields, .. } => (None, None, fields),
        };
        first.into_iter().chain(second).chain(fields)
    }
}

impl Rows for Nested {
    fn len(&self) -> usize {
        match self {
            Self::List { ends, .. } | Self::Map { ends, .. } => ends.len(),
            Self::Row { rows, .. } => *rows,
        }
    }

    fn truncate(&mut self, length: usize) {
        let inner = match self {
            Self::List { ends, .. } | Self::Map { ends, .. } => {
                ends.truncate(length);
                ends.last().map_or(0, |end| *end as usize)
            }
            Self::Row { rows, .. } => {
                *rows = length.min(*rows);
                *rows
            }
        };
        self.parts().for_each(|part| part.truncate(inner));
    }

    fn put_default(&mut self) {
        if let Self::Row { fields, .. } = self {
            fields.iter_mut().for_each(Column::put_null);
        }
        self.close();
    }
}

/// The one way in which parts can fail to make a value: one is NULL that is declared NOT NULL.
fn null_inside(error: arrow::error::ArrowError) -> Error {
    Error::data(format!("a part of a nested value is NULL, and declared NOT NULL: {error}"))
}
