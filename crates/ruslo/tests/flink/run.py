#!/usr/bin/env python3
"""Asks Apache Flink for the rows of the cases here, and writes them into the cases.

Flink 2.3 comes from PyPI (`pip install apache-flink==2.3.0`, Java 17). Each query runs as a stream on a MiniCluster,
all of them in one JVM; the columns of a result are Flink's too, so that Ruslo must have its types. The Rust tests
only read what stands in the cases and need no Flink.

usage: run.py [CASE ..]          all cases, or those named; a query that Flink refuses is reported and left as it is
"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
SETTINGS = {
    'parallelism.default': 1, 'taskmanager.numberOfTaskSlots': 1, 'taskmanager.memory.managed.size': '128m',
    'taskmanager.memory.network.min': '32m', 'taskmanager.memory.network.max': '32m', 'state.backend.type': 'hashmap',
    'table.local-time-zone': 'UTC', 'restart-strategy.type': 'none', 'rest.port': 0,
    # a file sink commits at a checkpoint after the end
    'execution.checkpointing.interval': '500ms', 'execution.checkpointing.checkpoints-after-tasks-finish.enabled': 'true',
}


def table_environment(scratch):
    os.environ |= {'FLINK_LOG_DIR': scratch, 'JVM_ARGS': '-Xms256m -Xmx1g', 'TZ': 'UTC'}
    from pyflink.common import Configuration
    from pyflink.table import EnvironmentSettings, TableEnvironment
    configuration = Configuration()
    for key, value in (SETTINGS | {'execution.checkpointing.dir': f'file://{scratch}/checkpoints', 'io.tmp.dirs': scratch}).items():
        configuration.set_string(key, str(value))
    return TableEnvironment.create(EnvironmentSettings.new_instance().in_streaming_mode().with_configuration(configuration).build())


def statements(text):
    return [part.strip() for part in re.sub(r'^--.*', '', text, flags=re.M).split(';') if part.strip()]


def sections(text):
    """The comment, then {heading: body}, as the Rust tests read them."""
    comment, *rest = re.split(r'^=== ', text, flags=re.M)
    return comment, dict(part.split('\n', 1) for part in rest)


def columns(table):
    """The result's columns as DDL."""
    schema = table._j_table.getResolvedSchema()
    for column in schema.getColumns():
        kind = column.getDataType().getLogicalType().asSummaryString()
        kind = re.sub(r' \*(ROWTIME|PROCTIME)\*', '', kind.replace(' NOT NULL', ''))
        yield f'`{column.getName()}` ' + re.sub(r'(VAR)?CHAR\(\d+\)', 'STRING', kind)


def answer(tables, name, sql, scratch):
    *before, query = statements(sql)
    dropped = [f'DROP VIEW {name}' for name in re.findall(r'CREATE VIEW (\w+)', sql)]
    folder = pathlib.Path(scratch, 'out', name)
    try:
        for statement in before:
            tables.execute_sql(statement)
        ddl = ',\n'.join(columns(tables.sql_query(query)))
        tables.execute_sql(f"""CREATE TABLE flink_result ({ddl}) WITH ('connector' = 'filesystem', 'path' = 'file://{folder}', 'format' = 'json',
            'json.timestamp-format.standard' = 'SQL', 'json.encode.decimal-as-plain-number' = 'true')""")
        tables.execute_sql(f'INSERT INTO flink_result {query}').wait()
    finally:
        for statement in ['DROP TABLE IF EXISTS flink_result', *dropped]:
            tables.execute_sql(statement)
    return ddl, sorted(line for path in folder.rglob('part-*') for line in path.read_text('utf-8').splitlines())


def main():
    subprocess.run([sys.executable, HERE / 'make.py'], check=True)
    cases = [HERE / 'cases' / f'{name}.case' for name in sys.argv[1:]] or sorted((HERE / 'cases').glob('*.case'))
    refused = 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        tables = table_environment(scratch)
        for statement in statements((HERE / 'tables.sql').read_text().replace('${dir}', f'file://{HERE}/data')):
            tables.execute_sql(statement)
        for path in cases:
            comment, parts = sections(path.read_text('utf-8'))
            try:
                ddl, rows = answer(tables, path.stem, parts['sql'], scratch)
            except Exception as problem:
                refused += 1
                causes = [line for line in str(problem).splitlines() if re.search(r'Exception|Error', line) and not line.strip().startswith('at ')]
                print(f'{path.stem}: ' + ' / '.join(causes[:1] + causes[-2:])[:700], file=sys.stderr)
                continue
            parts |= {'columns': ddl + '\n\n', 'rows': '\n'.join(rows) + '\n'}
            order = ['sql', 'differs', 'columns', 'rows']
            path.write_text(comment + ''.join(f'=== {heading}\n{parts[heading]}' for heading in order if heading in parts), 'utf-8')
            print(f'{path.stem}: {len(rows)} rows')
    sys.exit(refused > 0)


if __name__ == '__main__':
    main()
