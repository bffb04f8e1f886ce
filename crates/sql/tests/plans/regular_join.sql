-- Joins one behind the other: what each keeps follows from what is known of its inputs.
CREATE TABLE person (
  id BIGINT, name STRING, emailAddress STRING, creditCard STRING, city STRING, state STRING, `dateTime` TIMESTAMP(3), extra STRING,
  WATERMARK FOR `dateTime` AS `dateTime` - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'person', 'format' = 'json');
CREATE TABLE auction (
  id BIGINT, itemName STRING, description STRING, initialBid BIGINT, reserve BIGINT, `dateTime` TIMESTAMP(3), expires TIMESTAMP(3),
  seller BIGINT, category BIGINT, extra STRING,
  WATERMARK FOR `dateTime` AS `dateTime` - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'auction', 'format' = 'json');
CREATE TABLE bid (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, url STRING, `dateTime` TIMESTAMP(3), extra STRING,
  WATERMARK FOR `dateTime` AS `dateTime` - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bid', 'format' = 'json');
SET 'table.exec.state.ttl' = '1 d';
SELECT a.id, p.name, b.price
FROM auction AS a
LEFT JOIN person AS p ON a.seller = p.id
JOIN bid AS b ON b.auction = a.id AND b.price > a.reserve
WHERE NOT EXISTS (SELECT 1 FROM person AS q WHERE q.id = b.bidder AND q.state = p.state)
  AND a.category IN (SELECT category FROM auction WHERE reserve > 10);
