//! What a script becomes: its kind, its graph, its settings, its ids.

use std::time::Duration;

use ruslo_core::graph::{NodeKind, Partitioning};
use ruslo_sql::{JobKind, Planned};

use crate::world::{TABLES, planned, planned_with};

const HOURLY: &str = "INSERT INTO out SELECT auction, COUNT(*), AVG(price)
FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '1' HOUR)) GROUP BY auction, window_start, window_end";

fn names(planned: &Planned) -> Vec<&str> {
    planned.graph.nodes.iter().map(|node| node.name.as_str()).collect()
}

fn id_of(planned: &Planned, prefix: &str) -> String {
    planned.graph.nodes.iter().find(|node| node.name.starts_with(prefix)).unwrap().id.to_string()
}

#[test]
fn a_window_makes_a_keyed_exchange() {
    let planned = planned(HOURLY).unwrap();
    assert_eq!(planned.kind, JobKind::Insert);
    assert_eq!(names(&planned), ["Source bid", "Project", "TumbleWindow auction, 1 h", "Project", "Sink out"]);
    let partitionings: Vec<_> = planned.graph.edges.iter().map(|edge| edge.partitioning.clone()).collect();
    let forward = Partitioning::Forward;
    assert_eq!(partitionings, [forward.clone(), Partitioning::KeyGroup(vec![0]), forward.clone(), forward]);
    assert!(planned.graph.nodes.iter().all(|node| node.parallelism == 2));
    let NodeKind::Source(source) = &planned.graph.nodes[0].kind else { panic!() };
    assert!(source.row_time.is_some());
    let read: Vec<String> = source.source.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(read, ["auction", "price", "dateTime"]);
}

#[test]
fn without_keys_one_subtask_has_all_rows() {
    let text = "SELECT COUNT(*) AS n FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '1' DAY))
        GROUP BY window_end";
    let planned = planned(text).unwrap();
    assert_eq!(planned.kind, JobKind::Select);
    let parallelism: Vec<usize> = planned.graph.nodes.iter().map(|node| node.parallelism).collect();
    assert_eq!(parallelism, [2, 2, 1, 1, 1]);
    assert_eq!(planned.graph.edges[1].partitioning, Partitioning::KeyGroup(vec![]));
}

#[test]
fn one_phase_and_two_have_the_same_state_and_the_same_query() {
    let set = |strategy: &str| format!("SET 'table.optimizer.agg-phase-strategy' = '{strategy}'; {HOURLY}");
    let [auto, one, two] = ["AUTO", "ONE_PHASE", "TWO_PHASE"].map(|strategy| planned(&set(strategy)).unwrap());
    let windows = |planned: &Planned| {
        let nodes = planned.graph.nodes.iter();
        nodes.filter(|node| node.name.contains("Window")).map(|node| (node.name.clone(), node.id)).collect::<Vec<_>>()
    };
    let [(name, id)] = &windows(&one)[..] else { panic!("{:?}", windows(&one)) };
    assert_eq!(windows(&auto), windows(&one), "there is a key");
    let [(local, _), global] = &windows(&two)[..] else { panic!("{:?}", windows(&two)) };
    assert_eq!((local, global), (&format!("Local{name}"), &(name.clone(), *id)));
    assert_eq!(two.fingerprint, one.fingerprint);
    let idle = planned(&format!("SET 'table.exec.source.idle-timeout' = '5 s'; {}", set("TWO_PHASE"))).unwrap();
    assert_eq!(windows(&idle), windows(&one));
    assert!(idle.explain.contains("phases: one, because a source may fall idle"), "{}", idle.explain);
}

#[test]
fn with_mini_batches_a_group_by_has_the_same_state_and_is_the_same_query() {
    let set = |value: &str| {
        format!("SET 'table.exec.mini-batch.enabled' = '{value}'; SELECT auction, MAX(price) FROM bid GROUP BY auction")
    };
    let [one, two] = ["false", "true"].map(|value| planned(&set(value)).unwrap());
    let groups = |planned: &Planned| {
        let nodes = planned.graph.nodes.iter();
        nodes.filter(|node| node.name.contains("GroupBy")).map(|node| (node.name.clone(), node.id)).collect::<Vec<_>>()
    };
    let [(name, id)] = &groups(&one)[..] else { panic!("{:?}", groups(&one)) };
    let [(local, _), global] = &groups(&two)[..] else { panic!("{:?}", groups(&two)) };
    assert_eq!((local, global), (&format!("Local{name}"), &(name.clone(), *id)));
    assert_eq!(two.fingerprint, one.fingerprint);
    let one_phase =
        planned(&format!("SET 'table.optimizer.agg-phase-strategy' = 'ONE_PHASE'; {}", set("true"))).unwrap();
    assert_eq!(groups(&one_phase), groups(&one));
}

