//! The options of `filesystem`, beside those of its format.

use std::sync::Arc;
use std::time::Duration;

use ruslo_core::connector::OptionSpec;
use ruslo_core::error::{Error, Result};

use ruslo_formats::Format;

use super::NAME;
use super::compression::Compression;
use crate::option::{self, Options};

const PATH: &str = "path";
const SPLIT_SIZE: &str = "source.split-size";
const SPLIT_SIZE_DEFAULT: u64 = 4 << 20;
const COMPRESSION: &str = "compression";
const MONITOR_INTERVAL: &str = "source.monitor-interval";
const MONITOR_MAX_AGE: &str = "source.monitor-max-age";
const MONITOR_MAX_AGE_DEFAULT_MS: u64 = 7 * 86_400_000;
const CHECK_FIRST_SIZE: &str = "source.check-first-size";
const CHECK_FIRST_SIZE_DEFAULT: u64 = 256 << 20;
const ROLLING_SIZE: &str = "sink.rolling-policy.file-size";
const ROLLING_SIZE_DEFAULT: u64 = 128 << 20;

/// What [`COMPRESSION`] may be.
const COMPRESSIONS: [(&str, Option<Compression>); 3] =
    [("none", Some(Compression::None)), ("gzip", Some(Compression::Gzip)), ("zstd", Some(Compression::Zstd))];

const CHANGELOG: &str = "changelog";

/// How a table declares that it takes changes.
pub(super) const CHANGELOG_HELP: &str =
    "in its WITH clause, 'changelog' = 'debezium' writes every change, 'final' the last state once the input has ended";

/// What a table may say.
pub(super) const SPECS: [OptionSpec; 10] = [
    OptionSpec {
        key: PATH,
        required: true,
        doc: "Source: a file, a folder (with all files in it and below) or a glob such as 'data/*.csv.gz'; files and \
              folders whose name begins with '.' or '_' are left out of folders and globs. Sink: a folder, created if \
              missing. Relative to the working directory; 'file:///absolute/path' is fine too.",
    },
    OptionSpec {
        key: "format",
        required: true,
        doc: "How rows are written in the files: 'json', 'csv', 'parquet', 'avro' or 'debezium-json'.",
    },
    OptionSpec {
        key: CHANGELOG,
        required: false,
        doc: "Sink: how the rows of a changing table are written: 'debezium' writes every change, 'final' the last state once \
              the input has ended. Not given: rows are only added, and a query that changes them is refused, unless the \
              format tells changes by itself.",
    },
    OptionSpec {
        key: COMPRESSION,
        required: false,
        doc: "How json and csv files are compressed: 'none', 'gzip' or 'zstd'. Sink: 'none' if not given. Source: as each \
              file's first bytes or its name tell (.gz, .zst), if not given.",
    },
    OptionSpec {
        key: SPLIT_SIZE,
        required: false,
        doc: "Source: how many bytes of a file are read as one piece, such as '1 mb' (default '4 mb'). Compressed files \
              are always read in one.",
    },
    OptionSpec {
        key: CHECK_FIRST_SIZE,
        required: false,
        doc: "Source: a compressed file of up to so many bytes is decompressed to its end before its first row comes, so \
              that a damaged one brings no rows (default '256 mb').",
    },
    OptionSpec {
        key: MONITOR_INTERVAL,
        required: false,
        doc: "Source: how often to look for new files, such as '10 s'; then the table has no end. Not given: what is there \
              at the start is read.",
    },
    OptionSpec {
        key: MONITOR_MAX_AGE,
        required: false,
        doc: "Source: a file that was changed so long before the newest one is not taken for new (default '7 d').",
    },
    OptionSpec {
        key: ROLLING_SIZE,
        required: false,
        doc: "Sink: a file that has reached this size is closed and another one begun (default '128 mb'). At every \
              checkpoint files are closed in any case.",
    },
    option::RATE_SPEC,
];

/// How the rows of a changing table are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Changelog {
    /// Every change, in Debezium's form.
    Debezium,
    /// The last state, once the input has ended.
    Final,
}

/// What [`CHANGELOG`] may be.
const CHANGELOGS: [(&str, Option<Changelog>); 2] =
    [("debezium", Some(Changelog::Debezium)), ("final", Some(Changelog::Final))];

/// How new files are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Monitor {
    pub(super) interval: Duration,
    /// By how much a file may be older than the newest.
    pub(super) max_age_ms: u64,
}

impl Monitor {
    fn parse(options: &Options) -> Result<Option<Self>> {
        let interval = option::duration_ms(options, MONITOR_INTERVAL)?;
        let max_age_ms = option::duration_ms(options, MONITOR_MAX_AGE)?;
        match (interval, max_age_ms) {
            (None, None) => Ok(None),
            (Some(0), _) => Err(option::wrong_value(MONITOR_INTERVAL, "0", "a time longer than 0")),
            (None, Some(_)) => Err(Error::usage(format!("option '{MONITOR_MAX_AGE}' needs '{MONITOR_INTERVAL}'"))),
            (Some(ms), max_age_ms) => {
                let max_age_ms = max_age_ms.unwrap_or(MONITOR_MAX_AGE_DEFAULT_MS);
                Ok(Some(Self { interval: Duration::from_millis(ms), max_age_ms }))
            }
        }
    }
}

/// The options, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FilesystemOptions {
    /// A path of this machine, without scheme.
    pub(super) path: String,
    pub(super) split_bytes: u64,
    /// Compressed files up to this size are decompressed to their end before their first row comes.
    pub(super) check_first_bytes: u64,
    /// Whether and how new files are looked for.
    pub(super) monitor: Option<Monitor>,
    /// If given.
    pub(super) changelog: Option<Changelog>,
    /// If given.
    pub(super) compression: Option<Compression>,
    /// How large a sink's file becomes.
    pub(super) rolling_bytes: u64,
}

