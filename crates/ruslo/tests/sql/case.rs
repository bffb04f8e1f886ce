//! The format of a test file: a comment, then sections.
//!
//! ```text
//! # What the file shows.
//!
//! === input trips.json            a file in ${dir}; compressed if its name ends in .gz or .zst; `cut 9` takes the last 9 bytes off
//! {"id": 1}
//!
//! === file trips.parquet          a file in ${dir}, one of those in `files` here; `cut 9` as above
//!
//! === sql                         a script that reads from ${dir} and writes lines to ${out}
//! INSERT INTO result SELECT id FROM trips;
//!
//! === rows                        the lines that are written, in any order
//! {"id":1}
//!
//!                                 of a table of 'changelog' = 'debezium' the rows that are there at the end; a change
//!                                 that takes away a row that is not there is wrong
//!
//! === changelog 1                 the changes as 'print' shows them, in order, of a plain run with parallelism 1 and
//!                                 batches of 1 row, beside `rows`; every table is printed instead of written
//!
//! === rows bad                    the lines written to ${out}/bad, where a script writes several tables
//!
//! === late 2                      how many late rows are counted; 0 without this section
//!
//! === skipped 2                   how many bad records are skipped; 0 without this section
//!
//! === ahead 2                     how many rows are ahead of the clock, which stands about at 1970-01-01 00:00:00
//!
//! ${dir} in rows and errors is the inputs' folder.
//!
//! === error data                  instead of rows: the kind of error, and parts of its message, one a line
//!
//! === rows in order               instead of `rows`: they come in this order
//!
//! === batch only                  why the file is run in batch mode alone
//!
//! === streaming only              why the file is not run in batch mode too; files with late or ahead rows need not
//!                                 say so
//!
//! === duckdb                      for expect.py only
//! ```

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

/// A test file.
#[derive(Debug)]
pub(crate) struct Case {
    /// The file's name without its ending.
    pub(crate) name: String,
    pub(crate) inputs: Vec<Input>,
    pub(crate) sql: String,
    pub(crate) expected: Expected,
    /// The engines that have this answer.
    pub(crate) engines: Engines,
    /// The rows as they stand, where their order counts.
    pub(crate) in_order: Option<Vec<String>>,
    /// What is printed with parallelism 1 and batches of so many rows.
    pub(crate) changelog: Option<(usize, Vec<String>)>,
}

/// The engines that a file is run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engines {
    Both,
    Streaming,
    Batch,
}

/// A file to read from.
#[derive(Debug)]
pub(crate) struct Input {
    name: String,
    content: Content,
    cut_bytes: usize,
}

#[derive(Debug)]
enum Content {
    /// Made up.
    Bytes(Vec<u8>),
    Text(String),
    /// What stands in `files`.
    File,
}

/// What comes of a test file.
#[derive(Debug)]
pub(crate) enum Expected {
    Answer(Answer),
    Error { kind: String, parts: Vec<String> },
}

/// The rows that were written, sorted, and how many were counted as what.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Answer {
    /// Those of `${out}/bad` begin with `bad: `.
    pub(crate) rows: Vec<String>,
    pub(crate) counts: Counts,
}

/// Rows that were counted for what is difficult about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) late: u64,
    pub(crate) skipped: u64,
    pub(crate) ahead: u64,
}

impl Case {
    /// Reads a test file.
    pub(crate) fn read(path: &Path) -> Self {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        Self::parse(name, &text).unwrap_or_else(|sentence| panic!("{name}.test: {sentence}"))
    }

    fn parse(name: &str, text: &str) -> Result<Self, String> {
        let (comment, sections) = sections(text);
        if !comment.starts_with("# ") {
            return Err("the file does not begin with a comment that says what it shows".to_owned());
        }
        let (mut inputs, mut sql, mut rows, mut error) = (Vec::new(), None, None::<Vec<String>>, None);
        let mut counts = Counts::default();
        let number = |text: &str| text.parse().map_err(|_| format!("'{text}' is not a number"));
        let (mut engines, mut in_order, mut changelog) = (Engines::Both, None, None);
        for (heading, body) in sections {
            match *heading.split(' ').collect::<Vec<_>>() {
                ["input", name] => inputs.push(Input::text(name, body, 0)),
                ["file", name] => inputs.push(Input::file(name, 0)),
                ["file", name, "cut", bytes] => inputs.push(Input::file(name, number(bytes)? as usize)),
                ["input", name, "cut", bytes] => inputs.push(Input::text(name, body, number(bytes)? as usize)),
                ["sql"] => sql = Some(body),
                ["rows"] => rows.get_or_insert_default().extend(lines(&body)),
                ["rows", folder] => {
                    let lines = lines(&body).into_iter().map(|line| format!("{folder}: {line}"));
                    rows.get_or_insert_default().extend(lines);
                }
                ["late", count] => counts.late = number(count)?,
                ["skipped", count] => counts.skipped = number(count)?,
                ["ahead", count] => counts.ahead = number(count)?,
                ["error", kind] => error = Some(Expected::Error { kind: kind.to_owned(), parts: lines(&body) }),
                ["rows", "in", "order"] => {
                    in_order = Some(lines(&body));
                    rows = Some(lines(&body));
                }
                ["changelog", rows] => changelog = Some((number(rows)? as usize, lines(&body))),
                ["streaming", "only"] if !body.trim().is_empty() => engines = Engines::Streaming,
                ["batch", "only"] if !body.trim().is_empty() => engines = Engines::Batch,
                ["duckdb"] => {}
                _ => return Err(format!("there is no section '{heading}'")),
            }
        }
        let expected = match (rows, error) {
            (Some(mut rows), None) => {
                rows.sort();
                Expected::Answer(Answer { rows, counts })
            }
            (None, Some(error)) => error,
            _ => return Err("the file has either 'rows' or 'error'".to_owned()),
        };
        let sql = sql.ok_or("the file has no 'sql'")?;
        if (counts.late, counts.ahead) != (0, 0) {
            engines = Engines::Streaming;
        }
        Ok(Self { name: name.to_owned(), inputs, sql, expected, engines, in_order, changelog })
    }

