WITH won AS (
  SELECT A.id, A.seller, A.expires, max(B.price) AS final
  FROM auction A JOIN bid B ON A.id = B.auction AND B."dateTime" BETWEEN A."dateTime" AND A.expires
  GROUP BY ALL
)
SELECT seller, sum(final) OVER w // count(*) OVER w FROM won
WINDOW w AS (PARTITION BY seller ORDER BY expires, id ROWS BETWEEN 10 PRECEDING AND CURRENT ROW)
