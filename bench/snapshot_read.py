"""Measures reading a first copy of MySQL or MariaDB alone: `python -m bench.snapshot_read KIND`.

KIND is mariadb or mysql. The table of W5m is read as the first copy does, on one session, and thrown away.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Final

from bench.mysql_servers import KINDS, MySQLServers
from bench.mysql_workloads import create_bench
from cdcrep.connector import Pipeline
from cdcrep.selection import Selection
from cdcrep_connectors.mysql.options import SourceOptions
from cdcrep_connectors.mysql.source import MySQLSource

DATABASE: Final = "snapshot_read"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with MySQLServers(arguments.kind, 15, Path(tempfile.gettempdir())) as servers:
        servers.source.create_database(DATABASE)
        create_bench(servers.source, DATABASE, arguments.rows)
        for number in range(arguments.rounds):
            began, busy = time.perf_counter(), time.process_time()
            rows = _read(servers.source.url(DATABASE))
            seconds, busy = time.perf_counter() - began, time.process_time() - busy
            print(f"round {number + 1}: {rows / seconds:,.0f} rows/s, {busy / rows * 1e6:.2f} CPU us a row", flush=True)


def _read(url: str) -> int:
    """Read the table; return how many rows it has."""
    pipeline = Pipeline("bench", Selection((f"{DATABASE}.bench",)))
    with closing(MySQLSource(pipeline, SourceOptions.model_validate({"url": url}))) as source:
        (table,) = source.tables()
        with closing(source.snapshot()) as snapshot:
            chunks = snapshot.chunks(table, None)
            return sum(len(batch) for chunk in chunks for batch in snapshot.read(chunk)["arrow"]())


if __name__ == "__main__":
    main()
