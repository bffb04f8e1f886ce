//! Every mistake has its sentence, its place and its caret. In most tests the text begins on line 2.

use crate::world::{error, error_alone};

/// Text and the whole message.
fn check(cases: &[(&str, &str)]) {
    let wrong: Vec<String> = cases
        .iter()
        .map(|(text, expected)| (text, expected, error(text)))
        .filter(|(_, expected, found)| **expected != found)
        .map(|(text, expected, found)| format!("--- {text}\n--- expected\n{expected}\n--- found\n{found}\n"))
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Text, the first line of the message, and line:column.
fn check_short(cases: &[(&str, &str, &str)]) {
    let mut wrong = Vec::new();
    for (text, sentence, place) in cases {
        let found = error(text);
        let first = found.lines().next().unwrap_or_default();
        let at = found.lines().find_map(|line| line.trim().strip_prefix("--> test.sql:")).unwrap_or("nowhere");
        if first != *sentence || at != *place {
            wrong.push(format!("{text}\n  expected {sentence} at {place}\n  found    {first} at {at}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn unknown_names_have_a_caret_and_a_near_name() {
    check(&[
        (
            "SELECT auktion FROM bid",
            "there is no column 'auktion'
 --> test.sql:2:8
  |
2 | SELECT auktion FROM bid
  |        ^
  = help: did you mean 'auction'?",
        ),
        (
            "SELECT auction\nFROM bids WHERE price > 3",
            "there is no table or view 'bids'
 --> test.sql:3:6
  |
3 | FROM bids WHERE price > 3
  |      ^
  = help: did you mean 'bid'?",
        ),
        (
            "SELECT auction,\n  UPER(channel) AS c FROM bid",
            "there is no function 'UPER'
 --> test.sql:3:3
  |
3 |   UPER(channel) AS c FROM bid
  |   ^
  = help: did you mean 'upper'?",
        ),
        (
            "SELECT datetime FROM bid",
            "there is no column 'datetime'
 --> test.sql:2:8
  |
2 | SELECT datetime FROM bid
  |        ^
  = help: did you mean 'dateTime'?",
        ),
        (
            "SELECT b.prize FROM bid AS b",
            "there is no column 'prize'
 --> test.sql:2:8
  |
2 | SELECT b.prize FROM bid AS b
  |        ^
  = help: did you mean 'price'?",
        ),
        (
            "SET 'paralelism.default' = '2'",
            "there is no setting 'paralelism.default'
 --> test.sql:2:5
  |
2 | SET 'paralelism.default' = '2'
  |     ^
  = help: did you mean 'parallelism.default'?",
        ),
        (
            "SET 'parallelism.default' = 'many'",
            "'parallelism.default': 'many' is not a whole number
 --> test.sql:2:29
  |
2 | SET 'parallelism.default' = 'many'
  |                             ^",
        ),
    ]);
}

#[test]
fn connectors_and_their_options_are_checked() {
    check(&[
        (
            "CREATE TABLE t (a INT) WITH ('connector' = 'filesystm')",
            "there is no connector 'filesystm'; there are filesystem, print
 --> test.sql:2:44
  |
2 | CREATE TABLE t (a INT) WITH ('connector' = 'filesystm')
  |                                            ^
  = help: did you mean 'filesystem'?",
        ),
        (
            "CREATE TABLE t (a INT) WITH ('connector' = 'filesystem', 'path' = 'a', 'fromat' = 'csv')",
            "the connector 'filesystem' has no option 'fromat'
 --> test.sql:2:72
  |
2 | CREATE TABLE t (a INT) WITH ('connector' = 'filesystem', 'path' = 'a', 'fromat' = 'csv')
  |                                                                        ^
  = help: did you mean 'format'?",
        ),
        (
            "CREATE TABLE t (a INT) WITH ('connector' = 'filesystem', 'path' = 'a', 'format' = 'xml')",
            "option 'format' = 'xml': expected 'csv' or 'json'
 --> test.sql:2:83
  |
2 | CREATE TABLE t (a INT) WITH ('connector' = 'filesystem', 'path' = 'a', 'format' = 'xml')
  |                                                                                   ^",
        ),
        (
            "CREATE TABLE t (a INT) WITH ('connector' = 'filesystem')",
            "the connector 'filesystem' of the table 't' needs the option 'path'
 --> test.sql:2:44
  |
2 | CREATE TABLE t (a INT) WITH ('connector' = 'filesystem')
  |                                            ^
  = help: 'path': what the test says",
        ),
        (
            "CREATE TABLE t (a INT)",
            "the table 't' has no connector
 --> test.sql:2:14
  |
2 | CREATE TABLE t (a INT)
  |              ^
  = help: add WITH ('connector' = '..')",
        ),
    ]);
    check_short(&[
        (
            "CREATE TABLE t (a INT) WITH ('connector'='filesystem', 'path'='a', 'source.rows-per-second'='0');
SELECT a FROM t",
            "option 'source.rows-per-second' = '0': expected a whole number from 1",
            "2:93",
        ),
        ("SELECT auction FROM out", "connector 'print' cannot be read from; it only takes INSERT INTO", "1:479"),
    ]);
}

#[test]
fn windows_need_a_watermark_and_a_time() {
    check(&[
        (
            "SELECT * FROM TABLE(TUMBLE(TABLE plain, DESCRIPTOR(ts), INTERVAL '1' HOUR))",
            "the window on 'plain' needs a watermark on 'ts'
 --> test.sql:2:52
  |
2 | SELECT * FROM TABLE(TUMBLE(TABLE plain, DESCRIPTOR(ts), INTERVAL '1' HOUR))
  |                                                    ^
  = help: add WATERMARK FOR ts AS ts - INTERVAL '5' SECOND to CREATE TABLE plain",
        ),
        (
            "SELECT *\nFROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(datetime), INTERVAL '1' HOUR))",
            "there is no column 'datetime' in 'bid'
 --> test.sql:3:41
  |
3 | FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(datetime), INTERVAL '1' HOUR))
  |                                         ^
  = help: did you mean 'dateTime'?",
        ),
    ]);
    let over = |call: &str| format!("SELECT * FROM TABLE(TUMBLE(TABLE {call}))");
    let price = over("bid, DESCRIPTOR(price), INTERVAL '1' HOUR");
    let table = over("bidd, DESCRIPTOR(dateTime), INTERVAL '1' HOUR");
    let size = over("bid, DESCRIPTOR(dateTime), INTERVAL '0' HOUR");
    let computed = "CREATE VIEW v AS SELECT dateTime + INTERVAL '1' HOUR AS t FROM bid;
SELECT * FROM TABLE(TUMBLE(TABLE v, DESCRIPTOR(t), INTERVAL '1' HOUR))";
    let inner = "CREATE VIEW v AS SELECT window_start AS s, window_time, dateTime AS t, COUNT(*) AS n
FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '1' HOUR))
GROUP BY window_start, window_end, window_time, dateTime;";
    let over_start = format!("{inner}\nSELECT s, n FROM TABLE(TUMBLE(TABLE v, DESCRIPTOR(s), INTERVAL '1' DAY))");
    let over_key = format!("{inner}\nSELECT s, n FROM TABLE(TUMBLE(TABLE v, DESCRIPTOR(t), INTERVAL '1' DAY))");
    let same_name = format!("{inner}\nSELECT s FROM TABLE(TUMBLE(TABLE v, DESCRIPTOR(window_time), INTERVAL '1' DAY))");
    let cumulate = "SELECT window_start, COUNT(*) AS n FROM TABLE(CUMULATE(TABLE bid, DESCRIPTOR(dateTime),
INTERVAL '1' HOUR, INTERVAL '1' DAY)) GROUP BY window_start";
    let too_many = "SELECT price, window_start FROM TABLE(HOP(TABLE bid, DESCRIPTOR(dateTime),
