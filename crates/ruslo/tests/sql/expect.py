#!/usr/bin/env python3
"""Recomputes, with DuckDB, the expected rows of every test file that has a `=== duckdb` section, and compares.

    python3 crates/ruslo/tests/sql/expect.py            checks all files
    python3 crates/ruslo/tests/sql/expect.py late gzip  checks two
    python3 crates/ruslo/tests/sql/expect.py --write    writes the rows and the late count into the files

Needs `pip install duckdb`. Nothing here runs Ruslo: which rows are late is decided below, in `judge`, by the rule of
docs/sql/README.md, and DuckDB gets the rest. The section says what DuckDB must know, then has a query:

    -- table bid (k STRING, v INT, ts TIMESTAMP) from a.json in/b.json.gz
    -- window ts size 60 s watermark 5 s [offset 900 s]
    -- session ts gap 10 s watermark 5 s [by k v]     instead of `window`: sessions of each (k, v)
    -- window ts hop 20 s size 60 s watermark 5 s        or `cumulate`; a row comes once for each window
    -- window ts size 86400 s watermark 5 s zone Europe/Berlin    `ts` is UTC, windows are of local time
    -- late counts where k <> 'noise'          only these late rows reach the window
    SELECT ...                                 the table has window_start, window_end, window_time too

Several `table` lines make several tables, of which no row is late. Without one the query reads the files by itself, at `${dir}`.
"""

import datetime
import decimal
import gzip
import json
import pathlib
import re
import sys
import tempfile
import zoneinfo

import duckdb

FOLDER = pathlib.Path(__file__).parent
EPOCH = datetime.datetime(1970, 1, 1)
MILLISECOND = datetime.timedelta(milliseconds=1)


def sections(text):
    """The sections of a file: (heading, body)."""
    parts = re.split(r"^=== (.*)\n", text, flags=re.M)
    return list(zip(parts[1::2], (body.strip("\n") for body in parts[2::2])))


def inputs(parts):
    """The input files: name to text."""
    return {heading.split()[1]: body for heading, body in parts if heading.startswith("input ")}


def read_rows(text):
    """JSON lines, every value as the text that it stands as, or None."""
    rows = (json.loads(line, parse_float=str, parse_int=str) for line in text.splitlines() if line.strip())
    return [{k: str(v).lower() if isinstance(v, bool) else v for k, v in row.items()} for row in rows]


def millis(value):
    return (value - EPOCH) // MILLISECOND


def windows(at, kind, step, size, offset):
    """The windows that hold `at`: (start, end)."""
    if kind == "cumulate":
        start = (at - offset) // size * size + offset
        return [(start, end) for end in range(start + step, start + size + 1, step) if at < end]
    first = (at - offset) // step * step + offset
    return [(start, start + size) for start in range(first, at - size, -step)]


def local(at, zone):
    """What clocks show at `at`, as milliseconds."""
    instant = (EPOCH + at * MILLISECOND).replace(tzinfo=datetime.timezone.utc)
    return millis(instant.astimezone(zone).replace(tzinfo=None))


def last_before(end, zone):
    """The last millisecond at which clocks show less than `end`: tries all quarters of an hour around."""
    quarter = 900_000
    first = end // quarter * quarter + 30 * 4 * quarter
    for at in range(first, first - 60 * 4 * quarter, -quarter):
        if local(at, zone) < end:
            return at + min(quarter - 1, end - 1 - local(at, zone))
    raise ValueError("clocks are set by more than a day")


def judge(rows, time, kind, step, size, delay, offset, zone):
    """Adds to each row the windows that it counts for: by the rows before it in its file only."""
    watermark = None
    for row in rows:
        at = millis(row[time])
        row["windows"] = [(start, end, last_before(end, zone))
                          for start, end in windows(local(at, zone), kind, step, size, offset)
                          if watermark is None or last_before(end, zone) > watermark]
        watermark = at - delay if watermark is None else max(watermark, at - delay)


def judge_late(rows, time, delay):
    """Adds whether each row is late for its session: behind the rows before it in its file, less the delay."""
    watermark = None
    for row in rows:
        at = millis(row[time])
        row["late"] = watermark is not None and at < watermark
        watermark = at - delay if watermark is None else max(watermark, at - delay)


def sessions(rows, time, gap, keys, zone):
    """Adds each row's session: sorted by time, rows of a key more than a gap apart are in two."""
    open_rows = {}
    for row in sorted((row for row in rows if not row["late"]), key=lambda row: row[time]):
        mine = open_rows.setdefault(tuple(row[key] for key in keys), [])
        if mine and millis(row[time]) - millis(mine[-1][time]) > gap:
            mine.clear()
        mine.append(row)
        for member in mine:
            last = millis(row[time]) + gap - 1
            member["session"] = local(millis(mine[0][time]), zone), local(last, zone) + 1, last


