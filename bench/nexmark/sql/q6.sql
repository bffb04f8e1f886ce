-- sink: seller BIGINT, avgprice BIGINT
-- reads: auction, bid, closing
-- The average of the last ten and one winning prices of each seller. A price has won when its auction closes: `closing` is
-- `auction` by that time, so the greatest bid up to there is the last one, and nothing is ever taken back. Auctions of a seller
-- that close at one time are in the order of their numbers.
SELECT seller, AVG(final) OVER (PARTITION BY seller ORDER BY closed, id ROWS BETWEEN 10 PRECEDING AND CURRENT ROW) AS avgprice
FROM (
  SELECT id, seller, `at` AS closed, is_end, MAX(price) OVER (PARTITION BY id ORDER BY `at`) AS final
  FROM (
    SELECT A.id, A.seller, B.price, B.`dateTime` AS `at`, FALSE AS is_end
    FROM auction A JOIN bid B
      ON A.id = B.auction AND B.`dateTime` BETWEEN A.`dateTime` AND A.`dateTime` + INTERVAL '1' MINUTE
    UNION ALL
    SELECT id, seller, CAST(NULL AS BIGINT) AS price, expires AS `at`, TRUE AS is_end FROM closing
  )
)
WHERE is_end AND final IS NOT NULL
