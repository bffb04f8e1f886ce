CREATE TABLE bid (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, url STRING, dateTime TIMESTAMP(3), extra STRING,
  WATERMARK FOR dateTime AS dateTime - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids', 'format' = 'json');
CREATE VIEW cheap AS SELECT auction AS item, price / 100 AS euros, dateTime AS t FROM bid WHERE price < 100000;
CREATE VIEW counted (item, n, mean) AS
SELECT item, COUNT(*), AVG(euros) FROM TABLE(TUMBLE(TABLE cheap, DESCRIPTOR(t), INTERVAL '1' DAY)) GROUP BY item, window_start, window_end;
SELECT item, mean FROM counted WHERE n > 3;
