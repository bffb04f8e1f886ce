"""The queries of `sql/` and their tables, for the programs that measure and check them.

A query's file begins with what is not SQL: `-- sink:` the columns of its result, `-- reads:` its tables if it reads others than
the bids, `-- looks up:` the table that it asks, `-- partitioned by:` if its result goes into files, by these columns.
"""
import pathlib
import re

SQL = pathlib.Path(__file__).resolve().parent / 'sql'
NAMES = sorted((path.stem for path in SQL.glob('q*.sql')), key=lambda name: (int(re.search(r'\d+', name)[0]), name))
SHARE = {'person': 1, 'auction': 3, 'closing': 3, 'bid': 46}  # of every 50 events
FORMATS = {'json': "'format' = 'json', 'json.timestamp-format.standard' = 'SQL'", 'csv': "'format' = 'csv'"}


class Query:
    """One query: `columns` of its result, `reads` its tables, `partitioned` columns, `text` its SQL."""

    def __init__(self, name):
        self.name = name
        whole = (SQL / f'{name}.sql').read_text()
        said = dict(re.findall(r'^-- (sink|reads|looks up|partitioned by): (.*)$', whole, flags=re.M))
        self.columns = said['sink'].strip()
        self.reads = [table.strip() for table in said.get('reads', 'bid').split(',')]
        self.looks_up = said.get('looks up')
        self.partitioned = said.get('partitioned by')
        self.text = re.sub(r'^--.*\n', '', whole, flags=re.M)

    def rows(self, events):
        """How many rows it reads of so many events."""
        return sum(events * SHARE[table] // 50 for table in self.reads)

    def result(self, folder, path=str):
        """The table of its results: nothing keeps them, but for files below `folder`."""
        if self.partitioned is None:
            return f"CREATE TABLE results_out ({self.columns}) WITH ('connector' = 'blackhole')"
        return (f"CREATE TABLE results_out ({self.columns}) PARTITIONED BY ({self.partitioned})\n"
                f"WITH ('connector' = 'filesystem', 'path' = '{path(folder)}', 'format' = 'csv')")


def tables(data, kind='json'):
    """The statements that declare the three tables over the files of `data`."""
    ddl = (SQL / 'ddl.sql').read_text()
    for name, value in {'DATA': str(data), 'FMT': kind, 'FMTOPTS': FORMATS[kind]}.items():
        ddl = ddl.replace('${' + name + '}', value)
    ddl = re.sub(r'^--.*\n', '', ddl, flags=re.M)
    return [statement.strip() for statement in ddl.split(';') if statement.strip()]
