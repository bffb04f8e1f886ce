//! Joins of two relations: regular, by time, by window; and subqueries.

use ruslo_core::rng::Rng;

use super::super::query::{Both, both};
use super::super::row::Kind;
use super::relation::{Column, Relation, Selected, Step};

const TYPES: [&str; 4] = ["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"];

/// An equality of a column of each, of one kind.
fn equality(rng: &mut Rng, left: &Relation, right: &Relation) -> Option<Both> {
    let kind = [Kind::Text, Kind::Int, Kind::Int, Kind::Money][rng.below(4)];
    let (a, b): (&Column, &Column) = (left.pick(rng, kind)?, right.pick(rng, kind)?);
    let is_same = format!("a.{} IS NOT DISTINCT FROM b.{}", a.name, b.name);
    Some(match (kind, rng.below(8)) {
        // DataFusion's parser would take all that follows for the second operand.
        (_, 0) => Both { oracle: format!("({is_same})"), ours: is_same },
        (Kind::Int, 1) => both(&format!("a.{} + 1 = b.{}", a.name, b.name)),
        _ => both(&format!("a.{} = b.{}", a.name, b.name)),
    })
}

/// Some equalities, and with luck something more.
fn condition(rng: &mut Rng, left: &Relation, right: &Relation) -> Both {
    let mut on = match equality(rng, left, right) {
        Some(first) => first,
        None => both(&format!("{} = {}", left.int(rng, "a."), right.int(rng, "b."))),
    };
    if let Some(second) = equality(rng, left, right)
        && rng.one_in(4)
        && !on.ours.contains(&second.ours)
    {
        on = on.with(&both(" AND ")).with(&second);
    }
    match rng.below(6) {
        0 => on.with(&both(&format!(" AND {} < {}", left.int(rng, "a."), right.int(rng, "b.")))),
        1 => on.with(&both(" AND ")).with(&left.condition(rng, "a.")),
        2 => on.with(&both(" AND ")).with(&right.condition(rng, "b.")),
        _ => on,
    }
}

/// Rows of two relations side by side.
pub(super) fn regular(rng: &mut Rng, name: &str, [left, right]: [&Relation; 2]) -> Step {
    let is_cross = left.rows * right.rows < 200 && rng.one_in(12);
    let of_left = left.some(rng, 3, false);
    let of_right = right.some(rng, 3, false);
    let mut selected = Selected::default();
    selected.take(left, &of_left, "a.");
    selected.take(right, &of_right, "b.");
    let (kind, rest) = match is_cross {
        true => ("CROSS JOIN", both(&format!("FROM {} AS a CROSS JOIN {} AS b", left.name, right.name))),
        false => {
            let kind = TYPES[rng.below(4)];
            let on = condition(rng, left, right);
            let from = both(&format!("FROM {} AS a {kind} {} AS b ON ", left.name, right.name)).with(&on);
            let with_where = rng.one_in(6);
            let alias = if kind == "RIGHT JOIN" { ("b.", right) } else { ("a.", left) };
            let condition = alias.1.condition(rng, alias.0);
            (kind, if with_where { from.with(&both("\nWHERE ")).with(&condition) } else { from })
        }
    };
    let rows = if is_cross { left.rows * right.rows } else { (left.rows * right.rows / 3).max(left.rows + right.rows) };
    let text = selected.query(&rest);
    let relation = Relation { name: name.to_owned(), columns: selected.columns, time: None, key: Vec::new(), rows };
    Step { kind, relation, text }
}

