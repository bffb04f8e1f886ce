//! The commands and their answers when all is well.

use crate::home::{COPY, Home, numbers, sorted_numbers};

const CLICKS: &str = "\
CREATE TABLE clicks (who STRING, amount INT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' SECOND)
WITH ('connector' = 'filesystem', 'path' = 'clicks.json', 'format' = 'json');
";

const PER_WINDOW: &str = "\
SELECT who, window_start, COUNT(*) AS clicks, SUM(amount) AS amount
FROM TABLE(TUMBLE(TABLE clicks, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY who, window_start, window_end
";

fn with_clicks() -> Home {
    let home = Home::new();
    let row = |who: &str, amount: u32, second: u32| {
        format!("{{\"who\": \"{who}\", \"amount\": {amount}, \"ts\": \"2026-01-01 00:00:{second:02}\"}}\n")
    };
    let rows = [row("ann", 1, 1), row("bob", 2, 2), row("ann", 4, 3), row("bob", 8, 15), row("late", 16, 4)];
    home.write("clicks.json", rows.concat());
    home
}

fn with_numbers(last: u64) -> Home {
    let home = Home::new();
    home.write("in.csv", numbers(last));
    home.write("copy.sql", COPY);
    home
}

#[test]
fn version_and_help() {
    let home = Home::new();
    let version = home.ruslo(&["version"]).expect(0);
    assert_eq!(version.out, format!("ruslo {}\n", env!("CARGO_PKG_VERSION")));
    for arguments in [&["--help"][..], &["run", "--help"]] {
        let help = home.ruslo(arguments).expect(0);
        assert!(help.out.contains("130  stopped by Ctrl-C"), "{}", help.out);
    }
}

#[test]
fn check_and_explain_run_nothing() {
    let home = with_numbers(3);
    let checked = home.ruslo(&["check", "copy.sql", "--parallelism", "2"]).expect(0);
    assert_eq!(checked.out, "ok: copy: Source numbers → Sink copy, parallelism 2, exactly-once\n");
    let explained = home.ruslo(&["explain", "copy.sql"]).expect(0);
    assert!(explained.out.starts_with("== Logical plan ==\n"), "{}", explained.out);
    assert!(explained.out.contains("Source numbers"), "{}", explained.out);
    assert!(!home.exists("out") && !home.exists(".ruslo"));
    home.write("declares.sql", "SET 'pipeline.name' = 'x';");
    assert_eq!(home.ruslo(&["check", "declares.sql"]).expect(0).out, "ok: nothing to run, only declarations\n");
}

#[test]
fn a_job_runs_and_leaves_its_rows_and_nothing_else() {
    let home = with_numbers(1_000);
    let answer = home.ruslo(&["run", "copy.sql", "--parallelism", "2"]).expect(0);
    assert_eq!(home.rows("out"), sorted_numbers(1_000));
    assert_eq!(answer.out, "");
    let lines: Vec<_> = answer.err.lines().collect();
    let begun = "copy: Source numbers → Sink copy, parallelism 2, exactly-once, a checkpoint every 10 s";
    assert_eq!(lines[0], begun);
    assert!(lines[1].starts_with("copy: finished after ") && lines[1].ends_with(": 1,000 rows in, 1,000 rows out"));
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(!home.exists(".ruslo"), "the default checkpoint folder is gone");
}

#[test]
fn a_second_run_adds_its_rows_to_the_first() {
    let home = with_numbers(10);
    let arguments = ["run", "copy.sql", "--checkpoint-dir", "c"];
    home.ruslo(&arguments).expect(0);
    home.ruslo(&arguments).expect(0);
    assert_eq!(home.rows("out").len(), 20);
    let resumed = home.ruslo(&["run", "copy.sql", "--checkpoint-dir", "c", "--resume"]).expect(0);
    assert!(resumed.err.starts_with("copy: already finished at checkpoint "), "{}", resumed.err);
    assert!(resumed.err.ends_with("10 rows in, 10 rows out\n"), "{}", resumed.err);
    assert_eq!(home.rows("out").len(), 20);
}

#[test]
fn the_json_summary_is_the_last_line_of_standard_output() {
    let home = with_numbers(10);
    let answer = home.ruslo(&["run", "copy.sql", "--output", "json", "--checkpoint-dir", "c"]).expect(0);
    let summary = answer.summary();
    assert_eq!(answer.out.lines().count(), 1);
    assert_eq!(summary["name"], "copy");
    assert_eq!(summary["state"], "finished");
    assert_eq!((&summary["rows_in"], &summary["rows_out"], &summary["late_rows"]), (&10.into(), &10.into(), &0.into()));
    assert_eq!(summary["checkpoint_dir"], "c");
    assert_eq!(summary["checkpoint"], home.newest_epoch("c"));
    assert!(summary["seconds"].as_f64().unwrap() > 0.0);
    assert!(summary["peak_memory_bytes"].is_u64());
    let operators: Vec<_> = summary["operators"].as_array().unwrap().iter().map(|it| it["name"].clone()).collect();
    assert_eq!(operators, ["Source numbers", "Sink copy"]);
}

#[test]
fn a_select_prints_a_table() {
    let home = with_clicks();
    let answer = home.ruslo(&["run", "-e", &format!("{CLICKS}{PER_WINDOW}"), "--parallelism", "1"]).expect(0);
    let mut lines: Vec<_> = answer.out.lines().collect();
    assert_eq!(lines[0].split('|').map(str::trim).collect::<Vec<_>>(), ["who", "window_start", "clicks", "amount"]);
    let mut rows: Vec<Vec<&str>> =
        lines.split_off(2).into_iter().map(|line| line.split('|').map(str::trim).collect()).collect();
    rows.sort();
    let (first, second) = ("2026-01-01 00:00:00", "2026-01-01 00:00:10");
    assert_eq!(rows, [["ann", first, "2", "5"], ["bob", first, "1", "2"], ["bob", second, "1", "8"]]);
    assert!(answer.err.contains("5 rows in, 3 rows out, 1 late row"), "{}", answer.err);
    assert!(!home.exists(".ruslo"));
}

#[test]
fn print_and_a_json_summary_share_standard_output() {
    let home = with_clicks();
    let sink = "CREATE TABLE p (who STRING) WITH ('connector' = 'print'); INSERT INTO p SELECT who FROM clicks";
    let text = format!("{CLICKS}{sink}");
    let answer = home.ruslo(&["run", "-e", &text, "--parallelism", "1", "--output", "json"]).expect(0);
    assert_eq!(answer.out.lines().filter(|line| line.starts_with("+I[")).count(), 5, "{}", answer.out);
    assert_eq!(answer.summary()["rows_out"], 5);
}

#[test]
fn a_script_comes_by_the_pipe() {
    let home = with_numbers(10);
    let ruslo = env!("CARGO_BIN_EXE_ruslo");
    home.shell(&format!("{ruslo} run - < copy.sql")).expect(0);
    assert_eq!(home.rows("out").len(), 10);
    let wrong = home.shell(&format!("echo 'SELECT x FROM' | {ruslo} check -")).expect(2);
    assert!(wrong.err.contains("--> standard input:1:14"), "{}", wrong.err);
}

#[test]
fn whoever_reads_only_the_first_rows_causes_no_error() {
    let home = with_numbers(200_000);
    let ruslo = env!("CARGO_BIN_EXE_ruslo");
    home.write("print.sql", COPY.split("CREATE TABLE copy").next().unwrap().to_owned() + "SELECT n FROM numbers");
    let answer = home.shell(&format!("{{ {ruslo} run print.sql; echo $? > code; }} | head -1")).expect(0);
    assert_eq!(std::fs::read_to_string(home.path("code")).unwrap(), "0\n", "{}", answer.err);
    assert!(!answer.err.contains("error"), "{}", answer.err);
    assert!(!home.exists(".ruslo"), "nothing is left that could be resumed");
}

#[test]
fn on_a_terminal_the_view_is_redrawn_and_rows_stay_whole() {
    let home = with_numbers(300);
    if home.shell("script --version").code != Some(0) {
        eprintln!("skipped: there is no script(1) to make a terminal with");
        return;
    }
    let text = COPY.split("CREATE TABLE copy").next().unwrap().to_owned() + "SELECT n FROM numbers";
    home.write("print.sql", text);
    let ruslo = env!("CARGO_BIN_EXE_ruslo");
    let run = format!(
        "{ruslo} run print.sql --parallelism 1 --set source.rows-per-second=300 --set execution.batch-rows=10 \
         --checkpoint-interval 100ms"
    );
    let answer = home.shell(&format!("TERM=xterm script -qec '{run}' /dev/null")).expect(0);
    let screen = answer.out.replace('\r', "");
    assert!(screen.contains("rows/s now") || screen.contains("/s now"), "{screen}");
    assert!(screen.contains("watermark") && screen.contains("backpressure") && screen.contains("took"), "{screen}");
    for n in 1..=300 {
        let row = n.to_string();
        assert!(screen.lines().any(|line| line.trim_end().ends_with(&row)), "{n} is not whole in {screen}");
    }
    assert!(screen.contains("print: finished after"), "{screen}");
}

#[test]
fn settings_come_by_the_command_line() {
    let home = with_numbers(10);
    let checked = home.ruslo(&["check", "copy.sql", "--set", "pipeline.name=hourly", "--set", "parallelism.default=3"]);
    assert_eq!(checked.expect(0).out, "ok: hourly: Source numbers → Sink copy, parallelism 3, exactly-once\n");
    let wrong = home.ruslo(&["run", "copy.sql", "--set", "parallelism.defualt=3"]).expect(2);
    assert_eq!(
        wrong.error(),
        "there is no setting 'parallelism.defualt'\n  = help: did you mean 'parallelism.default'?"
    );
    let wrong = home.ruslo(&["run", "copy.sql", "--checkpoint-interval", "soon"]).expect(2);
    assert_eq!(
        wrong.error(),
        "'execution.checkpointing.interval': 'soon' is not a time such as '10 s', '500 ms' or '1 min'"
    );
    let wrong = home.ruslo(&["run", "copy.sql", "--parallelism", "0"]).expect(2);
    assert_eq!(wrong.error(), "'parallelism.default': 0 is not between 1 and 128");
}
