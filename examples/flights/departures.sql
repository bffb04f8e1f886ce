-- Departures and mean delay per airport and hour, from the departures of New York's three airports in early 2013.
-- Run it from the top of the repository:  ruslo run examples/flights/departures.sql

CREATE TABLE flights (
  `year` STRING, `month` STRING, `day` STRING,           -- text, because event time is built from them
  dep_time INT, sched_dep_time INT, dep_delay INT,
  arr_time INT, sched_arr_time INT, arr_delay INT,
  carrier STRING, flight INT, tailnum STRING,
  origin STRING, dest STRING,
  air_time INT, distance INT,
  `hour` STRING, `minute` STRING, time_hour STRING,

  -- Event time: when the flight should have left, by the clock on the wall.
  ts AS CAST(
    `year` || '-' || LPAD(`month`, 2, '0') || '-' || LPAD(`day`, 2, '0') || ' '
           || LPAD(`hour`, 2, '0') || ':' || LPAD(`minute`, 2, '0') || ':00' AS TIMESTAMP(3)),

  -- A flight planned for 23:59 that left after midnight stands at the top of its day in the file, 18 hours ahead of
  -- the first flights of that morning. Waiting 17 hours loses a few of those; with '18' none is late.
  WATERMARK FOR ts AS ts - INTERVAL '17' HOUR
) WITH (
  'connector' = 'filesystem',
  'path' = 'examples/flights/data/flights-2013-q1.csv.gz',
  'format' = 'csv',
  'csv.header' = 'true',
  'csv.null-literal' = 'NA'
);

CREATE TABLE departures (
  origin STRING,
  window_start TIMESTAMP(3),
  window_end TIMESTAMP(3),
  departures BIGINT,
  mean_delay DOUBLE
) WITH (
  'connector' = 'filesystem',
  'path' = 'examples/flights/output',
  'format' = 'json'
);

INSERT INTO departures
SELECT origin, window_start, window_end,
       COUNT(*) AS departures,
       AVG(CAST(dep_delay AS DOUBLE)) AS mean_delay
FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(ts), INTERVAL '1' HOUR))
WHERE dep_delay IS NOT NULL                              -- a cancelled flight has no delay
GROUP BY origin, window_start, window_end;
