-- A window over the result of a window, and the older syntax over that.
CREATE TABLE bid (
  auction BIGINT, bidder BIGINT, price BIGINT, dateTime TIMESTAMP(3),
  WATERMARK FOR dateTime AS dateTime - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids', 'format' = 'json');
CREATE VIEW by_second AS
SELECT auction, window_time AS at_time, COUNT(*) AS n
FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '1' SECOND))
GROUP BY auction, window_start, window_end, window_time;
SELECT TUMBLE_END(t, INTERVAL '1' HOUR) AS hour_end, MAX(most) AS most
FROM (
  SELECT window_time AS t, MAX(n) AS most
  FROM TABLE(TUMBLE(TABLE by_second, DESCRIPTOR(at_time), INTERVAL '1' MINUTE))
  GROUP BY window_start, window_end, window_time
)
GROUP BY TUMBLE(t, INTERVAL '1' HOUR);
