#![no_main]

#[path = "../properties/run.rs"]
mod property;

// Not libFuzzer's hook, which ends the process: what panics in a library is caught, and becomes an error of the file.
libfuzzer_sys::fuzz_target!(init: std::panic::set_hook(Box::new(|_| ())), |input: &[u8]| property::holds(input));
