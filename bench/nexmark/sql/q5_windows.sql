-- sink: auction BIGINT, num BIGINT, window_start TIMESTAMP(3), window_end TIMESTAMP(3)
SELECT auction, count(*) AS num, window_start, window_end
FROM TABLE(HOP(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '2' SECOND, INTERVAL '10' SECOND))
GROUP BY auction, window_start, window_end
