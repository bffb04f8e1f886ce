//! One value as text: timestamps as SQL writes them, NULL as `NULL`, everything else as Arrow shows it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int8Array};
use arrow::datatypes::{
    DataType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use ruslo_core::changelog::{RowKind, row_kinds};
use ruslo_core::error::{Error, Result};

/// `%.f` prints as many digits of the fraction as there are, and none for a whole second.
const WALL: &str = "%Y-%m-%d %H:%M:%S%.f";
/// A point in time, which is always UTC here.
const INSTANT: &str = "%Y-%m-%d %H:%M:%S%.fZ";

const WALL_FORMAT: FormatOptions<'static> = FormatOptions::new()
    .with_display_error(false)
    .with_null("NULL")
    .with_timestamp_format(Some(WALL))
    .with_timestamp_tz_format(Some(INSTANT))
    .with_time_format(Some("%H:%M:%S%.f"));
const INSTANT_FORMAT: FormatOptions<'static> = WALL_FORMAT.with_timestamp_format(Some(INSTANT));

/// A batch whose values can be written as text.
pub(super) struct Cells<'a> {
    columns: Vec<ArrayFormatter<'a>>,
}

/// What the rows of a batch say.
pub(super) struct Kinds<'a>(Option<&'a Int8Array>);

impl<'a> Kinds<'a> {
    pub(super) fn of(batch: &'a RecordBatch) -> Self {
        Self(row_kinds(batch))
    }

    /// `+I`, `-U`, `+U` or `-D`.
    pub(super) fn mark(&self, row: usize) -> Result<&'static str> {
        let number = self.0.and_then(|kinds| kinds.values().get(row)).copied().unwrap_or_default();
        Ok(RowKind::of(number)?.mark())
    }
}

/// The batch's columns as they can be formatted: without time zones, whose names Arrow may not know.
pub(super) fn printable(batch: &RecordBatch) -> Vec<(ArrayRef, bool)> {
    batch.columns().iter().map(|column| (without_zone(column), is_instant(column.data_type()))).collect()
}

fn is_instant(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(_, Some(_)))
}

fn without_zone(column: &ArrayRef) -> ArrayRef {
    macro_rules! drop_zone {
        ($type:ty) => {
            Arc::new(column.as_primitive::<$type>().clone().with_timezone_opt(None::<Arc<str>>))
        };
    }
    match column.data_type() {
        DataType::Timestamp(TimeUnit::Second, Some(_)) => drop_zone!(TimestampSecondType),
        DataType::Timestamp(TimeUnit::Millisecond, Some(_)) => drop_zone!(TimestampMillisecondType),
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => drop_zone!(TimestampMicrosecondType),
        DataType::Timestamp(TimeUnit::Nanosecond, Some(_)) => drop_zone!(TimestampNanosecondType),
        _ => column.clone(),
    }
}

impl<'a> Cells<'a> {
    pub(super) fn new(columns: &'a [(ArrayRef, bool)]) -> Result<Self> {
        let formatter = |(column, is_instant): &'a (ArrayRef, bool)| {
            ArrayFormatter::try_new(column.as_ref(), if *is_instant { &INSTANT_FORMAT } else { &WALL_FORMAT })
        };
        Ok(Self { columns: columns.iter().map(formatter).collect::<Result<_, ArrowError>>()? })
    }

    /// Calls `each` with the row's values, in order, as writers into a text.
    pub(super) fn row(
        &self,
        row: usize,
        mut each: impl FnMut(usize, &dyn Fn(&mut String) -> Result<()>) -> Result<()>,
    ) -> Result<()> {
        for (index, column) in self.columns.iter().enumerate() {
            each(index, &|text| {
                column.value(row).write(text).map_err(|_| Error::data("print: a value is out of its type's range"))
            })?;
        }
        Ok(())
    }
}
