-- Aggregates with DISTINCT, FILTER and an order: event time where none is written.
CREATE TABLE bid (
  auction BIGINT, price BIGINT, channel STRING, url STRING, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '5' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bid', 'format' = 'json');
SELECT channel, COUNT(DISTINCT auction) AS auctions, SUM(price) FILTER (WHERE price > 10) AS high,
       FIRST_VALUE(price) AS opened, LISTAGG(url, ' ' ORDER BY price DESC) AS urls
FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '10' SECOND))
GROUP BY channel, window_start, window_end;
