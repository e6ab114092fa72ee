"""ConnectorX reads the table into Arrow, DuckDB stores it: run by the Python of an environment with both.

Arguments: PostgreSQL URL, DuckDB file, number of partitions (connections).
"""

from __future__ import annotations

import sys
from importlib import import_module

import duckdb


def main(url: str, file: str, partitions: str) -> None:
    """Copy public.bench into a new file."""
    rows = import_module("connectorx").read_sql(
        url, "SELECT * FROM public.bench", partition_on="id", partition_num=int(partitions), return_type="arrow"
    )
    with duckdb.connect(file) as connection:
        connection.register("rows_read", rows)
        connection.execute("CREATE SCHEMA IF NOT EXISTS public")
        connection.execute("CREATE TABLE public.bench AS SELECT * FROM rows_read")


if __name__ == "__main__":
    main(*sys.argv[1:])
