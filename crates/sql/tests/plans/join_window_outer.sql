-- An outer window join of rows; what comes out is grouped by the window of the side that is always there.
CREATE TABLE orders (id BIGINT, item INT, amount INT, note STRING, at_time TIMESTAMP(3),
  WATERMARK FOR at_time AS at_time - INTERVAL '5' SECOND)
WITH ('connector' = 'filesystem', 'path' = 'orders', 'format' = 'json');
CREATE TABLE shipment (order_id BIGINT, amount INT, note STRING, at_time TIMESTAMP(3),
  WATERMARK FOR at_time AS at_time - INTERVAL '5' SECOND)
WITH ('connector' = 'filesystem', 'path' = 'shipment', 'format' = 'json');
SELECT o.window_end, COUNT(s.order_id) AS sent, COUNT(*) AS n
FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(at_time), INTERVAL '1' HOUR)) AS o
LEFT JOIN TABLE(TUMBLE(TABLE shipment, DESCRIPTOR(at_time), INTERVAL '1' HOUR)) AS s
ON o.id = s.order_id AND o.window_start = s.window_start AND o.window_end = s.window_end
GROUP BY o.window_start, o.window_end;