#[test]
fn a_window_over_the_one_subtask_of_another_is_of_one_phase() {
    let text = "CREATE VIEW n AS SELECT window_time AS t, COUNT(*) AS n
        FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '1' MINUTE))
        GROUP BY window_start, window_end, window_time;
        SELECT MAX(n) AS most FROM TABLE(TUMBLE(TABLE n, DESCRIPTOR(t), INTERVAL '1' DAY)) GROUP BY window_end";
    let planned = planned(text).unwrap();
    let local = names(&planned).into_iter().filter(|name| name.starts_with("Local")).collect::<Vec<_>>();
    assert_eq!(local, ["LocalTumbleWindow all rows, 1 min"]);
}

#[test]
fn without_a_window_no_watermark_is_made() {
    let planned = planned("SELECT auction FROM bid").unwrap();
    let NodeKind::Source(source) = &planned.graph.nodes[0].kind else { panic!() };
    assert!(source.row_time.is_none());
    assert_eq!(names(&planned), ["Source bid", "Sink result"]);
}

#[test]
fn explain_plans_and_says_so() {
    let explained = planned(&format!("EXPLAIN {HOURLY}")).unwrap();
    assert_eq!(explained.kind, JobKind::Explain);
    assert!(explained.explain.contains("TumbleWindow auction, 1 h"));
    assert_eq!(explained.fingerprint, planned(HOURLY).unwrap().fingerprint);
}

#[test]
fn a_script_without_a_job_is_nothing_to_run() {
    let planned = planned("").unwrap();
    assert_eq!(planned.kind, JobKind::Nothing);
    assert!(planned.graph.nodes.is_empty() && planned.schema.is_none());
}

#[test]
fn overrides_win_over_the_script() {
    let text =
        "SET 'parallelism.default' = '3'; SET 'execution.checkpointing.interval' = '10 s'; SELECT auction FROM bid";
    let overrides = [("parallelism.default", "5"), ("execution.batch-rows", "7")];
    let planned = planned_with("test.sql", &format!("{TABLES}{text}"), &overrides).unwrap();
    assert_eq!(planned.settings.parallelism, Some(5));
    assert_eq!(planned.settings.batch_rows, Some(7));
    assert_eq!(planned.settings.checkpoint_interval, Some(Duration::from_secs(10)));
    assert!(planned.graph.nodes.iter().all(|node| node.parallelism == 5));
    let wrong = planned_with("test.sql", "", &[("parallelism.defaul", "5")]).err().unwrap();
    let expected = "there is no setting 'parallelism.defaul'\n  = help: did you mean 'parallelism.default'?";
    assert_eq!(wrong.to_string(), expected);
}

#[test]
fn ids_depend_on_what_an_operator_is_alone() {
    let one = planned(HOURLY).unwrap();
    let filtered = planned(&HOURLY.replace("GROUP BY", "WHERE price > 3 GROUP BY")).unwrap();
    let renamed = planned(&HOURLY.replace("COUNT(*)", "COUNT(price)")).unwrap();
    for other in [&filtered, &renamed] {
        assert_eq!(id_of(&one, "TumbleWindow"), id_of(other, "TumbleWindow"));
        assert_eq!(id_of(&one, "Source"), id_of(other, "Source"));
        assert_ne!(one.fingerprint, other.fingerprint);
    }
    let longer = planned(&HOURLY.replace("'1' HOUR", "'2' HOUR")).unwrap();
    assert_ne!(id_of(&one, "TumbleWindow"), id_of(&longer, "TumbleWindow"));
}

#[test]
fn hints_of_lifetimes_leave_operators_and_ids_as_they_are() {
    let bare = "SELECT b.auction, a.n FROM bid AS b
        JOIN (SELECT auction, COUNT(*) AS n FROM bid WHERE price > 3 GROUP BY CUBE (auction, bidder)) AS a
        ON a.auction = b.auction + 1 AND a.n < b.price WHERE b.price > 7";
    let hinted = bare.replacen("SELECT", "SELECT /*+ STATE_TTL('b' = '1 d', 'a' = '0') */", 1);
    let hinted = hinted.replace("(SELECT", "(SELECT /*+ STATE_TTL('bid' = '2 d') */");
    let (bare, hinted) = (planned(bare).unwrap(), planned(&hinted).unwrap());
    let ids = |planned: &Planned| planned.graph.nodes.iter().map(|node| node.id.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&bare), names(&hinted));
    assert_eq!(ids(&bare), ids(&hinted));
    assert_eq!(bare.fingerprint, hinted.fingerprint);
}

#[test]
fn ids_are_a_persistent_format() {
    let planned = planned(HOURLY).unwrap();
    let ids = ["Source", "TumbleWindow", "Sink"].map(|name| id_of(&planned, name));
    assert_eq!(ids.join(" "), include_str!("../golden_ids_v1.txt").trim_end());
}

