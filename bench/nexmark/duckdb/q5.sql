WITH counts AS (
  SELECT auction, count(*) AS num, start
  FROM (SELECT auction, unnest([time_bucket(INTERVAL '2' SECOND, "dateTime") - to_seconds(2 * n) FOR n IN range(5)]) AS start FROM bid)
  GROUP BY auction, start
)
SELECT auction, num FROM counts QUALIFY num = max(num) OVER (PARTITION BY start)
