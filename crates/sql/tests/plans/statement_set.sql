CREATE TABLE bid (
  auction BIGINT, bidder BIGINT, price BIGINT, url STRING, dateTime TIMESTAMP(3),
  WATERMARK FOR dateTime AS dateTime - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids', 'format' = 'json');
CREATE TABLE counts (auction BIGINT, n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'counts', 'format' = 'json');
CREATE TABLE high (auction BIGINT, url STRING) WITH ('connector' = 'filesystem', 'path' = 'high', 'format' = 'json');
CREATE TABLE high_prices (price BIGINT) WITH ('connector' = 'filesystem', 'path' = 'high_prices', 'format' = 'json');
CREATE VIEW expensive AS SELECT auction, url, price FROM bid WHERE price > 1000;
EXPLAIN STATEMENT SET BEGIN
INSERT INTO counts SELECT auction, COUNT(*) FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '1' HOUR))
GROUP BY auction, window_start, window_end;
INSERT INTO high SELECT auction, url FROM expensive;
INSERT INTO high_prices SELECT price FROM expensive;
END;
