-- A carrier's bursts of delays: ten flights or more that leave an hour late, with less than half an hour between them.
-- Run it from the top of the repository:  ruslo run examples/flights/bursts.sql

CREATE TABLE flights (
  `year` STRING, `month` STRING, `day` STRING,
  dep_time INT, sched_dep_time INT, dep_delay INT,
  arr_time INT, sched_arr_time INT, arr_delay INT,
  carrier STRING, flight INT, tailnum STRING,
  origin STRING, dest STRING,
  air_time INT, distance INT,
  `hour` STRING, `minute` STRING, time_hour STRING,
  ts AS CAST(
    `year` || '-' || LPAD(`month`, 2, '0') || '-' || LPAD(`day`, 2, '0') || ' '
           || LPAD(`hour`, 2, '0') || ':' || LPAD(`minute`, 2, '0') || ':00' AS TIMESTAMP(3)),
  WATERMARK FOR ts AS ts - INTERVAL '1' DAY
) WITH (
  'connector' = 'filesystem',
  'path' = 'examples/flights/data/flights-2013-q1.csv.gz',
  'format' = 'csv',
  'csv.header' = 'true',
  'csv.null-literal' = 'NA'
);

-- What is delayed decides what a session is made of, so the condition stands below the window.
CREATE VIEW delayed AS SELECT carrier, origin, dep_delay, ts FROM flights WHERE dep_delay >= 60;

CREATE TABLE bursts (
  carrier STRING, window_start TIMESTAMP(3), window_end TIMESTAMP(3), flights BIGINT, airports BIGINT, worst INT, mean_delay DOUBLE
) WITH (
  'connector' = 'filesystem',
  'path' = 'examples/flights/output-bursts',
  'format' = 'json'
);

INSERT INTO bursts
SELECT carrier, window_start, window_end,
       COUNT(*) AS flights,
       COUNT(DISTINCT origin) AS airports,
       MAX(dep_delay) AS worst,
       AVG(CAST(dep_delay AS DOUBLE)) AS mean_delay
FROM TABLE(SESSION(TABLE delayed PARTITION BY carrier, DESCRIPTOR(ts), INTERVAL '30' MINUTE))
GROUP BY carrier, window_start, window_end
HAVING COUNT(*) >= 10;