INTERVAL '0.001' SECOND, INTERVAL '1' MINUTE))";
    let old = |select: &str, group: &str| format!("SELECT {select} FROM bid GROUP BY {group}");
    let old_size = old("COUNT(*)", "TUMBLE(dateTime, INTERVAL '0' HOUR)");
    let old_alone = old("TUMBLE_START(dateTime, INTERVAL '1' HOUR)", "auction");
    let old_other = old("HOP_END(dateTime, INTERVAL '1' HOUR)", "TUMBLE(dateTime, INTERVAL '1' HOUR)");
    let old_select = "SELECT TUMBLE(dateTime, INTERVAL '1' HOUR) FROM bid";
    let old_column = old("COUNT(*)", "TUMBLE(datetime, INTERVAL '1' HOUR)");
    let subquery = "SELECT * FROM TUMBLE(TABLE (SELECT prise FROM bid), DESCRIPTOR(dateTime), INTERVAL '1' HOUR)";
    check_short(&[
        (&price, "a window needs a TIMESTAMP column; 'price' is DECIMAL(10, 2)", "2:50"),
        (&table, "there is no table or view 'bidd'", "2:34"),
        (&size, "a window's size must be longer than 0", "2:61"),
        (computed, "'t' is computed from other columns and has no watermark", "3:48"),
        (&over_start, "'s' is a window_start, which is no event time", "5:51"),
        (&over_key, "'t' is computed from other columns and has no watermark", "5:51"),
        (&same_name, "'v' has a column 'window_time' already", "5:21"),
        (cumulate, "CUMULATE windows that start together are told apart by window_end", "3:39"),
        (too_many, "each row is in 60000 windows and would become as many rows; the limit is 10000", "2:1"),
        (&old_size, "a window's size must be longer than 0", "2:61"),
        (&old_alone, "TUMBLE_START(..) needs a GROUP BY TUMBLE(..) in the same SELECT", "2:8"),
        (&old_other, "HOP_END must have the arguments of the window: TUMBLE(dateTime, INTERVAL '1' HOUR)", "2:8"),
        (old_select, "TUMBLE(..) stands in GROUP BY, or behind FROM as TABLE(TUMBLE(TABLE t, ..))", "2:8"),
        (&old_column, "there is no column 'datetime' in 'bid'", "2:42"),
        (subquery, "there is no column 'prise'", "2:36"),
    ]);
}

