//! The table as a sink: a folder, into which writers and the committer put part files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use ruslo_core::disk::{Disk, FileKind};
use ruslo_core::error::{Error, Result};
use ruslo_core::operator::Subtask;
use ruslo_core::sink::{Committer, Guarantee, Sink, SinkContext, SinkWriter};
use ruslo_formats::Format;

use super::committer::FileCommitter;
use super::options::FilesystemOptions;
use super::part_name;
use super::writer::{FileWriter, Folder};

/// A folder to be written.
pub(super) struct FileSink {
    path: PathBuf,
    format: Arc<dyn Format>,
    schema: SchemaRef,
}

impl FileSink {
    /// A sink for rows of `schema`.
    ///
    /// # Errors
    /// `Usage`, if there is a file at the path or the format cannot write a column.
    pub(super) fn new(
        options: FilesystemOptions,
        format: Arc<dyn Format>,
        schema: SchemaRef,
        disk: &dyn Disk,
    ) -> Result<Self> {
        let path = PathBuf::from(options.path);
        if let Some(FileKind::File(_)) = disk.kind(&path)? {
            let sentence = format!("{}: this is a file; a sink's path is a folder", path.display());
            return Err(Error::usage(sentence));
        }
        format.encoder(&schema)?;
        Ok(Self { path, format, schema })
    }
}

impl Sink for FileSink {
    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    fn writer(&self, subtask: Subtask, context: &SinkContext) -> Result<Box<dyn SinkWriter>> {
        part_name::check_run(&context.run)?;
        let disk = context.environment.disk.clone();
        create_durably(disk.as_ref(), &self.path)?;
        let folder = Folder { path: self.path.clone(), run: context.run.clone(), subtask: subtask.index, disk };
        Ok(Box::new(FileWriter::new(folder, self.format.name(), self.format.encoder(&self.schema)?)))
    }

    fn committer(&self, context: &SinkContext) -> Result<Box<dyn Committer>> {
        part_name::check_run(&context.run)?;
        let disk = context.environment.disk.clone();
        Ok(Box::new(FileCommitter::new(self.path.clone(), context.run.clone(), disk)))
    }
}

/// Creates a folder and its parents so that they survive a power cut: each is durable before the next is created, and
/// so is the one that is there already, whose creator may have died before that.
fn create_durably(disk: &dyn Disk, path: &Path) -> Result<()> {
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

    use arrow::array::{ArrayRef, Int64Array};
    use arrow::record_batch::RecordBatch;
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
            let root = tempfile::tempdir().unwrap();
            let disk = FaultyDisk::new();
            let environment = Environment { disk: Arc::new(disk.clone()), ..Environment::local() };
            let sink = sink(&root.path().join("deep/out"), format).unwrap();
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
        let options = FilesystemOptions { path: path.to_str().unwrap().to_owned(), split_bytes: 1 };
        let options_of_format = BTreeMap::from([("csv.header".to_owned(), "true".to_owned())]);
        let format = ruslo_formats::format(format, &options_of_format)?;
        FileSink::new(options, format, batch(0..1).schema(), &LocalDisk)
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
        let cases = [
            (Fault::Write(Io::StorageFull), full, ErrorKind::Resource),
            (Fault::Sync(Io::StorageFull), full, ErrorKind::Resource),
            (Fault::Write(Io::ReadOnlyFilesystem), "the file system is read-only", ErrorKind::Resource),
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
