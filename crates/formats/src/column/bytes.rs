//! Byte strings of a column.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use ruslo_core::error::Result;

use crate::base64;
use crate::column::{Misfit, Rows};

/// Byte strings, one behind the other.
#[derive(Debug, Default)]
pub(crate) struct Bytes {
    data: Vec<u8>,
    /// Where each ends.
    ends: Vec<i32>,
}

impl Bytes {
    /// Appends what a base64 text stands for.
    pub(super) fn put_base64(&mut self, text: &[u8]) -> Result<(), Misfit> {
        let before = self.data.len();
        match base64::decode(text.trim_ascii(), &mut self.data) {
            Some(()) => self.ends.push(self.data.len() as i32),
            None => {
                self.data.truncate(before);
                return Err(Misfit::NotA);
            }
        }
        Ok(())
    }

    /// Takes all of them.
    pub(super) fn finish(&mut self, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        let Self { data, ends } = std::mem::take(self);
        Ok(Arc::new(BinaryArray::try_new(offsets(ends), data.into(), nulls)?))
    }
}

impl Rows for Bytes {
    fn len(&self) -> usize {
        self.ends.len()
    }

    fn truncate(&mut self, rows: usize) {
        self.ends.truncate(rows);
        self.data.truncate(self.ends.last().map_or(0, |end| *end as usize));
    }

    fn put_default(&mut self) {
        self.ends.push(self.data.len() as i32);
    }
}

/// Arrow's offsets of values that end at `ends`.
pub(super) fn offsets(ends: Vec<i32>) -> OffsetBuffer<i32> {
    let starts: Vec<i32> = std::iter::once(0).chain(ends).collect();
    OffsetBuffer::new(starts.into())
}
