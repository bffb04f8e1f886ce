-- Nexmark q0: every bid, five of its seven columns, into nothing. bench/compare puts the data's folder in for ${DATA}.
CREATE TABLE bid (
  auction BIGINT, bidder BIGINT, price BIGINT, channel VARCHAR, url VARCHAR,
  `dateTime` TIMESTAMP(3), extra VARCHAR,
  WATERMARK FOR `dateTime` AS `dateTime` - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = '${DATA}/json/bid', 'format' = 'json', 'json.timestamp-format.standard' = 'SQL');

CREATE TABLE results_out (
  auction BIGINT, bidder BIGINT, price BIGINT, `dateTime` TIMESTAMP(3), extra VARCHAR
) WITH ('connector' = 'blackhole');

INSERT INTO results_out
SELECT auction, bidder, price, `dateTime`, extra FROM bid;
