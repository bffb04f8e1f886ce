-- The mean delay of the last two hours, told anew every 15 minutes: the week of the snow of 8 March 2013.
-- Run it from the top of the repository:  ruslo run examples/flights/moving_average.sql

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

CREATE TABLE moving_average (
  origin STRING, window_start TIMESTAMP(3), window_end TIMESTAMP(3), departures BIGINT, mean_delay DOUBLE
) WITH (
  'connector' = 'filesystem',
  'path' = 'examples/flights/output-moving-average',
  'format' = 'json'
);

-- Each flight is in eight windows. They share their quarters of an hour, so it is added up once, not eight times.
INSERT INTO moving_average
SELECT origin, window_start, window_end,
       COUNT(*) AS departures,
       AVG(CAST(dep_delay AS DOUBLE)) AS mean_delay
FROM TABLE(HOP(TABLE flights, DESCRIPTOR(ts), INTERVAL '15' MINUTE, INTERVAL '2' HOUR))
WHERE `month` = '3' AND CAST(`day` AS INT) BETWEEN 4 AND 10 AND dep_delay IS NOT NULL
GROUP BY origin, window_start, window_end;
