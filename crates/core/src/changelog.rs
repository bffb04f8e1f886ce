//! What the rows of a changing table say of it: a row comes, a row's old or new form, a row goes.
//!
//! On a changelog stream a batch carries a hidden column, [`ROW_KIND`], with the [`RowKind`] of each row. A batch without it
//! is all [`RowKind::Insert`]. What a change takes away is said with all of the row's columns, in the order in which it
//! happened: an edge keeps the order of rows of one key.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, AsArray, Int8Array};
use arrow::datatypes::{DataType, Field, Int8Type, Schema};
use arrow::record_batch::RecordBatch;

use crate::error::{Error, Result};
use crate::schema::{SPLIT_WATERMARK, visible_columns};

/// The hidden column with the kind of each row ([`RowKind`] as TINYINT). Stands before [`SPLIT_WATERMARK`].
pub const ROW_KIND: &str = "__row_kind";

/// What a row says. The numbers are Flink's, and stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i8)]
pub enum RowKind {
    /// `+I`: it is there from now on.
    Insert = 0,
    /// `-U`: it was there, and changes; what it becomes follows.
    UpdateBefore = 1,
    /// `+U`: what a row has become.
    UpdateAfter = 2,
    /// `-D`: it is gone.
    Delete = 3,
}

impl RowKind {
    /// Its number in [`ROW_KIND`].
    pub fn number(self) -> i8 {
        self as i8
    }

    /// The kind with that number.
    ///
    /// # Errors
    /// `Internal`, if there is none.
    pub fn of(number: i8) -> Result<Self> {
        match number {
            0 => Ok(Self::Insert),
            1 => Ok(Self::UpdateBefore),
            2 => Ok(Self::UpdateAfter),
            3 => Ok(Self::Delete),
            other => Err(Error::internal(format!("a row is of the kind {other}"))),
        }
    }

    /// How it is written: `+I`, `-U`, `+U` or `-D`.
    pub fn mark(self) -> &'static str {
        match self {
            Self::Insert => "+I",
            Self::UpdateBefore => "-U",
            Self::UpdateAfter => "+U",
            Self::Delete => "-D",
        }
    }

    /// Whether the row is there after it; else it is not.
    pub fn adds(self) -> bool {
        matches!(self, Self::Insert | Self::UpdateAfter)
    }
}

impl fmt::Display for RowKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.mark())
    }
}

/// Whether the row with this number in [`ROW_KIND`] is there after it.
pub fn adds(number: i8) -> bool {
    number & 1 == 0
}

/// The kinds of a batch's rows, if it carries them; else all are inserted.
pub fn row_kinds(batch: &RecordBatch) -> Option<&Int8Array> {
    let fields = batch.schema_ref().fields();
    let place = fields.iter().rposition(|field| field.name() != SPLIT_WATERMARK)?;
    if fields.get(place)?.name() != ROW_KIND {
        return None;
    }
    batch.columns().get(place)?.as_primitive_opt::<Int8Type>()
}

/// The batch, which carries no kinds yet, with `kinds`, one value a row.
///
/// # Errors
/// `Internal`, if the lengths differ.
pub fn with_row_kinds(batch: &RecordBatch, kinds: Int8Array) -> Result<RecordBatch> {
    if kinds.null_count() > 0 {
        return Err(Error::internal("a row has no kind"));
    }
    let place = visible_columns(batch);
    let mut columns = batch.columns().to_vec();
    let mut fields = batch.schema_ref().fields().to_vec();
    columns.insert(place, Arc::new(kinds));
    fields.insert(place, Arc::new(Field::new(ROW_KIND, DataType::Int8, false)));
    let schema = Schema::new_with_metadata(fields, batch.schema_ref().metadata().clone());
    Ok(RecordBatch::try_new(Arc::new(schema), columns)?)
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};

    use super::*;
    use crate::schema::{carry_hidden, split_watermarks, visible, with_split_watermarks, without_split_watermarks};

    fn batch() -> RecordBatch {
        RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef)]).unwrap()
    }

    #[test]
    fn numbers_and_signs_are_flinks() {
        let kinds = [RowKind::Insert, RowKind::UpdateBefore, RowKind::UpdateAfter, RowKind::Delete];
        let shown: Vec<String> = kinds.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["+I", "-U", "+U", "-D"]);
        for (number, kind) in (0..).zip(kinds) {
            assert_eq!((kind.number(), RowKind::of(number).unwrap()), (number, kind));
            assert_eq!(kind.adds(), adds(number));
        }
        assert!(RowKind::of(4).is_err());
    }

    #[test]
    fn kinds_stand_between_the_users_columns_and_the_split_watermarks() {
        let kinds = || Int8Array::from(vec![0, 3]);
        let first = with_split_watermarks(&with_row_kinds(&batch(), kinds()).unwrap(), vec![7, 8].into()).unwrap();
        let last = with_row_kinds(&with_split_watermarks(&batch(), vec![7, 8].into()).unwrap(), kinds()).unwrap();
        assert_eq!(first, last);
        assert_eq!(row_kinds(&first).unwrap(), &kinds());
        assert_eq!(split_watermarks(&first).unwrap().values(), &[7, 8]);
        assert_eq!(visible(&first), batch());
        let shown = without_split_watermarks(&first);
        assert!(split_watermarks(&shown).is_none());
        assert_eq!(row_kinds(&shown).unwrap(), &kinds());
        assert!(row_kinds(&batch()).is_none());
    }

    #[test]
    fn new_columns_keep_kinds_and_lateness() {
        let old = with_row_kinds(&with_split_watermarks(&batch(), vec![7, 8].into()).unwrap(), vec![1, 2].into());
        let schema = Arc::new(Schema::new(vec![Field::new("b", DataType::Int64, true)]));
        let made = carry_hidden(&old.unwrap(), &schema, vec![Arc::new(Int64Array::from(vec![3, 4]))]).unwrap();
        assert_eq!(row_kinds(&made).unwrap().values(), &[1, 2]);
        assert_eq!(split_watermarks(&made).unwrap().values(), &[7, 8]);
        assert_eq!(visible(&made).schema(), schema);
    }
}
