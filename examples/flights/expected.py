#!/usr/bin/env python3
"""What departures.sql must answer, worked out without Ruslo, and whether an output folder holds exactly that.

A row is late when its window has closed before the row comes: window end - 1 ms <= watermark, where the watermark just
before a row is the greatest (event time - delay) of the rows above it in the file. All rows move the watermark, the
cancelled ones too, though WHERE drops them. Late rows are counted and left out.

usage: expected.py [--watermark-hours 17]                         work it out with pandas, write expected/
       expected.py --check FOLDER [--summary FILE]                compare; needs nothing but Python

FOLDER holds the JSON lines that Ruslo wrote; FILE is what `ruslo run --output json` printed.
With --watermark-hours, --check works the answer out again instead of reading expected/.
"""
import argparse
import collections
import csv
import datetime
import gzip
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
DATA = HERE / 'data' / 'flights-2013-q1.csv.gz'
ROWS = HERE / 'expected' / 'departures.csv'
SUMMARY = HERE / 'expected' / 'summary.json'
WATERMARK_HOURS = 17


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--watermark-hours', type=int)
    parser.add_argument('--check', type=pathlib.Path, metavar='FOLDER')
    parser.add_argument('--summary', type=pathlib.Path, metavar='FILE')
    return parser.parse_args()


def work_out(watermark_hours):
    """The result's rows and its summary, by pandas."""
    import pandas
    hour, ms = pandas.Timedelta(hours=1), pandas.Timedelta(milliseconds=1)
    flights = pandas.read_csv(DATA, na_values='NA', keep_default_na=False)
    flights['ts'] = pandas.to_datetime(flights[['year', 'month', 'day', 'hour', 'minute']])
    flights['window_start'] = flights.ts.dt.floor('h')
    watermark = (flights.ts - watermark_hours * hour).cummax().shift()
    flights['late'] = flights.window_start + hour - ms <= watermark
    departed = flights[flights.dep_delay.notna()]
    groups = departed[~departed.late].groupby(['origin', 'window_start']).dep_delay.agg(['size', 'sum'])
    rows = [(origin, str(start), str(start + hour), int(size), float(total) / int(size))
            for (origin, start), size, total in groups.itertuples()]
    late = int(departed.late.sum())
    return rows, {'rows_in': len(flights), 'rows_out': len(rows), 'late_rows': late, 'departures': len(departed) - late}


def write(rows, summary):
    ROWS.parent.mkdir(exist_ok=True)
    with ROWS.open('w', newline='') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(('origin', 'window_start', 'window_end', 'departures', 'mean_delay'))
        writer.writerows(rows)
    SUMMARY.write_text(json.dumps(summary, indent=2) + '\n')


def instant(text):
    """2013-01-01 05:00:00, with a T, a Z or milliseconds if the writer likes them."""
    return datetime.datetime.fromisoformat(text.rstrip('Z').replace('T', ' '))


def canonical(origin, start, end, departures, mean):
    return origin, instant(start), instant(end), int(departures), float(mean)


def committed():
    with ROWS.open(newline='') as file:
        rows = [tuple(row.values()) for row in csv.DictReader(file)]
    return rows, json.loads(SUMMARY.read_text())


def written(folder):
    """The rows in the folder's committed files; names that begin with a dot or an underscore are not results."""
    hidden = lambda path: any(part[0] in '._' for part in path.relative_to(folder).parts)
    for path in sorted(path for path in folder.rglob('*') if path.is_file() and not hidden(path)):
        with (gzip.open if path.suffix == '.gz' else open)(path, 'rt') as lines:
            for number, line in enumerate(lines, 1):
                try:
                    row = json.loads(line)
                    yield canonical(*(row[name] for name in ('origin', 'window_start', 'window_end', 'departures', 'mean_delay')))
                except (ValueError, KeyError, TypeError) as problem:
                    sys.exit(f'{path}:{number}: not a row of the result ({problem!r}): {line.strip()[:200]}')


def differences(expected, found):
    """One line per row that is missing or too many, in the order of the result."""
    for sign, rows in (('missing', expected - found), ('unexpected', found - expected)):
        for (origin, start, _, departures, mean), times in sorted(rows.items()):
            yield f'{sign}: {origin} {start} {departures} departures, mean {mean!r}' + (f' ({times} times)' if times > 1 else '')


def last_json(text):
    """The summary is the last line, or the whole text when somebody made it pretty."""
    try:
        return json.loads(text)
    except ValueError:
        return json.loads(text.strip().splitlines()[-1])


def check(folder, summary_file, rows, summary):
    expected = collections.Counter(canonical(*row) for row in rows)
    found = collections.Counter(written(folder))
    problems = list(differences(expected, found))
    if found.total() > expected.total():
        problems.append(f'{found.total()} rows where {expected.total()} are right: does {folder} hold more than one run?')
    if summary_file:
        said = last_json(summary_file.read_text())
        problems += [f'summary: {name} is {said.get(name)}, not {summary[name]}'
                     for name in ('rows_in', 'rows_out', 'late_rows') if said.get(name) != summary[name]]
    for problem in problems[:20]:
        print(problem, file=sys.stderr)
    if problems:
        sys.exit(f'{folder}: {len(problems)} differences from the expected result')
    print(f"{folder}: {summary['rows_out']:,} rows, {summary['departures']:,} departures, all as expected ({summary['late_rows']:,} late rows left out)")


def main():
    args = arguments()
    if args.check:
        rows, summary = committed() if args.watermark_hours is None else work_out(args.watermark_hours)
        return check(args.check, args.summary, rows, summary)
    rows, summary = work_out(args.watermark_hours or WATERMARK_HOURS)
    if args.watermark_hours in (None, WATERMARK_HOURS):
        write(rows, summary)
    print(json.dumps(summary))


if __name__ == '__main__':
    main()
