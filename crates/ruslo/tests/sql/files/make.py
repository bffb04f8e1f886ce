"""Writes the files that sections `=== file` of the SQL tests name. Run in this folder: python make.py"""

import datetime as dt
import decimal

import pyarrow as pa
import pyarrow.parquet as pq

# Trips every 20 seconds from 12:00 on, in row groups of four.
start = dt.datetime(2024, 5, 1, 12)
trips = pa.table({
    "id": pa.array(range(1, 11), pa.int32()),
    "city": ["Berlin", "Oslo", None, "Berlin", "Oslo", "Oslo", "Berlin", "Rome", "Berlin", "Oslo"],
    "ts": pa.array([start + dt.timedelta(seconds=20 * n) for n in range(10)], pa.timestamp("us")),
    "fare": pa.array([decimal.Decimal(n * n) / 4 for n in range(10)], pa.decimal128(7, 2)),
})
pq.write_table(trips, "trips.parquet", row_group_size=4)

nested = pa.schema([
    ("id", pa.int64()), ("tags", pa.list_(pa.string())), ("at", pa.struct([("lat", pa.float64()), ("name", pa.string())])),
    ("counts", pa.map_(pa.string(), pa.int32())),
])
rows = [
    {"id": 1, "tags": ["a", "b"], "at": {"lat": 52.5, "name": "Berlin"}, "counts": [("x", 1), ("y", 2)]},
    {"id": 2, "tags": [], "at": None, "counts": []},
    {"id": 3, "tags": None, "at": {"lat": None, "name": "Oslo"}, "counts": None},
]
pq.write_table(pa.Table.from_pylist(rows, nested), "nested.parquet")
