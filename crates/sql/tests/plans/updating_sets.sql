CREATE TABLE t (k STRING, g INT, v INT) WITH ('connector' = 'filesystem', 'path' = 't', 'format' = 'json');
CREATE TABLE sink (k STRING, g INT, n BIGINT) WITH ('connector' = 'print');
CREATE TABLE once (k STRING) WITH ('connector' = 'print');
CREATE TABLE total (n BIGINT) WITH ('connector' = 'print');
EXECUTE STATEMENT SET BEGIN
INSERT INTO sink SELECT k, g, COUNT(*) FROM t GROUP BY ROLLUP (k, g);
INSERT INTO once SELECT DISTINCT k FROM t;
INSERT INTO total SELECT COUNT(*) FROM t;
END;