/// Rows of the first relation that have a partner in the second, or have none.
pub(super) fn semi(rng: &mut Rng, name: &str, [left, right]: [&Relation; 2]) -> Step {
    let places = left.some(rng, 4, false);
    let mut selected = Selected::default();
    selected.take(left, &places, "a.");
    let (a, b) = (&left.name, &right.name);
    let kind = ["EXISTS", "NOT EXISTS", "IN", "NOT IN"][rng.below(4)];
    let pair = [Kind::Text, Kind::Int][rng.below(2)];
    let columns = left.pick(rng, pair).cloned().zip(right.pick(rng, pair).cloned());
    let (kind, rest) = match (kind, columns) {
        ("IN", Some((of_left, of_right))) => {
            let inside = if rng.one_in(2) { both("") } else { both(" WHERE ").with(&right.condition(rng, "b.")) };
            let before =
                format!("FROM {a} AS a\nWHERE a.{} IN (SELECT b.{} FROM {b} AS b", of_left.name, of_right.name);
            ("IN", both(&before).with(&inside).with(&both(")")))
        }
        ("NOT IN", Some((of_left, of_right))) => {
            let (l, r) = (of_left.name, of_right.name);
            let text = format!(
                "FROM (SELECT * FROM {a} WHERE {l} IS NOT NULL) AS a\n\
                 WHERE a.{l} NOT IN (SELECT b.{r} FROM {b} AS b WHERE b.{r} IS NOT NULL)"
            );
            ("NOT IN", both(&text))
        }
        (kind, _) => {
            let kind = if kind == "NOT EXISTS" || kind == "NOT IN" { "NOT EXISTS" } else { "EXISTS" };
            let on = condition(rng, left, right);
            let before = format!("FROM {a} AS a\nWHERE {kind} (SELECT * FROM {b} AS b WHERE ");
            (kind, both(&before).with(&on).with(&both(")")))
        }
    };
    let text = selected.query(&rest);
    let relation =
        Relation { name: name.to_owned(), columns: selected.columns, time: None, key: Vec::new(), rows: left.rows };
    Step { kind, relation, text }
}

/// Rows of the first relation, each with a value that is computed of those of the second that belong to it.
pub(super) fn scalar(rng: &mut Rng, name: &str, [left, right]: [&Relation; 2]) -> Step {
    // Of a stream, a value of all rows is NULL until the first one: so it is computed of each key's rows.
    let texts = left.pick(rng, Kind::Text).zip(right.pick(rng, Kind::Text)).filter(|_| rng.one_in(2));
    let columns = texts.or_else(|| left.pick(rng, Kind::Int).zip(right.pick(rng, Kind::Int)));
    let Some((a, b)) = columns.map(|(a, b)| (a.name.as_str(), b.name.as_str())) else {
        return semi(rng, name, [left, right]);
    };
    let places = left.some(rng, 3, false);
    let mut selected = Selected::default();
    selected.take(left, &places, "a.");
    let wide = right.pick(rng, Kind::Int).map_or("1".to_owned(), |column| match column.is_narrow {
        true => format!("CAST(b.{} AS BIGINT)", column.name),
        false => format!("b.{}", column.name),
    });
    let call = [format!("MAX({wide})"), format!("SUM({wide})"), "COUNT(*)".to_owned(), format!("MIN({wide})")]
        [rng.below(4)]
    .clone();
    selected.push(both(&format!("(SELECT {call} FROM {} AS b WHERE b.{b} = a.{a})", right.name)), Kind::Int, false);
    let text = selected.query(&both(&format!("FROM {} AS a", left.name)));
    let relation =
        Relation { name: name.to_owned(), columns: selected.columns, time: None, key: Vec::new(), rows: left.rows };
    Step { kind: "scalar subquery", relation, text }
}

