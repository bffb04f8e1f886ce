//! Reads changes: finds the rows and what happened to them in the envelope, then reads the rows as JSON.
//!
//! `c` and `r` (of a snapshot) bring a row, `u` changes one, `d` takes one away. A change of a row is two rows: what it was,
//! and what it has become.

use std::ops::Range;

use arrow::array::Int8Array;
use ruslo_core::changelog::RowKind;

use crate::column::Column;
use crate::decode_error::{Faulty, bad_record, syntax as bad_syntax};
use crate::json::{JsonRecords, Kind, Layout, Target, skip, token};
use crate::lines::{Records, Step};

/// The fields of an envelope that count.
const FIELDS: [&str; 3] = ["before", "after", "op"];
const BEFORE: usize = 0;
const AFTER: usize = 1;
const OP: usize = 2;

/// The reader of changes.
#[derive(Debug)]
pub(crate) struct DebeziumRecords {
    rows: JsonRecords,
    envelope: Layout,
    /// What stands around the envelope, if something does: `{"schema":..,"payload":{..}}`.
    outer: Option<Layout>,
    /// Which columns are NOT NULL.
    required: Vec<usize>,
    /// What each row says, since the last flush.
    kinds: Vec<i8>,
}

impl DebeziumRecords {
    /// A reader of changes of rows with columns of these names; of those that are `required`, none may be NULL.
    pub(crate) fn new(names: Vec<String>, required: Vec<usize>, has_schema: bool) -> Self {
        let layout = |names: &[&str]| Layout::new(names.iter().map(|name| (*name).to_owned()).collect());
        Self {
            rows: JsonRecords::new(names, false),
            envelope: layout(&FIELDS),
            outer: has_schema.then(|| layout(&["payload"])),
            required,
            kinds: Vec::new(),
        }
    }

    /// Reads the row that stands at `place`.
    fn row(
        &mut self,
        columns: &mut [Column],
        block: &[u8],
        place: Option<Range<usize>>,
        (row, kind): (usize, RowKind),
    ) -> Faulty<()> {
        let found = place.filter(|place| block.get(place.start) == Some(&b'{'));
        let Some(place) = found else {
            let field = if kind.adds() { "after" } else { "before" };
            let mend =
                if kind.adds() { "" } else { "; a database tells it if it logs whole rows (REPLICA IDENTITY FULL)" };
            return bad_record(None, format!("the change has no row under '{field}'{mend}"));
        };
        let object = block.get(..place.end).unwrap_or_default();
        self.rows.read(columns, object, place.start, row)?;
        let is_null = |index: &&usize| columns.get(**index).is_some_and(Column::ends_with_null);
        if let Some(index) = self.required.iter().find(is_null) {
            return bad_record(Some(*index), "the value is NULL, and the column is NOT NULL".to_owned());
        }
        self.kinds.push(kind.number());
        Ok(())
    }
}

/// Where the values of some fields stand, if they do, and where the next record does.
type Found<const N: usize> = ([Option<Range<usize>>; N], usize);

/// Where the values of `layout`'s fields stand in the object at `at`, and where the next record does; none, if the line is
/// blank.
fn fields<const N: usize>(layout: &mut Layout, block: &[u8], mut at: usize) -> Faulty<Option<Found<N>>> {
    let mut found = [const { None }; N];
    for index in 0.. {
        let (target, next) = layout.next(index, block, at)?;
        at = match target {
            Target::Column(column) | Target::Again(column) => {
                let start = crate::json::white_space(block, next);
                let end = skip(block, start)?;
                found.get_mut(column).into_iter().for_each(|place| *place = Some(start..end));
                end
            }
            Target::Skip => skip(block, next)?,
            Target::End => return Ok(Some((found, next))),
            Target::Blank => return Ok(None),
        };
    }
    Ok(None)
}

impl Records for DebeziumRecords {
    fn begin(&mut self, block: &[u8]) {
        self.rows.begin(block);
    }

