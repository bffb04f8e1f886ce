//! The table as a sink: a folder, into which writers and the committer put part files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use ruslo_core::connector::TableDefinition;
use ruslo_core::disk::{Disk, FileKind};
use ruslo_core::error::{Error, Result};
use ruslo_core::operator::Subtask;
use ruslo_core::sink::{Committer, Guarantee, Sink, SinkContext, SinkWriter, Takes};
use ruslo_formats::Format;

use super::columns;
use super::committer::FileCommitter;
use super::compression::Compression;
use super::options::{CHANGELOG_HELP, Changelog, FilesystemOptions};
use super::part::Target;
use super::part_name;
use super::partition::Partitioner;
use super::writer::FileWriter;

/// A folder to be written.
pub(super) struct FileSink {
    options: FilesystemOptions,
    format: Arc<dyn Format>,
    /// The columns that rows have.
    schema: SchemaRef,
    /// The columns that files have.
    in_files: SchemaRef,
    partition_keys: Vec<String>,
    /// The columns of the PRIMARY KEY.
    key: Vec<usize>,
}

impl FileSink {
    /// A sink for the rows of a table.
    ///
    /// # Errors
    /// `Usage`, if there is a file at the path, the format cannot write a column or a partition cannot be one.
    pub(super) fn new(
        options: FilesystemOptions,
        format: Arc<dyn Format>,
        table: &TableDefinition,
        disk: &dyn Disk,
    ) -> Result<Self> {
        if let Some(FileKind::File(_)) = disk.kind(Path::new(&options.path))? {
            let sentence = format!("{}: this is a file; a sink's path is a folder", options.path);
            return Err(Error::usage(sentence));
        }
        options.check_compression(format.as_ref())?;
        let schema = columns::written(table)?;
        let partition_keys = table.partition_keys.clone();
        let in_files = match partitioner(&schema, &partition_keys)? {
            Some(partitioner) => partitioner.in_files(&schema)?,
            None => schema.clone(),
        };
        format.encoder(&in_files)?;
        let key = table.primary_key.iter().filter_map(|name| Some(schema.column_with_name(name)?.0)).collect();
        Ok(Self { options, format, schema, in_files, partition_keys, key })
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(&self.options.path)
    }
}

impl Sink for FileSink {
    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    fn is_two_phase(&self) -> bool {
        true
    }

    fn changelog(&self) -> Takes {
        match self.options.changelog {
            Some(Changelog::Final) => Takes::Last { key: self.key.clone() },
            _ if self.format.tells_changes() => Takes::Retract,
            _ => Takes::Append,
        }
    }

    fn changelog_help(&self) -> Option<&'static str> {
        Some(CHANGELOG_HELP)
    }

    fn takes_back(&self) -> bool {
        true
    }

    fn writer(&self, subtask: Subtask, context: &SinkContext) -> Result<Box<dyn SinkWriter>> {
        part_name::check_run(&context.run)?;
        let disk = context.environment.disk.clone();
        create_durably(disk.as_ref(), &self.path())?;
        let target = Target {
            path: self.path(),
            run: context.run.clone(),
            subtask: subtask.index,
            disk,
            format: self.format.clone(),
            schema: self.in_files.clone(),
            compression: self.options.compression.unwrap_or(Compression::None),
            rolling_bytes: self.options.rolling_bytes,
        };
        Ok(Box::new(FileWriter::new(target, partitioner(&self.schema, &self.partition_keys)?)))
    }

    fn committer(&self, context: &SinkContext) -> Result<Box<dyn Committer>> {
        part_name::check_run(&context.run)?;
        let disk = context.environment.disk.clone();
        Ok(Box::new(FileCommitter::new(self.path(), context.run.clone(), self.partition_keys.len(), disk)))
    }
}

/// What sends rows to their partitions, if there are any.
fn partitioner(schema: &SchemaRef, keys: &[String]) -> Result<Option<Partitioner>> {
    (!keys.is_empty()).then(|| Partitioner::new(schema, keys)).transpose()
}

