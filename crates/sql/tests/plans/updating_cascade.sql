SET 'table.exec.state.ttl' = '12 h';
CREATE TABLE t (k STRING, g INT, v INT) WITH ('connector' = 'filesystem', 'path' = 't', 'format' = 'json');
CREATE TABLE sink (n BIGINT, high INT, `keys` BIGINT) WITH ('connector' = 'print');
INSERT INTO sink
SELECT n, MAX(total), COUNT(DISTINCT k) FROM (SELECT k, COUNT(*) AS n, SUM(v) AS total FROM t GROUP BY k) AS x GROUP BY n;
