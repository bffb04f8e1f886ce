WITH begins AS (
  SELECT bidder, "dateTime", coalesce("dateTime" - lag("dateTime") OVER w > INTERVAL '10' SECOND, true)::INT AS begins
  FROM bid WINDOW w AS (PARTITION BY bidder ORDER BY "dateTime")
), numbered AS (
  SELECT bidder, "dateTime", sum(begins) OVER (PARTITION BY bidder ORDER BY "dateTime" ROWS UNBOUNDED PRECEDING) AS session FROM begins
)
SELECT bidder, count(*), min("dateTime"), max("dateTime") + INTERVAL '10' SECOND FROM numbered GROUP BY bidder, session
