//! What cannot be used: each a sentence that a person can act on, and the exit code that says whose fault it is.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::home::{Answer, Home};

/// A script over a table `t`.
fn script(columns: &str, path: &str, rest: &str) -> String {
    let format = ["json", "parquet", "avro"].into_iter().find(|name| path.contains(name)).unwrap_or("csv");
    format!(
        "CREATE TABLE t ({columns})\nWITH ('connector' = 'filesystem', 'path' = '{path}', 'format' = '{format}');\n{rest}"
    )
}

fn run(home: &Home, text: &str) -> Answer {
    home.write("job.sql", text);
    home.ruslo(&["run", "job.sql", "--parallelism", "1"])
}

/// What becomes of reading `columns` from a file of `bytes`.
fn read(columns: &str, name: &str, bytes: &[u8]) -> Answer {
    let home = Home::new();
    home.write(name, bytes);
    let answer = run(&home, &script(columns, name, "SELECT * FROM t"));
    assert!(!home.exists(".ruslo"), "a job that did nothing leaves nothing: {answer:?}");
    answer
}

#[test]
fn rows_that_do_not_fit() {
    let cases: [(&str, &str, &[u8], &str); 9] = [
        (
            "a BIGINT, b STRING",
            "in.json",
            b"{\"a\": 1}\n{\"a\": 2, \"b\" \"x\"}\n",
            "in.json line 2, byte 9: a colon should stand at '\"x\"}', byte 13 of the record",
        ),
        (
            "a BIGINT, b STRING",
            "in.csv",
            b"1,x\n2,y,z\n",
            "in.csv line 2, byte 4: the line has 3 fields where 2 should stand",
        ),
        ("a BIGINT", "in.csv", b"1\ntwo\n", "in.csv line 2, byte 2, column 'a': 'two' is not a BIGINT"),
        ("a BIGINT", "in.json", b"{\"a\": \"two\"}\n", "in.json line 1, byte 0, column 'a': 'two' is not a BIGINT"),
        (
            "a TIMESTAMP(3)",
            "in.csv",
            b"2013-02-30 00:00:00\n",
            "in.csv line 1, byte 0, column 'a': '2013-02-30 00:00:00' is not a TIMESTAMP(3); it should look like \
             2013-01-31 05:00:00.123 or 2013-01-31T05:00:00Z",
        ),
        ("a SMALLINT", "in.csv", b"1\n40000\n", "in.csv line 2, byte 2, column 'a': '40000' does not fit in SMALLINT"),
        (
            "a BIGINT",
            "in.json",
            b"{\"a\": 9223372036854775808}\n",
            "in.json line 1, byte 0, column 'a': '9223372036854775808' does not fit in BIGINT",
        ),
        (
            "a STRING",
            "in.csv",
            b"good\nb\xffd\n",
            "in.csv line 2, byte 5: byte 1 of the record is not UTF-8, at '\u{fffd}d'; convert the file to UTF-8",
        ),
        (
            "a STRING",
            "in.json",
            b"{\"a\": \"b\xffd\"}\n",
            "in.json line 1, byte 0: byte 8 of the record is not UTF-8, at '\u{fffd}d\"}'; convert the file to UTF-8",
        ),
    ];
    for (columns, name, bytes, expected) in cases {
        assert_eq!(read(columns, name, bytes).expect(3).error(), expected);
    }
}

#[test]
fn values_that_overflow_on_the_way() {
    let window = "FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR)) GROUP BY window_start, window_end";
    let cases = [
        ("CAST(a AS INT) AS x FROM t", "CAST(a AS INT): 9223372036854775807 is no INT; TRY_CAST gives NULL for it"),
        ("a / 0 AS x FROM t", "division by zero"),
        (&format!("SUM(a) AS x {window}"), "SUM(BIGINT) overflowed; CAST the column to DECIMAL(38, 0)"),
    ];
    for (query, expected) in cases {
        let home = Home::new();
        home.write("in.csv", "9223372036854775807,2026-01-01 00:00:00\n1,2026-01-01 00:00:00\n");
        let answer = run(&home, &script(TIMED, "in.csv", &format!("SELECT {query}"))).expect(3);
        assert!(answer.error().contains(expected), "{}", answer.error());
    }
}

