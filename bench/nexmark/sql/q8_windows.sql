-- sink: id BIGINT, starttime TIMESTAMP(3), endtime TIMESTAMP(3)
-- reads: person, auction
SELECT id, window_start AS starttime, window_end AS endtime
FROM TABLE(TUMBLE(TABLE person, DESCRIPTOR(`dateTime`), INTERVAL '10' SECOND))
GROUP BY id, name, window_start, window_end
UNION ALL
SELECT seller, window_start AS starttime, window_end AS endtime
FROM TABLE(TUMBLE(TABLE auction, DESCRIPTOR(`dateTime`), INTERVAL '10' SECOND))
GROUP BY seller, window_start, window_end
