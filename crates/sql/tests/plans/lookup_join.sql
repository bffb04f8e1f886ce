-- A lookup join below another, of which each batch is told, and a window behind them.
SET 'table.exec.async-lookup.output-mode' = 'ALLOW_UNORDERED';
CREATE TABLE orders (id INT, customer INT, item STRING, amount INT, ts TIMESTAMP(3), p AS PROCTIME(),
  WATERMARK FOR ts AS ts - INTERVAL '5' SECOND)
WITH ('connector' = 'filesystem', 'path' = 'orders', 'format' = 'json');
CREATE TABLE customers (id BIGINT, name STRING, city STRING, least INT)
WITH ('connector' = 'filesystem', 'path' = 'customers.json', 'format' = 'json');
CREATE TABLE items (item STRING, price INT, label AS UPPER(item))
WITH ('connector' = 'filesystem', 'path' = 'items.csv', 'format' = 'csv',
  'lookup.full-cache.periodic-reload.interval' = '10 min');
CREATE TABLE result (city STRING, w TIMESTAMP(3), total INT) WITH ('connector' = 'print');
CREATE VIEW priced AS
SELECT o.ts, c.city, o.amount * i.price AS price
FROM orders AS o
JOIN customers FOR SYSTEM_TIME AS OF o.p AS c ON o.customer = c.id AND o.amount >= c.least
LEFT JOIN items FOR SYSTEM_TIME AS OF o.p AS i ON i.item = o.item
WHERE o.amount > 0 AND c.city <> 'Nowhere';
INSERT INTO result
SELECT city, window_start, SUM(price) FROM TABLE(TUMBLE(TABLE priced, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
GROUP BY city, window_start, window_end;
