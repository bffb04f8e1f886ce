//! Strings of a column: those that were copied, then those noted in the block that is being decoded.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringBuilder};
use ruslo_core::error::{Error, Result};

use crate::column::Rows;

/// Strings: those that were copied, then those noted in the block that is being decoded.
#[derive(Debug, Default)]
pub(crate) struct Text {
    settled: StringBuilder,
    settled_rows: usize,
    spans: Vec<Span>,
    /// Texts of this block that had to be unescaped.
    copied: String,
}

/// Where a string stands: in the block, in the copied texts, or nowhere because it is NULL.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: u32,
    /// The length, with a flag for a copied one.
    length: u32,
}

/// Flag of a copied text. A block is shorter than that.
const COPIED: u32 = 1 << 31;
const NULL: Span = Span { start: 0, length: u32::MAX };

impl Text {
    /// Whether the last of the strings noted in the block is NULL.
    pub(super) fn ends_with_null(&self) -> bool {
        self.spans.last().is_some_and(|span| span.length == NULL.length)
    }

    /// Notes `block[start..end]`.
    #[inline(always)]
    pub(crate) fn put_span(&mut self, start: usize, end: usize) {
        self.spans.push(Span { start: start as u32, length: (end - start) as u32 });
    }

    pub(super) fn put_copied(&mut self, text: &str) {
        self.spans.push(Span { start: self.copied.len() as u32, length: text.len() as u32 | COPIED });
        self.copied.push_str(text);
    }

    pub(super) fn settle(&mut self, block: &str) -> Result<()> {
        for span in &self.spans {
            let start = span.start as usize;
            let text = match span.length {
                length if length & COPIED == 0 => block.get(start..start + length as usize),
                u32::MAX => {
                    self.settled.append_null();
                    continue;
                }
                length => self.copied.get(start..start + (length & !COPIED) as usize),
            };
            self.settled.append_value(text.ok_or_else(|| Error::internal("a string lies outside its block"))?);
        }
        self.settled_rows += self.spans.len();
        self.spans.clear();
        self.copied.clear();
        Ok(())
    }

    pub(super) fn finish(&mut self) -> ArrayRef {
        let array = self.settled.finish();
        self.settled = StringBuilder::with_capacity(array.len(), array.value_data().len());
        self.settled_rows = 0;
        Arc::new(array)
    }
}

impl Rows for Text {
    fn len(&self) -> usize {
        self.settled_rows + self.spans.len()
    }

    fn truncate(&mut self, rows: usize) {
        self.spans.truncate(rows.saturating_sub(self.settled_rows));
    }

    fn put_default(&mut self) {
        self.spans.push(NULL);
    }
}
