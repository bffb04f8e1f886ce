-- The three worst routes of each day: the greatest mean delay among routes with three departures or more.
-- Run it from the top of the repository:  ruslo run examples/flights/worst_routes.sql

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

CREATE TABLE worst_routes (
  window_start TIMESTAMP(3), place BIGINT, origin STRING, dest STRING, departures BIGINT, mean_delay DOUBLE
) WITH (
  'connector' = 'filesystem',
  'path' = 'examples/flights/output-worst-routes',
  'format' = 'json'
);

INSERT INTO worst_routes
SELECT window_start, place, origin, dest, departures, mean_delay
FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY mean_delay DESC, origin, dest) AS place
  FROM (
    SELECT origin, dest, window_start, window_end, COUNT(*) AS departures, AVG(CAST(dep_delay AS DOUBLE)) AS mean_delay
    FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(ts), INTERVAL '1' DAY))
    WHERE dep_delay IS NOT NULL
    GROUP BY origin, dest, window_start, window_end
    HAVING COUNT(*) >= 3
  )
)
WHERE place <= 3;
