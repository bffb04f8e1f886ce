//! Random queries, each as two texts.
//!
//! ```text
//! t ─ WHERE, computed column ─ s ─┬─ plain
//!                                 └─ window ─ w ─┬─ rows with their windows ─┐
//!                                                └─ GROUP BY, HAVING ─ a ────┼─ Top-N
//!                                                                            └─ a window over `window_time`
//! ```

use ruslo::Program;
use ruslo_core::rng::Rng;

use super::row::Kind;
use super::table::Table;

/// A query: for us, and for the oracle.
#[derive(Debug)]
pub(crate) struct Query {
    pub(crate) kind: &'static str,
    /// Our views and our SELECT.
    views: String,
    select: String,
    /// What the columns of both are.
    pub(crate) columns: Vec<Kind>,
    pub(crate) oracle: String,
}

/// What this build can plan: what it cannot is not generated.
#[derive(Debug)]
pub(crate) struct Features {
    windows: Vec<Shape>,
    filter: bool,
    distinct: bool,
    top_n: bool,
    cascade: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Tumble,
    Hop,
    Cumulate,
    Session,
}

/// The same expression or clause in both texts.
#[derive(Debug, Clone)]
pub(super) struct Both {
    pub(super) ours: String,
    pub(super) oracle: String,
}

/// A column that a relation has.
#[derive(Debug, Clone)]
struct Output {
    kind: Kind,
    name: String,
}

/// A window: our call on a table or view, and the oracle's relation with `ws` and `we` behind its columns.
struct Window {
    shape: Shape,
    call: String,
    oracle: String,
}

const PROBE: &str = "
CREATE TABLE t (k STRING, v BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' SECOND)
WITH ('connector' = 'filesystem', 'path' = 'none', 'format' = 'json');";

const TUMBLE: &str = "TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE))";

impl Features {
    pub(crate) fn of_this_build() -> Self {
        let plans = |query: &str| Program::inline("probe", format!("{PROBE} {query}")).plan().is_ok();
        let window = |call: &str| {
            plans(&format!("SELECT COUNT(*) AS n FROM TABLE({call}) GROUP BY k, window_start, window_end"))
        };
        let by = "GROUP BY window_start, window_end";
        let shapes = [
            (Shape::Tumble, "TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE)"),
            (Shape::Hop, "HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE, INTERVAL '2' MINUTE)"),
            (Shape::Cumulate, "CUMULATE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE, INTERVAL '2' MINUTE)"),
            (Shape::Session, "SESSION(TABLE t PARTITION BY k, DESCRIPTOR(ts), INTERVAL '1' MINUTE)"),
        ];
        let features = Self {
            windows: shapes.into_iter().filter(|(_, call)| window(call)).map(|(shape, _)| shape).collect(),
            filter: plans(&format!("SELECT SUM(v) FILTER (WHERE v > 1) AS n FROM {TUMBLE} {by}")),
            distinct: plans(&format!("SELECT COUNT(DISTINCT v) AS n FROM {TUMBLE} {by}")),
            top_n: plans(&format!(
                "SELECT * FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY v) AS rn
                 FROM {TUMBLE}) WHERE rn <= 2"
            )),
            cascade: plans(&format!(
                "CREATE VIEW a AS SELECT window_time, COUNT(*) AS n FROM {TUMBLE} {by}, window_time;
                 SELECT SUM(n) AS n FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(window_time), INTERVAL '2' MINUTE)) {by}"
            )),
        };
        println!("generated: {features:?}");
        features
    }
}

impl Query {
    /// The script that runs it over `table`.
    pub(crate) fn script(&self, table: &Table) -> String {
        let columns = self.columns.iter().enumerate().map(|(index, kind)| format!("c{index} {}", kind.sql()));
        format!(
            "{}CREATE TABLE result ({})\nWITH ('connector' = 'filesystem', 'path' = '${{out}}', 'format' = 'json');\n\
             {}INSERT INTO result\n{}",
            table.ddl(),
            columns.collect::<Vec<_>>().join(", "),
            self.views,
            self.select
        )
    }

