//! Steps with one input: filters, aggregates, the first rows; and unions of two.

use ruslo_core::rng::Rng;

use super::super::query::{Both, both};
use super::super::row::Kind;
use super::relation::{Column, Relation, Selected, Step, shuffle};

/// Rows of `input` that are left by a condition, with a computed column.
pub(super) fn filter(rng: &mut Rng, name: &str, input: &Relation) -> Step {
    let places = input.some(rng, 5, true);
    let mut selected = Selected::default();
    selected.take(input, &places, "");
    if rng.one_in(2) {
        selected.push(both(&input.int(rng, "")), Kind::Int, true);
    }
    let rest = both(&format!("FROM {}\nWHERE ", input.name)).with(&input.condition(rng, ""));
    let time = Selected::name_of(input, &places, input.time.as_ref());
    let text = selected.query(&rest);
    let relation =
        Relation { name: name.to_owned(), columns: selected.columns, time, key: Vec::new(), rows: input.rows };
    Step { kind: "filter", relation, text }
}

/// An aggregate by some keys, or by sets of keys.
pub(super) fn group_by(rng: &mut Rng, name: &str, input: &Relation) -> Step {
    let is_sets = rng.one_in(3);
    // There are no sets of windows.
    let may_be_key = |place: &usize| !is_sets || input.columns[*place].kind != Kind::Time;
    let mut places: Vec<usize> = (0..input.columns.len()).filter(may_be_key).collect();
    shuffle(rng, &mut places);
    places.truncate(if is_sets { 2 } else { rng.below(3) });
    let mut selected = Selected::default();
    selected.take(input, &places, "");
    let mut keys: Vec<String> = places.iter().map(|place| input.columns[*place].name.clone()).collect();
    if rng.one_in(6) && keys.len() < 2 {
        let computed = input.int(rng, "");
        if !computed.contains("COALESCE") && !keys.contains(&computed) && computed != "1" {
            selected.push(both(&computed), Kind::Int, true);
            keys.push(computed);
        }
    }
    let key: Vec<usize> = (0..keys.len()).collect();
    for _ in 0..1 + rng.below(3) {
        let (kind, call) = aggregate(rng, input);
        selected.push(call, kind, kind == Kind::Int);
    }
    // Before its first row, a stream has not even the row of no key at all.
    let having = match (is_sets || keys.is_empty(), rng.below(4)) {
        (true, _) => both("\nHAVING COUNT(*) > 0"),
        (_, 0) => both("\nHAVING COUNT(*) > 1"),
        (_, 1) => both("\nHAVING ").with(&aggregate(rng, input).1).with(&both(" IS NOT NULL")),
        _ => both(""),
    };
    let from = format!("FROM {}", input.name);
    let text = match (keys.as_slice(), is_sets) {
        ([], _) => selected.query(&both(&from).with(&having)),
        ([first, second], true) => {
            let (shown, sets) = sets(rng, first, second);
            let ours = selected.query(&both(&format!("{from}\nGROUP BY {shown}")).with(&having)).ours;
            // To the oracle each set is a query of its own: DataFusion takes a key that is constant below the sets for
            // constant behind them.
            let of_set = |set: &[usize]| {
                let keys: Vec<&str> = set.iter().map(|key| keys[*key].as_str()).collect();
                let by = if keys.is_empty() { String::new() } else { format!("\nGROUP BY {}", keys.join(", ")) };
                let selected = selected.without_keys(keys_but(set));
                format!("{}{by}{}", selected.query(&both(&from)).oracle, having.oracle)
            };
            let oracle = sets.iter().map(|set| of_set(set)).collect::<Vec<_>>().join("\nUNION ALL\n");
            Both { ours, oracle }
        }
        (keys, _) => selected.query(&both(&format!("{from}\nGROUP BY {}", keys.join(", "))).with(&having)),
    };
    let kind = if is_sets { "GROUPING SETS" } else { "GROUP BY" };
    let key = if is_sets { Vec::new() } else { key };
    let relation = Relation { name: name.to_owned(), columns: selected.columns, time: None, key, rows: input.rows };
    Step { kind, relation, text }
}

/// Sets of two keys, and which keys are in each.
fn sets(rng: &mut Rng, first: &str, second: &str) -> (String, &'static [&'static [usize]]) {
    match rng.below(4) {
        0 => (format!("GROUPING SETS (({first}), ({second}), ({first}, {second}))"), &[&[0], &[1], &[0, 1]]),
        1 => (format!("CUBE ({first}, {second})"), &[&[0, 1], &[0], &[1], &[]]),
        2 => (format!("ROLLUP ({first}, {second})"), &[&[0, 1], &[0], &[]]),
        _ => (format!("GROUPING SETS (({first}), ({second}))"), &[&[0], &[1]]),
    }
}

