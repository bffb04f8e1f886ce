CREATE TABLE bid (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, url STRING, dateTime TIMESTAMP(3), extra STRING,
  WATERMARK FOR dateTime AS dateTime - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids', 'format' = 'json');
-- The key, the argument and the condition compute with the window itself.
SELECT EXTRACT(HOUR FROM window_start) AS h, MAX(window_end) AS latest, SUM(price * 2) AS total
FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '10' MINUTE))
WHERE window_start > TIMESTAMP '2020-01-01 00:00:00'
GROUP BY EXTRACT(HOUR FROM window_start), window_start, window_end;