def load(db, directives, files):
    """Makes the table, without its late rows; gives their number."""
    tables = [d for d in directives if d.startswith("table ")]
    if not tables:
        return 0
    if len(tables) > 1:
        for directive in tables:
            load_plain(db, directive, files)
        return 0
    table = tables[0]
    name, columns, names = re.fullmatch(r"table (\S+) \((.*)\) from (.*)", table).groups()
    window = next((d for d in directives if d.startswith("window ")), None)
    session = next((d for d in directives if d.startswith("session ")), None)
    counted = next((d.removeprefix("late counts where ") for d in directives if d.startswith("late ")), "true")
    db.execute(f'CREATE TABLE typed ({columns})')
    db.execute(f'CREATE TABLE judged ({columns}, window_start TIMESTAMP, window_end TIMESTAMP, window_time TIMESTAMP, '
               'late BOOLEAN)')
    types = [(row[0], row[1]) for row in db.execute("DESCRIBE typed").fetchall()]
    everything = []
    for file in names.split():
        rows = []
        for row in read_rows(files[file]):
            casts = ", ".join(f"CAST(? AS {kind})" for _, kind in types)
            values = db.execute(f"SELECT {casts}", [row.get(column) for column, _ in types]).fetchone()
            rows.append(dict(zip((column for column, _ in types), values)))
        if window:
            time, kind, step, size, delay, offset, zone = re.fullmatch(
                r"window (\S+)(?: (hop|cumulate) (\d+) s)? size (\d+) s watermark (\d+) s(?: offset (-?\d+) s)?"
                r"(?: zone (\S+))?", window).groups()
            zone = zoneinfo.ZoneInfo(zone or "UTC")
            size = int(size) * 1000
            judge(rows, time, kind, int(step or 0) * 1000 or size, size, int(delay) * 1000, int(offset or 0) * 1000,
                  zone)
        if session:
            time, gap, delay, zone, keys = re.fullmatch(
                r"session (\S+) gap (\d+) s watermark (\d+) s(?: zone (\S+))?(?: by (.*))?", session).groups()
            judge_late(rows, time, int(delay) * 1000)
        everything += rows
    if session:
        sessions(everything, time, int(gap) * 1000, (keys or "").split(), zoneinfo.ZoneInfo(zone or "UTC"))
    for row in everything:
        late = window is not None and not row["windows"]
        for bounds in row.get("windows") or [row.get("session", (None, None, None))]:
            times = [at if at is None else EPOCH + at * MILLISECOND for at in bounds]
            values = [row[column] for column, _ in types] + times + [row.get("late", late)]
            db.execute(f"INSERT INTO judged VALUES ({', '.join('?' * len(values))})", values)
    db.execute(f'CREATE VIEW {name} AS SELECT * EXCLUDE (late) FROM judged WHERE NOT late')
    return db.execute(f"SELECT count(*) FROM judged WHERE late AND ({counted})").fetchone()[0]


def load_plain(db, directive, files):
    """Makes a table of all rows: one of several."""
    name, columns, names = re.fullmatch(r"table (\S+) \((.*)\) from (.*)", directive).groups()
    db.execute(f"CREATE TABLE {name} ({columns})")
    types = [(row[0], row[1]) for row in db.execute(f"DESCRIBE {name}").fetchall()]
    casts = ", ".join(f"CAST(? AS {kind})" for _, kind in types)
    for row in (row for file in names.split() for row in read_rows(files[file])):
        db.execute(f"INSERT INTO {name} SELECT {casts}", [row.get(column) for column, _ in types])


def shown(value):
    """A value as Ruslo writes it in JSON."""
    if isinstance(value, datetime.datetime):
        text = value.strftime("%Y-%m-%d %H:%M:%S.%f").rstrip("0").rstrip(".")
        return json.dumps(text)
    if isinstance(value, datetime.date):
        return json.dumps(value.isoformat())
    if isinstance(value, decimal.Decimal):
        return f"{value:f}"
    return json.dumps(value, ensure_ascii=False)


def line(columns, row):
    pairs = (f"{json.dumps(column, ensure_ascii=False)}:{shown(value)}" for column, value in zip(columns, row))
    return "{" + ",".join(pairs) + "}"


def expected(parts, query):
    """The rows as lines, and how many are late."""
    files = inputs(parts)
    directives = [text[3:] for text in query.splitlines() if text.startswith("-- ")]
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as db:
        for name, text in files.items():
            path = pathlib.Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            data = (text + "\n").encode() if text else b""
            path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        late = load(db, directives, files)
        answer = db.execute(query.replace("${dir}", folder))
        columns = [column[0] for column in answer.description]
        return [line(columns, row) for row in answer.fetchall()], late


def write(path, text, rows, late):
    """Puts the answer into the file."""
    body = "=== rows\n" + "".join(f"{row}\n" for row in sorted(rows)) + (f"\n=== late {late}\n" if late else "")
    replaced = re.sub(r"^=== rows\n.*?(?=^=== duckdb)", lambda _: body + "\n", text, flags=re.M | re.S)
    path.write_text(replaced)


def main(arguments):
    writing = "--write" in arguments
    names = [name for name in arguments if not name.startswith("--")]
    paths = sorted(path for path in FOLDER.rglob("*.test") if not names or path.stem in names)
    wrong = checked = 0
    for path in paths:
        text = path.read_text()
        parts = sections(text)
        query = dict(parts).get("duckdb")
        if query is None:
            continue
        checked += 1
        rows, late = expected(parts, query)
        given = sorted(dict(parts)["rows"].splitlines())
        given_late = next((int(heading.split()[1]) for heading, _ in parts if heading.startswith("late ")), 0)
        if (sorted(rows), late) == (given, given_late):
            continue
        wrong += 1
        print(f"{path.name}: late rows {given_late}, DuckDB has {late}")
        for row in sorted(set(given) - set(rows)):
            print(f"  only in the file:  {row}")
        for row in sorted(set(rows) - set(given)):
            print(f"  only from DuckDB:  {row}")
        if writing:
            write(path, text, rows, late)
    print(f"{checked} files checked, {wrong} {'written' if writing else 'wrong'}")
    return 0 if writing or not wrong else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
