-- A key computed from the window: rows are given to their windows first.
CREATE TABLE bid (
  auction BIGINT, bidder BIGINT, price BIGINT, dateTime TIMESTAMP(3),
  WATERMARK FOR dateTime AS dateTime - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids', 'format' = 'json');
SELECT window_start, COUNT(*) AS num, SUM(price) AS total
FROM TABLE(HOP(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '2' SECOND, INTERVAL '10' SECOND))
WHERE dateTime < window_start + INTERVAL '3' SECOND
GROUP BY window_start, auction;
