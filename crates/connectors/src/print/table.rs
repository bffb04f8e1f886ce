//! The style `table`: aligned columns under one header, for a stream.
//!
//! A stream has no last row, so widths are fixed with the first batch and grow when a wider value comes: the rows
//! above stay as they are. Numbers stand on the right, everything else on the left.

use arrow::datatypes::{DataType, Schema};
use arrow::record_batch::RecordBatch;
use ruslo_core::error::Result;
use ruslo_core::schema::visible;

use super::cell::{Cells, Kinds, printable};

/// What the column is called that says whether a row comes, changes or goes, as in Flink's SQL client.
const KIND: &str = "op";

/// The table as far as it is printed: shared by all subtasks, which write one table together.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<Column>,
    /// Whether the first column is what each row says.
    has_kinds: bool,
    header_written: bool,
}

#[derive(Debug)]
struct Column {
    name: String,
    is_number: bool,
    /// In characters.
    width: usize,
}

impl Table {
    /// A table of these columns; of rows that change or go, with what each says in front.
    pub(super) fn new(schema: &Schema, is_updating: bool) -> Self {
        let column = |name: &String, data_type: &DataType| Column {
            name: one_line(name),
            is_number: data_type.is_numeric(),
            width: name.chars().count().max(natural_width(data_type)),
        };
        let columns = schema.fields().iter().map(|field| column(field.name(), field.data_type()));
        let kind = is_updating.then(|| Column { name: KIND.to_owned(), is_number: false, width: KIND.len() });
        Self { columns: kind.into_iter().chain(columns).collect(), has_kinds: is_updating, header_written: false }
    }

    /// Appends the batch's rows to `text`, with the header in front of the first ones.
    pub(super) fn write(&mut self, batch: &RecordBatch, text: &mut String) -> Result<()> {
        let cells = self.cells(batch)?;
        if !self.header_written {
            self.header_written = true;
            self.write_header(text);
        }
        let count = self.columns.len().max(1);
        for row in cells.chunks(count) {
            self.write_row(row.iter().map(String::as_str), text);
        }
        Ok(())
    }

    /// All values of the batch as text, row by row; widens the columns to them.
    fn cells(&mut self, batch: &RecordBatch) -> Result<Vec<String>> {
        let kinds = Kinds::of(batch);
        let printable = printable(&visible(batch));
        let cells = Cells::new(&printable)?;
        let mut texts = Vec::with_capacity(batch.num_rows().saturating_mul(self.columns.len()));
        let first = usize::from(self.has_kinds);
        for row in 0..batch.num_rows() {
            if self.has_kinds {
                texts.push(kinds.mark(row)?.to_owned());
            }
            cells.row(row, |index, write_cell| {
                let mut text = String::new();
                write_cell(&mut text)?;
                let text = one_line(&text);
                if let Some(column) = self.columns.get_mut(index.saturating_add(first)) {
                    column.width = column.width.max(text.chars().count());
                }
                texts.push(text);
                Ok(())
            })?;
        }
        Ok(texts)
    }

    fn write_header(&self, text: &mut String) {
        self.write_row(self.columns.iter().map(|column| column.name.as_str()), text);
        let rules: Vec<_> = self.columns.iter().map(|column| "-".repeat(column.width.saturating_add(2))).collect();
        text.push_str(&rules.join("+"));
        text.push('\n');
    }

    fn write_row<'a>(&self, cells: impl Iterator<Item = &'a str>, text: &mut String) {
        for (index, (cell, column)) in cells.zip(&self.columns).enumerate() {
            text.push_str(if index > 0 { " | " } else { " " });
            let padding = column.width.saturating_sub(cell.chars().count());
            if column.is_number {
                text.extend(std::iter::repeat_n(' ', padding));
            }
            text.push_str(cell);
            let is_last = index.saturating_add(1) == self.columns.len();
            if !column.is_number && !is_last {
                text.extend(std::iter::repeat_n(' ', padding));
            }
        }
        text.push('\n');
    }
}

