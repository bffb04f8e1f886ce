-- Asked for in vain: partial groups would be as large as the rows.
CREATE TABLE bid (
  auction BIGINT, bidder BIGINT, price BIGINT, dateTime TIMESTAMP(3),
  WATERMARK FOR dateTime AS dateTime - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids', 'format' = 'json');
SET 'table.optimizer.agg-phase-strategy' = 'TWO_PHASE';
SELECT auction, LISTAGG(CAST(price AS STRING)) AS prices
FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '10' SECOND))
GROUP BY auction, window_start, window_end;