#[test]
fn watermarks_need_a_time_that_exists() {
    let table = |columns: &str| format!("CREATE TABLE t ({columns}) WITH ('connector' = 'filesystem', 'path' = 'x')");
    let number = table("a BIGINT, WATERMARK FOR a AS a - 5");
    let missing = table("tss TIMESTAMP(3), WATERMARK FOR ts AS ts");
    let no_time = table("ts TIMESTAMP(3), a INT, WATERMARK FOR ts AS a");
    let unknown = table("ts TIMESTAMP(3), WATERMARK FOR ts AS tz - INTERVAL '5' SECOND");
    let computed = table("a INT, b AS a + 1, c AS b + 1");
    let aggregate = table("a INT, b AS COUNT(a)");
    let open = table("a INT, b AS a +");
    let only = table("b AS 1");
    check_short(&[
        (&number, "a watermark needs a TIMESTAMP; 'a' is BIGINT", "2:41"),
        (&missing, "there is no column 'ts' in 't'", "2:49"),
        (&no_time, "a watermark needs a TIMESTAMP; its expression is INT", "2:61"),
        (&unknown, "there is no column 'tz'", "2:54"),
        (&computed, "there is no column 'b'", "2:41"),
        (&aggregate, "COUNT is an aggregate; a column's expression sees one row", "2:29"),
        (&open, "expected an expression, found the end of the expression", "2:32"),
        (&only, "the table 't' has only computed columns", "2:14"),
        ("CREATE TABLE bid (a INT) WITH ('connector' = 'print')", "there is a table or view 'bid' already", "2:14"),
    ]);
}

