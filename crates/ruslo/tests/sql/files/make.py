"""Writes the files that sections `=== file` of the SQL tests name. Run in this folder: python make.py"""

import datetime as dt
import decimal
import pathlib

import fastavro
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

# The same as Avro, in blocks of four rows, and a table in a folder for each city.


def write(path, schema, rows, size):
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        writer = fastavro.write.Writer(file, fastavro.parse_schema(schema), sync_marker=bytes(range(16)), sync_interval=1 << 20)
        for n, row in enumerate(rows, 1):
            writer.write(row)
            if n % size == 0:
                writer.dump()
        writer.flush()


def record(record_name, **fields):
    return {"type": "record", "name": record_name, "fields": [{"name": n, "type": t} for n, t in fields.items()]}


trip = record(
    "trip", id="int", city=["null", "string"], ts={"type": "long", "logicalType": "local-timestamp-micros"},
    fare={"type": "bytes", "logicalType": "decimal", "precision": 7, "scale": 2},
)
write("trips.avro", trip, trips.to_pylist(), 4)
fare = record("trip", fare=trip["fields"][3]["type"], id="int")
for city in ["Berlin", "Oslo"]:
    of_city = [{"id": row["id"], "fare": row["fare"]} for row in trips.to_pylist() if row["city"] == city]
    write(f"cities/city={city}/trips.avro", fare, of_city, 2)
place = record("place", lat=["null", "double"], name="string")
avro_nested = record(
    "nested", id="long", tags=["null", {"type": "array", "items": "string"}], at=["null", place],
    counts=["null", {"type": "map", "values": "int"}],
)
write("nested.avro", avro_nested, [{**row, "counts": dict(row["counts"]) if row["counts"] is not None else None} for row in rows], 2)
