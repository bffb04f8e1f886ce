CREATE TABLE bid (auction BIGINT, price BIGINT)
WITH ('connector' = 'filesystem', 'path' = 'bids', 'format' = 'json');
CREATE TABLE high (auction BIGINT) WITH ('connector' = 'filesystem', 'path' = 'high', 'format' = 'json');
SET 'parallelism.Project' = '3';
INSERT INTO high /*+ OPTIONS('parallelism' = '1') */
SELECT auction + 1 FROM bid /*+ OPTIONS('parallelism' = '4', 'path' = 'other') */ WHERE price > 1000;
