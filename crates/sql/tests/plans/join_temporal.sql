-- A WHERE over versions stays above; what else ON says is asked of the version; only the columns that are needed are read.
CREATE TABLE orders (id BIGINT, currency STRING, amount INT, note STRING, at_time TIMESTAMP(3),
  WATERMARK FOR at_time AS at_time - INTERVAL '5' SECOND)
WITH ('connector' = 'filesystem', 'path' = 'orders', 'format' = 'json');
CREATE TABLE rates (currency STRING, rate INT, note STRING, least INT, at_time TIMESTAMP(3),
  WATERMARK FOR at_time AS at_time - INTERVAL '5' SECOND, PRIMARY KEY (currency) NOT ENFORCED)
WITH ('connector' = 'filesystem', 'path' = 'rates', 'format' = 'json');
SELECT o.id, o.at_time, o.amount * r.rate AS valued
FROM orders AS o
LEFT JOIN rates FOR SYSTEM_TIME AS OF o.at_time AS r ON o.currency = r.currency AND o.amount >= r.least
WHERE o.id > 5 AND (r.rate IS NULL OR r.rate < 100);
