//! The table as a source: its files as splits, and readers for them.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use ruslo_core::dead_letter::OnError;
use ruslo_core::environment::Environment;
use ruslo_core::error::Result;
use ruslo_core::source::{Source, SourceReader, Split};
use ruslo_formats::Format;

use super::options::FilesystemOptions;
use super::reader::{Columns, FileReader};
use super::{listing, piece};

/// Files to be read.
pub(super) struct FileSource {
    options: FilesystemOptions,
    columns: Arc<Columns>,
    on_error: OnError,
}

impl FileSource {
    /// A source of the columns `projection` of `table`.
    pub(super) fn new(
        options: FilesystemOptions,
        format: Arc<dyn Format>,
        table: SchemaRef,
        projection: &[usize],
    ) -> Result<Self> {
        let columns = Columns::new(format, table, projection)?;
        Ok(Self { options, columns: Arc::new(columns), on_error: OnError::Fail })
    }

    /// The same with another way with bad records.
    pub(super) fn on_error(self, on_error: OnError) -> Self {
        Self { on_error, ..self }
    }
}

impl Source for FileSource {
    fn schema(&self) -> SchemaRef {
        self.columns.schema.clone()
    }

    fn splits(&self, environment: &Environment) -> Result<Vec<Split>> {
        let disk = environment.disk.as_ref();
        let split_bytes = if self.columns.format.is_splittable() { self.options.split_bytes } else { u64::MAX };
        let mut splits = Vec::new();
        for file in listing::files(disk, &self.options.path)? {
            splits.extend(piece::cut(disk, &file, split_bytes)?);
        }
        // Paths sort by component, lineages as text: 'a/b' and 'a.b' differ in that.
        splits.sort_by_key(Split::id);
        Ok(splits)
    }

    fn reader(&self, environment: &Environment) -> Result<Box<dyn SourceReader>> {
        Ok(Box::new(FileReader::new(self.columns.clone(), environment.disk.clone(), self.on_error.clone())))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use arrow::datatypes::{DataType, Field, Schema};
    use ruslo_core::disk::{Disk, LocalDisk};
    use ruslo_core::error::ErrorKind;
    use ruslo_core::source::{Budget, Polled};

    use super::super::test_disk::{Fault, FaultyDisk};
    use super::*;

    fn source(path: &Path, format: &str) -> FileSource {
        let options = FilesystemOptions { path: path.to_str().unwrap().to_owned(), split_bytes: 4 };
        let options_of_format = BTreeMap::from([("csv.header".to_owned(), "true".to_owned())]);
        let format = ruslo_formats::format(format, &options_of_format).unwrap();
        let fields = vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8, true)];
        FileSource::new(options, format, Arc::new(Schema::new(fields)), &[1]).unwrap()
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