/// Rows whose event times are at most so far apart.
pub(super) fn interval(rng: &mut Rng, name: &str, [left, right]: [&Relation; 2], times: [&str; 2]) -> Step {
    let kind = TYPES[rng.below(4)];
    let (from, to) = ([-7, -2, 0, 3][rng.below(4)], [3, 5, 10][rng.below(3)]);
    let (of_left, of_right) = (left.some(rng, 3, true), right.some(rng, 3, true));
    let mut selected = Selected::default();
    selected.take(left, &of_left, "a.");
    selected.take(right, &of_right, "b.");
    let on = if rng.one_in(5) { both("") } else { condition(rng, left, right).with(&both(" AND ")) };
    let [a, b] = times;
    let shifted = |seconds: i64| match seconds {
        ..0 => format!("b.{b} - INTERVAL '{}' SECOND", -seconds),
        _ => format!("b.{b} + INTERVAL '{seconds}' SECOND"),
    };
    let bounds = Both {
        ours: format!("a.{a} BETWEEN {} AND {}", shifted(from), shifted(to)),
        oracle: format!("a.{a} BETWEEN b.{b} + {} AND b.{b} + {}", from * 1_000, to * 1_000),
    };
    let rest = both(&format!("FROM {} AS a {kind} {} AS b ON ", left.name, right.name)).with(&on).with(&bounds);
    let time = match kind {
        "JOIN" | "LEFT JOIN" => Selected::name_of(left, &of_left, Some(&a.to_owned())),
        "RIGHT JOIN" => {
            let place = of_right.iter().position(|place| right.columns[*place].name == b);
            place.map(|place| format!("x{}", of_left.len() + place))
        }
        _ => None,
    };
    let rows = (left.rows * right.rows / 3).max(left.rows + right.rows);
    let text = selected.query(&rest);
    let relation = Relation { name: name.to_owned(), columns: selected.columns, time, key: Vec::new(), rows };
    Step { kind: "interval join", relation, text }
}

/// Rows of one window.
pub(super) fn window(rng: &mut Rng, name: &str, [left, right]: [&Relation; 2], times: [&str; 2]) -> Step {
    let join = [TYPES[0], TYPES[1], TYPES[2], TYPES[3], "LEFT SEMI JOIN", "LEFT ANTI JOIN"][rng.below(6)];
    let (slide, size) = [(10, 10), (3, 3), (5, 10)][rng.below(3)];
    let has_right = !join.contains("SEMI") && !join.contains("ANTI");
    let (of_left, of_right) = (left.some(rng, 3, false), right.some(rng, 3, false));
    let mut selected = Selected::default();
    selected.take(left, &of_left, "a.");
    if has_right {
        selected.take(right, &of_right, "b.");
    }
    let of = if join == "RIGHT JOIN" { "b" } else { "a" };
    let start = Both { ours: format!("{of}.window_start"), oracle: format!("{of}.ws") };
    selected.push(start, Kind::Time, false);
    let windowed = |relation: &Relation, time: &str| {
        let table = &relation.name;
        let call = match slide == size {
            true => format!("TUMBLE(TABLE {table}, DESCRIPTOR({time}), INTERVAL '{size}' SECOND)"),
            false => {
                let (slide, size) = (format!("INTERVAL '{slide}' SECOND"), format!("INTERVAL '{size}' SECOND"));
                format!("HOP(TABLE {table}, DESCRIPTOR({time}), {slide}, {size})")
            }
        };
        let numbers = if slide == size { "(VALUES (0))" } else { "(VALUES (0), (1))" };
        let step = slide * 1_000;
        let oracle =
            format!("SELECT *, {time} - {time} % {step} - i * {step} AS ws FROM {table} CROSS JOIN {numbers} AS n (i)");
        Both { ours: format!("(SELECT * FROM TABLE({call}))"), oracle: format!("({oracle})") }
    };
    let on = if rng.one_in(5) { both("") } else { condition(rng, left, right).with(&both(" AND ")) };
    let same = Both {
        ours: "a.window_start = b.window_start AND a.window_end = b.window_end".to_owned(),
        oracle: "a.ws = b.ws".to_owned(),
    };
    let [a, b] = times;
    let rest = both("FROM ").with(&windowed(left, a)).with(&both(&format!(" AS a\n{join} ")));
    let rest = rest.with(&windowed(right, b)).with(&both(" AS b ON ")).with(&on).with(&same);
    let rows = (left.rows * right.rows / 3).max(left.rows + right.rows);
    let text = selected.query(&rest);
    let relation = Relation { name: name.to_owned(), columns: selected.columns, time: None, key: Vec::new(), rows };
    Step { kind: "window join", relation, text }
}
