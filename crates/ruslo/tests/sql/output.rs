//! What was written, as lines: other programs' readers of the formats than ours.
//!
//! Changes are applied one after another: what is left are the rows that are there.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use ruslo_core::error::{Error, Result};

/// All rows below a folder, one a line: text as it stands, rows of other formats with `|` between columns. Rows of a
/// partition stand behind its folders' names. Nothing hidden may be there.
pub(crate) fn lines(folder: &Path) -> Result<Vec<String>> {
    let (mut lines, mut changes) = (Vec::new(), Vec::new());
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    for path in entries.map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with(['.', '_']) {
            return Err(Error::internal(format!("{} was left behind", path.display())));
        }
        match path.is_dir() {
            true => lines.extend(self::lines(&path)?.into_iter().map(|line| format!("{name}: {line}"))),
            false if name.contains(".debezium-json") => changes.push(path),
            false => lines.extend(file(&path)),
        }
    }
    lines.extend(materialised(changes)?);
    Ok(lines)
}

/// The rows that are there after the changes in `files`, of which each is of one subtask and one checkpoint.
fn materialised(mut files: Vec<PathBuf>) -> Result<Vec<String>> {
    files.sort_by_key(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        let mut parts = name.split('.').next().unwrap().rsplitn(3, '-').map(str::to_owned);
        (parts.next(), parts.next())
    });
    let mut rows: BTreeMap<String, usize> = BTreeMap::new();
    for line in files.iter().flat_map(|path| file(path)) {
        let (row, comes) = change(&line).ok_or_else(|| Error::internal(format!("no change: {line}")))?;
        let count = rows.entry(row.to_owned()).or_default();
        *count = match comes {
            true => *count + 1,
            false => {
                count.checked_sub(1).ok_or_else(|| Error::internal(format!("a row goes that is not there: {row}")))?
            }
        };
    }
    Ok(rows.into_iter().flat_map(|(row, count)| vec![row; count]).collect())
}

/// The row of a change, and whether it comes.
fn change(line: &str) -> Option<(&str, bool)> {
    let part = |before: &str, after| line.strip_prefix(before)?.strip_suffix(after);
    let comes = part(r#"{"before":null,"after":"#, r#","op":"c"}"#).map(|row| (row, true));
    comes.or_else(|| part(r#"{"before":"#, r#","after":null,"op":"d"}"#).map(|row| (row, false)))
}

fn file(path: &Path) -> Vec<String> {
    let bytes = std::fs::read(path).unwrap();
    let text = match path.extension().unwrap().to_str().unwrap() {
        "gz" => {
            let mut text = String::new();
            flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
            text
        }
        "zst" => String::from_utf8(zstd::decode_all(&bytes[..]).unwrap()).unwrap(),
        "parquet" => return parquet(path),
        "avro" => return avro(path),
        _ => String::from_utf8(bytes).unwrap(),
    };
    text.lines().map(str::to_owned).collect()
}

fn parquet(path: &Path) -> Vec<String> {
    let file = std::fs::File::open(path).unwrap();
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReader::try_new(file, 1000).unwrap();
    reader.flat_map(|batch| shown(&batch.unwrap())).collect()
}

fn avro(path: &Path) -> Vec<String> {
    let file = std::io::BufReader::new(std::fs::File::open(path).unwrap());
    let reader = arrow_avro::reader::ReaderBuilder::new().build(file).unwrap();
    reader.flat_map(|batch| shown(&batch.unwrap())).collect()
}

fn shown(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::new().with_null("NULL");
    let formatters = batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap());
    let formatters: Vec<_> = formatters.collect();
    let row = |row| formatters.iter().map(|value| value.value(row).to_string()).collect::<Vec<_>>().join("|");
    (0..batch.num_rows()).map(row).collect()
}
