//! The table as a source: its files as splits, and readers for them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use ruslo_core::connector::TableDefinition;
use ruslo_core::dead_letter::OnError;
use ruslo_core::disk::Disk;
use ruslo_core::environment::Environment;
use ruslo_core::error::{Error, Result};
use ruslo_core::source::{Discovered, Source, SourceReader, Split};
use ruslo_formats::Format;

use super::blocks::BlockReader;
use super::columns::Columns;
use super::compression::Compression;
use super::listing::{self, FoundFile};
use super::options::FilesystemOptions;
use super::piece::{self, Cut};
use super::reader::FileReader;

/// Files to be read.
pub(super) struct FileSource {
    options: FilesystemOptions,
    columns: Arc<Columns>,
    on_error: OnError,
    /// The names of a watched folder, as last listed.
    listed: Mutex<BTreeSet<String>>,
}

/// The files of a watched folder.
struct Looked {
    young: Vec<FoundFile>,
    /// Names of those that are too old to be taken for new.
    old: Vec<String>,
}

impl FileSource {
    /// A source of the columns `projection` of `table`.
    pub(super) fn new(
        options: FilesystemOptions,
        format: Arc<dyn Format>,
        table: &TableDefinition,
        projection: &[usize],
    ) -> Result<Self> {
        options.check_compression(format.as_ref())?;
        let columns = Columns::new(format, table, projection)?;
        Ok(Self { options, columns: Arc::new(columns), on_error: OnError::Fail, listed: Mutex::default() })
    }

    /// The same with another way with bad records.
    pub(super) fn on_error(self, on_error: OnError) -> Self {
        Self { on_error, ..self }
    }

    /// The files that there are at the start.
    fn files(&self, disk: &dyn Disk) -> Result<Vec<FoundFile>> {
        match self.options.monitor {
            None => listing::files(disk, &self.options.path),
            Some(_) => listing::files_by_now(disk, &self.options.path),
        }
    }

    /// Notes the names that there are now; which of the `old` were not there before.
    fn note(&self, names: BTreeSet<String>, old: Vec<String>) -> Vec<String> {
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *listed, names);
        old.into_iter().filter(|name| !before.contains(name)).collect()
    }

    /// The files that there are now.
    fn look(&self, disk: &dyn Disk) -> Result<Looked> {
        let max_age_ms = self.options.monitor.map_or(u64::MAX, |monitor| monitor.max_age_ms);
        let mut found = Vec::new();
        for file in listing::files_by_now(disk, &self.options.path)? {
            match disk.modified(&file.path) {
                Ok(time) => found.push((file, time)),
                Err(error) => skip_if_gone(disk, &file, error)?,
            }
        }
        let newest = found.iter().filter_map(|(_, time)| *time).max();
        let is_young =
            |time: Option<i64>| newest.zip(time).is_none_or(|(newest, time)| newest.abs_diff(time) <= max_age_ms);
        let (young, old): (Vec<_>, Vec<_>) = found.into_iter().partition(|(_, time)| is_young(*time));
        let old = names(old.iter().map(|(file, _)| file)).collect();
        Ok(Looked { young: young.into_iter().map(|(file, _)| file).collect(), old })
    }

    /// How files are cut.
    fn cut(&self) -> Cut {
        let format = &self.columns.format;
        let is_splittable = format.blocks().map_or(format.is_splittable(), |blocks| blocks.is_splittable());
        let compression = if format.blocks().is_some() { Some(Compression::None) } else { self.options.compression };
        let split_bytes = if is_splittable { self.options.split_bytes } else { u64::MAX };
        Cut { split_bytes, compression, modified: self.columns.wants_modification_time() }
    }

    /// An empty text is a table without rows, but a file of blocks says at least that it is one.
    fn check_not_empty(&self, file: &FoundFile) -> Result<()> {
        match file.size == 0 && self.columns.format.blocks().is_some() {
            true => {
                let (path, name) = (file.path.display(), self.columns.format.name());
                Err(Error::data(format!("{path}: the file is empty; this is no {name} file")))
            }
            false => Ok(()),
        }
    }
}