#[test]
fn files_that_cannot_be_read() {
    let select = "SELECT * FROM t";
    let home = Home::new();
    home.write("flights.csv", "1\n");
    let missing = run(&home, &script("a BIGINT", "flihgts.csv", select)).expect(2);
    assert_eq!(missing.error(), "Source t: flihgts.csv: no such file or folder; did you mean 'flights.csv'?");
    let missing = run(&home, &script("a BIGINT", "2013-*.csv", select)).expect(2);
    assert_eq!(missing.error(), "Source t: 2013-*.csv: no file matches");
    let missing = home.ruslo(&["run", "nosuch.sql"]).expect(2);
    assert_eq!(missing.error(), "nosuch.sql: no such file or folder");
    let folder = home.ruslo(&["run", "."]).expect(2);
    assert_eq!(folder.error(), ".: this is a folder, not a file");
    assert!(!home.exists(".ruslo"));
}

#[test]
fn files_that_may_not_be_read() {
    for name in ["in.csv", "in.parquet", "in.avro"] {
        let home = Home::new();
        home.write(name, "1\n");
        home.write("job.sql", script("a BIGINT", name, "SELECT * FROM t"));
        fs::set_permissions(home.path(name), fs::Permissions::from_mode(0o000)).unwrap();
        // Root may read anything; without its privileges it may not.
        let refused = home.shell(&format!("setpriv --bounding-set=-all {} run job.sql", env!("CARGO_BIN_EXE_ruslo")));
        if refused.err.contains("setpriv") || refused.code == Some(0) {
            eprintln!("skipped: no way here to be refused a file: {}", refused.err);
            return;
        }
        assert!(refused.expect(4).error().ends_with(&format!("{name}: permission denied")));
    }
}

#[test]
fn an_empty_file_is_an_empty_table() {
    for name in ["in.csv", "in.json"] {
        let answer = read("a BIGINT", name, b"").expect(0);
        assert!(answer.err.ends_with(": 0 rows in, 0 rows out\n"), "{}", answer.err);
    }
}

#[test]
fn gzip_that_is_cut_or_damaged() {
    let whole = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/flights/data/flights-2013-q1.csv.gz");
    let mut bytes = fs::read(whole).unwrap();
    bytes.truncate(bytes.len() / 2);
    let columns: Vec<_> = (1..=19).map(|n| format!("c{n} STRING")).collect();
    let cut = read(&columns.join(", "), "in.csv.gz", &bytes).expect(3);
    let expected = "in.csv.gz: the gzip data ends too early, the file is not whole; ";
    assert!(cut.error().starts_with(expected), "{}", cut.error());
    let damaged = read("c STRING", "in.csv.gz", b"\x1f\x8b\x08\x00 this is not gzip").expect(3);
    assert!(damaged.error().starts_with("in.csv.gz: the gzip data is damaged"), "{}", damaged.error());
}

/// A file of `n`, a BIGINT, and `t`, a text, in seven blocks.
fn blocks(format: &str) -> Vec<u8> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../formats/tests/fixtures");
    fs::read(fixtures.join(format!("groups.{format}"))).unwrap()
}

/// The error of reading `columns` from a file of `bytes`.
fn misread(columns: &str, name: &str, bytes: &[u8]) -> String {
    read(columns, name, bytes).expect(3).error().to_owned()
}

