"""The DuckDB sink keeps the contract."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest

from cdcrep.connector import Pipeline, Sink
from cdcrep.table import Table
from cdcrep.testing.contract import SinkContract, SinkCopyContract
from cdcrep.testing.memory_tables import Row
from cdcrep_connectors.duckdb.database import Database
from cdcrep_connectors.duckdb.options import DuckDBOptions
from cdcrep_connectors.duckdb.sink import DuckDBSink


class DuckDBTarget:
    """A file of its own."""

    def __init__(self, path: Path) -> None:
        self.options = DuckDBOptions.model_validate({"url": f"duckdb:///{path}"})

    def sink(self, pipeline: Pipeline) -> Sink:
        return DuckDBSink(pipeline, self.options)

    def rows(self, table: Table) -> list[Row]:
        columns = ", ".join(f"{quoted(column.name)}::VARCHAR" for column in table.columns)
        with self.connected() as connection:
            return connection.execute(f"SELECT {columns} FROM {quoted(table.schema)}.{quoted(table.name)}").fetchall()

    def execute(self, statement: str) -> None:
        with self.connected() as connection:
            connection.execute(statement)

    def drop(self, table: Table) -> None:
        self.execute(f"DROP TABLE {quoted(table.schema)}.{quoted(table.name)}")

    @contextmanager
    def connected(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Connect as the sink does: DuckDB refuses a second configuration of a file that is open."""
        database = Database(self.options)
        with database.use() as connection:
            yield connection
        database.close()

    def close(self) -> None:
        pass


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class TestDuckDBSink(SinkContract):
    @pytest.fixture
    def target(self, tmp_path: Path) -> DuckDBTarget:
        return DuckDBTarget(tmp_path / "target.duckdb")


class TestDuckDBSinkCopies(SinkCopyContract):
    @pytest.fixture
    def target(self, tmp_path: Path) -> DuckDBTarget:
        return DuckDBTarget(tmp_path / "target.duckdb")