    pub(crate) fn random(rng: &mut Rng, features: &Features) -> Self {
        let computed = int(rng, 2);
        let filter = if rng.one_in(3) { both("") } else { condition(rng, 2).map(|text| format!("\nWHERE {text}")) };
        let views =
            format!("CREATE VIEW s AS SELECT k, g, v, w, d, ts, {} AS x FROM t{};\n", computed.ours, filter.ours);
        let oracle = format!("WITH s AS (SELECT *, {} AS x FROM t{})", computed.oracle, filter.oracle);
        let base = Self { kind: "plain", views, select: String::new(), columns: Vec::new(), oracle };
        match rng.below(8) {
            0 => base.plain(rng),
            1 => base.windowed_rows(rng, features),
            _ => base.aggregated(rng, features),
        }
    }

    fn plain(mut self, rng: &mut Rng) -> Self {
        self.columns = vec![Kind::Text, Kind::Int, Kind::Int, Kind::Money, Kind::Time];
        self.select = "SELECT k, g, x, d, ts FROM s".to_owned();
        if rng.one_in(2) {
            self.kind = "ORDER BY";
            self.select.push_str(["\nORDER BY ts", "\nORDER BY ts, d DESC, k"][rng.below(2)]);
        }
        self.oracle.push_str("\nSELECT k, g, x, d, m FROM s");
        self
    }

    /// Rows with their windows, and with luck the first few of each.
    fn windowed_rows(mut self, rng: &mut Rng, features: &Features) -> Self {
        let shapes: Vec<Shape> = features.windows.iter().copied().filter(|shape| *shape != Shape::Session).collect();
        let window = Window::random(rng, &shapes, None);
        self.kind = "windowed rows";
        self.oracle.push_str(&format!(",\nw AS ({})", window.oracle));
        let columns = ["k", "v", "x", "window_start", "window_end"];
        let kinds = [Kind::Text, Kind::Int, Kind::Int, Kind::Time, Kind::Time];
        if !features.top_n || rng.one_in(2) {
            self.columns = kinds.to_vec();
            self.select = format!("SELECT {} FROM {}", columns.join(", "), window.call);
            self.oracle.push_str("\nSELECT k, v, x, ws, we FROM w");
            return self;
        }
        self.kind = "Top-N of rows";
        let outputs: Vec<Output> =
            columns.iter().zip(kinds).take(3).map(|(name, kind)| Output { kind, name: (*name).to_owned() }).collect();
        self.views
            .push_str(&format!("CREATE VIEW w AS SELECT k, v, x, window_start, window_end FROM {};\n", window.call));
        self.top_n(rng, "w", "w", &outputs, false)
    }

    fn aggregated(mut self, rng: &mut Rng, features: &Features) -> Self {
        let keys: &[&str] = [&["k"][..], &["g"], &["k", "g"], &[]][rng.below(4)];
        let window = Window::random(rng, &features.windows, Some(keys));
        self.kind = match window.shape {
            Shape::Tumble => "TUMBLE",
            Shape::Hop => "HOP",
            Shape::Cumulate => "CUMULATE",
            Shape::Session => "SESSION",
        };
        let mut outputs: Vec<Output> = Vec::new();
        let mut selected = both("");
        for key in keys {
            let kind = if *key == "k" { Kind::Text } else { Kind::Int };
            selected = selected.with(&both(&format!("{key}, ")));
            outputs.push(Output { kind, name: (*key).to_owned() });
        }
        let count = 1 + rng.below(4);
        for index in 0..count {
            let (kind, call) = aggregate(rng, features);
            let name = format!("a{index}");
            selected = selected.with(&call.map(|text| format!("{text} AS {name}, ")));
            outputs.push(Output { kind, name });
        }
        let having = if rng.one_in(4) { "\nHAVING COUNT(*) > 1" } else { "" };
        let grouped: String = keys.iter().map(|key| format!("{key}, ")).collect();
        self.views.push_str(&format!(
            "CREATE VIEW a AS SELECT {}window_start, window_end, window_time\nFROM {}\n\
             GROUP BY {grouped}window_start, window_end, window_time{having};\n",
            selected.ours, window.call
        ));
        self.oracle.push_str(&format!(
            ",\nw AS ({}),\na AS (SELECT {}ws, we FROM w GROUP BY {grouped}ws, we{having})",
            window.oracle, selected.oracle
        ));
        match rng.below(5) {
            0 if features.top_n => self.top_n(rng, "a", "a", &outputs, true),
            1 if features.cascade => self.cascade(rng, &outputs),
            _ => {
                let names: String = outputs.iter().map(|output| format!("{}, ", output.name)).collect();
                self.columns = outputs.iter().map(|output| output.kind).chain([Kind::Time, Kind::Time]).collect();
                self.select = format!("SELECT {names}window_start, window_end FROM a");
                self.oracle.push_str(&format!("\nSELECT {names}ws, we FROM a"));
                self
            }
        }
    }

