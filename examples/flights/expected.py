#!/usr/bin/env python3
"""What the examples must answer, worked out without Ruslo, and whether an output folder holds exactly that.

A row is late when its window has closed before the row comes: window end - 1 ms <= watermark, where the watermark just
before a row is the greatest (event time - delay) of the rows above it in the file. All rows move the watermark, the
cancelled ones too, though WHERE drops them. Late rows are counted and left out of `departures`; they are what `late` is.
The other queries wait a day for their rows, so none of theirs is late.

usage: expected.py [--watermark-hours 17]                              work it all out with pandas, write expected/
       expected.py --check FOLDER [--query bursts] [--summary FILE]   compare; needs nothing but Python

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
EXPECTED = HERE / 'expected'
SUMMARY = EXPECTED / 'summary.json'
WATERMARK_HOURS = 17


def instant(text):
    """2013-01-01 05:00:00, with a T, a Z or milliseconds if the writer likes them."""
    return datetime.datetime.fromisoformat(text.rstrip('Z').replace('T', ' '))


# The columns of each result, and how their values are read.
COLUMNS = {
    'departures': {'origin': str, 'window_start': instant, 'window_end': instant, 'departures': int, 'mean_delay': float},
    'late': {'ts': instant, 'carrier': str, 'flight': int, 'origin': str, 'dest': str, 'dep_delay': int},
    'moving_average': {'origin': str, 'window_start': instant, 'window_end': instant, 'departures': int, 'mean_delay': float},
    'bursts': {'carrier': str, 'window_start': instant, 'window_end': instant, 'flights': int, 'airports': int, 'worst': int, 'mean_delay': float},
    'weather': {'miles': int, 'departures': int, 'mean_delay': float, 'worst': int},
    'carriers': {'name': str, 'departures': int, 'mean_delay': float, 'worst': int},
    'rotations': {'was_late': str.lower, 'rotations': int, 'mean_delay': float},
    'worst_routes': {'window_start': instant, 'place': int, 'origin': str, 'dest': str, 'departures': int, 'mean_delay': float},
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--watermark-hours', type=int)
    parser.add_argument('--check', type=pathlib.Path, metavar='FOLDER')
    parser.add_argument('--query', choices=COLUMNS, default='departures')
    parser.add_argument('--summary', type=pathlib.Path, metavar='FILE')
    return parser.parse_args()


def read_flights():
    import pandas
    flights = pandas.read_csv(DATA, na_values='NA', keep_default_na=False)
    flights['ts'] = pandas.to_datetime(flights[['year', 'month', 'day', 'hour', 'minute']])
    return flights


def hourly(flights, watermark_hours):
    """The rows of `departures` and `late`, and the summary."""
    import pandas
    hour, ms = pandas.Timedelta(hours=1), pandas.Timedelta(milliseconds=1)
    start = flights.ts.dt.floor('h')
    watermark = (flights.ts - watermark_hours * hour).cummax().shift()
    departed = flights.assign(window_start=start, late=start + hour - ms <= watermark)[flights.dep_delay.notna()]
    groups = departed[~departed.late].groupby(['origin', 'window_start']).dep_delay.agg(['size', 'sum'])
    rows = [(origin, str(start), str(start + hour), int(size), float(total) / int(size))
            for (origin, start), size, total in groups.itertuples()]
    late = departed[departed.late].astype({'dep_delay': int})[list(COLUMNS['late'])]
    summary = {'rows_in': len(flights), 'rows_out': len(rows), 'late_rows': len(late), 'departures': len(departed) - len(late)}
    return rows, late.itertuples(index=False, name=None), summary


def moving_average(flights):
    """Each window on its own: every 15 minutes, the flights of the two hours before."""
    import pandas
    week = flights[(flights.month == 3) & flights.day.between(4, 10) & flights.dep_delay.notna()]
    step, length = pandas.Timedelta(minutes=15), pandas.Timedelta(hours=2)
    for origin, those in week.groupby('origin'):
        ends = pandas.date_range(those.ts.min().floor('15min') + step, those.ts.max().floor('15min') + length, freq=step)
        for end in ends:
            delays = those[(those.ts >= end - length) & (those.ts < end)].dep_delay
            if len(delays):
                yield origin, end - length, end, len(delays), float(delays.sum()) / len(delays)


def bursts(flights):
    """In the order of time, a flight more than the gap behind the one before it begins another session."""
    import pandas
    gap = pandas.Timedelta(minutes=30)
    delayed = flights[flights.dep_delay >= 60].sort_values(['carrier', 'ts'])
    delayed['session'] = (delayed.groupby('carrier').ts.diff() > gap).groupby(delayed.carrier).cumsum()
    for (carrier, _), those in delayed.groupby(['carrier', 'session']):
        if len(those) >= 10:
            mean = float(those.dep_delay.sum()) / len(those)
            yield carrier, those.ts.min(), those.ts.max() + gap, len(those), those.origin.nunique(), int(those.dep_delay.max()), mean


def worst_routes(flights):
    departed = flights[flights.dep_delay.notna()]
    routes = departed.groupby([departed.ts.dt.floor('D').rename('window_start'), 'origin', 'dest']).dep_delay.agg(['size', 'sum']).reset_index()
    routes = routes[routes['size'] >= 3].assign(mean=lambda route: route['sum'] / route['size'])
    routes = routes.sort_values(['window_start', 'mean', 'origin', 'dest'], ascending=[True, False, True, True])
    routes['place'] = routes.groupby('window_start').cumcount() + 1
    worst = routes[routes.place <= 3]
    return worst[['window_start', 'place', 'origin', 'dest', 'size', 'mean']].itertuples(index=False, name=None)


def weather(flights):
    """The last weather of the airport at the planned departure or before, by miles of sight."""
    import pandas
    weather = pandas.read_csv(DATA.with_name('weather-2013-q1.csv.gz'), na_values='NA', keep_default_na=False)
    weather['ts'] = pandas.to_datetime(weather[['year', 'month', 'day', 'hour']])
    departed = flights[flights.dep_delay.notna()].sort_values('ts', kind='stable')
    beside = pandas.merge_asof(departed, weather[['origin', 'ts', 'visib']].sort_values('ts', kind='stable'), on='ts', by='origin')
    delays = beside[beside.visib.notna()].groupby(beside.visib // 1).dep_delay.agg(['size', 'sum', 'max'])
    return [(int(miles), int(size), float(total) / int(size), int(worst)) for miles, size, total, worst in delays.itertuples()]


def carriers(flights):
    import pandas
    airlines = pandas.read_csv(DATA.with_name('airlines.csv'))
    departed = flights[flights.dep_delay.notna()].merge(airlines, on='carrier')
    delays = departed.groupby('name').dep_delay.agg(['size', 'sum', 'max'])
    return [(name, int(size), float(total) / int(size), int(worst)) for name, size, total, worst in delays.itertuples()]


def rotations(flights):
    import pandas
    departed = flights[flights.dep_delay.notna() & flights.tailnum.notna()][['ts', 'tailnum', 'dep_delay']]
    pairs = departed.merge(departed, on='tailnum', suffixes=('', '_next'))
    apart = pairs.ts_next - pairs.ts
    pairs = pairs[(apart >= pandas.Timedelta(hours=4)) & (apart <= pandas.Timedelta(hours=10))]
    groups = pairs.groupby(pairs.dep_delay >= 60).dep_delay_next.agg(['size', 'sum'])
    return [(bool(late), int(size), float(total) / int(size)) for late, size, total in groups.itertuples()]


def work_out(query, flights, watermark_hours):
    """The result's rows, and for `departures` its summary."""
    if query == 'departures':
        rows, _, summary = hourly(flights, watermark_hours)
        return rows, summary
    if query == 'late':
        return list(hourly(flights, watermark_hours)[1]), None
    return list({'moving_average': moving_average, 'bursts': bursts, 'worst_routes': worst_routes, 'weather': weather, 'carriers': carriers, 'rotations': rotations}[query](flights)), None


