-- Partial groups are made where the rows are, and merged behind the exchange.
CREATE TABLE bid (
  auction BIGINT, bidder BIGINT, price BIGINT, dateTime TIMESTAMP(3),
  WATERMARK FOR dateTime AS dateTime - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids', 'format' = 'json');
SET 'table.optimizer.agg-phase-strategy' = 'TWO_PHASE';
SELECT auction, COUNT(*) AS num, AVG(price) AS mean, window_end
FROM TABLE(HOP(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '2' SECOND, INTERVAL '10' SECOND))
WHERE price > 0
GROUP BY auction, window_start, window_end;
