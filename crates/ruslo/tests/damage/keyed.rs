//! The job with keyed tables: the first row of each key, by event time and by arrival, in less memory than the keys take.

use std::collections::BTreeMap;

use crate::job::{Row, Rows, time};

/// Keys leave memory while the job runs that is abandoned.
pub(crate) const MEMORY_LIMIT_BYTES: u64 = 256 << 10;

pub(crate) const TABLES: [&str; 2] = ["firsts", "arrivals"];

pub(crate) const SCRIPT: &str = "
CREATE TABLE t (k STRING, v BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '5' SECOND) WITH (
  'connector' = 'filesystem', 'path' = '${home}/in.csv', 'format' = 'csv', 'source.split-size' = '4 kb');
CREATE TABLE u (k STRING, v BIGINT, ts TIMESTAMP(3), p AS PROCTIME()) WITH (
  'connector' = 'filesystem', 'path' = '${home}/in.csv', 'format' = 'csv', 'source.split-size' = '4 kb');
CREATE TABLE firsts (k STRING, v BIGINT, ts TIMESTAMP(3))
WITH ('connector' = 'filesystem', 'path' = '${home}/out/firsts', 'format' = 'csv');
CREATE TABLE arrivals (k STRING, v BIGINT)
WITH ('connector' = 'filesystem', 'path' = '${home}/out/arrivals', 'format' = 'csv');
EXECUTE STATEMENT SET BEGIN
INSERT INTO firsts SELECT k, v, ts FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY k, v ORDER BY ts) AS n FROM t) WHERE n = 1;
INSERT INTO arrivals SELECT k, v FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY k, v ORDER BY p) AS n FROM u) WHERE n = 1;
END;";

/// What the two tables must hold: no row is late.
pub(crate) fn expected(rows: &[Row]) -> Rows {
    let mut firsts: BTreeMap<(usize, u64), u64> = BTreeMap::new();
    for (key, value, at) in rows {
        let first = firsts.entry((*key, *value)).or_insert(*at);
        *first = (*first).min(*at);
    }
    let rows = firsts.into_iter().flat_map(|((key, value), at)| {
        [format!("firsts: k{key},{value},{}", time(at)), format!("arrivals: k{key},{value}")]
    });
    rows.map(|row| (row, 1)).collect()
}