    /// The first rows of each window, or of each window and key. Ordered by every column, so that ties are twins.
    fn top_n(mut self, rng: &mut Rng, ours: &str, oracle: &str, outputs: &[Output], is_aggregate: bool) -> Self {
        if is_aggregate {
            self.kind = "Top-N of an aggregate";
        }
        let first = rng.below(outputs.len());
        let order = outputs.iter().cycle().skip(first).take(outputs.len()).map(|output| {
            let direction = ["ASC", "DESC"][rng.below(2)];
            let nulls = ["NULLS FIRST", "NULLS LAST"][rng.below(2)];
            format!("{} {direction} {nulls}", output.name)
        });
        let order = order.collect::<Vec<_>>().join(", ");
        let key = outputs.iter().find(|output| ["k", "g"].contains(&output.name.as_str())).filter(|_| rng.one_in(3));
        let key = key.map_or(String::new(), |key| format!(", {}", key.name));
        let most = 1 + rng.below(3);
        let names: String = outputs.iter().map(|output| format!("{}, ", output.name)).collect();
        let text = |start: &str, end: &str, from: &str| {
            format!(
                "SELECT {names}{start}, {end}, rn FROM (\n  SELECT *, ROW_NUMBER() OVER (PARTITION BY {start}, \
                 {end}{key} ORDER BY {order}) AS rn FROM {from}) WHERE rn <= {most}"
            )
        };
        self.columns = outputs.iter().map(|output| output.kind).chain([Kind::Time, Kind::Time, Kind::Int]).collect();
        self.select = text("window_start", "window_end", ours);
        self.oracle.push_str(&format!("\n{}", text("ws", "we", oracle)));
        self
    }

    /// A tumbling window over the results of the first one.
    fn cascade(mut self, rng: &mut Rng, outputs: &[Output]) -> Self {
        self.kind = "cascade";
        let seconds = [60, 120, 600][rng.below(3)];
        let mut calls = both("COUNT(*) AS n");
        self.columns = vec![Kind::Time, Kind::Int];
        for output in outputs.iter().filter(|output| output.kind == Kind::Int).take(2) {
            calls = calls.with(&both(&format!(", SUM({0}) AS s{0}, MAX({0}) AS m{0}", output.name)));
            self.columns.extend([Kind::Int, Kind::Int]);
        }
        self.select = format!(
            "SELECT window_start, {}\nFROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(window_time), INTERVAL '{seconds}' SECOND))\n\
             GROUP BY window_start, window_end",
            calls.ours
        );
        let start = format!("(we - 1) - (we - 1) % {}", seconds * 1_000);
        self.oracle.push_str(&format!(
            "\nSELECT start, {} FROM (SELECT *, {start} AS start FROM a) GROUP BY start",
            calls.oracle
        ));
        self
    }
}

