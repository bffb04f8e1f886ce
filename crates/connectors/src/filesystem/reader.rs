//! Reads pieces of files, one after the other, into batches.
//!
//! Life of a piece: it waits in the queue; if it is compressed, it is checked to be whole; it is opened (the file is
//! checked to be the same, its header is read once);
//! its bytes go through the window into the decoder, a batch a poll; it is finished. An error of the input comes after
//! the rows before it, and again at every further poll; a bad record is no error if the table has it left out, and comes
//! beside the rows around it. Nothing is done per row here.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::ArrayRef;
use ruslo_core::dead_letter::{OnError, Origins, Record, Rejected};
use ruslo_core::disk::Disk;
use ruslo_core::error::{Error, Result};
use ruslo_core::source::{Budget, Polled, Position, Sifted, SourceReader, Split, SplitId};
use ruslo_formats::{DecodeError, Decoder};

use super::check_first::CheckFirst;
use super::columns::Columns;
use super::compression::Compression;
use super::content;
use super::piece::{self, Piece};
use super::window::Window;
use crate::origins::{self, Kept, LineOrigins};

/// How much input goes into one batch: what bounds its size where rows are long. A single longer row is let through.
const BATCH_BYTES_MAX: u64 = 8 << 20;

/// How much is kept of a bad record that is longer than a row may be.
const ENDLESS_BYTES_KEPT: usize = 1 << 20;

/// Reads the pieces that one subtask is given, in the order in which they come.
pub(super) struct FileReader {
    columns: Arc<Columns>,
    disk: Arc<dyn Disk>,
    on_error: OnError,
    waiting: VecDeque<Waiting>,
    check_first: CheckFirst,
    file: Option<File>,
    current: Option<Current>,
    /// The last piece's buffer, for the next one.
    buffer: Vec<u8>,
}

/// A piece not opened yet.
#[derive(Debug, Clone)]
struct Waiting {
    id: SplitId,
    piece: Piece,
    /// Where to go on, if it was begun before.
    offset: Option<u64>,
}

/// What all pieces of a file share; kept from piece to piece, because they usually come one after the other.
struct File {
    path: String,
    decoder: Box<dyn Decoder>,
    /// Bytes before the first record.
    preamble: u64,
    header: Option<Arc<[u8]>>,
    /// Whether the data was decompressed to its end, because a record made no sense.
    is_whole: bool,
    /// What [`Columns::assemble`] puts between the columns.
    constants: Vec<ArrayRef>,
}

/// The piece being read.
struct Current {
    id: SplitId,
    piece: Piece,
    window: Window,
    /// Why it cannot be read on.
    failed: Option<Error>,
    /// Bad records since the last batch.
    rejected: Vec<Rejected>,
    /// The lines since the last batch, if they may be wanted.
    kept: Option<Kept>,
}

impl FileReader {
    pub(super) fn new(columns: Arc<Columns>, disk: Arc<dyn Disk>, on_error: OnError) -> Self {
        let (waiting, check_first) = (VecDeque::new(), CheckFirst::new(u64::MAX));
        Self { columns, disk, on_error, waiting, check_first, file: None, current: None, buffer: Vec::new() }
    }

    /// The same that checks only compressed files of up to so many bytes before their rows come.
    pub(super) fn checking_first(self, file_bytes_max: u64) -> Self {
        Self { check_first: CheckFirst::new(file_bytes_max), ..self }
    }

    /// Opens the next piece.
    fn open(&mut self, waiting: &Waiting) -> Result<()> {
        let Waiting { id, piece, offset } = waiting;
        if self.file.as_ref().is_none_or(|file| file.path != piece.path) {
            self.file = Some(self.open_file(piece, offset.is_some())?);
        }
        let preamble = self.file.as_ref().map_or(0, |file| file.preamble);
        let (from, skips_line) = begin(piece, *offset, preamble);
        let end = (!piece.is_last()).then_some(piece.end);
        let input = content::open(self.disk.as_ref(), piece, from)?;
        let mut window = Window::new(input, std::mem::take(&mut self.buffer), from, end);
        if skips_line {
            window.skip_line().map_err(|error| content::read_error(piece, window.read_to(), &error))?;
        }
        let kept = self.on_error.keeps_records().then(Kept::default);
        let (id, piece, rejected) = (id.clone(), piece.clone(), Vec::new());
        self.current = Some(Current { id, piece, window, failed: None, rejected, kept });
        Ok(())
    }

