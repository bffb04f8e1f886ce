#!/usr/bin/env python3
"""Makes data/orders.json and data/visits.json, the inputs of the cases here: the same bytes every time.

Rows come out of order, never more than the watermarks of tables.sql forgive, so that no row is late, whatever reads
them. All doubles are quarters, so that sums of them are exact in any order. Needs nothing but Python.
"""
import datetime
import json
import pathlib
import random

DATA = pathlib.Path(__file__).resolve().parent / 'data'
BEGIN = datetime.datetime(2024, 2, 28, 23, 50)
CITIES = ['Łódź', 'Oslo', 'São Paulo', '東京', 'Bergen', 'oslo', '']
INFOS = ['{{"k": {0}, "s": "v{0}", "list": [1, {{"x": {0}}}, null], "o": {{"p": true, "q": 1.50}}}}', '{{"k": "{0}", "s": null}}',
         '{{"k": [{0}]}}', '[{0}, "two"]', '{{broken {0}', '"just text {0}"', '{{}}']
NUMBERS = ['12', '-7', ' 42 ', '3.75', '1e3', 'abc', '', '99999999999', 'true', '0.5', '+8']


def maybe(random_, value, nulls):
    return None if random_.random() < nulls else value


def text(at):
    return at.strftime('%Y-%m-%d %H:%M:%S.') + f'{at.microsecond // 1000:03}'


def order(r, number, at):
    amount = f"{r.choice(['', '', '-'])}{r.randrange(0, 100_000)}.{r.randrange(100):02}"
    return {
        'id': number, 'ts': text(at), 'city': maybe(r, r.choice(CITIES), 0.08), 'kind': r.choice(['in', 'out', 'back']),
        'amount': maybe(r, amount, 0.06), 'rate': f'{r.randrange(20_000) / 10_000:.4f}', 'qty': maybe(r, r.randrange(-50, 100), 0.1),
        'price': maybe(r, r.choice([r.randrange(1_000), r.randrange(-(10 ** 12), 10 ** 12)]), 0.05),
        'score': maybe(r, r.randrange(-4_000, 4_000) / 4, 0.05), 'ok': maybe(r, r.random() < 0.6, 0.1),
        'code': maybe(r, r.choice(['ab-{}-x', 'cd-{}', 'ef--{}-', '{}', 'AB-{}-Y-z', 'a.b|c-{}']).format(r.randrange(1_000)), 0.07),
        'number': maybe(r, r.choice(NUMBERS), 0.05),
        'tags': maybe(r, [r.choice(['red', 'blue', 'näß', 'x']) for _ in range(r.randrange(4))], 0.08),
        'parts': maybe(r, [{'name': maybe(r, r.choice('pqr'), 0.1), 'n': r.randrange(9)} for _ in range(r.randrange(3))], 0.05),
        'attributes': {name: r.randrange(100) for name in r.sample('abc', r.randrange(3))},
        'info': maybe(r, r.choice(INFOS).format(r.randrange(100)), 0.05),
        'born': maybe(r, str(datetime.date(1890, 1, 1) + datetime.timedelta(days=r.randrange(60_000))), 0.05),
    }


def disordered(r, rows, seconds):
    """Each row comes up to so many seconds after its time."""
    due = [(at + datetime.timedelta(seconds=r.uniform(0, seconds)), place) for place, (at, _) in enumerate(rows)]
    return [rows[place][1] for _, place in sorted(due)]


def write(name, rows):
    with (DATA / name).open('w', encoding='utf-8') as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, separators=(',', ':')) + '\n')


def orders(r):
    at, rows = BEGIN, []
    for number in range(600):
        # Some at the same time, some exactly on a window's edge.
        at += datetime.timedelta(milliseconds=r.choice([0, 1, 250, 999, 1_500, 3_000, 9_750]))
        if number % 40 == 0:
            at = at.replace(second=0, microsecond=0) + datetime.timedelta(minutes=1)
        rows.append((at, order(r, number, at)))
    return disordered(r, rows, 9)


def visits(r):
    rows = []
    for user in ['ann', 'bob', 'čeněk', 'dora', None]:
        at = BEGIN + datetime.timedelta(milliseconds=r.randrange(5_000))
        for number in range(80):
            # 10 seconds are one session still, a millisecond more is another.
            at += datetime.timedelta(milliseconds=r.choice([3, 900, 4_000, 9_999, 10_000, 10_001, 45_000]))
            rows.append((at, {'usr': user, 'page': r.choice(['/', '/cart', '/pay', '/help']), 'number': number, 'took': r.randrange(5_000), 'ts': text(at)}))
    rows.sort(key=lambda row: row[0])
    return disordered(r, rows, 19)


if __name__ == '__main__':
    DATA.mkdir(exist_ok=True)
    write('orders.json', orders(random.Random(20_240_228)))
    write('visits.json', visits(random.Random(20_240_229)))