impl Window {
    /// A window over `s`; of the sessions of `keys`, if it is one.
    fn random(rng: &mut Rng, shapes: &[Shape], keys: Option<&[&str]>) -> Self {
        let shape = shapes[rng.below(shapes.len())];
        let step = [1, 10, 60][rng.below(3)] * 1_000;
        let size = step * [1, 2, 3, 6][rng.below(4)];
        let offset = [0, 0, 3_000, 7_000][rng.below(4)] % size;
        let interval = |ms: i64| format!("INTERVAL '{}' SECOND", ms / 1_000);
        let moved = if offset == 0 { String::new() } else { format!(", {}", interval(offset)) };
        let floor = |to: i64| format!("(m - (m - {offset}) % {to})");
        let (call, oracle) = match shape {
            Shape::Tumble => (
                format!("TUMBLE(TABLE s, DESCRIPTOR(ts), {}{moved})", interval(size)),
                format!("SELECT *, {0} AS ws, {0} + {size} AS we FROM s", floor(size)),
            ),
            Shape::Hop => (
                format!("HOP(TABLE s, DESCRIPTOR(ts), {}, {}{moved})", interval(step), interval(size)),
                format!(
                    "SELECT *, {0} - i * {step} AS ws, {0} - i * {step} + {size} AS we FROM s CROSS JOIN {1}",
                    floor(step),
                    numbers(size / step)
                ),
            ),
            Shape::Cumulate => (
                format!("CUMULATE(TABLE s, DESCRIPTOR(ts), {}, {}{moved})", interval(step), interval(size)),
                format!(
                    "SELECT *, {0} AS ws, {0} + (i + 1) * {step} AS we FROM s CROSS JOIN {1} WHERE {0} + (i + 1) * {step} > m",
                    floor(size),
                    numbers(size / step)
                ),
            ),
            Shape::Session => session(step, keys.unwrap_or_default(), &interval(step)),
        };
        Self { shape, call: format!("TABLE({call})"), oracle }
    }
}

fn session(gap: i64, keys: &[&str], interval: &str) -> (String, String) {
    let of = if keys.is_empty() { String::new() } else { format!(" PARTITION BY {}", keys.join(", ")) };
    let by = |more: &str| {
        let all: Vec<&str> = keys.iter().copied().chain((!more.is_empty()).then_some(more)).collect();
        if all.is_empty() { String::new() } else { format!("PARTITION BY {}", all.join(", ")) }
    };
    let (by_key, by_session) = (by(""), by("nr"));
    let oracle = format!(
        "SELECT *, MIN(m) OVER ({by_session}) AS ws, MAX(m) OVER ({by_session}) + {gap} AS we FROM (\n  \
         SELECT *, SUM(CASE WHEN away IS NULL OR away > {gap} THEN 1 ELSE 0 END) OVER ({by_key} ORDER BY m) AS nr FROM (\n  \
         SELECT *, m - LAG(m) OVER ({by_key} ORDER BY m) AS away FROM s))"
    );
    (format!("SESSION(TABLE s{of}, DESCRIPTOR(ts), {interval})"), oracle)
}

/// The relation `n (i)` of the numbers from 0.
fn numbers(count: i64) -> String {
    let rows: Vec<String> = (0..count).map(|number| format!("({number})")).collect();
    format!("(VALUES {}) AS n (i)", rows.join(", "))
}

/// The same text in both.
pub(super) fn both(text: &str) -> Both {
    Both { ours: text.to_owned(), oracle: text.to_owned() }
}

impl Both {
    /// Each changed.
    pub(super) fn map(&self, change: impl Fn(&str) -> String) -> Self {
        Self { ours: change(&self.ours), oracle: change(&self.oracle) }
    }

    /// Each with more behind it.
    pub(super) fn with(&self, more: &Self) -> Self {
        Self { ours: format!("{}{}", self.ours, more.ours), oracle: format!("{}{}", self.oracle, more.oracle) }
    }
}

