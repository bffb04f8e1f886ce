-- The left side's event time stays one.
CREATE TABLE trade (id BIGINT, symbol INT, at_time TIMESTAMP(3), WATERMARK FOR at_time AS at_time - INTERVAL '5' SECOND)
WITH ('connector' = 'filesystem', 'path' = 'trade', 'format' = 'json');
CREATE TABLE quote (symbol BIGINT, bid INT, at_time TIMESTAMP(6), WATERMARK FOR at_time AS at_time - INTERVAL '5' SECOND)
WITH ('connector' = 'filesystem', 'path' = 'quote', 'format' = 'json');
CREATE VIEW priced AS
SELECT t.id, t.at_time, q.bid
FROM trade AS t ASOF JOIN quote AS q MATCH_CONDITION (t.at_time > q.at_time) ON t.symbol = q.symbol;
SELECT window_end, MAX(bid) AS best
FROM TABLE(TUMBLE(TABLE priced, DESCRIPTOR(at_time), INTERVAL '1' MINUTE))
GROUP BY window_start, window_end;
