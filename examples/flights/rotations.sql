-- Does a delay come back? Each departure of an aircraft beside its next ones from New York, four to ten hours later.
-- Run it from the top of the repository:  ruslo run examples/flights/rotations.sql

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

CREATE TABLE delays (
  was_late BOOLEAN, rotations BIGINT, mean_delay DOUBLE
) WITH (
  'connector' = 'filesystem',
  'path' = 'examples/flights/output-rotations',
  'format' = 'json',
  'changelog' = 'final'
);

CREATE VIEW departed AS SELECT ts, tailnum, dep_delay FROM flights WHERE dep_delay IS NOT NULL;

INSERT INTO delays
SELECT a.dep_delay >= 60, COUNT(*), AVG(CAST(b.dep_delay AS DOUBLE))
FROM departed AS a
JOIN departed AS b ON a.tailnum = b.tailnum AND b.ts BETWEEN a.ts + INTERVAL '4' HOUR AND a.ts + INTERVAL '10' HOUR
GROUP BY a.dep_delay >= 60;
