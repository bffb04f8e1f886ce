-- Top-N over a window aggregate: the conditions that the bound does not say stay above.
CREATE TABLE bid (
  auction BIGINT, price BIGINT, channel STRING, url STRING, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '5' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bid', 'format' = 'json');
SELECT channel, auction, bids, rownum
FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end, channel ORDER BY bids DESC, auction) AS rownum
      FROM (SELECT channel, auction, COUNT(*) AS bids, window_start, window_end
            FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '10' SECOND))
            GROUP BY channel, auction, window_start, window_end))
WHERE rownum <= 3 AND bids > 1;