impl FilesystemOptions {
    pub(super) fn parse(options: &Options) -> Result<Self> {
        Ok(Self {
            path: local_path(option::required(options, NAME, PATH)?)?,
            split_bytes: option::byte_count(options, SPLIT_SIZE, SPLIT_SIZE_DEFAULT)?,
            check_first_bytes: option::byte_count(options, CHECK_FIRST_SIZE, CHECK_FIRST_SIZE_DEFAULT)?,
            monitor: Monitor::parse(options)?,
            changelog: option::choice(options, CHANGELOG, &CHANGELOGS, None)?,
            compression: option::choice(options, COMPRESSION, &COMPRESSIONS, None)?,
            rolling_bytes: option::byte_count(options, ROLLING_SIZE, ROLLING_SIZE_DEFAULT)?,
        })
    }

    /// The format of the files, of a table of this `format`.
    ///
    /// # Errors
    /// `Usage`, if the format cannot tell changes and has to.
    pub(super) fn format(&self, format: Arc<dyn Format>) -> Result<Arc<dyn Format>> {
        match self.changelog {
            Some(Changelog::Debezium) if !format.tells_changes() => format.with_changes().ok_or_else(|| {
                let name = format.name();
                Error::usage(format!("'{CHANGELOG}' = 'debezium': it is written as json, not as '{name}'"))
            }),
            Some(Changelog::Final) if format.tells_changes() => {
                let sentence =
                    format!("'{CHANGELOG}' = 'final': nothing changes in the last state; write it as 'json'");
                Err(Error::usage(sentence))
            }
            _ => Ok(format),
        }
    }

    /// Checks that the files of a format can be compressed as asked.
    pub(super) fn check_compression(&self, format: &dyn Format) -> Result<()> {
        match self.compression {
            Some(Compression::Gzip | Compression::Zstd) if format.blocks().is_some() => {
                let name = format.name();
                let sentence = format!("'{COMPRESSION}' is for text; format '{name}' compresses within its files");
                Err(Error::usage(format!("{sentence}: see the options that begin with '{name}.'")))
            }
            _ => Ok(()),
        }
    }
}

/// A path without its `file:` scheme; other schemes are refused.
fn local_path(given: &str) -> Result<String> {
    let (scheme, rest) = match given.split_once(':') {
        Some((scheme, rest)) if rest.starts_with('/') && is_scheme(scheme) => (scheme, rest),
        _ => return Ok(given.to_owned()),
    };
    if !scheme.eq_ignore_ascii_case("file") {
        let sentence = format!("option '{PATH}' = '{given}': only local files can be used, not '{scheme}:'");
        return Err(Error::usage(sentence));
    }
    match rest.strip_prefix("//") {
        None => Ok(rest.to_owned()),
        Some(path) if path.starts_with('/') => Ok(path.to_owned()),
        Some(_) => Err(option::wrong_value(PATH, given, "three slashes and an absolute path, as in 'file:///data/in'")),
    }
}

fn is_scheme(text: &str) -> bool {
    text.len() > 1 && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_may_carry_the_file_scheme_and_no_other() {
        let cases = [
            ("data/in.csv", Some("data/in.csv")),
            ("/data/in.csv", Some("/data/in.csv")),
            ("file:///data/in.csv", Some("/data/in.csv")),
            ("FILE:/data/in.csv", Some("/data/in.csv")),
            ("a:b.csv", Some("a:b.csv")),
            ("odd name:/x", Some("odd name:/x")),
            ("file://host/in.csv", None),
            ("s3://bucket/in.csv", None),
        ];
        for (given, expected) in cases {
            assert_eq!(local_path(given).ok().as_deref(), expected, "{given}");
        }
        let error = local_path("s3://bucket/in.csv").unwrap_err();
        assert_eq!(error.to_string(), "option 'path' = 's3://bucket/in.csv': only local files can be used, not 's3:'");
    }

    #[test]
    fn a_folder_is_watched_if_its_interval_is_given() {
        let parsed = |given: &[(&str, &str)]| {
            let given =
                given.iter().chain(&[("path", "in")]).map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            FilesystemOptions::parse(&given.collect()).map(|options| options.monitor)
        };
        let (interval, max_age) = ("source.monitor-interval", "source.monitor-max-age");
        assert_eq!(parsed(&[]).unwrap(), None);
        let default = Monitor { interval: Duration::from_secs(10), max_age_ms: 604_800_000 };
        assert_eq!(parsed(&[(interval, "10 s")]).unwrap(), Some(default));
        assert_eq!(parsed(&[(interval, "10 s"), (max_age, "1 h")]).unwrap().unwrap().max_age_ms, 3_600_000);
        for wrong in [&[(interval, "0")][..], &[(interval, "soon")], &[(max_age, "1 h")]] {
            assert!(parsed(wrong).unwrap_err().to_string().contains("source.monitor-"));
        }
    }

    #[test]
    fn the_split_size_is_four_mebibytes_unless_given() {
        let mut options = Options::from([("path".to_owned(), "in".to_owned())]);
        assert_eq!(FilesystemOptions::parse(&options).unwrap().split_bytes, 4 << 20);
        options.insert("source.split-size".to_owned(), "1 kib".to_owned());
        assert_eq!(FilesystemOptions::parse(&options).unwrap().split_bytes, 1024);
        options.insert("source.split-size".to_owned(), "0".to_owned());
        assert!(FilesystemOptions::parse(&options).is_err());
    }
}
