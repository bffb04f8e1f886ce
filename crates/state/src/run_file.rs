//! The bytes of runs: one file a subtask and epoch, holding each new run as an Arrow IPC stream behind the other.
//!
//! Where a run begins, how long it is and its CRC-32 stand in its [`RunRef`], that is: in the manifest.

use std::path::Path;

use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::root_as_message;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;
use ruslo_core::error::{Error, Result};

use crate::manifest::{RunLayout, RunRef};

/// Appends one run to the bytes of a file; its offset and length in it.
pub fn encode(batch: &RecordBatch, file: &mut Vec<u8>) -> Result<(u64, u64)> {
    let offset = file.len();
    let mut writer = StreamWriter::try_new(&mut *file, batch.schema_ref())?;
    writer.write(batch)?;
    writer.finish()?;
    drop(writer);
    Ok((offset as u64, (file.len() - offset) as u64))
}

/// The run that `reference` names in the bytes of its file.
///
/// # Errors
/// `Corrupt`, naming the file and what does not fit.
pub fn decode(reference: &RunRef, path: &Path, file: &[u8]) -> Result<RecordBatch> {
    if reference.layout == RunLayout::Keyed {
        let path = path.display();
        return Err(Error::usage(format!("{path}: this is of a keyed table, whose rows cannot be laid out anew")));
    }
    let corrupt = |what: &str| Error::corrupt(format!("{}: {what}", path.display()));
    let bytes = checked(reference, path, file)?;
    check_messages(bytes).map_err(corrupt)?;
    // The checksum fits, so this was written on purpose; but the library panics over some bytes that are no batch.
    let read = std::panic::catch_unwind(|| StreamReader::try_new(bytes, None)?.next().transpose());
    let read = read.unwrap_or_else(|_| Err(ArrowError::IpcError("it is no batch of rows".to_owned())));
    let batch = read.map_err(|e| corrupt(&e.to_string()))?.ok_or_else(|| corrupt("a run is empty"))?;
    if batch.num_rows() as u64 != reference.rows {
        return Err(corrupt(&format!("a run has {} rows instead of {}", batch.num_rows(), reference.rows)));
    }
    Ok(batch)
}

/// The bytes of the run that `reference` names in those of its file.
///
/// # Errors
/// `Corrupt`, if they are not as they were written.
pub fn checked<'a>(reference: &RunRef, path: &Path, file: &'a [u8]) -> Result<&'a [u8]> {
    let corrupt = |what: &str| Error::corrupt(format!("{}: {what}", path.display()));
    let start = usize::try_from(reference.offset).map_err(|_| corrupt("an offset is out of range"))?;
    let length = usize::try_from(reference.length).map_err(|_| corrupt("a length is out of range"))?;
    let bytes = start
        .checked_add(length)
        .and_then(|end| file.get(start..end))
        .ok_or_else(|| corrupt(&format!("the file ends before byte {}", start.saturating_add(length))))?;
    if crc32fast::hash(bytes) != reference.crc32 {
        return Err(corrupt(&format!("the checksum of bytes {start}..{} does not fit", start + length)));
    }
    Ok(bytes)
}

/// That each message of a stream is as long as it says and is not compressed: otherwise a few bytes could ask for all of
/// the machine's memory.
fn check_messages(mut bytes: &[u8]) -> Result<(), &'static str> {
    loop {
        let (start, rest) = bytes.split_first_chunk::<8>().ok_or("a run is cut off")?;
        let [0xff, 0xff, 0xff, 0xff, length @ ..] = start else { return Err("a run's message does not begin as one") };
        let length = u32::from_le_bytes(*length);
        if length == 0 {
            return Ok(());
        }
        let (head, rest) = rest.split_at_checked(length as usize).ok_or("a run's message is cut off")?;
        let message = root_as_message(head).map_err(|_| "a run's message is damaged")?;
        let dictionary = message.header_as_dictionary_batch().and_then(|dictionary| dictionary.data());
        if message.header_as_record_batch().or(dictionary).is_some_and(|rows| rows.compression().is_some()) {
            return Err("a run is compressed, which none is");
        }
        let body = usize::try_from(message.bodyLength()).ok().and_then(|length| rest.split_at_checked(length));
        bytes = body.ok_or("a run's rows are cut off")?.1;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, StringArray};

    use super::*;

    fn stored(values: &[&str], file: &mut Vec<u8>) -> RunRef {
        let column: ArrayRef = Arc::new(StringArray::from(values.to_vec()));
        let batch = RecordBatch::try_from_iter([("k", column)]).unwrap();
        let (offset, length) = encode(&batch, file).unwrap();
        let crc32 = crc32fast::hash(&file[offset as usize..]);
        RunRef { offset, length, crc32, rows: values.len() as u64, ..RunRef::for_test("x.arrow", 0, 0..128) }
    }

    #[test]
    fn runs_behind_each_other_are_found_again() {
        let mut file = Vec::new();
        let (a, b) = (stored(&["a", "b"], &mut file), stored(&["c"], &mut file));
        assert_eq!(decode(&a, Path::new("x"), &file).unwrap().num_rows(), 2);
        assert_eq!(decode(&b, Path::new("x"), &file).unwrap().num_rows(), 1);
    }

    #[test]
    fn bytes_with_a_fitting_checksum_cannot_ask_for_more_memory_than_they_are() {
        let refused = |bytes: &[u8]| {
            let (length, crc32) = (bytes.len() as u64, crc32fast::hash(bytes));
            let run = RunRef { length, crc32, ..RunRef::for_test("x.arrow", 0, 0..128) };
            decode(&run, Path::new("x.arrow"), bytes).unwrap_err().to_string()
        };
        assert_eq!(refused(b"\xff\xff\xff\xff\xff\xff\xff\x7f"), "x.arrow: a run's message is cut off");
        assert!(refused(b"\xff\xff\xff\xff\0\0\0\0").starts_with("x.arrow: "), "no message at all");
        assert_eq!(refused(b""), "x.arrow: a run is cut off");
        let mut whole = Vec::new();
        stored(&["a", "b"], &mut whole);
        assert_eq!(refused(&whole[..whole.len() - 9]), "x.arrow: a run's rows are cut off");
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_corruption_not_an_answer() {
        let mut file = Vec::new();
        let run = stored(&["a", "b", "c"], &mut file);
        for byte in 0..file.len() {
            let mut damaged = file.clone();
            damaged[byte] ^= 1 << (byte % 8);
            let error = decode(&run, Path::new("x.arrow"), &damaged).unwrap_err();
            assert_eq!(error.kind(), ruslo_core::error::ErrorKind::Corrupt);
            assert!(error.to_string().starts_with("x.arrow: "), "{error}");
            assert!(decode(&run, Path::new("x.arrow"), &file[..byte]).is_err());
        }
    }
}
