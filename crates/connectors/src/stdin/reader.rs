//! Reads standard input into batches: what has come, without waiting for more.
//!
//! An error comes behind the rows before it. A bad record is no error if the table has it left out; then it comes beside
//! the rows around it.

use std::sync::Arc;
use std::time::Duration;

use ruslo_core::clock::Clock;
use ruslo_core::dead_letter::{OnError, Origins, Record, Rejected};
use ruslo_core::environment::Environment;
use ruslo_core::error::{Error, Result};
use ruslo_core::source::{Budget, Polled, Position, Sifted, SourceReader, Split, SplitId};
use ruslo_core::standard_input::StandardInput;
use ruslo_formats::{DecodeError, Decoder};

use super::source::{Columns, LINEAGE};
use super::text::Text;
use crate::origins::{self, Kept, LineOrigins};

/// How much input goes into one batch. A single longer row is let through.
const BATCH_BYTES_MAX: u64 = 8 << 20;

/// How much is kept of a bad record that is longer than a row may be.
const ENDLESS_BYTES_KEPT: usize = 1 << 20;

/// How long after nothing came it is looked again: from the first, doubled up to the last.
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(16));

/// Reads standard input, if this subtask is the one.
pub(super) struct InputReader {
    columns: Arc<Columns>,
    input: Arc<dyn StandardInput>,
    clock: Arc<dyn Clock>,
    on_error: OnError,
    split: Option<SplitId>,
    text: Text,
    /// Once the header line has come.
    decoder: Option<Box<dyn Decoder>>,
    header: Option<Arc<[u8]>>,
    rejected: Vec<Rejected>,
    /// The lines since the last batch, if they may be wanted.
    kept: Option<Kept>,
    failed: Option<Error>,
    /// Within a line that was left out.
    skips_line: bool,
    pause: Duration,
}

impl InputReader {
    pub(super) fn new(columns: Arc<Columns>, environment: &Environment, on_error: OnError) -> Self {
        Self {
            columns,
            input: Arc::clone(&environment.input),
            clock: Arc::clone(&environment.clock),
            kept: on_error.keeps_records().then(Kept::default),
            on_error,
            split: None,
            text: Text::default(),
            decoder: None,
            header: None,
            rejected: Vec::new(),
            failed: None,
            skips_line: false,
            pause: PAUSE.0,
        }
    }

    /// Decodes up to `rows_max` rows of what has come.
    fn decode(&mut self, rows_max: usize) -> Result<()> {
        let begun = self.text.offset();
        if self.text.is_low() {
            self.text.fill(self.input.as_ref())?;
        }
        while self.has_room(rows_max, begun) && !self.text.is_finished() {
            let goes_on = if self.skips_line { self.skip_line() } else { self.decode_some(rows_max)? };
            if !goes_on && !self.text.fill(self.input.as_ref())? {
                break;
            }
        }
        Ok(())
    }

    fn records(&self) -> usize {
        self.decoder.as_ref().map_or(0, |decoder| decoder.rows()).saturating_add(self.rejected.len())
    }

    fn has_room(&self, rows_max: usize, begun: u64) -> bool {
        let records = self.records();
        let read = self.text.offset().saturating_sub(begun);
        self.failed.is_none() && records < rows_max && (records == 0 || read < BATCH_BYTES_MAX)
    }

    fn skip_line(&mut self) -> bool {
        self.skips_line = !self.text.skip_line();
        !self.skips_line
    }

    /// Decodes what there is; false, if more bytes are needed.
    fn decode_some(&mut self, rows_max: usize) -> Result<bool> {
        let rows_max = rows_max.saturating_sub(self.rejected.len());
        let Some(decoder) = &mut self.decoder else { return self.open() };
        let (bytes, last) = self.text.bytes();
        match decoder.decode(bytes, last, rows_max.saturating_sub(decoder.rows())) {
            Ok(decoded) if decoded.consumed > 0 => self.take(decoded.consumed),
            Ok(_) if last => return Err(Error::internal(format!("{LINEAGE}: the decoder stopped before the end"))),
            Ok(_) => return Ok(false),
            Err(error) if self.on_error.fails() => {
                self.text.consume(error.offset);
                self.failed = Some(self.bad_record(&error));
            }
            Err(error) => self.reject(&error),
        }
        Ok(true)
    }

    /// Finds what stands before the first record; false, if it has not all come.
    fn open(&mut self) -> Result<bool> {
        let (bytes, last) = self.text.bytes();
        let found = self.columns.format.preamble(bytes, last).map_err(|error| error.context(LINEAGE))?;
        let Some(preamble) = found else {
            let limit = self.columns.format.row_bytes_max();
            let sentence = || format!("{LINEAGE}: the header line is longer than {limit} bytes");
            return if bytes.len() > limit { Err(Error::data(sentence())) } else { Ok(false) };
        };
        self.text.consume(preamble.bytes);
        self.header = preamble.header.map(Arc::from);
        let decoder = self.columns.decoder(self.header.as_deref()).map_err(|error| error.context(LINEAGE))?;
        self.decoder = Some(decoder);
        Ok(true)
    }