#[test]
fn a_fingerprint_is_the_meaning_not_the_layout() {
    let one = planned(HOURLY).unwrap().fingerprint;
    let laid_out = HOURLY.replace("SELECT", "-- the counts\n   SELECT /* all */\n");
    assert_eq!(planned(&laid_out).unwrap().fingerprint, one);
    let unrelated = format!("CREATE TABLE other (a INT) WITH ('connector' = 'print'); {HOURLY}");
    assert_eq!(planned(&unrelated).unwrap().fingerprint, one);
    let slower = TABLES.replace("'path' = 'bids'", "'path' = 'bids', 'source.rows-per-second' = '10'");
    let slower = planned_with("test.sql", &format!("{slower}{HOURLY}"), &[]).unwrap();
    assert_eq!(slower.fingerprint, one);
    let NodeKind::Source(source) = &slower.graph.nodes[0].kind else { panic!() };
    assert_eq!(source.rows_per_second, Some(10));
    let elsewhere = TABLES.replace("'path' = 'bids'", "'path' = 'asks'");
    assert_ne!(planned_with("test.sql", &format!("{elsewhere}{HOURLY}"), &[]).unwrap().fingerprint, one);
    let later = TABLES.replace("'4' SECOND", "'5' SECOND");
    assert_ne!(planned_with("test.sql", &format!("{later}{HOURLY}"), &[]).unwrap().fingerprint, one);
    let text = format!("{TABLES}{HOURLY}");
    let in_zone = |zone: &str| planned_with("test.sql", &text, &[("table.local-time-zone", zone)]);
    assert_eq!(in_zone("UTC").unwrap().fingerprint, one);
    assert_ne!(in_zone("Europe/Berlin").unwrap().fingerprint, one);
}

#[test]
fn insert_widens_reorders_and_fills_with_null() {
    let planned = planned("INSERT INTO out (n, auction) SELECT auction, bidder FROM bid").unwrap();
    let schema = planned.graph.nodes.last().unwrap().schema.clone();
    let columns: Vec<String> =
        schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect();
    assert_eq!(columns, ["auction Int64", "n Int64", "avg_price Decimal128(38, 6)"]);
}

#[test]
fn deep_and_long_texts_are_errors_not_crashes() {
    for levels in [10, 100, 200] {
        let nested = format!("SELECT {}auction{} AS x FROM bid", "(".repeat(levels), ")".repeat(levels));
        planned(&nested).unwrap_or_else(|error| panic!("{levels}: {error}"));
    }
    let chain = format!("SELECT auction{} AS x FROM bid", " + 1".repeat(900));
    planned(&chain).unwrap_or_else(|error| panic!("{error}"));
    let deep = format!("SELECT {}auction{} AS x FROM bid", "(".repeat(300), ")".repeat(300));
    assert!(planned(&deep).err().unwrap().to_string().starts_with("nested deeper than 256 levels"));
    let functions = format!("SELECT {}auction{} AS x FROM bid", "ABS(".repeat(250), ")".repeat(250));
    planned(&functions).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn any_prefix_of_a_script_is_an_error_or_a_plan() {
    let text = format!("{TABLES}{HOURLY}");
    for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)).step_by(7) {
        if let Err(error) = planned_with("test.sql", &text[..end], &[]) {
            assert_eq!(error.kind(), ruslo_core::error::ErrorKind::Usage, "{error}\n{}", &text[..end]);
        }
    }
}

#[test]
fn what_is_shown_comes_in_the_order_of_the_script_before_the_job() {
    let text =
        "CREATE TABLE t (a INT, `b c` STRING NOT NULL, d AS a + 1) PARTITIONED BY (a) WITH ('connector' = 'print');
        SHOW CREATE TABLE t; CREATE VIEW v AS SELECT a FROM plain; DESC v; SHOW VIEWS; SELECT a FROM v";
    let planned = planned(text).unwrap();
    assert_eq!(planned.kind, JobKind::Select);
    let expected = "\
CREATE TABLE t (
  a INT,
  `b c` STRING NOT NULL,
  d AS a + 1
) PARTITIONED BY (a) WITH (
  'connector' = 'print'
)
 name | type | null
------+------+------
 a    | INT  | TRUE

 view name
-----------
 v

";
    assert_eq!(planned.output, expected);
}

/// Taken in turn, what takes a row away could come before what adds it.
#[test]
fn changes_go_by_their_key_to_an_operator_of_another_parallelism() {
    let text = "SET 'parallelism.Sink result' = '3'; SELECT auction, COUNT(*) AS n FROM bid GROUP BY auction";
    let planned = planned(text).unwrap();
    let sink = planned.graph.nodes.iter().position(|node| node.name == "Sink result").unwrap();
    assert_eq!(planned.graph.nodes[sink].parallelism, 3);
    let into_sink: Vec<_> = planned.graph.inputs(sink).map(|edge| edge.partitioning.clone()).collect();
    assert_eq!(into_sink, [Partitioning::KeyGroup(vec![0])]);
}
