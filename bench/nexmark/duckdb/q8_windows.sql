SELECT DISTINCT ON (id, name, start) id, time_bucket(INTERVAL '10' SECOND, "dateTime") AS start, start + INTERVAL '10' SECOND FROM person
UNION ALL
SELECT DISTINCT seller, time_bucket(INTERVAL '10' SECOND, "dateTime") AS start, start + INTERVAL '10' SECOND FROM auction
