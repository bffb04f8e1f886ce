-- Hints say how long each input of a join and of a GROUP BY is kept; the setting is for the rest.
CREATE TABLE orders (id INT, customer INT, item STRING, amount INT) WITH ('connector' = 'filesystem', 'path' = 'o', 'format' = 'json');
CREATE TABLE customers (customer BIGINT, name STRING, least INT) WITH ('connector' = 'filesystem', 'path' = 'c', 'format' = 'json');
SET 'table.exec.state.ttl' = '2 d';
SELECT /*+ STATE_TTL('x' = '7 d') */ x.item, COUNT(*) AS n, SUM(x.amount) AS s, MAX(x.f) AS f FROM (
  SELECT /*+ STATE_TTL('o' = '1d', 'c' = '0', 'p' = '2 d') */ o.item, o.amount, LENGTH(c.name) + p.n AS f
  FROM orders AS o JOIN customers AS c ON o.customer = c.customer AND o.amount >= c.least
  JOIN (SELECT /*+ STATE_TTL('orders' = '0') */ customer AS id, COUNT(*) AS n FROM orders GROUP BY customer) AS p ON p.id = c.customer
  WHERE o.id > 1 AND o.id IN (SELECT id FROM orders WHERE item <> 'cap')
) AS x GROUP BY x.item;
