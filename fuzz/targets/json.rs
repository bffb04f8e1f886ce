#![no_main]

#[path = "../properties/lines.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|input: &[u8]| property::json(input));