/// Those of two keys that are not in `set`.
fn keys_but(set: &[usize]) -> impl Iterator<Item = usize> {
    (0..2).filter(|key| !set.contains(key))
}

/// An aggregate that takes rows back.
fn aggregate(rng: &mut Rng, input: &Relation) -> (Kind, Both) {
    let number = input.pick(rng, Kind::Int).cloned();
    let Some(Column { name, is_narrow, .. }) = number else { return (Kind::Int, both("COUNT(*)")) };
    let wide = if is_narrow { format!("CAST({name} AS BIGINT)") } else { name.clone() };
    let filter =
        if rng.one_in(4) { input.condition(rng, "").map(|text| format!(" FILTER (WHERE {text})")) } else { both("") };
    // To the oracle all numbers are BIGINTs; it would take a call with a cast and one without for one column.
    let plain = |call: &str| Both { ours: call.to_owned(), oracle: call.replace(&wide, &name) }.with(&filter);
    let text = input.pick(rng, Kind::Text).map(|column| column.name.clone());
    let money = input.pick(rng, Kind::Money).map(|column| column.name.clone());
    let time = input.pick(rng, Kind::Time).map(|column| column.name.clone());
    match (rng.below(14), text, money, time) {
        (0, ..) => (Kind::Int, plain(&format!("COUNT({name})"))),
        (1 | 2, ..) => (Kind::Int, plain(&format!("SUM({wide})"))),
        (3, ..) => (Kind::Int, plain(&format!("MIN({name})"))),
        (4, ..) => (Kind::Int, plain(&format!("MAX({wide} + 1)"))),
        (5, ..) => {
            // AVG of a BIGINT is a BIGINT, truncated.
            let (sum, count) = (format!("SUM({name}){}", filter.oracle), format!("COUNT({name}){}", filter.oracle));
            let oracle = format!("(CASE WHEN {count} = 0 THEN NULL ELSE {sum} / {count} END)");
            (Kind::Int, Both { ours: format!("AVG({wide}){}", filter.ours), oracle })
        }
        (6, ..) => (Kind::Int, plain(&format!("COUNT(DISTINCT {name})"))),
        (7, ..) => (Kind::Int, plain(&format!("SUM(DISTINCT {wide})"))),
        (8, Some(text), ..) => (Kind::Text, plain(&format!("MIN({text})"))),
        (9, Some(text), ..) => (Kind::Int, plain(&format!("COUNT(DISTINCT {text})"))),
        (10, _, Some(money), _) => (Kind::Money, plain(&format!("SUM({money})"))),
        (11, _, Some(money), _) => (Kind::Money, plain(&format!("MAX({money})"))),
        (12, _, _, Some(time)) => (Kind::Time, plain(&format!("MAX({time})"))),
        _ => (Kind::Int, plain("COUNT(*)")),
    }
}

/// The different rows of some columns.
pub(super) fn distinct(rng: &mut Rng, name: &str, input: &Relation) -> Step {
    let places = input.some(rng, 3, false);
    let mut selected = Selected::default();
    selected.take(input, &places, "");
    let text = both("SELECT DISTINCT ").with(&selected.list()).with(&both(&format!("\nFROM {}", input.name)));
    let key = (0..selected.columns.len()).collect();
    let relation = Relation { name: name.to_owned(), columns: selected.columns, time: None, key, rows: input.rows };
    Step { kind: "DISTINCT", relation, text }
}