/// A BIGINT of the columns of `t`; small, so that nothing overflows.
fn int(rng: &mut Rng, depth: usize) -> Both {
    if depth == 0 {
        return both(["v", "w", "CAST(g AS BIGINT)", "3", "-2", "v"][rng.below(6)]);
    }
    let (a, b) = (int(rng, depth - 1), int(rng, depth - 1));
    let two =
        |form: &dyn Fn(&str, &str) -> String| Both { ours: form(&a.ours, &b.ours), oracle: form(&a.oracle, &b.oracle) };
    match rng.below(8) {
        0 => two(&|a, b| format!("({a} + {b})")),
        1 => two(&|a, b| format!("({a} - {b})")),
        2 => two(&|a, b| format!("({a} * {b})")),
        3 => two(&|a, b| format!("({a} / NULLIF({b}, 0))")),
        4 => two(&|a, b| format!("({a} % NULLIF({b}, 0))")),
        5 => two(&|a, b| format!("COALESCE({a}, {b})")),
        6 => a.map(|a| format!("ABS({a})")),
        _ => {
            let when = condition(rng, depth - 1);
            let form = |when: &str, a: &str, b: &str| format!("CASE WHEN {when} THEN {a} ELSE {b} END");
            Both { ours: form(&when.ours, &a.ours, &b.ours), oracle: form(&when.oracle, &a.oracle, &b.oracle) }
        }
    }
}

fn condition(rng: &mut Rng, depth: usize) -> Both {
    if depth > 0 && rng.one_in(3) {
        let (a, b) = (condition(rng, depth - 1), condition(rng, depth - 1));
        let word = ["AND", "OR"][rng.below(2)];
        let joined = |a: &str, b: &str| format!("({a} {word} {b})");
        return Both { ours: joined(&a.ours, &b.ours), oracle: joined(&a.oracle, &b.oracle) };
    }
    let value = int(rng, depth.min(1));
    match rng.below(9) {
        0 => both("k IS NOT NULL"),
        1 => both("k IN ('a', 'b', '')"),
        2 => both("k LIKE '%c%'"),
        3 => both("NOT (k = 'a')"),
        4 => value.map(|value| format!("{value} BETWEEN -1 AND 3")),
        5 => value.map(|value| format!("{value} IS NULL")),
        6 => Both { ours: "d > 1.50".to_owned(), oracle: "d > 150".to_owned() },
        7 => value.map(|value| format!("{value} <> 1")),
        _ => value.map(|value| format!("{value} >= -2")),
    }
}

/// An aggregate over the columns of `s` and a window.
fn aggregate(rng: &mut Rng, features: &Features) -> (Kind, Both) {
    let column = ["v", "w", "x", "g"][rng.below(4)];
    let wide = if column == "g" { "CAST(g AS BIGINT)" } else { column };
    let filter = if features.filter && rng.one_in(4) {
        condition(rng, 1).map(|text| format!(" FILTER (WHERE {text})"))
    } else {
        both("")
    };
    // The oracle has BIGINTs alone, and would take a call with a cast and one without for one column.
    let plain = |call: &str| Both { ours: call.to_owned(), oracle: call.replace(wide, column) }.with(&filter);
    match rng.below(if features.distinct { 14 } else { 12 }) {
        0 | 1 => (Kind::Int, plain("COUNT(*)")),
        2 => (Kind::Int, plain(&format!("COUNT({column})"))),
        3 | 4 => (Kind::Int, plain(&format!("SUM({wide})"))),
        5 => (Kind::Int, plain(&format!("MIN({column})"))),
        6 => (Kind::Int, plain(&format!("MAX({wide} + 1)"))),
        7 => {
            // AVG of a BIGINT is a BIGINT, truncated.
            let (sum, count) = (format!("SUM({column}){}", filter.oracle), format!("COUNT({column}){}", filter.oracle));
            let oracle = format!("CASE WHEN {count} = 0 THEN NULL ELSE {sum} / {count} END");
            (Kind::Int, Both { ours: format!("AVG({wide}){}", filter.ours), oracle })
        }
        8 => (Kind::Text, plain("MIN(k)")),
        9 => (Kind::Money, plain("SUM(d)")),
        10 => (Kind::Money, plain("MAX(d)")),
        11 => (Kind::Time, Both { ours: "MIN(ts)".to_owned(), oracle: "MIN(m)".to_owned() }.with(&filter)),
        12 => (Kind::Int, plain(&format!("COUNT(DISTINCT {column})"))),
        _ => (Kind::Int, plain("COUNT(DISTINCT k)")),
    }
}