    fn open_file(&self, piece: &Piece, restored: bool) -> Result<File> {
        piece.check_identity(self.disk.as_ref(), since(restored))?;
        let preamble = content::preamble(self.disk.as_ref(), piece, self.columns.format.as_ref())?;
        let decoder = self.columns.decoder(preamble.header.as_deref()).map_err(|error| error.context(&piece.path))?;
        let constants = self.columns.constants(piece)?;
        let header = preamble.header.map(Arc::from);
        let preamble = preamble.bytes as u64;
        let is_whole = piece.compression() == Compression::None || self.check_first.applies(piece);
        Ok(File { path: piece.path.clone(), decoder, preamble, header, is_whole, constants })
    }
}

/// What a file is compared with.
fn since(restored: bool) -> &'static str {
    if restored { "the checkpoint" } else { "it was listed" }
}

/// Where to begin to read a piece, and whether the first line there is another piece's.
fn begin(piece: &Piece, restored: Option<u64>, preamble: u64) -> (u64, bool) {
    match restored {
        Some(offset) => (offset, false),
        None if piece.start <= preamble => (preamble, false),
        // One byte earlier, so that a record right at the start is seen to start there.
        None => (piece.start.saturating_sub(1), true),
    }
}

impl Current {
    /// Decodes up to `rows_max` rows, as far as the piece, its errors and the bound on a batch's bytes allow.
    fn decode(&mut self, file: &mut File, rows_max: usize, on_error: &OnError, disk: &dyn Disk) {
        let begun = self.window.offset();
        loop {
            let records = file.decoder.rows().saturating_add(self.rejected.len());
            let read = self.window.offset().saturating_sub(begun);
            if self.failed.is_some() || records >= rows_max || (records > 0 && read >= BATCH_BYTES_MAX) {
                return;
            }
            let (bytes, last) = self.window.bytes();
            match file.decoder.decode(bytes, last, rows_max.saturating_sub(records)) {
                Ok(decoded) if decoded.consumed > 0 => self.take(decoded.consumed),
                Ok(_) if last => return,
                Ok(_) => self.fill(),
                Err(error) if on_error.fails() => {
                    let offset = self.window.offset();
                    self.window.consume(error.offset);
                    self.failed = Some(content::bad_record(disk, &self.piece, offset, &error));
                }
                Err(error) => self.reject(file, &error, on_error, disk),
            }
        }
    }

    /// Takes decoded lines off the window.
    fn take(&mut self, count: usize) {
        let offset = self.window.offset();
        if let Some(kept) = &mut self.kept {
            kept.add(self.window.bytes().0.get(..count).unwrap_or_default(), offset);
        }
        self.window.consume(count);
    }

    /// Leaves a bad record out. Damaged data decompresses to nonsense: then that is the error.
    fn reject(&mut self, file: &mut File, error: &DecodeError, on_error: &OnError, disk: &dyn Disk) {
        self.take(error.offset);
        let offset = self.window.offset();
        if !std::mem::replace(&mut file.is_whole, true)
            && let Err(damage) = content::check_whole(disk, &self.piece, offset)
        {
            self.failed = Some(damage);
            return;
        }
        let (bytes, last) = self.window.bytes();
        let record = bytes.get(..error.length).unwrap_or_default();
        let is_cut = !last && !record.ends_with(b"\n");
        let position = origins::position(&self.piece.path, offset);
        let kept = if is_cut { record.get(..ENDLESS_BYTES_KEPT).unwrap_or(record) } else { record };
        let raw = on_error.keeps_records().then(|| origins::without_newline(kept).to_vec());
        self.rejected.push(Rejected { record: Record { position, raw }, reason: error.to_string() });
        self.window.consume(error.length);
        if is_cut && let Err(error) = self.window.skip_line() {
            self.failed = Some(content::read_error(&self.piece, self.window.read_to(), &error));
        }
    }

    /// The lines since the last batch.
    fn origins(&mut self, columns: &Arc<Columns>, file: &File) -> Option<Box<dyn Origins>> {
        let kept = std::mem::take(self.kept.as_mut()?);
        let (path, columns, header) = (file.path.clone(), Arc::clone(columns), file.header.clone());
        let decoder = Box::new(move || columns.decoder(header.as_deref()));
        Some(Box::new(LineOrigins { path, kept, decoder }))
    }

