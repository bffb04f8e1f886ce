-- Top-N over the whole stream: without a reader of the rank it is not made; over rows that change all of them are kept.
CREATE TABLE bid (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '5' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bid', 'format' = 'json');
CREATE VIEW newest AS
SELECT auction, bidder, price
FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY bidder, auction ORDER BY ts DESC) AS rownum FROM bid)
WHERE rownum = 1;
SELECT auction, price
FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY auction ORDER BY price DESC) AS rownum FROM newest)
WHERE rownum <= 3
UNION ALL
SELECT auction, rownum
FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY auction ORDER BY price DESC) AS rownum FROM bid)
WHERE rownum <= 3;