impl Source for FileSource {
    fn schema(&self) -> SchemaRef {
        self.columns.schema.clone()
    }

    fn tells_changes(&self) -> bool {
        self.columns.format.tells_changes()
    }

    fn splits(&self, environment: &Environment) -> Result<Vec<Split>> {
        let disk = environment.disk.as_ref();
        let (files, mut splits) = (self.files(disk)?, Vec::new());
        self.note(names(&files).collect(), Vec::new());
        for file in files {
            self.check_not_empty(&file)?;
            splits.extend(piece::cut(disk, &file, self.cut())?);
        }
        // Paths sort by component, lineages as text: 'a/b' and 'a.b' differ in that.
        splits.sort_by_key(Split::id);
        Ok(splits)
    }

    fn is_bounded(&self) -> bool {
        self.options.monitor.is_none()
    }

    fn monitor_interval(&self) -> Option<Duration> {
        self.options.monitor.map(|monitor| monitor.interval)
    }

    fn discover(&self, environment: &Environment, known: &BTreeSet<String>) -> Result<Discovered> {
        let disk = environment.disk.as_ref();
        let Looked { young, old } = self.look(disk)?;
        let is_new = |file: &&FoundFile| file.path.to_str().is_none_or(|path| !known.contains(path));
        let mut splits = Vec::new();
        for file in young.iter().filter(is_new) {
            match piece::cut(disk, file, self.cut()) {
                Ok(pieces) => splits.extend(pieces),
                Err(error) => skip_if_gone(disk, file, error)?,
            }
        }
        splits.sort_by_key(Split::id);
        let mut listed: BTreeSet<_> = names(&young).collect();
        let forgettable = known.iter().filter(|name| !listed.contains(*name)).cloned().collect();
        listed.extend(old.iter().cloned());
        let mut too_old = self.note(listed, old);
        too_old.retain(|name| !known.contains(name));
        Ok(Discovered { splits, forgettable, too_old })
    }

    fn reader(&self, environment: &Environment) -> Result<Box<dyn SourceReader>> {
        let (columns, disk, on_error) = (self.columns.clone(), environment.disk.clone(), self.on_error.clone());
        Ok(match columns.format.blocks() {
            Some(_) => Box::new(BlockReader::new(columns, disk, on_error)),
            None => Box::new(FileReader::new(columns, disk, on_error).checking_first(self.options.check_first_bytes)),
        })
    }
}

/// The names by which files are known.
fn names<'a>(files: impl IntoIterator<Item = &'a FoundFile>) -> impl Iterator<Item = String> {
    files.into_iter().filter_map(|file| file.path.to_str().map(str::to_owned))
}