    fn read(&mut self, columns: &mut [Column], block: &[u8], at: usize, row: usize) -> Faulty<Step> {
        let (mut inner, mut from, mut behind) = (block, at, None);
        if let Some(outer) = &mut self.outer {
            let Some(([payload], next)) = fields::<1>(outer, block, at)? else { return Ok(blank(block, at)) };
            let Some(payload) = payload else {
                return bad_record(None, "the record has no 'payload'".to_owned());
            };
            (inner, from, behind) = (block.get(..payload.end).unwrap_or_default(), payload.start, Some(next));
        }
        let Some((mut places, next)) = fields::<3>(&mut self.envelope, inner, from)? else {
            return Ok(blank(block, at));
        };
        let next = behind.unwrap_or(next);
        let op = places.get_mut(OP).and_then(Option::take);
        let mut place = |field: usize| places.get_mut(field).and_then(Option::take);
        let (before, after) = (place(BEFORE), place(AFTER));
        match operation(block, op)? {
            b'c' | b'r' => self.row(columns, block, after, (row, RowKind::Insert))?,
            b'd' => self.row(columns, block, before, (row, RowKind::Delete))?,
            _ => {
                self.row(columns, block, before, (row, RowKind::UpdateBefore))?;
                self.row(columns, block, after, (row + 1, RowKind::UpdateAfter))?;
                return Ok(Step::Rows(next, 2));
            }
        }
        Ok(Step::Row(next))
    }

    fn truncate(&mut self, rows: usize) {
        self.kinds.truncate(rows);
    }

    fn kinds(&mut self) -> Option<Int8Array> {
        Some(std::mem::take(&mut self.kinds).into())
    }
}

/// The next line behind a blank one.
fn blank(block: &[u8], at: usize) -> Step {
    let rest = block.get(at..).unwrap_or_default();
    Step::Blank(memchr::memchr(b'\n', rest).map_or(block.len(), |newline| at + newline + 1))
}

