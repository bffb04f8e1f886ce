//! Figures of keyed tables: `cargo run --release -p ruslo-state --example keyed_table -- <what> [size]`.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "figures are measured on this machine's clock and disk")]

mod common;
mod count;
mod join;
mod spill;
mod upload;

const USAGE: &str = "keyed_table count [keys, M = 10] [rows, M = 40]
    rows per key, beside a plain hash table
keyed_table join [keys, M = 10] [rows, M = 40]
    a join of two sides, beside two plain hash tables of vectors
keyed_table spill [keys, M = 50] [limit, MiB = 1024; 0: none] [rows, M = 10]
    104 bytes a row, read, changed and written by Zipf keys
keyed_table dedup [keys, M = 100] [limit, MiB = 1800]
    keys that come once
keyed_table upload [GiB = 10] [epochs = 50]
    1 % of a table changes per epoch: bytes uploaded, runs to be read for a key, restore";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, other: f64| arguments.get(at).map_or(other, |text| text.parse().expect("a number"));
    let millions = |at, other| (number(at, other) * 1e6) as usize;
    match arguments.first().map(String::as_str) {
        Some("count") => count::run(millions(1, 10.0), millions(2, 40.0)),
        Some("join") => join::run(millions(1, 10.0), millions(2, 40.0)),
        Some("spill") => spill::run(millions(1, 50.0), number(2, 1024.0) as u64, millions(3, 10.0)),
        Some("dedup") => spill::dedup(millions(1, 100.0), number(2, 1800.0) as u64),
        Some("upload") => upload::run(number(1, 10.0), number(2, 50.0) as usize),
        _ => eprintln!("{USAGE}"),
    }
}
