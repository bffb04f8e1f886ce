-- Bounds are taken from WHERE and ON, conditions on one side go below; only the columns that are needed are read.
CREATE TABLE orders (id BIGINT, item INT, amount INT, note STRING, at_time TIMESTAMP(3),
  WATERMARK FOR at_time AS at_time - INTERVAL '5' SECOND)
WITH ('connector' = 'filesystem', 'path' = 'orders', 'format' = 'json');
CREATE TABLE shipment (order_id INT, amount INT, note STRING, at_time TIMESTAMP(3),
  WATERMARK FOR at_time AS at_time - INTERVAL '5' SECOND)
WITH ('connector' = 'filesystem', 'path' = 'shipment', 'format' = 'json');
SELECT o.item, o.at_time, s.at_time AS sent
FROM orders AS o, shipment AS s
WHERE o.id = s.order_id AND s.at_time >= o.at_time AND s.at_time < o.at_time + INTERVAL '4' HOUR
  AND o.amount > s.amount AND o.item <> 3;