def write(query, rows, summary):
    EXPECTED.mkdir(exist_ok=True)
    with (EXPECTED / f'{query}.csv').open('w', newline='') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(COLUMNS[query])
        writer.writerows(rows)
    if summary:
        SUMMARY.write_text(json.dumps(summary, indent=2) + '\n')


def canonical(query, values):
    return tuple(read(str(value)) for read, value in zip(COLUMNS[query].values(), values, strict=True))


def committed(query):
    with (EXPECTED / f'{query}.csv').open(newline='') as file:
        rows = [tuple(row.values()) for row in csv.DictReader(file)]
    return rows, json.loads(SUMMARY.read_text()) if query == 'departures' else None


def written(query, folder):
    """The rows in the folder's committed files; names that begin with a dot or an underscore are not results."""
    hidden = lambda path: any(part[0] in '._' for part in path.relative_to(folder).parts)
    for path in sorted(path for path in folder.rglob('*') if path.is_file() and not hidden(path)):
        with (gzip.open if path.suffix == '.gz' else open)(path, 'rt') as lines:
            for number, line in enumerate(lines, 1):
                try:
                    row = json.loads(line)
                    yield canonical(query, [row[name] for name in COLUMNS[query]])
                except (ValueError, KeyError, TypeError) as problem:
                    sys.exit(f'{path}:{number}: not a row of the result ({problem!r}): {line.strip()[:200]}')


def differences(expected, found):
    """One line per row that is missing or too many, in the order of the result."""
    for sign, rows in (('missing', expected - found), ('unexpected', found - expected)):
        for row, times in sorted(rows.items()):
            yield f"{sign}: {', '.join(map(str, row))}" + (f' ({times} times)' if times > 1 else '')


def last_json(text):
    """The summary is the last line, or the whole text when somebody made it pretty."""
    try:
        return json.loads(text)
    except ValueError:
        return json.loads(text.strip().splitlines()[-1])


def check(query, folder, summary_file, rows, summary):
    expected = collections.Counter(canonical(query, row) for row in rows)
    found = collections.Counter(written(query, folder))
    problems = list(differences(expected, found))
    if found.total() > expected.total():
        problems.append(f'{found.total()} rows where {expected.total()} are right: does {folder} hold more than one run?')
    if summary_file and summary:
        said = last_json(summary_file.read_text())
        problems += [f'summary: {name} is {said.get(name)}, not {summary[name]}'
                     for name in ('rows_in', 'rows_out', 'late_rows') if said.get(name) != summary[name]]
    for problem in problems[:20]:
        print(problem, file=sys.stderr)
    if problems:
        sys.exit(f'{folder}: {len(problems)} differences from the expected result')
    more = f", {summary['departures']:,} departures" if summary else ''
    left_out = f" ({summary['late_rows']:,} late rows left out)" if summary else ''
    print(f'{folder}: {len(rows):,} rows{more}, all as expected{left_out}')


def main():
    args = arguments()
    hours = args.watermark_hours or WATERMARK_HOURS
    if args.check:
        rows, summary = committed(args.query) if args.watermark_hours is None else work_out(args.query, read_flights(), hours)
        return check(args.query, args.check, args.summary, rows, summary)
    flights = read_flights()
    for query in COLUMNS:
        rows, summary = work_out(query, flights, hours)
        if hours == WATERMARK_HOURS:
            write(query, rows, summary)
        print(json.dumps({'query': query, 'rows': len(rows)} | (summary or {})))


if __name__ == '__main__':
    main()
