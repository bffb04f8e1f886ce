-- The watermark needs a column that the query does not.
CREATE TABLE log (
  id BIGINT, epoch_ms BIGINT, slack_ms BIGINT, line STRING,
  ts AS CAST(TIMESTAMP '1970-01-01 00:00:00.000' AS TIMESTAMP(3)),
  at_ AS CAST(line AS TIMESTAMP(3)),
  PRIMARY KEY (id) NOT ENFORCED,
  WATERMARK FOR at_ AS CASE WHEN slack_ms > 5 THEN at_ - INTERVAL '5' SECOND ELSE at_ END
) WITH ('connector' = 'filesystem', 'path' = 'log', 'source.rows-per-second' = '100');
SET 'parallelism.default' = '4';
SELECT id, COUNT(*) AS n FROM TABLE(TUMBLE(TABLE log, DESCRIPTOR(at_), INTERVAL '1' HOUR)) GROUP BY id, window_end;
