"""Copying a table of MySQL or MariaDB once: `python -m bench.mysql_backfill [--quick] [--release NAME]`.

Measures, one after the other and in turn for each round: the snapshot read alone, `cdcrep backfill` into a new DuckDB
file, and a loop over PyMySQL's unbuffered cursor (SSCursor) that writes the same table into a DuckDB file, by Arrow
tables and by `executemany`, the latter with a five-hundredth of the rows. Server and programs share the machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any, Final

import click
import duckdb
import pyarrow as pa
import pymysql
from pymysql.cursors import SSCursor

from cdcrep.connector import Pipeline
from cdcrep.selection import Selection
from cdcrep_connectors.mysql.options import SourceOptions
from cdcrep_connectors.mysql.source import MySQLSource
from tests.servers.mysql_binaries import RELEASES, find_binaries
from tests.servers.mysql_server import MySQLServer

DATABASE: Final = "bench"
FULL: Final = 5_000_000
AT_ONCE: Final = 10_000
"""Rows that the loop fetches and writes together."""

DDL: Final = (
    "CREATE TABLE bench (id bigint PRIMARY KEY, a int, b bigint, c decimal(12,2), d text, e timestamp(6) NULL, "
    "f boolean, g json, h double, i varchar(64))"
)
DUCKDB_DDL: Final = (
    "CREATE TABLE bench (id bigint PRIMARY KEY, a int, b bigint, c decimal(12,2), d text, e timestamptz, f tinyint, "
    "g text, h double, i text)"
)
VALUES: Final = (
    "rand() * 1e9, rand() * 1e15, rand() * 1e9, concat(sha2({id}, 224), {id}), "
    "timestamp('2024-01-01') + interval floor(rand() * 6e13) microsecond, rand() < 0.5, "
    '\'{{"status": "open", "score": 17, "tags": ["a", "b"]}}\', floor(rand() * 1e9) / 1024, '
    "concat('customer number ', {id})"
)


def fill(server: MySQLServer, rows: int) -> None:
    """Create the table, about 200 bytes a row."""
    step = 50_000
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4")
        cursor.execute(f"USE {DATABASE}")
        cursor.execute("SET sql_log_bin = 0, time_zone = '+00:00'")
        cursor.execute(DDL)
        cursor.execute("CREATE TABLE numbers (n int PRIMARY KEY)")
        cursor.executemany("INSERT INTO numbers VALUES (%s)", [(n,) for n in range(step)])
        for first in range(0, rows, step):
            cursor.execute(
                f"INSERT INTO bench SELECT {first} + n, {VALUES.format(id=f'{first} + n')} FROM numbers "
                f"WHERE n < {rows - first} ORDER BY n"
            )
        cursor.execute("DROP TABLE numbers")
        cursor.execute("ANALYZE TABLE bench")


def read(url: str, rows: int, _: Path) -> int:
    """Read the table as the first copy does, on one session, and throw it away."""
    pipeline = Pipeline("bench", Selection((f"{DATABASE}.bench",)))
    with closing(MySQLSource(pipeline, SourceOptions.model_validate({"url": url}))) as source:
        (table,) = source.tables()
        with closing(source.snapshot()) as snapshot:
            chunks = snapshot.chunks(table, None)
            count = sum(len(batch) for chunk in chunks for batch in snapshot.read(chunk)["arrow"]())
    assert count == rows
    return count


def backfill(url: str, rows: int, directory: Path) -> int:
    """Run `cdcrep backfill` with the smallest configuration file."""
    file, config = directory / "copy.duckdb", directory / "cdcrep.toml"
    config.write_text(
        f'name = "bench"\n[source]\nurl = "{url}"\n[target]\nurl = "duckdb:///{file}"\n'
        f'[tables]\ninclude = ["{DATABASE}.bench"]\n'
    )
    program = Path(sys.executable).with_name("cdcrep")
    output = directory / "output"
    with output.open("wb") as log:
        process = subprocess.Popen([program, "backfill", config], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise click.ClickException(output.read_text().strip()[-1000:])
    click.echo(f"cdcrep backfill: peak RSS {usage.ru_maxrss >> 10} MiB, CPU {usage.ru_utime + usage.ru_stime:.1f} s")
    return counted(file, f"{DATABASE}.bench", rows)


def loop_with_arrow(url: str, rows: int, directory: Path) -> int:
    """Copy by SSCursor and Arrow tables."""

    def write(connection: Any, fetched: Any) -> None:
        batch = pa.table([pa.array(column) for column in zip(*fetched, strict=True)], [*"zabcdefghi"])
        connection.register("fetched", batch)
        connection.execute("INSERT INTO bench SELECT * FROM fetched")
        connection.unregister("fetched")

    return _loop(url, rows, directory, write)


def loop_with_executemany(url: str, rows: int, directory: Path) -> int:
    """Copy by SSCursor and executemany, a five-hundredth of the rows."""

    def write(connection: Any, fetched: Any) -> None:
        connection.executemany("INSERT INTO bench VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", fetched)

    return _loop(url, rows // 500, directory, write)


def _loop(url: str, rows: int, directory: Path, write: Callable[[Any, Any], None]) -> int:
    file = directory / "loop.duckdb"
    port = int(url.rpartition(":")[2].partition("/")[0])
    source = pymysql.connect(host="127.0.0.1", port=port, user="root", database=DATABASE, cursorclass=SSCursor)
    with duckdb.connect(str(file)) as connection, source, source.cursor() as cursor:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(DUCKDB_DDL)
        connection.begin()
        cursor.execute(f"SELECT * FROM bench WHERE id < {rows}")
        while fetched := cursor.fetchmany(AT_ONCE):
            write(connection, fetched)
        connection.commit()
    return counted(file, "bench", rows)


def counted(file: Path, table: str, rows: int) -> int:
    """Make sure that all rows are there; return their number."""
    with duckdb.connect(str(file)) as connection:
        found = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert found == (rows,), found
    return rows


WAYS: Final = {
    "cdcrep, snapshot read alone": read,
    "cdcrep backfill to DuckDB": backfill,
    "PyMySQL SSCursor, Arrow, DuckDB": loop_with_arrow,
    "PyMySQL SSCursor, executemany, DuckDB": loop_with_executemany,
}


@click.command()
@click.option("--quick", is_flag=True, help="A tenth of the rows.")
@click.option("--rows", type=click.IntRange(min=1000), default=FULL, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--release", type=click.Choice(list(RELEASES)), default="mariadb-10.11", show_default=True)
def main(quick: bool, rows: int, rounds: int, release: str) -> None:
    """Measure, and print rows per second of each way and its ratio to the loop with Arrow."""
    rows = rows // 10 if quick else rows
    speeds: dict[str, list[float]] = {name: [] for name in WAYS}
    with MySQLServer(find_binaries(RELEASES[release]), {"innodb_buffer_pool_size": "512M"}) as server:
        fill(server, rows)
        url = f"{server.url}{DATABASE}"
        for _ in range(rounds):
            for name, way in WAYS.items():
                with tempfile.TemporaryDirectory() as directory:
                    began = time.perf_counter()
                    count = way(url, rows, Path(directory))
                    speeds[name].append(count / (time.perf_counter() - began))
                    click.echo(f"{release}: {name}: {speeds[name][-1]:,.0f} rows/s")
    loop = median(speeds["PyMySQL SSCursor, Arrow, DuckDB"])
    for name, found in speeds.items():
        click.echo(f"{release}, {rows:,} rows: {name}: {median(found):,.0f} rows/s, {median(found) / loop:.1f} times")


if __name__ == "__main__":
    main()
