-- Bad records and late rows each go to a table of their own; a watermark with every caution.
CREATE TABLE late (note STRING, `at` TIMESTAMP(3)) WITH ('connector' = 'filesystem', 'path' = 'late');
CREATE TABLE bad (raw BYTES, position STRING) WITH ('connector' = 'filesystem', 'path' = 'bad');
CREATE TABLE t (k INT, v INT, note STRING, `at` TIMESTAMP(3), WATERMARK FOR `at` AS `at` - INTERVAL '5' SECOND) WITH (
  'connector' = 'filesystem', 'path' = 'in', 'format' = 'json', 'watermark.max-ahead' = '1 h',
  'on-error' = 'dead-letter', 'on-error.table' = 'bad', 'late-data' = 'side-table', 'late-data.table' = 'late'
);
CREATE TABLE result (k INT, total INT) WITH ('connector' = 'filesystem', 'path' = 'out');
INSERT INTO result
SELECT k, SUM(v) FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(`at`), INTERVAL '1' MINUTE))
WHERE v > 0
GROUP BY k, window_start, window_end;
