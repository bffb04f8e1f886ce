//! The options of `filesystem`, beside those of its format.

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
const ROLLING_SIZE: &str = "sink.rolling-policy.file-size";
const ROLLING_SIZE_DEFAULT: u64 = 128 << 20;

/// What [`COMPRESSION`] may be.
const COMPRESSIONS: [(&str, Option<Compression>); 3] =
    [("none", Some(Compression::None)), ("gzip", Some(Compression::Gzip)), ("zstd", Some(Compression::Zstd))];

/// What a table may say.
pub(super) const SPECS: [OptionSpec; 6] = [
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
        doc: "How rows are written in the files: 'json', 'csv', 'parquet' or 'avro'.",
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
        key: ROLLING_SIZE,
        required: false,
        doc: "Sink: a file that has reached this size is closed and another one begun (default '128 mb'). At every \
              checkpoint files are closed in any case.",
    },
    option::RATE_SPEC,
];

/// The options, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FilesystemOptions {
    /// A path of this machine, without scheme.
    pub(super) path: String,
    pub(super) split_bytes: u64,
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
            compression: option::choice(options, COMPRESSION, &COMPRESSIONS, None)?,
            rolling_bytes: option::byte_count(options, ROLLING_SIZE, ROLLING_SIZE_DEFAULT)?,
        })
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
    fn the_split_size_is_four_mebibytes_unless_given() {
        let mut options = Options::from([("path".to_owned(), "in".to_owned())]);
        assert_eq!(FilesystemOptions::parse(&options).unwrap().split_bytes, 4 << 20);
        options.insert("source.split-size".to_owned(), "1 kib".to_owned());
        assert_eq!(FilesystemOptions::parse(&options).unwrap().split_bytes, 1024);
        options.insert("source.split-size".to_owned(), "0".to_owned());
        assert!(FilesystemOptions::parse(&options).is_err());
    }
}
