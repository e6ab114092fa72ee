"""pymysql's SSCursor reads the table in a loop, DuckDB stores it: run by the Python of an environment with both.

Arguments: port, DuckDB file, database.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any, Final

import duckdb

DDL: Final = """
    CREATE TABLE {table} (id BIGINT PRIMARY KEY, a INTEGER, b BIGINT, c DECIMAL(12,2), d VARCHAR, e TIMESTAMPTZ,
                          f TINYINT, g JSON, h DOUBLE, i VARCHAR)
"""
ROWS_AT_A_TIME: Final = 10_000


def main(port: str, file: str, database: str) -> None:
    """Copy the table `bench` into a new file."""
    pymysql: Any = import_module("pymysql")
    arrow: Any = import_module("pyarrow")
    whole, text = arrow.int64(), arrow.string()
    types = [whole, arrow.int32(), whole, arrow.decimal128(12, 2), text, arrow.timestamp("us", tz="UTC")]
    types += [arrow.int8(), text, arrow.float64(), text]
    connection = pymysql.connect(
        host="127.0.0.1",
        port=int(port),
        user="root",
        database=database,
        ssl_disabled=True,
        cursorclass=pymysql.cursors.SSCursor,
        init_command="SET time_zone = '+00:00'",
    )
    with duckdb.connect(file) as target, connection, connection.cursor() as cursor:
        target.begin()
        target.execute(f"CREATE SCHEMA IF NOT EXISTS {database}")
        target.execute(DDL.format(table=f"{database}.bench"))
        cursor.execute("SELECT * FROM bench")
        names = [column[0] for column in cursor.description]
        while rows := cursor.fetchmany(ROWS_AT_A_TIME):
            columns = [arrow.array(values, kind) for values, kind in zip(zip(*rows, strict=True), types, strict=True)]
            target.register("rows_read", arrow.table(columns, names=names))
            target.execute(f"INSERT INTO {database}.bench SELECT * FROM rows_read")
            target.unregister("rows_read")
        target.commit()


if __name__ == "__main__":
    main(*sys.argv[1:])
