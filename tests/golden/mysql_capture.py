"""Captures what real servers write into their binary logs: `python -m tests.golden.mysql_capture NAME PORT`.

The server must run on this machine, with `binlog_row_metadata` FULL, `binlog_format` ROW, an account `root` without a
password, and its log must be readable; PyMySQL must be installed. Writes `tests/golden/mysql/NAME.binlog.gz`, a file of
the log as it is, and `NAME.json`: what the server says of the tables' columns and, as text, of their rows afterwards.
"""

from __future__ import annotations

import gzip
import importlib
import json
import sys
from pathlib import Path
from typing import Any

from tests.golden.mysql_workload import (
    CHANGES,
    MARIADB_CHANGES,
    MARIADB_SCHEMA,
    MYSQL_CHANGES,
    MYSQL_SCHEMA,
    SCHEMA,
    SESSION,
)

FOLDER = Path(__file__).parent / "mysql"
DATABASE = "golden"
AS_HEX = {"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob", "geometry", "point", "vector"}


def connect(port: int) -> Any:
    pymysql: Any = importlib.import_module("pymysql")
    # No conversion: every value comes as the text that the server sends.
    return pymysql.connect(host="127.0.0.1", port=port, user="root", autocommit=True, charset="utf8mb4", conv={})


def run(cursor: Any, statements: tuple[str, ...]) -> None:
    for line in statements:
        for statement in line.split("; "):
            cursor.execute(statement)


def fetch(cursor: Any, statement: str) -> list[list[str | None]]:
    cursor.execute(statement)
    return [[None if cell is None else str(cell) for cell in row] for row in cursor.fetchall()]


def columns_of(cursor: Any, table: str) -> list[dict[str, Any]]:
    rows = fetch(
        cursor,
        "SELECT column_name, column_type, character_set_name, is_nullable, column_key FROM information_schema.columns "
        f"WHERE table_schema = '{DATABASE}' AND table_name = '{table}' ORDER BY ordinal_position",
    )
    return [
        {
            "name": name,
            # MariaDB's JSON is a LONGTEXT with a check.
            "native": f"{native} character set {charset}" if charset else native,
            "nullable": nullable == "YES",
            "key": key == "PRI",
        }
        for name, native, charset, nullable, key in rows
    ]


def expression(column: dict[str, Any]) -> str:
    name, native = f"`{column['name']}`", column["native"].split("(")[0].split()[0]
    if native in AS_HEX:
        return f"HEX({name})"
    if native == "bit":
        return f"{name} + 0"
    # A FLOAT's text has six digits only; the DOUBLE of the same value has all.
    return f"CAST({name} AS DOUBLE)" if native == "float" else f"CAST({name} AS CHAR CHARACTER SET utf8mb4)"


def capture(port: int) -> tuple[bytes, dict[str, Any]]:
    """Run the workload and return the log and what the server says of the result."""
    cursor = connect(port).cursor()
    cursor.execute("SELECT version()")
    ((version,),) = cursor.fetchall()
    maria = "MariaDB" in version
    run(
        cursor,
        (f"DROP DATABASE IF EXISTS {DATABASE}", f"CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4", f"USE {DATABASE}"),
    )
    run(
        cursor,
        SESSION if maria else (*SESSION, "SET binlog_transaction_compression = OFF, binlog_row_value_options = ''"),
    )
    run(cursor, SCHEMA + (MARIADB_SCHEMA if maria else MYSQL_SCHEMA))
    cursor.execute("FLUSH BINARY LOGS")
    status = "SHOW BINARY LOG STATUS" if not maria else "SHOW MASTER STATUS"
    file = fetch(cursor, status)[0][0]
    run(cursor, CHANGES + (MARIADB_CHANGES if maria else MYSQL_CHANGES))
    cursor.execute("FLUSH BINARY LOGS")
    tables: dict[str, Any] = {}
    for (table,) in fetch(
        cursor, f"SELECT table_name FROM information_schema.tables WHERE table_schema = '{DATABASE}' ORDER BY 1"
    ):
        assert table is not None
        columns = columns_of(cursor, table)
        selected = ", ".join(map(expression, columns))
        tables[table] = {"columns": columns, "rows": fetch(cursor, f"SELECT {selected} FROM {table} ORDER BY 1, 2")}
    base = fetch(cursor, "SELECT @@log_bin_basename")[0][0]
    log = Path(f"{base}").with_name(str(file)).read_bytes()
    return log, {"version": version, "tables": tables}


if __name__ == "__main__":
    log, said = capture(int(sys.argv[2]))
    (FOLDER / f"{sys.argv[1]}.binlog.gz").write_bytes(gzip.compress(log, mtime=0))
    (FOLDER / f"{sys.argv[1]}.json").write_text(json.dumps(said, ensure_ascii=False, indent=1) + "\n")
