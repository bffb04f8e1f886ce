//! A manifest of any bytes: an error that names the file, or a manifest that is written as it was read.

use std::path::Path;

use ruslo_state::manifest::Manifest;

pub fn holds(input: &[u8]) {
    check(input);
    // Behind a header that fits, so that the body is read.
    let start = "ruslo-checkpoint 1 ";
    let crc32 = crc32fast::hash(&[start.as_bytes(), input].concat());
    let header = format!("{start}{crc32:08x} {}\n", input.len());
    check(&[header.as_bytes(), input].concat());
}

fn check(bytes: &[u8]) {
    let path = Path::new("7.json");
    match Manifest::decode(path, bytes) {
        Ok(manifest) => {
            let again = Manifest::decode(path, &manifest.encode().unwrap()).unwrap();
            assert_eq!(manifest, again);
        }
        Err(error) => assert!(error.to_string().contains("7.json"), "{error}"),
    }
}