/// A watched file may go as it came.
fn skip_if_gone(disk: &dyn Disk, file: &FoundFile, error: Error) -> Result<()> {
    if disk.kind(&file.path)?.is_none() { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use arrow::datatypes::{DataType, Field, Schema};
    use ruslo_core::connector::{Bound, Comparison, MetadataColumn};
    use ruslo_core::disk::{Disk, LocalDisk};
    use ruslo_core::error::ErrorKind;
    use ruslo_core::source::{Budget, Polled};

    use super::super::test_disk::{Fault, FaultyDisk};
    use super::*;

    fn source(path: &Path, format: &str) -> FileSource {
        let given = [("path", path.to_str().unwrap()), ("source.split-size", "4")];
        let given = given.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let options = FilesystemOptions::parse(&given.into()).unwrap();
        let options_of_format = BTreeMap::from([("csv.header".to_owned(), "true".to_owned())]);
        let format = ruslo_formats::format(format, &options_of_format).unwrap();
        let fields = vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8, true)];
        let table = TableDefinition::new("t", Arc::new(Schema::new(fields)), BTreeMap::new());
        FileSource::new(options, format, &table, &[1]).unwrap()
    }

    #[test]
    fn splits_are_ordered_by_lineage_as_text_and_place() {
        let folder = tempfile::tempdir().unwrap();
        LocalDisk.create_folder(&folder.path().join("a")).unwrap();
        for name in ["a/b", "a.c", "b"] {
            LocalDisk.write_synced(&folder.path().join(name), b"12345").unwrap();
        }
        let splits = source(folder.path(), "json").splits(&Environment::local()).unwrap();
        assert!(splits.is_sorted_by_key(Split::id));
        let named: Vec<_> = splits.iter().map(|s| (s.lineage.rsplit_once('/').unwrap().1, s.sequence)).collect();
        assert_eq!(named, [("a.c", 0), ("a.c", 1), ("b", 0), ("b", 1), ("b", 0), ("b", 1)]);
    }

    #[test]
    fn an_empty_file_and_a_lone_header_have_no_rows() {
        let folder = tempfile::tempdir().unwrap();
        for (name, content, splits_expected) in
            [("empty.csv", "", 0), ("header.csv", "a,b", 1), ("line.csv", "a,b\r\n", 2)]
        {
            let path = folder.path().join(name);
            LocalDisk.write_synced(&path, content.as_bytes()).unwrap();
            let source = source(&path, "csv");
            let environment = Environment::local();
            let splits = source.splits(&environment).unwrap();
            assert_eq!(splits.len(), splits_expected);
            let mut reader = source.reader(&environment).unwrap();
            for split in splits {
                let id = split.id();
                reader.add_split(split, None).unwrap();
                assert!(matches!(reader.poll(Budget { rows_max: 9 }).unwrap(), Polled::Finished(done) if done == id));
            }
        }
    }

    #[test]
    fn the_schema_is_the_projection() {
        let source = source(Path::new("in"), "json");
        assert_eq!(source.schema().fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>(), ["b"]);
    }

    /// Everything that a table's files hold, as text.
    fn read_all(table: &TableDefinition, projection: &[usize]) -> Result<Vec<String>> {
        let environment = Environment::local();
        let format = ruslo_formats::format(table.options.get("format").unwrap(), &table.options)?;
        let source = FileSource::new(FilesystemOptions::parse(&table.options)?, format, table, projection)?;
        let mut reader = source.reader(&environment)?;
        for split in source.splits(&environment)? {
            reader.add_split(split, None)?;
        }
        let mut rows = Vec::new();
        loop {
            match reader.poll(Budget { rows_max: 2 })? {
                Polled::Batch { batch, .. } => {
                    assert_eq!(batch.schema(), source.schema());
                    let options = arrow::util::display::FormatOptions::new().with_null("-");
                    let shown = |c| arrow::util::display::ArrayFormatter::try_new(c, &options).unwrap();
                    let columns: Vec<_> = batch.columns().iter().map(|c| shown(c.as_ref())).collect();
                    let row = |row| columns.iter().map(|c| c.value(row).to_string()).collect::<Vec<_>>().join("|");
                    rows.extend((0..batch.num_rows()).map(row));
                }
                Polled::Sifted(_) | Polled::Worked(_) | Polled::Finished(_) => {}
                Polled::Pending(_) => return Ok(rows),
            }
        }
    }

    fn table(path: &Path, fields: Vec<Field>) -> TableDefinition {
        let options = [("path", path.to_str().unwrap()), ("format", "json"), ("source.split-size", "4")];
        let options = options.map(|(key, value)| (key.to_owned(), value.to_owned()));
        TableDefinition::new("t", Arc::new(Schema::new(fields)), options.into())
    }

    fn write(folder: &Path, name: &str, bytes: &[u8]) {
        let path = folder.join(name);
        LocalDisk.create_folder(path.parent().unwrap()).unwrap();
        LocalDisk.write_synced(&path, bytes).unwrap();
    }

    #[test]
    fn metadata_columns_say_which_file_a_row_is_of() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "x/one.json", b"{\"n\":1}\n{\"n\":2}\n");
        let time = DataType::Timestamp(arrow::datatypes::TimeUnit::Millisecond, None);
        let fields =
            [("p", DataType::Utf8), ("n", DataType::Int64), ("m", DataType::Utf8), ("s", DataType::Int64), ("t", time)];
        let fields = fields.map(|(name, data_type)| Field::new(name, data_type, true)).to_vec();
        let mut table = table(folder.path(), fields);
        let metadata = [("p", "file.path"), ("m", "file.name"), ("s", "file.size"), ("t", "file.modification-time")];
        let metadata = metadata.map(|(column, key)| (column.to_owned(), key.to_owned()));
        table.metadata = metadata.map(|(column, key)| MetadataColumn { column, key, is_virtual: true }).to_vec();
        let path = folder.path().join("x/one.json");
        let time = LocalDisk.modified(&path).unwrap().unwrap();
        assert!(time > 1_700_000_000_000, "{time}");
        let rows = read_all(&table, &[0, 1, 2, 3]).unwrap();
        assert_eq!(rows, [1, 2].map(|n| format!("{}|{n}|one.json|16", path.display())));
        assert_eq!(read_all(&table, &[2]).unwrap(), ["one.json", "one.json"]);
        let times = read_all(&table, &[1, 4]).unwrap();
        assert!(times[0].starts_with("1|20"), "{}", times[0]);
        table.metadata[0].key = "file.pth".to_owned();
        let error = read_all(&table, &[0]).unwrap_err();
        assert!(error.to_string().contains("has no metadata 'file.pth'; it has 'file.path', 'file.name'"), "{error}");
        (table.metadata[0].key, table.metadata[0].column) = ("file.name".to_owned(), "n".to_owned());
        let error = read_all(&table, &[0]).unwrap_err();
        assert_eq!(error.to_string(), "column 'n': the metadata 'file.name' is STRING; declare it so");
    }

    #[test]
    fn partition_columns_are_read_from_the_path() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "day=2024-05-01/k=a%2Fb/x.json", b"{\"n\":1}\n{\"n\":2,\"day\":\"not looked at\"}\n");
        write(folder.path(), "day=__HIVE_DEFAULT_PARTITION__/k=100%/x.json", b"{\"n\":3}\n");
        let fields = [("k", DataType::Utf8), ("n", DataType::Int64), ("day", DataType::Date32)];
        let mut table = table(folder.path(), fields.map(|(name, t)| Field::new(name, t, true)).to_vec());
        table.partition_keys = vec!["day".to_owned(), "k".to_owned()];
        assert_eq!(read_all(&table, &[0, 1, 2]).unwrap(), ["a/b|1|2024-05-01", "a/b|2|2024-05-01", "100%|3|-"]);
        assert_eq!(read_all(&table, &[0]).unwrap(), ["a/b", "a/b", "100%"], "no column of the files is needed");
        write(folder.path(), "day=May/k=x/x.json", b"{}\n");
        let error = read_all(&table, &[2]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(error.to_string().contains("x.json: the partition 'day=May' is no value"), "{error}");
        write(folder.path(), "a.json", b"{}\n");
        let error = read_all(&table, &[2]).unwrap_err();
        assert!(error.to_string().contains("a.json: the file is in no folder 'day=..'"), "{error}");
    }

    #[test]
    fn an_empty_file_is_no_file_of_blocks() {
        for format in ["parquet", "avro"] {
            let folder = tempfile::tempdir().unwrap();
            write(folder.path(), &format!("in.{format}"), b"");
            let mut table = table(folder.path(), vec![Field::new("n", DataType::Int64, true)]);
            table.options.insert("format".to_owned(), format.to_owned());
            let error = read_all(&table, &[0]).unwrap_err().to_string();
            let expected = format!("in.{format}: the file is empty; this is no {format} file");
            assert!(error.ends_with(&expected), "{error}");
        }
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the seam sets no times")]
    fn a_watched_folder_tells_what_is_new_and_what_can_be_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let mut table = table(&folder.path().join("*.json"), vec![Field::new("n", DataType::Int64, true)]);
        table
            .options
            .extend(["source.monitor-interval", "source.monitor-max-age"].map(|key| (key.into(), "1 h".into())));
        let format = ruslo_formats::format("json", &table.options).unwrap();
        let source = FileSource::new(FilesystemOptions::parse(&table.options).unwrap(), format, &table, &[0]).unwrap();
        assert!(!source.is_bounded() && source.monitor_interval().is_some());
        let environment = Environment::local();
        assert_eq!(source.splits(&environment).unwrap(), [], "a glob may match nothing yet");
        let mut known = BTreeSet::new();
        let name = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let discover = |known: &BTreeSet<String>| {
            let found = source.discover(&environment, known).unwrap();
            let lineages: Vec<_> = found.splits.into_iter().map(|split| (split.lineage, split.sequence)).collect();
            (lineages, found.forgettable)
        };
        for file in ["a.json", "b.json", "_c.json", ".d.json"] {
            write(folder.path(), file, b"{}\n{}\n");
        }
        write(folder.path(), "empty.json", b"");
        let all = [("a.json", 0), ("a.json", 1), ("b.json", 0), ("b.json", 1)].map(|(file, n)| (name(file), n));
        assert_eq!(discover(&known), (all.to_vec(), vec![]));
        known.extend([name("a.json"), name("b.json"), name("gone.json")]);
        assert_eq!(discover(&known), (vec![], vec![name("gone.json")]));
        let old = std::time::SystemTime::now() - Duration::from_secs(3700);
        let file = std::fs::File::options().write(true).open(name("a.json")).unwrap();
        file.set_modified(old).unwrap();
        assert_eq!(discover(&known), (vec![], vec![name("a.json"), name("gone.json")]));
        assert_eq!(discover(&BTreeSet::new()).0, all[2..], "what is old is not new");
        // What appears with an old time is told once; what was there before, and perhaps read, is not.
        let set_old = |name: &str| {
            let file = std::fs::File::options().write(true).open(folder.path().join(name)).unwrap();
            file.set_modified(old).unwrap();
        };
        write(folder.path(), "late.json", b"{}\n");
        set_old("late.json");
        let too_old = || source.discover(&environment, &known).unwrap().too_old;
        assert_eq!((too_old(), too_old()), (vec![name("late.json")], vec![]));
        set_old("b.json");
        write(folder.path(), "new.json", b"{}\n");
        assert_eq!(too_old(), Vec::<String>::new(), "b.json was listed before it became old");
    }

    #[test]
    fn row_groups_that_cannot_hold_what_is_wanted_are_not_read() {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../formats/tests/fixtures/groups.parquet");
        let mut table = table(&fixture, vec![Field::new("n", DataType::Int64, true)]);
        table.options.extend([("format".to_owned(), "parquet".to_owned())]);
        table.options.extend([("source.split-size".to_owned(), "100 b".to_owned())]);
        let bound = |comparison, value: i64| Bound {
            column: "n".to_owned(),
            comparison,
            value: Arc::new(arrow::array::Int64Array::from(vec![value])),
        };
        // Ten rows a group, from 0 on.
        let cases = [
            (vec![], 0..63),
            (vec![bound(Comparison::GreaterOrEqual, 35), bound(Comparison::Less, 41)], 30..50),
            (vec![bound(Comparison::Equal, 62)], 60..63),
            (vec![bound(Comparison::Greater, 62)], 0..0),
            (vec![bound(Comparison::LessOrEqual, 0)], 0..10),
        ];
        for (wanted, expected) in cases {
            table.wanted = wanted;
            let expected: Vec<_> = expected.map(|n: i64| n.to_string()).collect();
            assert_eq!(read_all(&table, &[0]).unwrap(), expected);
        }
    }

    #[test]
    fn what_cannot_be_listed_is_whose_fault_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in.json");
        let environment = Environment::local();
        assert_eq!(source(&path, "json").splits(&environment).unwrap_err().kind(), ErrorKind::Usage);
        LocalDisk.write_synced(&path, b"{}").unwrap();
        let disk = FaultyDisk::new();
        disk.set(Fault::Open(std::io::ErrorKind::PermissionDenied));
        let environment = Environment { disk: Arc::new(disk), ..environment };
        let error = source(&path, "json").splits(&environment).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Resource);
        assert_eq!(error.to_string(), format!("{}: permission denied", path.display()));
    }
}
