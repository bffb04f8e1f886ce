SELECT auction, count(*), start, start + INTERVAL '10' SECOND
FROM (SELECT auction, unnest([time_bucket(INTERVAL '2' SECOND, "dateTime") - to_seconds(2 * n) FOR n IN range(5)]) AS start FROM bid)
GROUP BY auction, start
