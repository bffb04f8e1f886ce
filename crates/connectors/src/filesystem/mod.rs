//! `'connector' = 'filesystem'`: tables in files of any format, in one folder or in folders for partitions.
//!
//! Reading: `listing` finds the files, `piece` cuts them into byte ranges. Text is read by `reader`, a range through a
//! `window` into the format's decoder; `content` opens a file's bytes and says where in it a bad row stands; `check_first`
//! makes sure that a compressed file is whole before it brings rows. Formats of
//! blocks are read by `blocks`, whose bad rows `block_rows` tells. `columns` says what is read of a file and adds what is the same for all its rows.
//! Writing: `writer` sends rows to the `part` of their partition, a hidden file, and gives the parts up to the
//! `committer`, which renames them once the checkpoint is durable; `part_name` is what all agree on. Exactly-once.
//! `compression` and `partition` serve both ways.

mod block_rows;
mod blocks;
mod check_first;
mod columns;
mod committer;
mod compression;
mod content;
mod listing;
mod options;
mod part;
mod part_name;
mod partition;
mod piece;
mod reader;
mod sink;
mod source;
#[cfg(test)]
mod test_disk;
mod window;
mod writer;

use std::collections::BTreeMap;
use std::sync::Arc;

use ruslo_core::connector::{Connector, OptionSpec, TableDefinition};
use ruslo_core::environment::Environment;
use ruslo_core::error::Result;
use ruslo_core::sink::{Guarantee, Sink};
use ruslo_core::source::Source;
use ruslo_formats::{FORMATS, Format};

use self::options::FilesystemOptions;
use self::sink::FileSink;
use self::source::FileSource;
use crate::option;

const NAME: &str = "filesystem";
const FORMAT: &str = "format";

/// The connector; see the module.
#[derive(Debug, Clone, Copy)]
pub struct Filesystem;

impl Connector for Filesystem {
    fn name(&self) -> &'static str {
        NAME
    }

    fn metadata(&self) -> &'static [&'static str] {
        &columns::METADATA_KEYS
    }

    /// Its own options and those of the given format.
    fn options(&self, given: &BTreeMap<String, String>) -> Result<Vec<OptionSpec>> {
        let format = given.get(FORMAT).map(String::as_str);
        let of_format = FORMATS.iter().find(|spec| Some(spec.name) == format).map(|spec| spec.options);
        Ok(options::SPECS.iter().chain(of_format.unwrap_or_default()).copied().collect())
    }

    fn source_guarantee(&self) -> Option<Guarantee> {
        Some(Guarantee::ExactlyOnce)
    }

    fn sink_guarantee(&self) -> Option<Guarantee> {
        Some(Guarantee::ExactlyOnce)
    }

    fn source(&self, table: &TableDefinition, projection: &[usize], _: &Environment) -> Result<Arc<dyn Source>> {
        let options = FilesystemOptions::parse(&table.options)?;
        let format = options.format(format(table)?)?;
        let source = FileSource::new(options, format, table, projection)?;
        Ok(Arc::new(source.on_error(table.on_error.clone())))
    }

    fn sink(&self, table: &TableDefinition, environment: &Environment) -> Result<Arc<dyn Sink>> {
        let options = FilesystemOptions::parse(&table.options)?;
        let format = options.format(format(table)?)?;
        let sink = FileSink::new(options, format, table, environment.disk.as_ref())?;
        Ok(Arc::new(sink))
    }
}

fn format(table: &TableDefinition) -> Result<Arc<dyn Format>> {
    ruslo_formats::format(option::required(&table.options, NAME, FORMAT)?, &table.options)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn table(options: &[(&str, &str)]) -> TableDefinition {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        TableDefinition::new("t", schema, options)
    }

    #[test]
    fn the_formats_options_are_the_tables() {
        let keys = |format: &str| -> Vec<_> {
            let given = BTreeMap::from([("format".to_owned(), format.to_owned())]);
            Filesystem.options(&given).unwrap().into_iter().map(|spec| spec.key).collect()
        };
        assert!(keys("csv").contains(&"csv.header") && keys("csv").contains(&"path"));
        assert!(!keys("json").contains(&"csv.header"));
        assert_eq!(keys("xml").len(), options::SPECS.len());
    }

    #[test]
    fn wrong_options_are_named() {
        let cases: [(&[(&str, &str)], &str); 5] = [
            (&[("format", "csv")], "connector 'filesystem' needs the option 'path'"),
            (&[("path", "in")], "connector 'filesystem' needs the option 'format'"),
            (&[("path", "in"), ("format", "xml")], "'xml'"),
            (&[("path", "s3://b/in"), ("format", "csv")], "only local files"),
            (&[("path", "in"), ("format", "csv"), ("source.split-size", "big")], "'source.split-size' = 'big'"),
        ];
        let environment = Environment::local();
        for (options, part) in cases {
            let error = Filesystem.source(&table(options), &[0], &environment).err().unwrap();
            assert_eq!(error.kind(), ruslo_core::error::ErrorKind::Usage);
            assert!(error.to_string().contains(part), "{error}");
            assert!(Filesystem.sink(&table(options), &environment).is_err());
        }
    }
}
