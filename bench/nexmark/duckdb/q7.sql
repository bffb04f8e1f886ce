WITH highest AS (
  SELECT max(price) AS maxprice, time_bucket(INTERVAL '10' SECOND, "dateTime") + INTERVAL '10' SECOND AS "end" FROM bid GROUP BY "end"
)
SELECT B.auction, B.bidder, B.price, B."dateTime", B.extra
FROM bid B JOIN highest ON B.price = maxprice
WHERE B."dateTime" BETWEEN "end" - INTERVAL '10' SECOND AND "end"
