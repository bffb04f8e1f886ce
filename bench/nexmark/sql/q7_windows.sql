-- sink: maxprice BIGINT, window_start TIMESTAMP(3), window_end TIMESTAMP(3)
SELECT MAX(price) AS maxprice, window_start, window_end
FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '10' SECOND))
GROUP BY window_start, window_end
