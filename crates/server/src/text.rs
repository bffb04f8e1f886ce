//! How things read: numbers, times, plans.

use std::time::Duration;

use indicatif::{BinaryBytes, HumanCount};
use ruslo::{Guarantee, Pipeline};

/// `80,789`.
pub(crate) fn count(n: u64) -> String {
    HumanCount(n).to_string()
}

/// `1 row`, `2 rows`.
pub(crate) fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

/// `0 B`, `1.5 KiB`.
pub(crate) fn bytes(n: u64) -> String {
    BinaryBytes(n).to_string()
}

/// `24 ms`, `1.2 s`, `3 min 20 s`.
pub(crate) fn time(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match duration.as_millis() {
        0 => "0 s".to_owned(),
        millis @ 1..1_000 => format!("{millis} ms"),
        _ if seconds >= 3_600 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ if seconds >= 60 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ if duration.subsec_nanos() == 0 => format!("{seconds} s"),
        _ => format!("{:.1} s", duration.as_secs_f64()),
    }
}

/// What a pipeline is: its operators, how wide, how sure.
pub(crate) fn shape(pipeline: &Pipeline) -> String {
    let names: Vec<_> = pipeline.graph().nodes.iter().map(|node| node.name.as_str()).collect();
    format!(
        "{}: {}, parallelism {}, {}",
        pipeline.name(),
        names.join(" → "),
        pipeline.parallelism(),
        delivery(pipeline)
    )
}

/// What holds if the process dies, and if that is not all that can be, why.
fn delivery(pipeline: &Pipeline) -> String {
    match pipeline.delivery().filter(|delivery| delivery.guarantee < Guarantee::ExactlyOnce) {
        Some(delivery) => format!("{} ({})", delivery.guarantee, delivery.reason),
        None => pipeline.guarantee().to_string(),
    }
}

/// `text` as one word of a shell.
pub(crate) fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./=:,@%+".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_a_person_writes_them() {
        assert_eq!(counted(1, "row", "rows"), "1 row");
        assert_eq!(counted(80_789, "row", "rows"), "80,789 rows");
    }

    #[test]
    fn times_read_as_a_person_says_them() {
        let millis = [0, 999, 1_000, 1_250, 59_900, 60_000, 200_500, 3_660_000];
        let texts = millis.map(|millis| time(Duration::from_millis(millis)));
        assert_eq!(texts, ["0 s", "999 ms", "1 s", "1.2 s", "59.9 s", "1 min 0 s", "3 min 20 s", "1 h 1 min"]);
    }

    #[test]
    fn words_of_a_shell() {
        assert_eq!(quoted("a/b.sql"), "a/b.sql");
        assert_eq!(quoted("SELECT 'x' FROM t"), r"'SELECT '\''x'\'' FROM t'");
        assert_eq!(quoted(""), "''");
    }
}
