-- A LATERAL query with ORDER BY and LIMIT is a Top-N by what it is asked for, and a join.
CREATE TABLE customers (id INT, name STRING) WITH ('connector' = 'filesystem', 'path' = 'customers', 'format' = 'json');
CREATE TABLE orders (id INT, customer INT, amount INT, note STRING)
WITH ('connector' = 'filesystem', 'path' = 'orders', 'format' = 'json');
SELECT c.name, o.id FROM customers AS c
LEFT JOIN LATERAL (SELECT id FROM orders WHERE customer = c.id AND amount > 0 ORDER BY amount DESC LIMIT 2) AS o ON TRUE;
