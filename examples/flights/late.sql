-- departures.sql, but the flights that come too late for their hour are kept in a table of their own.
-- Run it from the top of the repository:  ruslo run examples/flights/late.sql

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
  WATERMARK FOR ts AS ts - INTERVAL '17' HOUR
) WITH (
  'connector' = 'filesystem',
  'path' = 'examples/flights/data/flights-2013-q1.csv.gz',
  'format' = 'csv',
  'csv.header' = 'true',
  'csv.null-literal' = 'NA',
  'late-data' = 'side-table',
  'late-data.table' = 'late_flights'
);

CREATE TABLE late_flights (
  ts TIMESTAMP(3), carrier STRING, flight INT, origin STRING, dest STRING, dep_delay INT
) WITH (
  'connector' = 'filesystem',
  'path' = 'examples/flights/output-late/late',
  'format' = 'json'
);

CREATE TABLE departures (
  origin STRING, window_start TIMESTAMP(3), window_end TIMESTAMP(3), departures BIGINT, mean_delay DOUBLE
) WITH (
  'connector' = 'filesystem',
  'path' = 'examples/flights/output-late/departures',
  'format' = 'json'
);

INSERT INTO departures
SELECT origin, window_start, window_end, COUNT(*) AS departures, AVG(CAST(dep_delay AS DOUBLE)) AS mean_delay
FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(ts), INTERVAL '1' HOUR))
WHERE dep_delay IS NOT NULL
GROUP BY origin, window_start, window_end;
