-- OVER: frames of one PARTITION BY and ORDER BY are one operator; another key is one over it; and a window over that.
CREATE TABLE bid (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '5' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bid', 'format' = 'json');
CREATE VIEW priced AS
SELECT auction, ts,
  AVG(price) OVER (PARTITION BY auction ORDER BY ts ROWS BETWEEN 10 PRECEDING AND CURRENT ROW) AS mean,
  MAX(price) OVER (PARTITION BY auction ORDER BY ts RANGE BETWEEN INTERVAL '1' HOUR PRECEDING AND CURRENT ROW) AS dearest,
  LAG(price, 2, 0) OVER (PARTITION BY auction ORDER BY ts) AS before,
  COUNT(*) OVER (PARTITION BY bidder ORDER BY ts RANGE BETWEEN INTERVAL '1' MINUTE PRECEDING AND CURRENT ROW) AS recent
FROM bid;
SELECT auction, window_start, MAX(mean) AS mean, SUM(dearest - before) AS raised, MAX(recent) AS recent
FROM TABLE(TUMBLE(TABLE priced, DESCRIPTOR(ts), INTERVAL '10' MINUTE))
GROUP BY auction, window_start, window_end;
