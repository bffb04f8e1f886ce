SELECT max(price), time_bucket(INTERVAL '10' SECOND, "dateTime") AS start, start + INTERVAL '10' SECOND FROM bid GROUP BY start
