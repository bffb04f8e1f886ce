#!/usr/bin/env python3
"""Runs one Nexmark query on Apache Flink and prints one JSON line with what it cost.

Flink comes from PyPI (`pip install apache-flink`, Java 17); pure SQL on a MiniCluster in a fresh JVM, so Python
costs nothing. The input is a folder made by ../nexmark/nexgen.rs. Configuration as the public Nexmark set-up has
it: object reuse, mini-batch, distinct split, exactly-once checkpoints every 10 s, heap state.

usage: run.py q5 --data FOLDER [--rows 1000000] [--format json|csv] [--parallelism 2] [--heap 8g] [--sink blackhole|FOLDER] [--batch]
"""
import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'nexmark'))
from queries import FORMATS, Query, tables  # noqa: E402


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('query')
    parser.add_argument('--data', required=True, type=pathlib.Path, help='folder with json/ and csv/, made by nexgen')
    parser.add_argument('--rows', type=int, default=1_000_000, help='events that nexgen was asked for')
    parser.add_argument('--format', choices=FORMATS, default='json')
    parser.add_argument('--parallelism', type=int, default=2)
    parser.add_argument('--heap', default='8g')
    parser.add_argument('--sink', default='blackhole', help='blackhole, or a folder for CSV results')
    parser.add_argument('--batch', action='store_true', help='batch mode: the exact final results')
    return parser.parse_args()


def table_environment(args, keeps_files, scratch):
    os.environ['FLINK_LOG_DIR'] = scratch
    os.environ['JVM_ARGS'] = f'-Xms{args.heap} -Xmx{args.heap} -XX:MaxDirectMemorySize=2g -Xlog:gc:file={scratch}/gc.log'
    os.environ['TZ'] = 'UTC'
    from pyflink.common import Configuration
    from pyflink.table import EnvironmentSettings, TableEnvironment
    settings = {
        'parallelism.default': args.parallelism, 'taskmanager.numberOfTaskSlots': args.parallelism, 'pipeline.object-reuse': 'true',
        'taskmanager.memory.managed.size': '1g', 'taskmanager.memory.network.min': '256m', 'taskmanager.memory.network.max': '256m',
        'state.backend.type': 'hashmap', 'execution.checkpointing.storage': 'filesystem', 'execution.checkpointing.dir': f'file://{scratch}/checkpoints',
        'io.tmp.dirs': scratch, 'table.local-time-zone': 'UTC', 'restart-strategy.type': 'none',
    }
    if not args.batch:
        settings |= {
            'execution.checkpointing.interval': '10s', 'execution.checkpointing.mode': 'EXACTLY_ONCE',
            # a file sink commits at a checkpoint after the end; without one, do as the public set-up does
            'execution.checkpointing.checkpoints-after-tasks-finish.enabled': str(keeps_files).lower(),
            'table.exec.mini-batch.enabled': 'true', 'table.exec.mini-batch.allow-latency': '2s', 'table.exec.mini-batch.size': '50000',
            'table.optimizer.distinct-agg.split.enabled': 'true',
        }
    configuration = Configuration()
    for key, value in settings.items():
        configuration.set_string(key, str(value))
    builder = EnvironmentSettings.new_instance()
    builder = builder.in_batch_mode() if args.batch else builder.in_streaming_mode()
    return TableEnvironment.create(builder.with_configuration(configuration).build())


def heap_kept_mb(scratch):
    """The most that was still on the heap right after a collection: what the job needed, not what it was given."""
    log = pathlib.Path(scratch, 'gc.log')
    kept = re.findall(r'Pause.* \d+M->(\d+)M\(', log.read_text()) if log.exists() else []
    return max(map(int, kept), default=None)


def submit(args, query, environment, scratch):
    """Starts the query; its results go nowhere, or into CSV files of `--sink`."""
    data = f'file://{args.data.resolve()}'
    result = query.result(f'{scratch}/result', lambda folder: f'file://{folder}')
    if args.sink != 'blackhole':
        folder = pathlib.Path(args.sink).resolve()
        result = f"CREATE TABLE results_out ({query.columns}) WITH ('connector' = 'filesystem', 'path' = 'file://{folder}', 'format' = 'csv')"
    for statement in [*tables(data, args.format), result]:
        environment.execute_sql(statement)
    return environment.execute_sql(f'INSERT INTO results_out {query.text}')


def main():
    args = arguments()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        query = Query(args.query)
        environment = table_environment(args, args.sink != 'blackhole' or query.partitioned is not None, scratch)
        java = subprocess.run(['pgrep', '-P', str(os.getpid()), 'java'], capture_output=True, text=True).stdout.split()[0]

        def cpu_seconds():
            fields = pathlib.Path(f'/proc/{java}/stat').read_text().rsplit(')', 1)[1].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')

        result = submit(args, query, environment, scratch)
        before = cpu_seconds()
        seconds = result.get_job_client().get_job_execution_result().result().get_net_runtime() / 1000
        status = pathlib.Path(f'/proc/{java}/status').read_text()
        rows = query.rows(args.rows)
        print(json.dumps({
            'engine': 'flink', 'query': args.query, 'format': args.format, 'parallelism': args.parallelism, 'rows_read': rows,
            'seconds': seconds, 'rows_per_second': round(rows / seconds), 'job_cpu_seconds': round(cpu_seconds() - before, 2),
            'peak_rss_mb': int(re.search(r'VmHWM:\s+(\d+)', status).group(1)) // 1024, 'heap_kept_mb': heap_kept_mb(scratch),
        }))


if __name__ == '__main__':
    main()
