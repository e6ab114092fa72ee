"""The PostgreSQL sink keeps the contract of sinks, on the oldest and the newest supported server."""

from __future__ import annotations

import pytest

from cdcrep.connector import Pipeline, Sink
from cdcrep.table import Table
from cdcrep.testing.contract import SinkContract, SinkCopyContract
from cdcrep.testing.memory_tables import Row
from cdcrep_connectors.postgres.sink import PostgresSink
from cdcrep_connectors.relational.names import qualify, quote
from tests.servers.database import Database
from tests.servers.fix_postgres import oldest_and_newest_target


class PostgresTarget:
    """A fresh database of a shared server."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def sink(self, pipeline: Pipeline) -> Sink:
        return PostgresSink(pipeline, PostgresSink.Options.model_validate({"url": self.database.url}))

    def rows(self, table: Table) -> list[Row]:
        columns = ", ".join(f"{quote(column.name)}::text" for column in table.columns)
        return self.database.execute(f"SELECT {columns} FROM {qualify(table.schema, table.name)}")

    def execute(self, statement: str) -> None:
        self.database.execute(statement)

    def drop(self, table: Table) -> None:
        self.database.execute(f"DROP TABLE {qualify(table.schema, table.name)}")

    def close(self) -> None:
        pass


@oldest_and_newest_target
class TestPostgresSink(SinkContract):
    @pytest.fixture
    def target(self, target_database: Database) -> PostgresTarget:
        return PostgresTarget(target_database)


@oldest_and_newest_target
class TestPostgresSinkCopy(SinkCopyContract):
    @pytest.fixture
    def target(self, target_database: Database) -> PostgresTarget:
        return PostgresTarget(target_database)