/// Creates a folder and its parents so that they survive a power cut: each is durable before the next is created, and
/// so is the one that is there already, whose creator may have died before that.
pub(super) fn create_durably(disk: &dyn Disk, path: &Path) -> Result<()> {
    let mut new = Vec::new();
    for folder in path.ancestors().filter(|folder| !folder.as_os_str().is_empty()) {
        new.push(folder);
        if disk.kind(folder)?.is_some() {
            break;
        }
    }
    for folder in new.into_iter().rev() {
        disk.create_folder(folder)?;
        let Some(above) = folder.parent() else { continue };
        disk.sync_folder(if above.as_os_str().is_empty() { Path::new(".") } else { above })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::{ArrayRef, Date32Array, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};
    use arrow::record_batch::RecordBatch;
    use ruslo_core::connector::MetadataColumn;
    use ruslo_core::disk::LocalDisk;
    use ruslo_core::environment::Environment;
    use ruslo_core::epoch::Epoch;
    use ruslo_core::error::ErrorKind;
    use ruslo_core::sink::Committable;

    use super::super::test_disk::{Fault, FaultyDisk};
    use super::*;

    /// A sink into a new folder, on a disk that can be made to fail.
    struct Output {
        root: tempfile::TempDir,
        disk: FaultyDisk,
        context: SinkContext,
        sink: FileSink,
    }

    impl Output {
        fn new(format: &str) -> Self {
            Self::of(tempfile::tempdir().unwrap(), |path| sink(path, format).unwrap())
        }

        fn of(root: tempfile::TempDir, sink: impl FnOnce(&Path) -> FileSink) -> Self {
            let disk = FaultyDisk::new();
            let environment = Environment { disk: Arc::new(disk.clone()), ..Environment::local() };
            let sink = sink(&root.path().join("deep/out"));
            Self { root, disk, context: SinkContext { environment, run: "r-1".into() }, sink }
        }

        fn folder(&self) -> PathBuf {
            self.root.path().join("deep/out")
        }

        fn writer(&self, index: usize) -> Box<dyn SinkWriter> {
            self.sink.writer(Subtask { index, parallelism: 2 }, &self.context).unwrap()
        }

        fn committer(&self) -> Box<dyn Committer> {
            self.sink.committer(&self.context).unwrap()
        }

        /// The names in the folder.
        fn names(&self) -> Vec<String> {
            let names = LocalDisk.list(&self.folder()).unwrap().into_iter();
            names.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
        }

        /// The visible names with what is in them.
        fn visible(&self) -> Vec<(String, String)> {
            let names = self.names().into_iter().filter(|name| !name.starts_with('.'));
            let read = |name: &str| String::from_utf8(LocalDisk.read(&self.folder().join(name)).unwrap()).unwrap();
            names.map(|name| (name.clone(), read(&name))).collect()
        }
    }

    fn sink(path: &Path, format: &str) -> Result<FileSink> {
        sink_of(path, format, &[], &TableDefinition::new("t", batch(0..1).schema(), BTreeMap::new()))
    }

    fn sink_of(path: &Path, format: &str, given: &[(&str, &str)], table: &TableDefinition) -> Result<FileSink> {
        let given = [("path", path.to_str().unwrap()), ("csv.header", "true")].into_iter().chain(given.iter().copied());
        let given: BTreeMap<_, _> = given.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let format = ruslo_formats::format(format, &given)?;
        FileSink::new(FilesystemOptions::parse(&given)?, format, table, &LocalDisk)
    }

    fn batch(values: std::ops::Range<i64>) -> RecordBatch {
        let column = Arc::new(Int64Array::from_iter_values(values)) as ArrayRef;
        RecordBatch::try_from_iter_with_nullable([("a", column, true)]).unwrap()
    }

    /// Writes rows and prepares an epoch.
    fn prepared(writer: &mut dyn SinkWriter, values: std::ops::Range<i64>, epoch: u64) -> Vec<Committable> {
        let _ = writer.write(&batch(values)).unwrap();
        writer.prepare_commit(Epoch(epoch)).unwrap()
    }

    fn text(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, content)| ((*name).to_owned(), (*content).to_owned())).collect()
    }

    #[test]
    fn rows_are_visible_after_the_commit_and_not_before_and_a_second_commit_changes_nothing() {
        let output = Output::new("csv");
        let (mut first, mut second) = (output.writer(0), output.writer(1));
        let mut committables = prepared(first.as_mut(), 1..3, 1);
        committables.extend(prepared(second.as_mut(), 3..4, 1));
        assert_eq!(committables.len(), 2);
        let _ = first.write(&batch(9..10)).unwrap();
        assert_eq!(output.visible(), []);
        let parts = text(&[("part-r-1-000-00000001.csv", "a\n1\n2\n"), ("part-r-1-001-00000001.csv", "a\n3\n")]);
        for _ in 0..2 {
            output.committer().commit(&committables).unwrap();
            assert_eq!(output.visible(), parts);
        }
        let next = first.prepare_commit(Epoch(2)).unwrap();
        output.committer().commit(&next).unwrap();
        assert_eq!(output.visible().pop(), text(&[("part-r-1-001-00000001.csv", "a\n3\n")]).pop());
        assert_eq!(output.visible()[1], text(&[("part-r-1-000-00000002.csv", "a\n9\n")])[0]);
    }

    #[test]
    fn nothing_written_is_nothing_to_commit() {
        let output = Output::new("json");
        let mut writer = output.writer(0);
        let _ = writer.write(&batch(0..0)).unwrap();
        assert!(writer.prepare_commit(Epoch(1)).unwrap().is_empty());
        assert_eq!(prepared(writer.as_mut(), 0..1, 2).len(), 1);
        assert!(writer.prepare_commit(Epoch(3)).unwrap().is_empty());
        output.committer().commit(&[]).unwrap();
        assert_eq!(output.names().len(), 1);
    }

    #[test]
    fn a_crash_leaves_what_is_committed_and_nothing_else() {
        // Killed after epoch 1 was durable but not committed, epoch 2 prepared, and rows of epoch 3 on the way.
        let output = Output::new("json");
        let mut writer = output.writer(0);
        let durable = prepared(writer.as_mut(), 1..2, 1);
        let lost = prepared(writer.as_mut(), 2..3, 2);
        let _ = writer.write(&batch(0..100_000)).unwrap();
        drop(writer);
        assert_eq!(output.names().len(), 3);

        let mut committer = output.committer();
        committer.commit(&durable).unwrap();
        committer.abort_since(Epoch(1)).unwrap();
        committer.abort_since(Epoch(1)).unwrap();
        let first = ("part-r-1-000-00000001.json", "{\"a\":1}\n");
        assert_eq!((output.visible(), output.names().len()), (text(&[first]), 1));
        assert_eq!(committer.commit(&lost).unwrap_err().kind(), ErrorKind::Corrupt);

        let again = prepared(output.writer(0).as_mut(), 2..3, 4);
        committer.commit(&again).unwrap();
        assert_eq!(output.visible(), text(&[first, ("part-r-1-000-00000004.json", "{\"a\":2}\n")]));
    }

    #[test]
    fn a_second_crash_before_the_next_checkpoint_does_not_touch_what_is_committed() {
        // The attempt after the first crash begins its part under the hidden name that the committed one had.
        let output = Output::new("json");
        let durable = prepared(output.writer(0).as_mut(), 1..2, 1);
        output.committer().commit(&durable).unwrap();
        let lost = prepared(output.writer(0).as_mut(), 7..8, 2);
        assert_eq!((output.names().len(), lost.len()), (2, 1));

        let mut committer = output.committer();
        committer.commit(&durable).unwrap();
        committer.abort_since(Epoch(1)).unwrap();
        let first = text(&[("part-r-1-000-00000001.json", "{\"a\":1}\n")]);
        assert_eq!((output.visible(), output.names().len()), (first, 1));
    }

    #[test]
    fn falling_back_takes_back_what_a_damaged_checkpoint_had_committed() {
        let output = Output::new("json");
        let mut writer = output.writer(0);
        let (first, second) = (prepared(writer.as_mut(), 1..2, 1), prepared(writer.as_mut(), 2..3, 2));
        let mut committer = output.committer();
        committer.commit(&first).unwrap();
        committer.commit(&second).unwrap();
        committer.commit(&first).unwrap();
        committer.abort_since(Epoch(1)).unwrap();
        assert_eq!(output.visible(), text(&[("part-r-1-000-00000001.json", "{\"a\":1}\n")]));
    }

    #[test]
    fn leftovers_of_others_stay_and_are_walked_past() {
        let output = Output::new("json");
        let _ = output.writer(0).write(&batch(0..1)).unwrap();
        let mut other = Output { context: SinkContext { run: "r".into(), ..output.context.clone() }, ..output };
        let _ = other.writer(0).write(&batch(0..1)).unwrap();
        other.committer().abort_since(Epoch::ZERO).unwrap();
        assert_eq!(other.names(), [".part-r-1-000-after-00000000-0.tmp"]);
        other.context.run = "r-1".into();
        let committables = prepared(other.writer(0).as_mut(), 5..6, 7);
        other.committer().commit(&committables).unwrap();
        assert_eq!(other.visible(), text(&[("part-r-1-000-00000007.json", "{\"a\":5}\n")]));
    }

    #[test]
    fn missing_output_and_mad_committables_are_corrupt() {
        let output = Output::new("json");
        let mut committer = output.committer();
        let committables = prepared(output.writer(0).as_mut(), 1..2, 1);
        LocalDisk.remove(&output.folder().join(&output.names()[0])).unwrap();
        let error = committer.commit(&committables).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("out/part-r-1-000-00000001.json: this output of a completed"), "{error}");
        for mad in [serde_json::json!(1), serde_json::json!({"from": "../x", "to": "y"})] {
            assert_eq!(committer.commit(&[Committable(mad)]).unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }

    #[test]
    fn a_failed_write_or_sync_poisons_the_writer() {
        use std::io::ErrorKind as Io;
        let full = "the disk is full; free some space, then resume";
        let read_only = "the file system is read-only; make it writable, or name another folder";
        let cases = [
            (Fault::Write(Io::StorageFull), full, ErrorKind::Resource),
            (Fault::Sync(Io::StorageFull), full, ErrorKind::Resource),
            (Fault::Write(Io::ReadOnlyFilesystem), read_only, ErrorKind::Resource),
            (Fault::Sync(Io::Other), "other error", ErrorKind::Unavailable),
        ];
        for (fault, sentence, kind) in cases {
            let output = Output::new("json");
            let mut writer = output.writer(0);
            let _ = writer.write(&batch(0..1)).unwrap();
            output.disk.set(fault);
            let error = writer.prepare_commit(Epoch(1)).unwrap_err();
            let path = output.folder().join(".part-r-1-000-after-00000000-0.tmp");
            assert_eq!((error.to_string(), error.kind()), (format!("{}: {sentence}", path.display()), kind));
            output.disk.set(Fault::None);
            assert_eq!(writer.write(&batch(0..1)).unwrap_err(), error);
            assert_eq!(writer.prepare_commit(Epoch(2)).unwrap_err(), error);
        }
    }

    #[test]
    fn a_full_disk_shows_in_the_middle_of_many_rows_and_at_a_rename() {
        let output = Output::new("json");
        let mut writer = output.writer(0);
        output.disk.set(Fault::Write(std::io::ErrorKind::StorageFull));
        assert_eq!(writer.write(&batch(0..100_000)).unwrap_err().kind(), ErrorKind::Resource);
        output.disk.set(Fault::None);
        let committables = prepared(output.writer(1).as_mut(), 0..1, 1);
        output.disk.set(Fault::Rename(std::io::ErrorKind::StorageFull));
        assert_eq!(output.committer().commit(&committables).unwrap_err().kind(), ErrorKind::Resource);
        output.disk.set(Fault::None);
        output.committer().commit(&committables).unwrap();
        assert_eq!(output.visible().len(), 1);
    }

    /// A table of (day, n, k) in a folder, partitioned by day and k.
    fn partitioned(keys: &[&str]) -> TableDefinition {
        let fields = vec![
            Field::new("day", DataType::Date32, true),
            Field::new("n", DataType::Int64, true),
            Field::new("k", DataType::Utf8, true),
        ];
        let mut table = TableDefinition::new("t", Arc::new(Schema::new(fields)), BTreeMap::new());
        table.partition_keys = keys.iter().map(|key| (*key).to_owned()).collect();
        table
    }

    fn rows(table: &TableDefinition, rows: &[(Option<i32>, i64, Option<&str>)]) -> RecordBatch {
        let days: Date32Array = rows.iter().map(|(day, _, _)| *day).collect();
        let numbers: Int64Array = rows.iter().map(|(_, n, _)| Some(*n)).collect();
        let texts: StringArray = rows.iter().map(|(_, _, k)| *k).collect();
        RecordBatch::try_new(table.schema.clone(), vec![Arc::new(days), Arc::new(numbers), Arc::new(texts)]).unwrap()
    }

    /// All files below a folder with what is in them, hidden ones as `?`.
    fn tree(folder: &Path) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for path in LocalDisk.list(folder).unwrap() {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            match LocalDisk.kind(&path).unwrap() {
                Some(FileKind::Folder) => {
                    found.extend(tree(&path).into_iter().map(|(below, text)| (format!("{name}/{below}"), text)));
                }
                _ if name.starts_with('.') => found.push((name, "?".to_owned())),
                _ => found.push((name, String::from_utf8(LocalDisk.read(&path).unwrap()).unwrap())),
            }
        }
        found
    }

    #[test]
    fn partitions_are_folders_named_as_hive_and_flink_name_them() {
        let root = tempfile::tempdir().unwrap();
        let table = partitioned(&["day", "k"]);
        let output = Output::of(root, |path| sink_of(path, "json", &[], &table).unwrap());
        let mut writer = output.writer(0);
        let batch = [
            (Some(19_844), 1, Some("a")),
            (None, 2, Some("x/y=50%")),
            (Some(19_844), 3, None),
            (Some(19_844), 4, Some("a")),
            (Some(-1), 5, Some("")),
            (Some(-1), 6, Some("é")),
        ];
        let _ = writer.write(&rows(&table, &batch)).unwrap();
        let _ = writer.write(&rows(&table, &[(Some(19_844), 7, Some("a"))])).unwrap();
        let committables = writer.prepare_commit(Epoch(1)).unwrap();
        assert!(tree(&output.folder()).iter().all(|(_, text)| text == "?"), "nothing is visible yet");
        output.committer().commit(&committables).unwrap();
        output.committer().commit(&committables).unwrap();
        let part = "part-r-1-000-00000001.json";
        let expected = [
            ("day=1969-12-31/k=__HIVE_DEFAULT_PARTITION__", "{\"n\":5}\n"),
            ("day=1969-12-31/k=é", "{\"n\":6}\n"),
            ("day=2024-05-01/k=__HIVE_DEFAULT_PARTITION__", "{\"n\":3}\n"),
            ("day=2024-05-01/k=a", "{\"n\":1}\n{\"n\":4}\n{\"n\":7}\n"),
            ("day=__HIVE_DEFAULT_PARTITION__/k=x%2Fy%3D50%25", "{\"n\":2}\n"),
        ];
        let expected: Vec<_> = expected.iter().map(|(f, text)| (format!("{f}/{part}"), (*text).to_owned())).collect();
        assert_eq!(tree(&output.folder()), expected);
    }

    #[test]
    fn what_a_dead_attempt_left_in_partitions_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let table = partitioned(&["k"]);
        let output = Output::of(root, |path| sink_of(path, "json", &[], &table).unwrap());
        let mut writer = output.writer(0);
        let _ = writer.write(&rows(&table, &[(None, 1, Some("a"))])).unwrap();
        let durable = writer.prepare_commit(Epoch(1)).unwrap();
        let _ = writer.write(&rows(&table, &[(None, 2, Some("a")), (None, 3, Some("b"))])).unwrap();
        let lost = writer.prepare_commit(Epoch(2)).unwrap();
        let _ = writer.write(&rows(&table, &[(None, 4, Some("b"))])).unwrap();
        drop(writer);
        let mut committer = output.committer();
        committer.commit(&durable).unwrap();
        committer.commit(&lost).unwrap();
        committer.abort_since(Epoch(1)).unwrap();
        assert_eq!(tree(&output.folder()), text(&[("k=a/part-r-1-000-00000001.json", "{\"day\":null,\"n\":1}\n")]));
        let mad = serde_json::json!({"folder": "../k=a", "from": "x", "to": "y"});
        assert_eq!(committer.commit(&[Committable(mad)]).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn more_partitions_than_may_be_open_lose_nothing() {
        let root = tempfile::tempdir().unwrap();
        let table = partitioned(&["day"]);
        let output = Output::of(root, |path| sink_of(path, "csv", &[], &table).unwrap());
        let mut writer = output.writer(0);
        for round in 0..2 {
            let batch: Vec<_> = (0..90).map(|n| (Some(n), i64::from(n) + 1000 * round, Some("x"))).collect();
            let _ = writer.write(&rows(&table, &batch)).unwrap();
        }
        let committables = writer.prepare_commit(Epoch(1)).unwrap();
        output.committer().commit(&committables).unwrap();
        let mut found: Vec<i64> = tree(&output.folder())
            .iter()
            .flat_map(|(_, text)| {
                text.lines().skip(1).map(|line| line.split(',').next().unwrap().parse().unwrap()).collect::<Vec<_>>()
            })
            .collect();
        found.sort_unstable();
        let expected: Vec<i64> = (0..2).flat_map(|round| (0..90).map(move |n| n + 1000 * round)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_file_that_is_large_enough_is_followed_by_another() {
        let root = tempfile::tempdir().unwrap();
        let table = TableDefinition::new("t", batch(0..1).schema(), BTreeMap::new());
        let options = [("sink.rolling-policy.file-size", "1 kb"), ("compression", "gzip")];
        let output = Output::of(root, |path| sink_of(path, "json", &options, &table).unwrap());
        let mut writer = output.writer(0);
        for n in 0..5 {
            let _ = writer.write(&batch(n * 1000..n * 1000 + 1000)).unwrap();
        }
        let committables = writer.prepare_commit(Epoch(3)).unwrap();
        output.committer().commit(&committables).unwrap();
        let names: Vec<_> = output.names();
        assert_eq!(names.len(), 5);
        assert_eq!(names[..2], ["part-r-1-000-00000003.json.gz", "part-r-1-000-00000003_0001.json.gz"]);
        assert!(names.is_sorted());
        let mut all = String::new();
        for name in names {
            let bytes = LocalDisk.read(&output.folder().join(name)).unwrap();
            std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&bytes[..]), &mut all).unwrap();
        }
        assert!(all.lines().map(str::to_owned).eq((0..5000).map(|n| format!("{{\"a\":{n}}}"))));
        let next = prepared(writer.as_mut(), 0..1, 4);
        output.committer().commit(&next).unwrap();
        assert!(output.names().contains(&"part-r-1-000-00000004.json.gz".to_owned()));
    }

    #[test]
    fn what_cannot_be_written_is_refused_at_once() {
        let root = tempfile::tempdir().unwrap();
        let refused = |format: &str, options: &[(&str, &str)], table: &TableDefinition| {
            let error = sink_of(root.path(), format, options, table).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Usage);
            error.to_string()
        };
        assert!(refused("json", &[], &partitioned(&["day", "n", "k"])).contains("names all columns"));
        assert!(refused("json", &[], &partitioned(&["x"])).contains("PARTITIONED BY (x): no such column"));
        let compressed = refused("parquet", &[("compression", "gzip")], &partitioned(&[]));
        assert!(compressed.contains("format 'parquet' compresses within its files"), "{compressed}");
        let mut table = partitioned(&[]);
        let (column, key) = ("k".to_owned(), "file.path".to_owned());
        table.metadata = vec![MetadataColumn { column, key, is_virtual: false }];
        assert!(refused("json", &[], &table).contains("'file.path' cannot be written"));
        table.metadata[0].is_virtual = true;
        let sink = sink_of(root.path(), "json", &[], &table).unwrap();
        assert_eq!(sink.schema.fields().len(), 2, "virtual columns are not written");
    }

    #[test]
    fn a_file_in_the_folders_place_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("out.json");
        LocalDisk.write_synced(&path, b"").unwrap();
        let error = sink(&path, "json").err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().ends_with("out.json: this is a file; a sink's path is a folder"), "{error}");
    }
}