#[test]
fn parquet_and_avro_of_another_schema_or_none_at_all() {
    for (format, magic) in [("parquet", "it does not begin with 'PAR1'"), ("avro", "avro without a schema is not read")]
    {
        let name = format!("in.{format}");
        let bytes = blocks(format);
        let lacking = misread("x BIGINT", &name, &bytes);
        assert_eq!(lacking, format!("{name}: there is no column 'x'; the file has 'n', 't'"));
        let narrow = misread("n INT", &name, &bytes);
        assert_eq!(narrow, format!("{name}: column 'n': it is BIGINT in the file, which cannot be read as INT"));
        let other = misread("n BIGINT", &name, "{\"n\": 1}\n".repeat(9).as_bytes());
        assert!(other.starts_with(&format!("{name}: this is no {format} file")) && other.ends_with(magic), "{other}");
        let empty = misread("n BIGINT", &name, b"");
        assert!(empty.ends_with(&format!("{name}: the file is empty; this is no {format} file")), "{empty}");
    }
}

#[test]
fn parquet_and_avro_that_are_cut_or_damaged() {
    let columns = "n BIGINT, t STRING";
    for (format, place) in [("parquet", "row group 1, from row 0 on"), ("avro", "block 1, at byte ")] {
        let name = format!("in.{format}");
        let bytes = blocks(format);
        let cut = misread(columns, &name, &bytes[..bytes.len() - 5]);
        assert!(cut.starts_with(&format!("{name}: the {format} file is not whole: ")), "{cut}");
        let mut damaged = bytes.clone();
        // Behind the header, which ends with the sync marker in Avro: in the first rows.
        let from = if format == "avro" { bytes.windows(6).position(|part| part == b"text 0").unwrap() - 1 } else { 4 };
        damaged[from..from + 30].fill(0xff);
        let damaged = misread(columns, &name, &damaged);
        assert!(damaged.starts_with(&format!("{name}: {place}")), "{damaged}");
        assert!(damaged.contains(&format!(": the {format} data is damaged (")), "{damaged}");
    }
}

#[test]
fn zstd_that_is_cut_or_damaged() {
    // A frame of one block that is not compressed, of 4 bytes.
    let whole = b"\x28\xb5\x2f\xfd\x20\x04\x21\x00\x001\n2\n";
    read("a BIGINT", "in.csv.zst", whole).expect(0);
    let cut = misread("a BIGINT", "in.csv.zst", &whole[..11]);
    assert!(cut.starts_with("in.csv.zst: the zstd data ends too early, the file is not whole; "), "{cut}");
    let mut damaged = whole.to_vec();
    // A block of a kind that there is not.
    damaged[6] = 0x27;
    let damaged = misread("a BIGINT", "in.csv.zst", &damaged);
    assert!(damaged.starts_with("in.csv.zst: the zstd data is damaged ("), "{damaged}");
}

/// The error of a script that is wrong.
fn refused(text: &str) -> String {
    let home = Home::new();
    home.write("job.sql", text);
    let run = home.ruslo(&["run", "job.sql"]).expect(2);
    let checked = home.ruslo(&["check", "job.sql"]).expect(2);
    assert_eq!(run.error(), checked.error());
    assert_eq!(run.err, checked.err, "nothing but the error");
    run.error().to_owned()
}

const TIMED: &str = "a BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '5' SECOND";

