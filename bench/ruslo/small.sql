-- The smallest job that has everything: a hundred rows of CSV, a watermark, a window, a printed result.
CREATE TABLE clicks (
  who STRING, amount BIGINT, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '5' SECOND
) WITH ('connector' = 'filesystem', 'path' = '${DATA}/small.csv', 'format' = 'csv', 'csv.header' = 'true');

SELECT who, window_start, count(*) AS clicks, sum(amount) AS amount
FROM TABLE(TUMBLE(TABLE clicks, DESCRIPTOR(ts), INTERVAL '10' SECOND))
GROUP BY who, window_start, window_end;