    /// A case that was made up, for streaming mode.
    pub(crate) fn made_up(name: &str, inputs: Vec<Input>, sql: String, expected: Expected) -> Self {
        let (engines, in_order, changelog) = (Engines::Streaming, None, None);
        Self { name: name.to_owned(), inputs, sql, expected, engines, in_order, changelog }
    }

    /// Writes the inputs into `folder`.
    pub(crate) fn write_inputs(&self, folder: &Path) {
        self.inputs.iter().for_each(|input| input.write(folder));
    }
}

impl Input {
    /// A file of these bytes.
    pub(crate) fn new(name: &str, bytes: Vec<u8>) -> Self {
        Self { name: name.to_owned(), content: Content::Bytes(bytes), cut_bytes: 0 }
    }

    fn file(name: &str, cut_bytes: usize) -> Self {
        Self { name: name.to_owned(), content: Content::File, cut_bytes }
    }

    fn text(name: &str, body: String, cut_bytes: usize) -> Self {
        Self { name: name.to_owned(), content: Content::Text(body), cut_bytes }
    }

    fn write(&self, folder: &Path) {
        let path = folder.join(&self.name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut bytes = match &self.content {
            Content::Text(text) => text.as_bytes().to_vec(),
            Content::Bytes(bytes) => bytes.clone(),
            Content::File => {
                let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sql/files");
                std::fs::read(files.join(&self.name)).unwrap()
            }
        };
        if self.name.ends_with(".gz") {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(&bytes).unwrap();
            bytes = encoder.finish().unwrap();
        }
        if self.name.ends_with(".zst") {
            bytes = zstd::encode_all(&bytes[..], 1).unwrap();
        }
        bytes.truncate(bytes.len() - self.cut_bytes);
        std::fs::write(path, bytes).unwrap();
    }
}

/// The comment, and the sections with their headings; a body ends with one newline or is empty.
pub(crate) fn sections(text: &str) -> (String, Vec<(String, String)>) {
    let mut comment = String::new();
    let mut sections: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix("=== "), sections.last_mut()) {
            (Some(heading), _) => sections.push((heading.to_owned(), String::new())),
            (None, Some((_, body))) => body.extend([line, "\n"]),
            (None, None) => comment.extend([line, "\n"]),
        }
    }
    for (_, body) in &mut sections {
        let length = body.trim_end_matches('\n').len();
        body.truncate(if length == 0 { 0 } else { length + 1 });
    }
    (comment, sections)
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

impl Answer {
    /// What is missing and what is too much, one a line; empty if nothing is.
    pub(crate) fn difference(&self, expected: &Self) -> String {
        let mut text = String::new();
        if self.counts != expected.counts {
            text.push_str(&format!("  counted {:?}, expected {:?}\n", self.counts, expected.counts));
        }
        let all: BTreeSet<&String> = self.rows.iter().chain(&expected.rows).collect();
        let count = |rows: &[String], row: &String| rows.iter().filter(|other| *other == row).count();
        for row in all {
            match (count(&self.rows, row), count(&expected.rows, row)) {
                (found, wanted) if found < wanted => text.push_str(&format!("  missing {}x {row}\n", wanted - found)),
                (found, wanted) if found > wanted => text.push_str(&format!("  too many {}x {row}\n", found - wanted)),
                _ => {}
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_into_its_parts() {
        let text = "# shows\n\n=== input a.json\n{}\n\n=== input b\n\n=== sql\nSELECT\n=== rows\nb\na\n\n=== late 3\n";
        let case = Case::parse("x", text).unwrap();
        let text = |input: &Input| match &input.content {
            Content::Text(text) => text.clone(),
            Content::Bytes(_) | Content::File => panic!(),
        };
        assert_eq!(case.inputs.iter().map(text).collect::<Vec<_>>(), ["{}\n", ""]);
        assert_eq!(case.sql, "SELECT\n");
        let Expected::Answer(answer) = case.expected else { panic!() };
        let counts = Counts { late: 3, ..Counts::default() };
        assert_eq!(answer, Answer { rows: vec!["a".into(), "b".into()], counts });
    }

    #[test]
    fn a_file_that_is_wrong_says_so() {
        assert!(Case::parse("x", "=== sql\nSELECT\n=== rows\n").unwrap_err().contains("comment"));
        assert!(Case::parse("x", "# y\n=== sql\nSELECT\n").unwrap_err().contains("either"));
        assert!(Case::parse("x", "# y\n=== sqll\nSELECT\n").unwrap_err().contains("'sqll'"));
    }

    #[test]
    fn differences_count_duplicates() {
        let answer =
            |rows: &[&str]| Answer { rows: rows.iter().map(|row| (*row).to_owned()).collect(), ..Answer::default() };
        assert_eq!(answer(&["a", "b", "b"]).difference(&answer(&["a", "a", "b"])), "  missing 1x a\n  too many 1x b\n");
        assert_eq!(answer(&["a"]).difference(&answer(&["a"])), "");
    }
}
