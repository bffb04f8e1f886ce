CREATE TABLE orders (
  id BIGINT, ts TIMESTAMP(3), city STRING, kind STRING, amount DECIMAL(10, 2), rate DECIMAL(6, 4), qty INT, price BIGINT,
  score DOUBLE, ok BOOLEAN, code STRING, `number` STRING, tags ARRAY<STRING>, parts ARRAY<ROW<name STRING, n INT>>,
  attributes MAP<STRING, INT>, info STRING, born DATE,
  WATERMARK FOR ts AS ts - INTERVAL '10' SECOND
) WITH ('connector' = 'filesystem', 'path' = '${dir}/orders.json', 'format' = 'json');

CREATE TABLE visits (
  usr STRING, page STRING, `number` INT, took INT, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '20' SECOND
) WITH ('connector' = 'filesystem', 'path' = '${dir}/visits.json', 'format' = 'json');
