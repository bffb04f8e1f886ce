//! Standard input and output as tables: the command in a shell's pipe.

use crate::home::{Answer, Home};

const TABLES: &str = "\
CREATE TABLE i (n BIGINT, s STRING) WITH ('connector' = 'stdin', 'format' = 'csv');
CREATE TABLE o (n BIGINT, s STRING) WITH ('connector' = 'stdout', 'format' = 'json');
";

/// What `producer | ruslo run job.sql arguments` says.
fn piped(home: &Home, producer: &str, arguments: &str) -> Answer {
    home.shell(&format!("{producer} | {} run job.sql {arguments}", env!("CARGO_BIN_EXE_ruslo")))
}

fn with_job(query: &str) -> Home {
    let home = Home::new();
    home.write("job.sql", format!("{TABLES}{query}"));
    home
}

#[test]
fn rows_go_through_a_pipe() {
    let home = with_job("INSERT INTO o SELECT n * 10, s FROM i WHERE n > 1;");
    for parallelism in ["1", "3"] {
        let answer = piped(&home, "printf '1,a\\n2,b\\n3,c'", &format!("--parallelism {parallelism}")).expect(0);
        let mut rows: Vec<_> = answer.out.lines().collect();
        rows.sort_unstable();
        assert_eq!(rows, [r#"{"n":20,"s":"b"}"#, r#"{"n":30,"s":"c"}"#], "{}", answer.err);
        assert!(answer.err.ends_with(": 3 rows in, 2 rows out\n"), "{}", answer.err);
    }
    assert!(piped(&home, "true", "").expect(0).out.is_empty());
}

#[test]
fn it_is_told_at_the_start_that_rows_can_be_lost() {
    let into_files = "INSERT INTO f SELECT n FROM i;";
    let files = "CREATE TABLE f (n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');";
    for query in ["INSERT INTO o SELECT n, s FROM i;", &format!("{files}{into_files}")] {
        let answer = piped(&with_job(query), "echo 1,a", "").expect(0);
        let begun = answer.err.lines().next().unwrap_or_default();
        assert!(begun.contains(", at-most-once ('stdin' gives no more), a checkpoint every 10 s"), "{}", answer.err);
    }
}

#[test]
fn a_row_is_there_before_the_next_one_is_written() {
    let home = with_job("INSERT INTO o SELECT n, s FROM i;");
    // The producer's second line waits until the first has come out at the other end.
    let producer = "{ echo 1,a; until grep -q a out.json; do sleep 0.02; done; echo 2,b; }";
    home.write("out.json", "");
    piped(&home, producer, "> out.json").expect(0);
    let written = std::fs::read_to_string(home.path("out.json")).unwrap();
    assert_eq!(written, "{\"n\":1,\"s\":\"a\"}\n{\"n\":2,\"s\":\"b\"}\n");
}

#[test]
fn a_bad_row_is_told_with_its_line() {
    let home = with_job("INSERT INTO o SELECT n, s FROM i;");
    let answer = piped(&home, "printf '1,a\\nx,b\\n'", "");
    assert_ne!(answer.code, Some(0));
    assert!(answer.error().contains("standard input line 2, byte 4, column 'n': "), "{}", answer.err);
}

#[test]
fn what_was_read_cannot_be_read_again() {
    let home = with_job("INSERT INTO o SELECT n, s FROM i;");
    let arguments = "--checkpoint-dir c --set execution.checkpointing.interval=20ms";
    let broken = "{ echo 1,a; until [ -e c/manifests/00000000000000000004.json ]; do sleep 0.02; done; echo x; }";
    assert_ne!(piped(&home, broken, arguments).code, Some(0));
    let answer = piped(&home, "echo 2,b", &format!("{arguments} --resume"));
    assert_ne!(answer.code, Some(0));
    assert!(answer.error().contains("standard input cannot be read again"), "{}", answer.err);
    assert_eq!(piped(&home, "echo 2,b", &format!("{arguments} --fresh")).expect(0).out, "{\"n\":2,\"s\":\"b\"}\n");
}

#[test]
fn only_one_table_can_have_standard_input() {
    let home = Home::new();
    let second = "CREATE TABLE j (n BIGINT) WITH ('connector' = 'stdin', 'format' = 'csv');";
    home.write(
        "job.sql",
        format!("{TABLES}{second}\nINSERT INTO o SELECT n, s FROM i UNION ALL SELECT n, 'j' FROM j;"),
    );
    let answer = piped(&home, "echo 1", "");
    assert!(answer.error().contains("standard input can be read once"), "{}", answer.err);
}