#[test]
fn what_comes_later_is_refused_in_one_sentence() {
    let cases = [
        (
            "SELECT * FROM TABLE(SESSION(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '1' HOUR))",
            "SESSION windows without GROUP BY",
            "2:1",
        ),
        ("SELECT auction FROM bid ORDER BY auction", "ORDER BY clauses", "2:25"),
        ("SELECT auction FROM bid LIMIT 3", "LIMIT clauses", "2:25"),
        ("SELECT auction FROM bid FETCH FIRST 3 ROWS ONLY", "FETCH clauses", "2:25"),
        ("SELECT STDDEV_POP(price) OVER (ORDER BY dateTime) AS n FROM bid", "STDDEV_POP() calls with OVER", "2:8"),
        (
            "SELECT SUM(DISTINCT price) OVER (ORDER BY dateTime) AS n FROM bid",
            "SUM() calls with OVER and DISTINCT",
            "2:8",
        ),
        ("SELECT RANK() OVER (ORDER BY dateTime) AS n FROM bid", "RANK() calls", "2:8"),
        ("SELECT CURRENT_WATERMARK(dateTime) AS t FROM bid", "CURRENT_WATERMARK calls", "2:8"),
        ("SELECT auction FROM db.bid", "catalogs and databases in table names", "2:21"),
        ("ALTER TABLE bid RENAME TO b", "ALTER statements", "2:1"),
        ("USE CATALOG c", "USE statements", "2:1"),
        ("CREATE MATERIALIZED VIEW v AS SELECT 1", "CREATE MATERIALIZED statements", "2:8"),
        (
            "SELECT auction FROM bid MATCH_RECOGNIZE (ORDER BY t PATTERN (A) DEFINE A AS A.x > 1)",
            "MATCH_RECOGNIZE clauses",
            "2:25",
        ),
        ("WITH RECURSIVE r AS (SELECT auction FROM bid) SELECT auction FROM r", "recursive queries", "2:6"),
    ];
    let mut wrong = Vec::new();
    for (text, what, place) in cases {
        let found = error(text);
        let first = found.lines().next().unwrap_or_default().to_owned();
        let at = found.lines().find_map(|line| line.trim().strip_prefix("--> test.sql:")).unwrap_or("nowhere");
        if !first.starts_with(&format!("{what} are not supported yet")) || at != place {
            wrong.push(format!("{text}\n  expected {what} at {place}\n  found    {first} at {at}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn aggregates_say_what_they_cannot() {
    let windowed = |call: &str| {
        format!(
            "SELECT {call} AS x FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '1' HOUR))\n\
             GROUP BY window_start, window_end"
        )
    };
    let cases = [
        ("NTH_VALUE(price, 2)", "NTH_VALUE aggregates are not supported yet (line 2, column 8)", "2:8"),
        ("MAX(price ORDER BY score)", "MAX does not depend on an order; leave ORDER BY out", "2:8"),
        ("SUM(price) IGNORE NULLS", "SUM aggregates with IGNORE NULLS are not supported yet (line 2, column 8)", "2:8"),
        ("SUM(*)", "SUM(*) is not an aggregate; SUM takes a column", "2:8"),
        ("SUM(price, score)", "SUM takes one column", "2:8"),
        ("auction", "the column 'auction' is neither in GROUP BY nor inside an aggregate", "2:8"),
    ];
    for (call, sentence, place) in cases {
        check_short(&[(&windowed(call), sentence, place)]);
    }
}

#[test]
fn a_sink_takes_what_fits() {
    check(&[
        (
            "INSERT INTO out SELECT auction, bidder FROM bid",
            "the query gives 2 columns, the table 'out' takes 3 columns
 --> test.sql:2:13
  |
2 | INSERT INTO out SELECT auction, bidder FROM bid
  |             ^
  the query       the table
  auction BIGINT  auction BIGINT
  bidder INT      n BIGINT
  -               avg_price DECIMAL(38, 6)",
        ),
        (
            "INSERT INTO out SELECT auction, score, price FROM bid",
            "column 2 'n': the query gives DOUBLE, the table wants BIGINT; CAST it
 --> test.sql:2:13
  |
2 | INSERT INTO out SELECT auction, score, price FROM bid
  |             ^
  the query             the table
  auction BIGINT        auction BIGINT
  score DOUBLE          n BIGINT
  price DECIMAL(10, 2)  avg_price DECIMAL(38, 6)",
        ),
    ]);
    check_short(&[
        ("INSERT INTO outt SELECT 1 FROM bid", "there is no table or view 'outt'", "2:13"),
        ("INSERT INTO out (auction, m) SELECT 1, 2 FROM bid", "there is no column 'm' in 'out'", "2:27"),
        ("INSERT INTO out (n, n) SELECT 1, 2 FROM bid", "the column 'n' is listed twice", "2:21"),
        ("INSERT INTO bid (cents) SELECT 1 FROM bid", "the column 'cents' is computed: it cannot be written", "2:18"),
        ("INSERT INTO out (auction) SELECT 1 FROM bid", "the column 'n' of 'out' is NOT NULL and not listed", "2:13"),
        (
            "INSERT INTO out SELECT auction, NULL, NULL FROM bid",
            "column 2 'n': the query gives NULL, the table's column is NOT NULL",
            "2:13",
        ),
        (
            "CREATE VIEW v AS SELECT 1 AS a FROM bid; INSERT INTO v SELECT 1 FROM bid",
            "'v' is a view: it can be read, not written",
            "2:54",
        ),
    ]);
}

#[test]
fn syntax_errors_keep_their_place() {
    check_short(&[
        ("SELECT auction FROM bid WHERE", "expected an expression, found the end of the statement", "2:30"),
        ("SELECT auction FROM bid WHERE price >\n  ) 3", "expected an expression, found )", "3:3"),
        ("SELECT auction FROM bid bid2 bid3", "expected the end of the statement, found 'bid3'", "2:30"),
        ("SELECT \"auction\" FROM bid", "\"auction\" is quoted with double quotes", "2:8"),
        ("SELECT 'auction FROM bid", "unterminated string literal", "2:8"),
        ("SELEC auction FROM bid", "expected a statement, found 'SELEC'", "2:1"),
        (
            "SELECT auction FROM bid; SELECT auction FROM bid",
            "a script runs one INSERT or SELECT; this is the second",
            "2:26",
        ),
        (
            "SELECT INTERVAL '1:30' MINUTE TO SECOND AS i FROM bid",
            "intervals of several units are not supported yet",
            "2:17",
        ),
        (
            "SELECT dateTime + INTERVAL '5' AS i FROM bid",
            "an interval needs a unit: SECOND, MINUTE, HOUR, DAY, WEEK, MONTH, YEAR",
            "2:28",
        ),
        ("SELECT INTERVAL '5' DAY AS i FROM bid", "the column 'i' is INTERVAL, which cannot be a result", "2:1"),
        ("SELECT *, auction FROM bid", "the column 'auction' comes twice", "2:11"),
        (
            "CREATE VIEW v (a) AS SELECT auction, price FROM bid",
            "the view 'v' lists 1 columns, its query gives 2",
            "2:13",
        ),
        ("SELECT CAST(auction AS BIGINTT) AS x FROM bid", "there is no type 'BIGINTT'", "2:24"),
    ]);
}

#[test]
fn a_mistake_in_the_first_line_is_shown_alone() {
    assert_eq!(
        error_alone("SELECT a FROM t"),
        "there is no table or view 't'\n --> test.sql:1:15\n  |\n1 | SELECT a FROM t\n  |               ^"
    );
}
