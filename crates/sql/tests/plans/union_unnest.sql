CREATE TABLE bid (
  auction BIGINT, tags ARRAY<STRING>, url STRING, dateTime TIMESTAMP(3),
  WATERMARK FOR dateTime AS dateTime - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids', 'format' = 'json');
CREATE TABLE ask (auction INT, dateTime TIMESTAMP(3), WATERMARK FOR dateTime AS dateTime)
WITH ('connector' = 'filesystem', 'path' = 'asks', 'format' = 'json');
CREATE VIEW tagged AS
SELECT auction, tag, dateTime FROM bid CROSS JOIN UNNEST(tags) AS u (tag) WHERE tag <> 'x'
UNION ALL
SELECT auction, NULL, dateTime FROM ask;
SELECT auction, COUNT(*) AS n, MAX(tag) AS tag
FROM TABLE(TUMBLE(TABLE tagged, DESCRIPTOR(dateTime), INTERVAL '1' MINUTE)) GROUP BY auction, window_start, window_end;
