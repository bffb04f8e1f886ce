-- One day to look at: 8 March 2013, when snow closed runways and the mean departure was 84 minutes late.
-- Run it from the top of the repository:  ruslo run examples/flights/storm.sql

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
  WATERMARK FOR ts AS ts - INTERVAL '18' HOUR
) WITH (
  'connector' = 'filesystem',
  'path' = 'examples/flights/data/flights-2013-q1.csv.gz',
  'format' = 'csv',
  'csv.header' = 'true',
  'csv.null-literal' = 'NA'
);

-- No INSERT: the rows go to the terminal. AVG of an INT is an INT, as in Flink: whole minutes.
SELECT origin, window_start,
       COUNT(*) AS departures,
       AVG(dep_delay) AS mean_delay,
       MAX(dep_delay) AS worst_delay
FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(ts), INTERVAL '1' HOUR))
WHERE `month` = '3' AND `day` = '8' AND dep_delay IS NOT NULL
GROUP BY origin, window_start, window_end;