#[test]
fn names_that_are_not_known() {
    let cases = [
        (
            script("price BIGINT", "in.csv", "SELECT prise FROM t"),
            "there is no column 'prise'\n --> job.sql:3:8\n  |\n3 | SELECT prise FROM t\n  |        ^\n  = help: did \
             you mean 'price'?",
        ),
        (
            script("a BIGINT", "in.csv", "SELECT absolute(a) FROM t"),
            "there is no function 'absolute'\n --> job.sql:3:8\n  |\n3 | SELECT absolute(a) FROM t\n  |        ^",
        ),
        (
            script("a BIGINT", "in.csv", "SELECT a FROM x"),
            "there is no table or view 'x'\n --> job.sql:3:15\n  |\n3 | SELECT a FROM x\n  |               ^\n  = help: did you \
             mean 't'?",
        ),
        (
            script("a BIGINT", "in.csv", "").replace("'filesystem'", "'filesytem'"),
            "there is no connector 'filesytem'; there are ..\n --> job.sql:2:21\n  |\n2 | \
             WITH ('connector' = 'filesytem', 'path' = 'in.csv', 'format' = 'csv');\n  |                     ^\n  = \
             help: did you mean 'filesystem'?",
        ),
        (
            script("a BIGINT", "in.csv", "").replace("'path'", "'paht'"),
            "the connector 'filesystem' has no option 'paht'\n --> job.sql:2:35\n  |\n2 | WITH ('connector' = \
             'filesystem', 'paht' = 'in.csv', 'format' = 'csv');\n  |                                   ^\n  = help: \
             did you mean 'path'?",
        ),
    ];
    let connectors: Vec<_> = ruslo::registry().names().collect();
    for (text, expected) in cases {
        assert_eq!(refused(&text).replace(&connectors.join(", "), ".."), expected);
    }
}

#[test]
fn time_that_is_none() {
    let text = script("a BIGINT, WATERMARK FOR a AS a - 5", "in.csv", "SELECT a FROM t");
    assert_eq!(
        refused(&text),
        "a watermark needs a TIMESTAMP; 'a' is BIGINT\n --> job.sql:1:41\n  |\n1 | CREATE TABLE t (a BIGINT, WATERMARK \
         FOR a AS a - 5)\n  |                                         ^\n  = help: make a TIMESTAMP(3) of it in a \
         computed column"
    );
    let window = "SELECT COUNT(*) AS n FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR))
GROUP BY window_start, window_end";
    let text = refused(&script("a BIGINT, ts TIMESTAMP(3)", "in.csv", window));
    assert!(text.starts_with("the window on 't' needs a watermark on 'ts'\n --> job.sql:3:"), "{text}");
    let help = "\n  = help: add WATERMARK FOR ts AS ts - INTERVAL '5' SECOND to CREATE TABLE t";
    assert!(text.ends_with(help), "{text}");
    run(&Home::new(), &script(TIMED, "in.csv", window)).expect(2);
}

#[test]
fn a_sink_that_does_not_fit() {
    let sink = "CREATE TABLE s (a INT) WITH ('connector' = 'blackhole');\nINSERT INTO s SELECT a FROM t";
    assert_eq!(
        refused(&script("a DOUBLE", "in.csv", sink)),
        "column 1 'a': the query gives DOUBLE, the table wants INT; CAST it\n --> job.sql:4:13\n  |\n4 | INSERT INTO s \
         SELECT a FROM t\n  |             ^\n  the query  the table\n  a DOUBLE   a INT"
    );
    assert!(
        refused(&script("a INT, b INT", "in.csv", &sink.replace("SELECT a", "SELECT a, b")))
            .starts_with("the query gives 2 columns, the table 's' takes 1 column\n")
    );
}

#[test]
fn what_comes_later_is_refused_in_a_sentence() {
    let text = refused(&script(TIMED, "in.csv", "SELECT a FROM t LIMIT 3"));
    assert!(text.starts_with("LIMIT clauses are not supported yet (line 3, column 17)\n"), "{text}");
}

#[test]
fn arguments_that_contradict() {
    let home = Home::new();
    let both = home.ruslo(&["run", "a.sql", "--fresh", "--resume"]).expect(2);
    assert!(both.error().starts_with("the argument '--fresh' cannot be used with '--resume'"), "{}", both.err);
    assert!(home.ruslo(&["run"]).expect(2).error().starts_with("the following required arguments were not provided"));
    let wrong = home.ruslo(&["run", "a.sql", "--set", "parallelism"]).expect(2);
    assert!(wrong.error().contains("write key=value, as in parallelism.default=2"), "{}", wrong.err);
}
