-- Whose planes leave late? Each flight beside the name of its airline, which is looked up in a file.
-- Run it from the top of the repository:  ruslo run examples/flights/carriers.sql

CREATE TABLE flights (
  `year` STRING, `month` STRING, `day` STRING,
  dep_time INT, sched_dep_time INT, dep_delay INT,
  arr_time INT, sched_arr_time INT, arr_delay INT,
  carrier STRING, flight INT, tailnum STRING,
  origin STRING, dest STRING,
  air_time INT, distance INT,
  `hour` STRING, `minute` STRING, time_hour STRING,
  p AS PROCTIME(),
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

CREATE TABLE airlines (
  carrier STRING, name STRING
) WITH (
  'connector' = 'filesystem',
  'path' = 'examples/flights/data/airlines.csv',
  'format' = 'csv',
  'csv.header' = 'true'
);

CREATE TABLE delays (
  name STRING, departures BIGINT, mean_delay DOUBLE, worst INT
) WITH (
  'connector' = 'filesystem',
  'path' = 'examples/flights/output-carriers',
  'format' = 'json',
  'changelog' = 'final'
);

INSERT INTO delays
SELECT a.name, COUNT(*), AVG(CAST(f.dep_delay AS DOUBLE)), MAX(f.dep_delay)
FROM flights AS f
JOIN airlines FOR SYSTEM_TIME AS OF f.p AS a ON f.carrier = a.carrier
WHERE f.dep_delay IS NOT NULL
GROUP BY a.name;