    fn fill(&mut self) {
        if let Err(error) = self.window.fill() {
            self.failed = Some(content::read_error(&self.piece, self.window.read_to(), &error));
        }
    }

    /// Checks that the piece was read to its end, when no rows came any more.
    fn check_finished(&self) -> Result<()> {
        let Piece { path, end, .. } = &self.piece;
        if !self.window.is_finished() {
            return Err(Error::internal(format!("{path}: the decoder stopped at byte {}", self.window.offset())));
        }
        if self.piece.compression() == Compression::None && self.window.offset() < *end {
            return Err(Error::data(format!("{path}: the file became smaller while it was read")));
        }
        Ok(())
    }
}

impl SourceReader for FileReader {
    fn add_split(&mut self, split: Split, position: Option<Position>) -> Result<()> {
        let offset = position.as_ref().map(piece::offset).transpose()?;
        self.waiting.push_back(Waiting { id: split.id(), piece: Piece::of(&split)?, offset });
        Ok(())
    }

    fn poll(&mut self, budget: Budget) -> Result<Polled> {
        if self.current.is_none() {
            let Some(next) = self.waiting.front().cloned() else { return Ok(Polled::Pending(None)) };
            if !self.check_first.step(self.disk.as_ref(), &next.id, &next.piece, since(next.offset.is_some()))? {
                return Ok(Polled::Worked(next.id));
            }
            self.open(&next)?;
            self.waiting.pop_front();
        }
        let (Some(mut current), Some(file)) = (self.current.take(), self.file.as_mut()) else {
            return Err(Error::internal("a piece is open, but not its file"));
        };
        current.decode(file, budget.rows_max.max(1), &self.on_error, self.disk.as_ref());
        if file.decoder.rows() > 0 || !current.rejected.is_empty() {
            let (split, position) = (current.id.clone(), piece::position(current.window.offset()));
            let batch = self.columns.assemble(file.decoder.flush()?, &file.constants)?;
            if self.on_error.fails() {
                self.current = Some(current);
                return Ok(Polled::Batch { split, batch, position });
            }
            let rejected = std::mem::take(&mut current.rejected);
            let origins = current.origins(&self.columns, file);
            self.current = Some(current);
            return Ok(Polled::Sifted(Sifted { split, batch, position, rejected, origins }));
        }
        if let Some(error) = current.failed.clone() {
            self.current = Some(current);
            return Err(error);
        }
        current.check_finished()?;
        self.buffer = current.window.into_buffer();
        Ok(Polled::Finished(current.id))
    }
}

