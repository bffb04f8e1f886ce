-- The flights example: departures and mean delay per origin and hour.
CREATE TABLE flights (
  `year` INT, `month` INT, `day` INT, dep_time STRING, sched_dep_time STRING, dep_delay DOUBLE, carrier STRING,
  origin STRING, dest STRING, time_hour TIMESTAMP(3),
  ts AS time_hour + INTERVAL '0' SECOND,
  WATERMARK FOR ts AS ts - INTERVAL '2' HOUR
) WITH ('connector' = 'filesystem', 'path' = 'flights', 'format' = 'csv');
CREATE TABLE hourly (
  origin STRING, window_start TIMESTAMP(3), departures BIGINT, mean_delay DOUBLE
) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');
INSERT INTO hourly
SELECT origin, window_start, COUNT(*), AVG(dep_delay)
FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(ts), INTERVAL '1' HOUR))
WHERE dep_delay IS NOT NULL
GROUP BY origin, window_start, window_end;
