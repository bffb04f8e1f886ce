CREATE TABLE bid (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, url STRING, dateTime TIMESTAMP(3), extra STRING,
  WATERMARK FOR dateTime AS dateTime - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids', 'format' = 'json');
CREATE TABLE sink (auction BIGINT, price BIGINT) WITH ('connector' = 'print');
INSERT INTO sink SELECT auction, price FROM bid WHERE MOD(auction, 123) = 0;
