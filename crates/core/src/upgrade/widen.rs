//! Which types hold every value of another, so that state may become them.

/// Whether every value of the SQL type `then` is one of `now`, and a key of it stays in its key group.
pub(super) fn widens(then: &str, now: &str) -> bool {
    const INTEGERS: [&str; 4] = ["TINYINT", "SMALLINT", "INT", "BIGINT"];
    let rank = |name: &str| INTEGERS.iter().position(|integer| *integer == name);
    if let (Some(then), Some(now)) = (rank(then), rank(now)) {
        return then <= now;
    }
    match (element(then), element(now), decimal(then), decimal(now)) {
        (Some(then), Some(now), _, _) => widens(then, now),
        (_, _, Some((digits, scale)), Some((more, same))) => digits <= more && scale == same,
        _ => then == now || (then, now) == ("FLOAT", "DOUBLE"),
    }
}

fn element(name: &str) -> Option<&str> {
    name.strip_prefix("ARRAY<")?.strip_suffix('>')
}

fn decimal(name: &str) -> Option<(u8, i8)> {
    let (digits, scale) = name.strip_prefix("DECIMAL(")?.strip_suffix(')')?.split_once(", ")?;
    Some((digits.parse().ok()?, scale.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_every_value_is_wider() {
        for (then, now) in [
            ("INT", "BIGINT"),
            ("INT", "INT"),
            ("FLOAT", "DOUBLE"),
            ("DECIMAL(10, 2)", "DECIMAL(12, 2)"),
            ("ARRAY<INT>", "ARRAY<BIGINT>"),
            ("STRING", "STRING"),
        ] {
            assert!(widens(then, now), "{then} {now}");
        }
        for (then, now) in [
            ("BIGINT", "INT"),
            ("DOUBLE", "FLOAT"),
            ("DECIMAL(10, 2)", "DECIMAL(12, 3)"),
            ("DECIMAL(12, 2)", "DECIMAL(10, 2)"),
            ("INT", "DOUBLE"),
            ("INT", "STRING"),
            ("ARRAY<INT>", "INT"),
        ] {
            assert!(!widens(then, now), "{then} {now}");
        }
    }
}
