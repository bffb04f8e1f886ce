CREATE TABLE bid (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, url STRING, dateTime TIMESTAMP(3), extra STRING,
  WATERMARK FOR dateTime AS dateTime - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids', 'format' = 'json');
WITH big AS (SELECT * FROM bid WHERE price > 5)
SELECT channel, window_start, window_end, window_time, MIN(price) AS low, MAX(price) AS high, SUM(price) / COUNT(*) AS mean
FROM (SELECT * FROM TABLE(TUMBLE(DATA => TABLE big, TIMECOL => DESCRIPTOR(dateTime), SIZE => INTERVAL '1' MINUTE)))
GROUP BY channel, window_start, window_end, window_time
HAVING COUNT(*) > 1 AND channel <> 'x';
