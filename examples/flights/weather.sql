-- Do planes leave later when pilots see less? Each flight beside the weather at its airport in the hour of its plan.
-- Run it from the top of the repository:  ruslo run examples/flights/weather.sql

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

-- Each row is how the weather is from then on, at one airport.
CREATE TABLE weather (
  origin STRING, `year` STRING, `month` STRING, `day` STRING, `hour` STRING,
  temp DOUBLE, dewp DOUBLE, humid DOUBLE, wind_dir DOUBLE, wind_speed DOUBLE, wind_gust DOUBLE,
  precip DOUBLE, pressure DOUBLE, visib DOUBLE, time_hour STRING,
  ts AS CAST(
    `year` || '-' || LPAD(`month`, 2, '0') || '-' || LPAD(`day`, 2, '0') || ' ' || LPAD(`hour`, 2, '0') || ':00:00' AS TIMESTAMP(3)),
  WATERMARK FOR ts AS ts - INTERVAL '1' HOUR,
  PRIMARY KEY (origin) NOT ENFORCED
) WITH (
  'connector' = 'filesystem',
  'path' = 'examples/flights/data/weather-2013-q1.csv.gz',
  'format' = 'csv',
  'csv.header' = 'true',
  'csv.null-literal' = 'NA'
);

CREATE TABLE delays (
  miles INT, departures BIGINT, mean_delay DOUBLE, worst INT
) WITH (
  'connector' = 'filesystem',
  'path' = 'examples/flights/output-weather',
  'format' = 'json',
  'changelog' = 'final'
);

INSERT INTO delays
SELECT CAST(FLOOR(w.visib) AS INT), COUNT(*), AVG(CAST(f.dep_delay AS DOUBLE)), MAX(f.dep_delay)
FROM flights AS f
JOIN weather FOR SYSTEM_TIME AS OF f.ts AS w ON f.origin = w.origin
WHERE f.dep_delay IS NOT NULL
GROUP BY CAST(FLOOR(w.visib) AS INT);
