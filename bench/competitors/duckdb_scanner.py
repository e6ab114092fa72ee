"""DuckDB reads the table itself: run by the Python of an environment with the wheel of its postgres extension.

Arguments: libpq connection string, DuckDB file, `key` or `plain`: whether the copy has a primary key.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import duckdb


def main(dsn: str, file: str, shape: str) -> None:
    """Copy public.bench into a new file."""
    package = Path(str(import_module("duckdb_extension_postgres_scanner").__file__)).parent
    (extension,) = package.rglob("*.duckdb_extension")
    with duckdb.connect(file) as connection:
        connection.execute(f"LOAD '{extension}'")
        connection.execute(f"ATTACH '{dsn}' AS pg (TYPE postgres, READ_ONLY)")
        connection.execute("CREATE SCHEMA IF NOT EXISTS public")
        if shape == "plain":
            connection.execute("CREATE TABLE public.bench AS SELECT * FROM pg.public.bench")
        else:
            connection.execute("CREATE TABLE public.bench AS SELECT * FROM pg.public.bench LIMIT 0")
            connection.execute("ALTER TABLE public.bench ADD PRIMARY KEY (id)")
            connection.execute("INSERT INTO public.bench SELECT * FROM pg.public.bench")


if __name__ == "__main__":
    main(*sys.argv[1:])