/// Both inputs' rows, those that both have, or those that the second has not.
pub(super) fn set(rng: &mut Rng, name: &str, [left, right]: [&Relation; 2]) -> Step {
    let op = ["UNION ALL", "UNION", "INTERSECT", "EXCEPT", "INTERSECT ALL", "EXCEPT ALL"][rng.below(6)];
    let (mut of_left, mut of_right) = (Selected::default(), Selected::default());
    let mut texts: Vec<(String, String)> = Vec::new();
    for kind in [Kind::Int, Kind::Text, Kind::Int, Kind::Money] {
        if of_left.columns.is_empty() || rng.one_in(2) {
            let pair = (left.pick(rng, kind).cloned(), right.pick(rng, kind).cloned());
            let (left_text, right_text) = match (pair, kind) {
                ((Some(left), Some(right)), _) => (left.name, right.name),
                (_, Kind::Int) => (left.int(rng, ""), right.int(rng, "")),
                _ => continue,
            };
            // DataFusion's planner is wrong about the order of a union's column that is there twice.
            if texts.iter().any(|(left, right)| *left == left_text || *right == right_text) {
                continue;
            }
            texts.push((left_text.clone(), right_text.clone()));
            of_left.push(both(&left_text), kind, true);
            of_right.push(both(&right_text), kind, true);
        }
    }
    let filtered = |rng: &mut Rng, relation: &Relation| match rng.one_in(2) {
        true => both(&format!("FROM {} WHERE ", relation.name)).with(&relation.condition(rng, "")),
        false => both(&format!("FROM {}", relation.name)),
    };
    let (left_from, right_from) = (filtered(rng, left), filtered(rng, right));
    let (left_query, right_query) = (of_left.query(&left_from), of_right.query(&right_from));
    let text = left_query.with(&both(&format!("\n{op}\n"))).with(&right_query);
    let text = match op.strip_suffix(" ALL") {
        Some(op) if op != "UNION" => {
            // DataFusion looks at one row at a time: to the oracle the equal ones are numbered.
            let names = of_left.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ");
            let numbered = |query: &Both| {
                let query = &query.oracle;
                format!("SELECT *, ROW_NUMBER() OVER (PARTITION BY {names}) AS i FROM ({query}) AS q")
            };
            let (left, right) = (numbered(&left_query), numbered(&right_query));
            Both { oracle: format!("SELECT {names} FROM ({left}\n{op}\n{right}) AS s"), ..text }
        }
        _ => text,
    };
    let key = if op.ends_with("ALL") { Vec::new() } else { (0..of_left.columns.len()).collect() };
    let columns = of_left.columns;
    let relation = Relation { name: name.to_owned(), columns, time: None, key, rows: left.rows + right.rows };
    Step { kind: op, relation, text }
}

/// The first rows of each key in a total order, with or without their ranks.
pub(super) fn top_n(rng: &mut Rng, name: &str, input: &Relation) -> Step {
    let order = input.total_order(rng);
    let (bound, with_rank) = (1 + rng.below(3), rng.one_in(2));
    let mut keys: Vec<usize> = (0..input.columns.len()).collect();
    shuffle(rng, &mut keys);
    keys.truncate(rng.below(3));
    let partition: Vec<&str> = keys.iter().map(|key| input.columns[*key].name.as_str()).collect();
    let partition =
        if partition.is_empty() { String::new() } else { format!("PARTITION BY {} ", partition.join(", ")) };
    let places: Vec<usize> = (0..input.columns.len()).collect();
    let mut selected = Selected::default();
    selected.take(input, &places, "");
    let mut key = keys;
    if with_rank {
        selected.push(both("rn"), Kind::Int, false);
        key.push(places.len());
    }
    let rest = format!(
        "FROM (SELECT *, ROW_NUMBER() OVER ({partition}ORDER BY {order}) AS rn FROM {}) AS o\nWHERE rn <= {bound}",
        input.name
    );
    let text = selected.query(&both(&rest));
    let key = if with_rank || bound == 1 { key } else { Vec::new() };
    let relation = Relation { name: name.to_owned(), columns: selected.columns, time: None, key, rows: input.rows };
    Step { kind: if with_rank { "Top-N with rank" } else { "Top-N" }, relation, text }
}

/// The first or the last row of each key by event time; of rows of one time the least by their columns.
pub(super) fn deduplicate(rng: &mut Rng, name: &str, input: &Relation, time: &str) -> Step {
    let is_first = rng.one_in(2);
    let place = rng.below(input.columns.len());
    let key = &input.columns[place].name;
    let places: Vec<usize> = (0..input.columns.len()).collect();
    let mut selected = Selected::default();
    selected.take(input, &places, "");
    let direction = if is_first { "ASC" } else { "DESC" };
    let ties = input.columns.iter().map(|column| format!(", {} ASC NULLS FIRST", column.name)).collect::<String>();
    let rest = |more: &str| {
        format!(
            "FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY {key} ORDER BY {time} {direction}{more}) AS rn FROM {}) AS o\n\
             WHERE rn = 1",
            input.name
        )
    };
    let text = selected.query(&Both { ours: rest(""), oracle: rest(&ties) });
    let time = Selected::name_of(input, &places, Some(&time.to_owned())).filter(|_| is_first);
    let columns = selected.columns;
    let relation = Relation { name: name.to_owned(), columns, time, key: vec![place], rows: input.rows };
    Step { kind: if is_first { "first row" } else { "last row" }, relation, text }
}