    /// Takes decoded lines off the text.
    fn take(&mut self, count: usize) {
        if let Some(kept) = &mut self.kept {
            kept.add(self.text.bytes().0.get(..count).unwrap_or_default(), self.text.offset());
        }
        self.text.consume(count);
    }

    fn bad_record(&self, error: &DecodeError) -> Error {
        let (line, byte) = (self.text.lines().saturating_add(1), self.text.offset());
        let separator = if error.column.is_some() { "," } else { ":" };
        Error::data(format!("{LINEAGE} line {line}, byte {byte}{separator} {error}"))
    }

    /// Leaves a bad record out.
    fn reject(&mut self, error: &DecodeError) {
        self.take(error.offset);
        let (bytes, last) = self.text.bytes();
        let record = bytes.get(..error.length).unwrap_or_default();
        let is_cut = !last && !record.ends_with(b"\n");
        let kept = if is_cut { record.get(..ENDLESS_BYTES_KEPT).unwrap_or(record) } else { record };
        let raw = self.on_error.keeps_records().then(|| origins::without_newline(kept).to_vec());
        let position = origins::position(LINEAGE, self.text.offset());
        self.rejected.push(Rejected { record: Record { position, raw }, reason: error.to_string() });
        self.text.consume(error.length);
        self.skips_line = is_cut;
    }

    fn origins(&mut self) -> Option<Box<dyn Origins>> {
        let kept = std::mem::take(self.kept.as_mut()?);
        let (columns, header) = (Arc::clone(&self.columns), self.header.clone());
        let decoder = Box::new(move || columns.decoder(header.as_deref()));
        Some(Box::new(LineOrigins { path: LINEAGE.to_owned(), kept, decoder }))
    }

    fn deliver(&mut self, split: SplitId) -> Result<Polled> {
        self.pause = PAUSE.0;
        let decoder = self.decoder.as_mut().ok_or_else(|| Error::internal("rows without a decoder"))?;
        let (batch, position) = (decoder.flush()?, serde_json::json!({ "offset": self.text.offset() }));
        if self.on_error.fails() {
            return Ok(Polled::Batch { split, batch, position });
        }
        let rejected = std::mem::take(&mut self.rejected);
        Ok(Polled::Sifted(Sifted { split, batch, position, rejected, origins: self.origins() }))
    }
}

impl SourceReader for InputReader {
    fn add_split(&mut self, split: Split, position: Option<Position>) -> Result<()> {
        if position.is_some() {
            let sentence = "standard input cannot be read again, so the job cannot resume; start over with --fresh";
            return Err(Error::usage(sentence));
        }
        self.input.claim()?;
        self.split = Some(split.id());
        Ok(())
    }