/// What happened: `c`, `r`, `u` or `d`.
fn operation(block: &[u8], place: Option<Range<usize>>) -> Faulty<u8> {
    let Some(place) = place else { return bad_record(None, "the change has no 'op'".to_owned()) };
    let token = token(block, place.start)?;
    match (token.kind, block.get(token.start..token.end)) {
        (Kind::Text { escaped: false }, Some([op @ (b'c' | b'r' | b'u' | b'd')])) => Ok(*op),
        _ => bad_syntax(place.start, "'op' is \"c\", \"r\", \"u\" or \"d\"; another stands"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::array::{Array, AsArray, RecordBatch};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
    use ruslo_core::changelog::row_kinds;

    use crate::{DecodeError, Decoded, Decoder, DecoderConfig};

    fn decoder(options: &[(&str, &str)]) -> Box<dyn Decoder> {
        let fields = [("a", DataType::Int64, false), ("b", DataType::Utf8, true), ("c", DataType::Int64, true)];
        let fields = fields.map(|(name, data_type, nullable)| Field::new(name, data_type, nullable));
        let table: SchemaRef = Arc::new(Schema::new(fields.to_vec()));
        let options: BTreeMap<_, _> = options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        crate::format("debezium-json", &options).unwrap().decoder(&DecoderConfig::new(&table, &[0, 1])).unwrap()
    }

    /// Each row as its kind, its number and its text.
    fn rows(batch: &RecordBatch) -> Vec<(i8, i64, Option<String>)> {
        let (numbers, texts) = (batch.column(0).as_primitive::<Int64Type>(), batch.column(1).as_string::<i32>());
        let text = |row: usize| texts.is_valid(row).then(|| texts.value(row).to_owned());
        let kinds = row_kinds(batch).unwrap();
        (0..batch.num_rows()).map(|row| (kinds.value(row), numbers.value(row), text(row))).collect()
    }

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    const CHANGES: &str = concat!(
        "{\"before\":null,\"after\":{\"a\":1,\"b\":\"x\",\"c\":7},\"source\":{\"db\":\"}\"},\"op\":\"c\",\"ts_ms\":1}\n",
        "\n",
        "{\"before\":{\"a\":1,\"b\":\"x\"},\"after\":{\"b\":\"y\\n\",\"a\":1},\"op\":\"u\"}\n",
        "  { \"op\" : \"r\" , \"after\" : { \"a\" : 2 } }\r\n",
        "{\"op\":\"d\",\"before\":{\"a\":2,\"b\":null},\"after\":null}\n",
    );

    #[test]
    fn changes_become_rows_with_kinds() {
        let mut decoder = decoder(&[]);
        let all = decoder.decode(CHANGES.as_bytes(), true, 100).unwrap();
        assert_eq!(all, Decoded { consumed: CHANGES.len(), rows: 5 });
        let batch = decoder.flush().unwrap();
        let expected = [(0, 1, text("x")), (1, 1, text("x")), (2, 1, text("y\n")), (0, 2, None), (3, 2, None)];
        assert_eq!(rows(&batch), expected);
        assert_eq!(decoder.decode(CHANGES.as_bytes(), true, 1).unwrap().rows, 1);
        assert_eq!(rows(&decoder.flush().unwrap()), expected[..1]);
    }

    #[test]
    fn a_change_is_never_cut() {
        for rows_max in 1..6 {
            let (mut decoder, mut at, mut found) = (decoder(&[]), 0, Vec::new());
            while at < CHANGES.len() {
                at += decoder.decode(&CHANGES.as_bytes()[at..], true, rows_max).unwrap().consumed;
                let batch = decoder.flush().unwrap();
                let kinds: Vec<i8> = rows(&batch).iter().map(|row| row.0).collect();
                assert!(kinds.len() <= rows_max + 1 && kinds.last() != Some(&1), "{kinds:?}");
                found.extend(kinds);
            }
            assert_eq!(found, [0, 1, 2, 0, 3]);
        }
    }

    #[test]
    fn a_schema_may_stand_around_changes() {
        let mut decoder = decoder(&[("debezium-json.schema-include", "true")]);
        let wrapped = "{\"schema\":{},\"payload\":{\"after\":{\"a\":1,\"b\":\"x\"},\"op\":\"c\"}}\n\n";
        assert_eq!(decoder.decode(wrapped.as_bytes(), true, 9).unwrap(), Decoded { consumed: wrapped.len(), rows: 1 });
        assert_eq!(rows(&decoder.flush().unwrap()), [(0, 1, text("x"))]);
        let error = decoder.decode(b"{\"op\":\"c\"}\n", true, 9).unwrap_err();
        assert_eq!(error.message, "the record has no 'payload'");
    }

    /// What is wrong with `line`, behind which a good one is read.
    fn refused(line: &str) -> DecodeError {
        let mut decoder = decoder(&[]);
        let good = "{\"op\":\"c\",\"after\":{\"a\":5}}\n";
        let input = format!("{good}{line}\n{good}");
        let error = decoder.decode(input.as_bytes(), true, 100).unwrap_err();
        assert_eq!((error.offset, error.length, error.rows), (good.len(), line.len() + 1, 1), "{error}");
        let rest = &input[error.offset + error.length..];
        assert_eq!(decoder.decode(rest.as_bytes(), true, 100).unwrap().rows, 1);
        assert_eq!(rows(&decoder.flush().unwrap()), [(0, 5, None), (0, 5, None)]);
        error
    }

    #[test]
    fn bad_changes_are_taken_back_whole() {
        let cases = [
            (r#"{"after":{"a":1}}"#, "the change has no 'op'"),
            (r#"{"op":"x","after":{"a":1}}"#, "'op' is"),
            (r#"{"op":null,"after":{"a":1}}"#, "'op' is"),
            (r#"{"op":"c","after":null}"#, "the change has no row under 'after'"),
            (r#"{"op":"c","after":[1]}"#, "the change has no row under 'after'"),
            (r#"{"op":"d","after":{"a":1}}"#, "no row under 'before'; a database tells it"),
            (r#"{"op":"u","before":null,"after":{"a":1}}"#, "no row under 'before'"),
            (r#"{"op":"u","before":{"a":1}}"#, "no row under 'after'"),
            (r#"{"op":"u","before":{"a":1},"after":{"a":null}}"#, "NOT NULL"),
            (r#"{"op":"u","before":{},"after":{"a":1}}"#, "NOT NULL"),
            (r#"{"op":"u","before":{"a":1},"after":{"a":"x"}}"#, "'x'"),
            (r#"{"op":"c","after":{"a":1}"#, "ends before its '}'"),
            (r#"{"op":"c","after":{"a":1,"#, ""),
            (r#"["op"]"#, "an object in braces"),
        ];
        for (line, part) in cases {
            let error = refused(line).to_string();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