/// How wide a type's values usually are, so that a later batch rarely widens the column.
fn natural_width(data_type: &DataType) -> usize {
    match data_type {
        DataType::Timestamp(_, None) => 19,
        DataType::Timestamp(_, Some(_)) => 20,
        DataType::Date32 | DataType::Date64 => 10,
        DataType::Float32 | DataType::Float64 => 8,
        _ if data_type.is_numeric() => 5,
        _ => 4,
    }
}

/// The text with its line breaks and other control characters spelt out, so that it stays in its row.
fn one_line(text: &str) -> String {
    if !text.contains(|c: char| c.is_control()) {
        return text.to_owned();
    }
    text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampMillisecondArray};

    use super::*;

    fn batch(origins: Vec<Option<&str>>, starts: Vec<i64>, counts: Vec<Option<i64>>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable([
            ("origin", Arc::new(StringArray::from(origins)) as ArrayRef, true),
            ("window_start", Arc::new(TimestampMillisecondArray::from(starts)) as ArrayRef, true),
            ("n", Arc::new(Int64Array::from(counts)) as ArrayRef, true),
        ])
        .unwrap()
    }

    #[test]
    fn columns_are_aligned_under_one_header_and_grow() {
        let first = batch(vec![Some("EWR"), None], vec![1_357_016_400_000; 2], vec![Some(7), None]);
        let second = batch(vec![Some("Zürich-Kloten")], vec![1_357_016_400_500], vec![Some(1_000_000)]);
        let mut table = Table::new(&first.schema(), false);
        let mut text = String::new();
        for batch in [&first, &second, &first] {
            table.write(batch, &mut text).unwrap();
        }
        let expected = [
            " origin | window_start        |     n",
            "--------+---------------------+-------",
            " EWR    | 2013-01-01 05:00:00 |     7",
            " NULL   | 2013-01-01 05:00:00 |  NULL",
            " Zürich-Kloten | 2013-01-01 05:00:00.500 | 1000000",
            " EWR           | 2013-01-01 05:00:00     |       7",
            " NULL          | 2013-01-01 05:00:00     |    NULL",
            "",
        ];
        assert_eq!(text, expected.join("\n"));
    }

    #[test]
    fn rows_that_change_say_so_in_front() {
        let rows = batch(vec![Some("EWR"); 3], vec![1_357_016_400_000; 3], vec![Some(7), Some(7), Some(8)]);
        let changes = ruslo_core::changelog::with_row_kinds(&rows, vec![0, 1, 2].into()).unwrap();
        let mut table = Table::new(&rows.schema(), true);
        let mut text = String::new();
        table.write(&changes, &mut text).unwrap();
        table.write(&rows.slice(2, 1), &mut text).unwrap();
        let expected = [
            " op | origin | window_start        |     n",
            "----+--------+---------------------+-------",
            " +I | EWR    | 2013-01-01 05:00:00 |     7",
            " -U | EWR    | 2013-01-01 05:00:00 |     7",
            " +U | EWR    | 2013-01-01 05:00:00 |     8",
            " +I | EWR    | 2013-01-01 05:00:00 |     8",
            "",
        ];
        assert_eq!(text, expected.join("\n"));
    }

    #[test]
    fn a_line_break_in_a_value_stays_in_its_row() {
        let column = Arc::new(StringArray::from(vec!["a\nb", "c"])) as ArrayRef;
        let batch = RecordBatch::try_from_iter([("text", column)]).unwrap();
        let mut text = String::new();
        Table::new(&batch.schema(), false).write(&batch, &mut text).unwrap();
        assert_eq!(text, " text\n------\n a\\nb\n c\n");
    }

    #[test]
    fn a_table_without_columns_or_rows_is_no_trouble() {
        let empty = RecordBatch::new_empty(Arc::new(Schema::empty()));
        let mut text = String::new();
        Table::new(&empty.schema(), false).write(&empty, &mut text).unwrap();
        assert_eq!(text, "\n\n");
    }
}