#[cfg(test)]
#[allow(
    clippy::type_complexity,
    clippy::disallowed_methods,
    reason = "tables of cases; files damaged behind the disk's back"
)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write;

    use arrow::array::AsArray;
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use ruslo_core::connector::TableDefinition;
    use ruslo_core::disk::LocalDisk;
    use ruslo_core::error::ErrorKind;
    use ruslo_core::source::Split;

    use super::super::listing::FoundFile;
    use super::super::test_disk::{Fault, FaultyDisk};
    use super::*;

    /// Lines of all lengths, blank ones, both line ends, a byte order mark, no newline at the end.
    const JSON: &str = "\u{feff}{\"a\":1}\r\n{\"a\":2}\n\n\r\n{\"a\":3,\"long\":\"0123456789012345678901234567890\"}\n  \n\
                        {\"a\":4}\n\n\n{\"a\":5}";
    const CSV: &str = "b,a,\"c, d\"\r\nx,1,\r\n\"y, z\",2,yyyyyyyyyyyyyyyyyyyyyyyyyyyyy\n\n,3,\nx,4,\r\nx,5,\"\"\"\"\n";

    /// A file of the table (a BIGINT, b STRING), of which `a` is read.
    struct Input {
        _folder: tempfile::TempDir,
        file: FoundFile,
        columns: Arc<Columns>,
        table: TableDefinition,
    }

    impl Input {
        fn new(name: &str, content: &[u8], options: &[(&str, &str)]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(name);
            let bytes = match name.rsplit_once('.') {
                Some((_, "gz")) => gzip(content),
                Some((_, "zst")) => zstd::encode_all(content, 1).unwrap(),
                _ => content.to_vec(),
            };
            LocalDisk.write_synced(&path, &bytes).unwrap();
            let fields = vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8, true)];
            let options: BTreeMap<_, _> = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let format = if name.contains("csv") { "csv" } else { "json" };
            let format = ruslo_formats::format(format, &options).unwrap();
            let table = TableDefinition::new("t", Arc::new(Schema::new(fields)), BTreeMap::new());
            let columns = Columns::new(format, &table, &[0]).unwrap();
            let file = FoundFile { path, size: bytes.len() as u64 };
            Self { _folder: folder, file, columns: Arc::new(columns), table }
        }

        fn json() -> Self {
            Self::new("in.json", JSON.as_bytes(), &[])
        }

        fn csv() -> Self {
            Self::new("in.csv", CSV.as_bytes(), &[("csv.header", "true")])
        }

        fn splits(&self, split_bytes: u64) -> Vec<Split> {
            let cut = piece::Cut { split_bytes, compression: None, modified: false };
            piece::cut(&LocalDisk, &self.file, cut).unwrap()
        }

        fn reader(&self, splits: impl IntoIterator<Item = (Split, Option<Position>)>) -> FileReader {
            let mut reader = FileReader::new(self.columns.clone(), Arc::new(LocalDisk), OnError::Fail);
            for (split, position) in splits {
                reader.add_split(split, position).unwrap();
            }
            reader
        }

        /// What the file's own name and place read like in an error.
        fn without_folder(&self, error: &Error) -> String {
            error.to_string().replace(&format!("{}/", self.file.path.parent().unwrap().display()), "")
        }
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    /// Everything that comes out until the reader fails or has nothing more: each batch's split, rows and position.
    fn drain(reader: &mut FileReader, rows_max: usize) -> (Vec<(SplitId, Vec<i64>, Position)>, Option<Error>) {
        let mut batches = Vec::new();
        loop {
            match reader.poll(Budget { rows_max }) {
                Ok(Polled::Batch { split, batch, position }) => {
                    assert!(batch.num_rows() > 0 && batch.num_rows() <= rows_max);
                    let values = batch.column(0).as_primitive::<Int64Type>().values().to_vec();
                    batches.push((split, values, position));
                }
                Ok(Polled::Sifted(sifted)) => panic!("{sifted:?}"),
                Ok(Polled::Worked(_) | Polled::Finished(_)) => {}
                Ok(Polled::Pending(_)) => return (batches, None),
                Err(error) => return (batches, Some(error)),
            }
        }
    }

    fn rows(batches: &[(SplitId, Vec<i64>, Position)]) -> Vec<i64> {
        batches.iter().flat_map(|(_, rows, _)| rows.clone()).collect()
    }

    #[test]
    fn every_split_size_and_batch_size_gives_every_row_once_and_in_order() {
        for input in [Input::json(), Input::csv()] {
            for split_bytes in 1..=input.file.size {
                for rows_max in [1, 2, 1000] {
                    let mut reader = input.reader(input.splits(split_bytes).into_iter().map(|split| (split, None)));
                    let (batches, error) = drain(&mut reader, rows_max);
                    assert_eq!(error, None);
                    assert_eq!(rows(&batches), [1, 2, 3, 4, 5], "{:?} by {split_bytes}", input.file.path);
                }
            }
        }
    }

    #[test]
    fn reading_goes_on_from_every_position() {
        let gzipped = Input::new("in.csv.gz", CSV.as_bytes(), &[("csv.header", "true")]);
        let packed = Input::new("in.csv.zst", CSV.as_bytes(), &[("csv.header", "true")]);
        let inputs = [(Input::json(), 1000), (Input::json(), 20), (Input::csv(), 30), (gzipped, 9), (packed, 9)];
        for (input, split_bytes) in inputs {
            let splits = input.splits(split_bytes);
            let (batches, _) = drain(&mut input.reader(splits.iter().cloned().map(|split| (split, None))), 1);
            assert_eq!(batches.len(), 5);
            for read in 1..=batches.len() {
                let (id, _, position) = &batches[read - 1];
                let rest = splits.iter().filter(|split| split.id() >= *id).cloned();
                let mut reader = input.reader(rest.map(|split| {
                    let position = (split.id() == *id).then(|| position.clone());
                    (split, position)
                }));
                let (rest, error) = drain(&mut reader, 2);
                assert_eq!(error, None);
                assert_eq!(rows(&rest), [1, 2, 3, 4, 5][read..]);
            }
        }
    }

    #[test]
    fn bytes_appended_after_listing_are_not_read() {
        let input = Input::new("in.json", b"{\"a\":1}\n{\"a\":2}\n", &[]);
        let splits = input.splits(5);
        LocalDisk.remove(&input.file.path).unwrap();
        LocalDisk.write_synced(&input.file.path, b"{\"a\":1}\n{\"a\":2}\n{\"a\":3}\n").unwrap();
        let (batches, error) = drain(&mut input.reader(splits.into_iter().map(|split| (split, None))), 10);
        assert_eq!((rows(&batches), error), (vec![1, 2], None));
    }

    #[test]
    fn a_file_of_one_million_lines_comes_whole() {
        let text: String = (0..1_000_000).map(|value| format!("{{\"a\":{value}}}\n")).collect();
        let input = Input::new("in.json", text.as_bytes(), &[]);
        let mut reader = input.reader(input.splits(1 << 20).into_iter().map(|split| (split, None)));
        let (batches, error) = drain(&mut reader, 8192);
        assert_eq!(error, None);
        assert!(rows(&batches).into_iter().eq(0..1_000_000));
        assert!(batches.len() < 1_000_000 / 8192 + 20, "batches are full");
    }

    #[test]
    fn bad_input_is_named_with_its_place_after_the_rows_before_it() {
        let header = [("csv.header", "true")];
        let cases: [(&str, &[u8], &[(&str, &str)], &[i64], &str); 8] = [
            ("in.csv", b"b,a\nx,1\nx,abc\n", &header, &[1], "in.csv line 3, byte 8, column 'a': 'abc' is not a BIGINT"),
            ("in.csv.gz", b"b,a\nx,1\nx,abc\n", &header, &[1], "in.csv.gz line 3, byte 8, column 'a': 'abc' is not a"),
            ("in.csv", b"b\nx\n", &header, &[], "in.csv: "),
            ("in.csv", b"1,x\n2\n", &[], &[1], "in.csv line 2, byte 4: "),
            (
                "in.json",
                b"{\"a\":1}\n\n{\"a\":true}\n",
                &[],
                &[1],
                "in.json line 3, byte 9, column 'a': 'true' is not a",
            ),
            ("in.json", b"{\"a\":1}\n{\"a\":", &[], &[1], "in.json line 2, byte 8, column 'a': the record ends"),
            (
                "in.json",
                b"{\"a\":1}\n{\"b\":\"\xff\"}\n",
                &[],
                &[1],
                "in.json line 2, byte 8: byte 6 of the record is not",
            ),
            ("in.json", b"{\"a\":99999999999999999999}", &[], &[], "in.json line 1, byte 0, column 'a': "),
        ];
        for (name, content, options, before, sentence) in cases {
            let input = Input::new(name, content, options);
            for split_bytes in [3, 1000] {
                let mut reader = input.reader(input.splits(split_bytes).into_iter().map(|split| (split, None)));
                let (batches, error) = drain(&mut reader, 1000);
                let error = error.unwrap();
                assert_eq!(rows(&batches), before, "{error}");
                assert_eq!(error.kind(), ErrorKind::Data, "{error}");
                let text = input.without_folder(&error);
                assert!(text.starts_with(sentence), "{text}");
                assert_eq!(drain(&mut reader, 1000).1, Some(error), "it stays so");
            }
        }
    }

    #[test]
    fn a_record_longer_than_the_limit_is_refused() {
        let mut text = b"{\"a\":1}\n{\"b\":\"".to_vec();
        text.resize(text.len() + ruslo_formats::ROW_BYTES_MAX, b'x');
        text.extend_from_slice(b"\"}\n{\"a\":2}\n");
        let input = Input::new("in.json", &text, &[]);
        let mut reader = input.reader(input.splits(4 << 20).into_iter().map(|split| (split, None)));
        let (batches, error) = drain(&mut reader, 1000);
        assert_eq!(rows(&batches), [1]);
        let text = input.without_folder(&error.unwrap());
        assert!(text.starts_with("in.json line 2, byte 8: the record is longer than 16777216 bytes"), "{text}");
    }

    #[test]
    fn gzip_that_is_cut_or_damaged_is_told_after_the_rows_before_it() {
        let text: String = (0..200_000).map(|value| format!("{{\"a\":{value}}}\n")).collect();
        let whole = gzip(text.as_bytes());
        let mut damaged = whole.clone();
        let middle = damaged.len() / 2;
        damaged[middle..middle + 64].fill(0xff);
        let cases: [(&[u8], usize, &str); 4] = [
            (&whole[..whole.len() / 2], 1, "in.json.gz: the gzip data ends too early, the file is not whole; "),
            (&whole[..whole.len() - 2], 1, "in.json.gz: the gzip data ends too early, the file is not whole; 2"),
            (&damaged, 1, "in.json.gz: the gzip data is damaged ("),
            (b"{\"a\":1}\n{\"a\":2}\n", 0, "in.json.gz: the gzip data is damaged (invalid gzip header); 0 bytes"),
        ];
        for (bytes, rows_min, sentence) in cases {
            let mut input = Input::new("in.json.gz", b"", &[]);
            LocalDisk.remove(&input.file.path).unwrap();
            LocalDisk.write_synced(&input.file.path, bytes).unwrap();
            input.file.size = bytes.len() as u64;
            let splits = || input.splits(1).into_iter().map(|split| (split, None));
            let (batches, error) = drain(&mut input.reader(splits()), 100);
            assert!(batches.is_empty(), "nothing comes of a file that is not whole");
            assert!(input.without_folder(&error.unwrap()).starts_with(sentence));
            // As of a file that is too large to be checked first.
            let (batches, error) = drain(&mut input.reader(splits()).checking_first(1), 100);
            let error = error.unwrap();
            let text = input.without_folder(&error);
            assert!(text.starts_with(sentence), "{text}");
            assert_eq!(error.kind(), ErrorKind::Data);
            let rows = rows(&batches);
            assert!(rows.len() >= rows_min, "{} rows", rows.len());
            // Damaged data may make sense for a while; what is merely cut short is right as far as it goes.
            assert!(text.contains("damaged") || rows.iter().copied().eq(0..rows.len() as i64));
        }
    }

    #[test]
    fn zstd_that_is_cut_or_damaged_is_told() {
        let text: String = (0..200_000).map(|value| format!("{{\"a\":{value}}}\n")).collect();
        // With a checksum, as the command `zstd` writes it.
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.include_checksum(true).unwrap();
        encoder.write_all(text.as_bytes()).unwrap();
        let whole = encoder.finish().unwrap();
        let mut damaged = whole.clone();
        let middle = damaged.len() / 2;
        damaged[middle..middle + 64].fill(0xff);
        let cases: [(&[u8], &str); 3] = [
            (&whole[..whole.len() / 2], "in.json.zst: the zstd data ends too early, the file is not whole; "),
            (&damaged, "in.json.zst: the zstd data is damaged ("),
            (b"{\"a\":1}\n{\"a\":2}\n", "in.json.zst: the zstd data is damaged ("),
        ];
        for (bytes, sentence) in cases {
            let mut input = Input::new("in.json.zst", b"", &[]);
            LocalDisk.remove(&input.file.path).unwrap();
            LocalDisk.write_synced(&input.file.path, bytes).unwrap();
            input.file.size = bytes.len() as u64;
            let splits = input.splits(1);
            let error = drain(&mut input.reader(splits.into_iter().map(|split| (split, None))), 100).1.unwrap();
            let text = input.without_folder(&error);
            assert!(text.starts_with(sentence), "{text}");
            assert_eq!(error.kind(), ErrorKind::Data);
        }
    }

    /// A file of two rows, stored without compressing them, in which one bit of a value is turned over.
    fn turned(name: &str) -> Vec<u8> {
        let text = b"{\"a\":10}\n{\"a\":12}\n";
        let mut bytes = match name {
            "in.json.gz" => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
                encoder.write_all(text).unwrap();
                encoder.finish().unwrap()
            }
            _ => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
                encoder.include_checksum(true).unwrap();
                encoder.write_all(text).unwrap();
                encoder.finish().unwrap()
            }
        };
        let place = bytes.windows(2).position(|pair| pair == b"10").unwrap();
        bytes[place] = b'3';
        bytes
    }

    #[test]
    fn a_damaged_file_that_decompresses_brings_no_row_before_its_checksum() {
        for name in ["in.json.gz", "in.json.zst"] {
            let mut input = Input::new(name, b"", &[]);
            LocalDisk.remove(&input.file.path).unwrap();
            LocalDisk.write_synced(&input.file.path, &turned(name)).unwrap();
            input.file.size = turned(name).len() as u64;
            let splits = || input.splits(1).into_iter().map(|split| (split, None));
            for _ in 0..2 {
                let mut reader = input.reader(splits());
                let (batches, error) = drain(&mut reader, 1);
                let error = error.unwrap();
                let text = input.without_folder(&error);
                assert!(batches.is_empty() && text.contains("data is damaged ("), "{text}");
                assert!(text.starts_with(name) && text.contains(" bytes could be decompressed"), "{text}");
                assert_eq!(drain(&mut reader, 1).1, Some(error), "it stays so");
            }
            // The bound is on the file's bytes: of a larger one wrong rows may come, and then the error does.
            let size = input.file.size;
            assert!(drain(&mut input.reader(splits()).checking_first(size), 1).0.is_empty());
            let (_, error) = drain(&mut input.reader(splits()).checking_first(size - 1), 1);
            assert!(error.unwrap().to_string().contains("data is damaged ("));
        }
    }

    #[test]
    fn a_large_file_is_checked_in_steps_and_then_read() {
        let text: String = (0..300_000).map(|value| format!("{{\"a\":{value}}}\n")).collect();
        let input = Input::new("in.json.gz", text.as_bytes(), &[]);
        let mut reader = input.reader(input.splits(1).into_iter().map(|split| (split, None)));
        let mut steps = 0;
        while matches!(reader.poll(Budget { rows_max: 9000 }).unwrap(), Polled::Worked(_)) {
            steps += 1;
        }
        assert_eq!(steps, text.len().div_ceil(1 << 20), "a mebibyte a step");
        let (batches, error) = drain(&mut reader, 9000);
        assert_eq!((rows(&batches).len(), error), (300_000 - 9000, None));
    }

    #[test]
    fn several_gzip_members_are_one_file_whatever_its_name() {
        let bytes = [gzip(b"{\"a\":1}\n{\"a\""), gzip(b":2}\n")].concat();
        let input = Input::new("in.json", &bytes, &[]);
        let (batches, error) = drain(&mut input.reader(input.splits(4).into_iter().map(|split| (split, None))), 10);
        assert_eq!((rows(&batches), error), (vec![1, 2], None));
    }

    #[test]
    fn a_file_that_changed_under_a_checkpoint_is_refused() {
        let input = Input::json();
        let splits = input.splits(1000);
        LocalDisk.remove(&input.file.path).unwrap();
        LocalDisk.write_synced(&input.file.path, b"{\"a\":7}\n").unwrap();
        for (position, since) in [(None, "since it was listed"), (Some(piece::position(14)), "since the checkpoint")] {
            let error = drain(&mut input.reader([(splits[0].clone(), position)]), 10).1.unwrap();
            assert_eq!(error.kind(), ErrorKind::Data);
            let sentence = format!("in.json: the file changed {since}: it has 8 bytes instead of ");
            assert!(input.without_folder(&error).starts_with(&sentence), "{error}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_the_machines_fault_and_is_not_skipped() {
        let input = Input::json();
        let disk = FaultyDisk::new();
        let mut reader = FileReader::new(input.columns.clone(), Arc::new(disk.clone()), OnError::Fail);
        reader.add_split(input.splits(1000).remove(0), None).unwrap();
        disk.set(Fault::Open(std::io::ErrorKind::PermissionDenied));
        let error = drain(&mut reader, 10).1.unwrap();
        assert_eq!(
            (error.kind(), input.without_folder(&error)),
            (ErrorKind::Resource, "in.json: permission denied".into())
        );
        disk.set(Fault::None);
        assert_eq!(rows(&drain(&mut reader, 10).0), [1, 2, 3, 4, 5]);
    }

    /// Rows, and position and bytes of the rejected, until nothing more comes.
    fn sifted(reader: &mut FileReader, rows_max: usize) -> (Vec<i64>, Vec<(u64, String)>) {
        let (mut rows, mut rejected) = (Vec::new(), Vec::new());
        loop {
            match reader.poll(Budget { rows_max }).unwrap() {
                Polled::Sifted(found) => {
                    assert!((1..=rows_max).contains(&(found.batch.num_rows() + found.rejected.len())));
                    let values = found.batch.column(0).as_primitive::<Int64Type>().values();
                    let places: Vec<usize> = (0..values.len()).collect();
                    let origins = found.origins.unwrap().records(&places).unwrap();
                    for (value, record) in values.iter().zip(origins) {
                        let raw = String::from_utf8(record.raw.unwrap()).unwrap();
                        assert!(raw.starts_with(&format!("{{\"a\":{value}")), "{value} is not of {raw}");
                    }
                    rows.extend_from_slice(values);
                    for Rejected { record, .. } in found.rejected {
                        let (_, byte) = record.position.rsplit_once(' ').unwrap();
                        let raw = String::from_utf8_lossy(&record.raw.unwrap()).into_owned();
                        rejected.push((byte.parse().unwrap(), raw));
                    }
                }
                Polled::Worked(_) | Polled::Finished(_) => {}
                Polled::Pending(_) => return (rows, rejected),
                Polled::Batch { .. } => panic!("a batch without what was rejected"),
            }
        }
    }

    fn letters() -> OnError {
        let schema = Arc::new(Schema::empty());
        OnError::DeadLetter(Arc::new(ruslo_core::dead_letter::DeadLetters::new("t", schema).unwrap()))
    }

    #[test]
    fn bad_records_come_beside_the_rows_whatever_the_split_and_batch_size() {
        let text = b"nonsense\n{\"a\":1}\r\n{\"a\":\"x\"}\r\n\n{\"a\":2, \"b\":\"\xff\"}\n{\"a\":3,\"b\":\"ok\"}\n  \n{\"a\":4}\n{\"a\"";
        for name in ["in.json", "in.json.gz"] {
            let input = Input::new(name, text, &[]);
            let expected =
                [(0, "nonsense"), (18, "{\"a\":\"x\"}"), (30, "{\"a\":2, \"b\":\"\u{fffd}\"}"), (75, "{\"a\"")];
            let expected = expected.map(|(byte, raw)| (byte, raw.to_owned()));
            for split_bytes in 1..=input.file.size {
                for rows_max in [1, 2, 1000] {
                    let mut reader = FileReader::new(input.columns.clone(), Arc::new(LocalDisk), letters());
                    input.splits(split_bytes).into_iter().for_each(|split| reader.add_split(split, None).unwrap());
                    let (rows, rejected) = sifted(&mut reader, rows_max);
                    assert_eq!((rows, rejected.as_slice()), (vec![1, 3, 4], &expected[..]), "{name} by {split_bytes}");
                }
            }
        }
    }

    #[test]
    fn an_endless_record_is_left_out_with_its_beginning() {
        let long = "x".repeat(17 << 20);
        let text = format!("{{\"a\":1}}\n{long}\n{{\"a\":2}}\n{long}");
        let input = Input::new("in.json", text.as_bytes(), &[]);
        for split_bytes in [1 << 20, 1 << 40] {
            let mut reader = FileReader::new(input.columns.clone(), Arc::new(LocalDisk), letters());
            input.splits(split_bytes).into_iter().for_each(|split| reader.add_split(split, None).unwrap());
            let (rows, rejected) = sifted(&mut reader, 1000);
            assert_eq!(rows, [1, 2]);
            let found: Vec<_> = rejected.iter().map(|(byte, _)| *byte).collect();
            assert_eq!(found, [8, 8 + (17 << 20) + 9]);
            assert!(rejected.iter().all(|(_, raw)| long.starts_with(raw) && raw.len() >= 1 << 20));
        }
    }

    #[test]
    fn a_damaged_file_is_an_error_whatever_becomes_of_bad_records() {
        let mut input = Input::new("in.json.gz", b"{\"a\":1}\nnonsense\n{\"a\":2}\n", &[]);
        let bytes = std::fs::read(&input.file.path).unwrap();
        std::fs::write(&input.file.path, &bytes[..bytes.len() - 3]).unwrap();
        input.file.size -= 3;
        let mut reader = FileReader::new(input.columns.clone(), Arc::new(LocalDisk), OnError::Skip);
        reader.add_split(input.splits(1000).remove(0), None).unwrap();
        let error = (0..9).find_map(|_| reader.poll(Budget { rows_max: 10 }).err()).unwrap();
        assert!(error.to_string().contains("the gzip data ends too early"), "{error}");
    }

    #[test]
    fn no_columns_are_rows_all_the_same() {
        let mut input = Input::json();
        let columns = Columns::new(input.columns.format.clone(), &input.table, &[]).unwrap();
        input.columns = Arc::new(columns);
        let mut reader = input.reader([(input.splits(1000).remove(0), None)]);
        let polled = reader.poll(Budget { rows_max: 10 }).unwrap();
        assert!(matches!(polled, Polled::Batch { batch, .. } if batch.num_rows() == 5 && batch.num_columns() == 0));
    }
}