    fn poll(&mut self, budget: Budget) -> Result<Polled> {
        let Some(split) = self.split.clone() else { return Ok(Polled::Pending(None)) };
        self.decode(budget.rows_max.max(1))?;
        if self.records() > 0 {
            return self.deliver(split);
        }
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if self.text.is_finished() {
            return Ok(Polled::Finished(split));
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE.1);
        Ok(Polled::Pending(Some(self.clock.now() + pause)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use arrow::array::AsArray;
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use ruslo_core::connector::TableDefinition;
    use ruslo_core::dead_letter::DeadLetters;
    use ruslo_core::source::Source;
    use ruslo_core::standard_input::Taken;

    use super::super::source::InputSource;
    use super::*;

    /// Brings its pieces one a look, with a look in vain before each.
    struct Piecemeal(Mutex<(VecDeque<Vec<u8>>, bool)>);

    impl Piecemeal {
        fn new(text: &[u8], bytes: usize) -> Arc<Self> {
            Arc::new(Self(Mutex::new((text.chunks(bytes).map(<[u8]>::to_vec).collect(), false))))
        }
    }

    impl StandardInput for Piecemeal {
        fn claim(&self) -> Result<()> {
            Ok(())
        }

        fn take(&self, into: &mut Vec<u8>, _: usize) -> Result<Taken> {
            let (pieces, looked) = &mut *self.0.lock().unwrap();
            *looked = !*looked;
            match (*looked, pieces.front()) {
                (true, _) => return Ok(Taken::Nothing),
                (false, None) => return Ok(Taken::End),
                (false, Some(piece)) => into.extend(piece),
            }
            pieces.pop_front();
            Ok(Taken::Bytes)
        }
    }

    fn reader(format: &str, input: Arc<Piecemeal>, on_error: OnError) -> InputReader {
        let fields = vec![Field::new("b", DataType::Utf8, true), Field::new("a", DataType::Int64, true)];
        let mut table = TableDefinition::new("t", Arc::new(Schema::new(fields)), BTreeMap::new());
        table.on_error = on_error.clone();
        let options = [("csv.header".to_owned(), "true".to_owned())].into();
        let source = InputSource::new(ruslo_formats::format(format, &options).unwrap(), &table, &[1]).unwrap();
        let environment = Environment { input, ..Environment::local() };
        let split = source.splits(&environment).unwrap().remove(0);
        let mut reader = InputReader::new(Arc::clone(&source.columns), &environment, on_error);
        reader.add_split(split, None).unwrap();
        reader
    }

    /// All values of `a`, and where records were left out, with what they say.
    fn read(reader: &mut InputReader, rows_max: usize) -> (Vec<i64>, Vec<(String, String)>, Option<String>) {
        let (mut rows, mut bad) = (Vec::new(), Vec::new());
        let mut add = |batch: arrow::record_batch::RecordBatch| {
            assert!(batch.num_rows() <= rows_max);
            rows.extend(batch.column(0).as_primitive::<Int64Type>().values().iter().copied());
        };
        loop {
            match reader.poll(Budget { rows_max }) {
                Ok(Polled::Batch { batch, .. }) => add(batch),
                Ok(Polled::Sifted(sifted)) => {
                    let text = |raw: Option<Vec<u8>>| String::from_utf8_lossy(&raw.unwrap_or_default()).into_owned();
                    if let Some(origins) = sifted.origins.filter(|_| sifted.batch.num_rows() > 0) {
                        let record = origins.records(&[0]).unwrap().remove(0);
                        let first = sifted.batch.column(0).as_primitive::<Int64Type>().value(0);
                        assert!(text(record.raw).contains(&first.to_string()), "{}", record.position);
                    }
                    add(sifted.batch);
                    let found = sifted.rejected.into_iter();
                    bad.extend(found.map(|rejected| (rejected.record.position, text(rejected.record.raw))));
                }
                Ok(Polled::Pending(at)) => assert!(at.is_some()),
                Ok(Polled::Worked(_)) => panic!("it waits or it has rows"),
                Ok(Polled::Finished(split)) => {
                    assert_eq!(split.lineage, LINEAGE);
                    return (rows, bad, None);
                }
                Err(error) => return (rows, bad, Some(error.to_string())),
            }
        }
    }

    const JSON: &str = "\u{feff}{\"a\":1}\r\n\n{\"a\":2,\"b\":\"x\"}\n{\"a\":3}";
    const CSV: &str = "a,b\n1,x\n\n2,\"y\"\r\n3,";

    #[test]
    fn rows_come_however_the_bytes_come() {
        for (format, text) in [("json", JSON), ("csv", CSV)] {
            for bytes in 1..=text.len() {
                for rows_max in [1, 2, 100] {
                    let mut reader = reader(format, Piecemeal::new(text.as_bytes(), bytes), OnError::Fail);
                    assert_eq!(read(&mut reader, rows_max), (vec![1, 2, 3], vec![], None), "{format} by {bytes}");
                }
            }
        }
        for format in ["json", "csv"] {
            assert_eq!(read(&mut reader(format, Piecemeal::new(b"", 1), OnError::Fail), 9), (vec![], vec![], None));
        }
    }

    #[test]
    fn a_bad_record_is_told_with_its_line_behind_the_rows_before_it() {
        for bytes in [1, 5, 1000] {
            let mut reader =
                reader("json", Piecemeal::new(b"{\"a\":1}\n\n{\"a\":\"x\"}\n{\"a\":3}\n", bytes), OnError::Fail);
            let (rows, _, error) = read(&mut reader, 100);
            assert_eq!(rows, [1]);
            assert!(error.as_ref().unwrap().starts_with("standard input line 3, byte 9, column 'a': "), "{error:?}");
        }
    }

    #[test]
    fn bad_records_are_left_out_if_the_table_says_so() {
        let schema = Arc::new(Schema::new(vec![Field::new("reason", DataType::Utf8, true)]));
        let letters = OnError::DeadLetter(Arc::new(DeadLetters::new("t", schema).unwrap()));
        let long = "x".repeat(17 << 20);
        let text = format!("bad\n{{\"a\":1}}\n{{\"a\":\"x\"}}\n{long}\n{{\"a\":2}}\n{{\"a\"");
        for bytes in [1 << 20, 1 << 30] {
            let mut reader = reader("json", Piecemeal::new(text.as_bytes(), bytes), letters.clone());
            let (rows, bad, error) = read(&mut reader, 100);
            assert_eq!((rows, error), (vec![1, 2], None));
            let at: Vec<_> = bad.iter().map(|(position, _)| position.as_str()).collect();
            let end = 22 + (17 << 20) + 1 + 8;
            assert_eq!(at, [0, 12, 22, end].map(|byte| format!("standard input byte {byte}")));
            assert_eq!((bad[0].1.as_str(), bad[1].1.as_str(), bad[3].1.as_str()), ("bad", "{\"a\":\"x\"}", "{\"a\""));
            assert!(bad[2].1.len() >= 1 << 20 && long.starts_with(&bad[2].1));
        }
    }

    #[test]
    fn it_cannot_be_resumed() {
        let mut reader = reader("json", Piecemeal::new(b"", 1), OnError::Fail);
        let split = Split { lineage: LINEAGE.into(), sequence: 0, is_endless: false, description: Position::Null };
        let error = reader.add_split(split, Some(serde_json::json!({ "offset": 8 }))).unwrap_err();
        assert!(error.to_string().starts_with("standard input cannot be read again"), "{error}");
    }
}
