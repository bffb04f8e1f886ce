//! A run's file of any bytes, under a reference whose checksum fits: an error that names the file, or rows that are written
//! and read again as they are; never more memory than the bytes ask for.

use std::path::Path;

use ruslo_core::error::Result;
use ruslo_state::manifest::{RunLayout, RunRef};
use ruslo_state::run_file;

use arrow::record_batch::RecordBatch;

/// The first byte of `input` is how many rows the reference says, the others are the file.
pub fn holds(input: &[u8]) {
    let Some((rows, file)) = input.split_first() else { return };
    match decoded(file, 0, u64::from(*rows)) {
        Ok(batch) => same_again(&batch),
        Err(error) => assert!(error.to_string().contains("7-0.arrow"), "{error}"),
    }
}

fn decoded(file: &[u8], offset: u64, rows: u64) -> Result<RecordBatch> {
    let run = file.get(offset as usize..).unwrap_or_default();
    let reference = RunRef {
        file: "7-0.arrow".to_owned(),
        offset,
        length: run.len() as u64,
        crc32: crc32fast::hash(run),
        rows,
        bucket: 0,
        groups: 0..128,
        layout: RunLayout::Bucket,
    };
    run_file::decode(&reference, Path::new("runs/7-0.arrow"), file)
}

/// What was read is sound: it can be written behind something else, and that is the same.
fn same_again(batch: &RecordBatch) {
    let mut file = b"something else".to_vec();
    let (offset, _) = run_file::encode(batch, &mut file).unwrap();
    assert_eq!(decoded(&file, offset, batch.num_rows() as u64).unwrap(), *batch);
}
