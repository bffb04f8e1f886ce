//! Money moved between accounts, in a job that is killed and resumed: after every checkpoint the balances come to nothing.
//!
//! The balances are written as changes, their total beside them. A part of an output folder names its epoch; all parts up to
//! an epoch are what there was to be seen at that checkpoint.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::home::{Home, Running};

const ROWS: i64 = 8_000;
const ACCOUNTS: i64 = 23;

/// Who gives, who takes, how much.
fn transfer(n: i64) -> (i64, i64, i64) {
    (n * 7 % ACCOUNTS, n * n % ACCOUNTS, 1 + n * 31 % 97)
}

const SCRIPT: &str = "
CREATE TABLE transfers (giver BIGINT, taker BIGINT, amount BIGINT)
WITH ('connector' = 'filesystem', 'path' = 'in.csv', 'format' = 'csv');
CREATE TABLE balances (account BIGINT, balance BIGINT)
WITH ('connector' = 'filesystem', 'path' = 'balances', 'format' = 'json', 'changelog' = 'debezium');
CREATE TABLE totals (n BIGINT, total BIGINT)
WITH ('connector' = 'filesystem', 'path' = 'totals', 'format' = 'json', 'changelog' = 'debezium');
CREATE TABLE twice (account BIGINT, here BIGINT, there BIGINT)
WITH ('connector' = 'filesystem', 'path' = 'twice', 'format' = 'json', 'changelog' = 'debezium');
CREATE VIEW balance AS
SELECT account, SUM(amount) AS balance
FROM (SELECT giver AS account, -amount AS amount FROM transfers UNION ALL SELECT taker, amount FROM transfers)
GROUP BY account;
EXECUTE STATEMENT SET
BEGIN
  INSERT INTO balances SELECT account, balance FROM balance;
  INSERT INTO totals SELECT COUNT(*), SUM(balance) FROM balance;
  INSERT INTO twice SELECT a.account, a.balance, b.balance FROM balance a JOIN balance b ON a.account = b.account;
END;
";

fn home() -> Home {
    let home = Home::new();
    let line = |n| {
        let (giver, taker, amount) = transfer(n);
        format!("{giver},{taker},{amount}\n")
    };
    home.write("in.csv", (0..ROWS).map(line).collect::<String>());
    home.write("job.sql", SCRIPT);
    home
}

fn start(home: &Home, parallelism: &str, rate: &str) -> Running {
    let rate = format!("source.rows-per-second={rate}");
    let aligned = "execution.checkpointing.aligned-checkpoint-timeout=never";
    let job = ["run", "job.sql", "--checkpoint-dir", "c", "--checkpoint-interval", "50ms", "--resume"];
    let settings = ["--set", &rate, "--set", "execution.batch-rows=50", "--set", aligned, "--parallelism", parallelism];
    home.start(&[&job[..], &settings].concat())
}

/// The table after each checkpoint that changed it: rows by their columns, and how often they are there.
fn tables(home: &Home, folder: &str) -> Vec<BTreeMap<Vec<i64>, i64>> {
    let mut epochs: BTreeMap<u64, Vec<Value>> = BTreeMap::new();
    for entry in fs::read_dir(home.path(folder)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        if let Some((_, epoch)) = name.strip_prefix("part-").and_then(|name| name.rsplit_once('-')) {
            let epoch = epoch.split('_').next().unwrap().parse().unwrap();
            let text = fs::read_to_string(&path).unwrap();
            epochs
                .entry(epoch)
                .or_default()
                .extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
        }
    }
    let (mut table, mut tables) = (BTreeMap::new(), Vec::new());
    for changes in epochs.into_values() {
        for change in changes {
            for (side, sign) in [("before", -1), ("after", 1)] {
                if let Some(row) = change[side].as_object() {
                    let columns = row.values().map(|value| value.as_i64().unwrap()).collect();
                    *table.entry(columns).or_default() += sign;
                }
            }
        }
        table.retain(|_, count| *count != 0);
        tables.push(table.clone());
    }
    tables
}

fn is_one_row_each(table: &BTreeMap<Vec<i64>, i64>) -> bool {
    let mut accounts: Vec<i64> = table.keys().map(|row| row[0]).collect();
    accounts.dedup();
    table.values().all(|count| *count == 1) && accounts.len() == table.len()
}

#[test]
fn no_checkpoint_shows_half_a_transfer() {
    let home = home();
    for parallelism in ["2", "3", "1", "2"] {
        let before = home.newest_epoch("c").max(1);
        let mut running = start(&home, parallelism, "2000");
        running.until_checkpoint(&home, before + 5);
        running.kill();
    }
    start(&home, "3", "100000").end().expect(0);

    let balances = tables(&home, "balances");
    assert!(balances.len() > 10, "{} checkpoints", balances.len());
    for table in &balances {
        assert!(is_one_row_each(table), "{table:?}");
        assert_eq!(table.keys().map(|row| row[1]).sum::<i64>(), 0, "{table:?}");
    }
    for table in tables(&home, "totals") {
        let rows: Vec<_> = table.into_iter().collect();
        assert!(matches!(rows.as_slice(), [(row, 1)] if row[1] == 0), "{rows:?}");
    }
    for table in tables(&home, "twice") {
        assert!(is_one_row_each(&table) && table.keys().all(|row| row[1] == row[2]), "{table:?}");
    }
    let mut expected: BTreeMap<i64, i64> = BTreeMap::new();
    for (giver, taker, amount) in (0..ROWS).map(transfer) {
        *expected.entry(giver).or_default() -= amount;
        *expected.entry(taker).or_default() += amount;
    }
    let last = balances.last().unwrap().keys().map(|row| (row[0], row[1])).collect::<BTreeMap<_, _>>();
    assert_eq!(last, expected);
}
