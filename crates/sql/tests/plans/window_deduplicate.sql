-- Deduplication by window: only the columns that are needed are read.
CREATE TABLE bid (
  auction BIGINT, price BIGINT, channel STRING, url STRING, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '5' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bid', 'format' = 'json');
SELECT auction, price
FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end, auction ORDER BY ts DESC) AS rownum
      FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '10' SECOND)))
WHERE rownum = 1;
