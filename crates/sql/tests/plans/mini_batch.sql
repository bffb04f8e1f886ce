-- Rows are held for a while and grouped before the exchange by key; not where single values are kept, nor over changes.
CREATE TABLE t (k STRING, v INT, d DOUBLE) WITH ('connector' = 'filesystem', 'path' = 't', 'format' = 'json');
SET 'table.exec.mini-batch.enabled' = 'true';
SET 'table.exec.mini-batch.allow-latency' = '500 ms';
SET 'table.exec.mini-batch.size' = '10000';
SELECT n, COUNT(*) AS keys FROM (
  SELECT k, COUNT(*) AS n, SUM(v) AS total, MAX(d) FILTER (WHERE v > 0) AS high FROM t GROUP BY k
  UNION ALL
  SELECT k, COUNT(DISTINCT v), 0, 0 FROM (SELECT DISTINCT k, v FROM t) GROUP BY k
) GROUP BY n;
