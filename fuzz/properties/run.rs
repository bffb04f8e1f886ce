//! A run's file of any bytes, under a reference whose checksum fits: rows or an error that names the file, never more
//! memory than the bytes ask for.

use std::path::Path;

use ruslo_state::manifest::RunRef;
use ruslo_state::run_file;

pub fn holds(input: &[u8]) {
    let reference = RunRef {
        file: "7-0.arrow".to_owned(),
        offset: 0,
        length: input.len() as u64,
        crc32: crc32fast::hash(input),
        rows: u64::from(input.first().copied().unwrap_or_default()),
        bucket: 0,
        groups: 0..128,
    };
    match run_file::decode(&reference, Path::new("runs/7-0.arrow"), input) {
        Ok(rows) => assert_eq!(rows.num_rows() as u64, reference.rows),
        Err(error) => assert!(error.to_string().contains("7-0.arrow"), "{error}"),
    }
}
