"""The MySQL sink keeps the contract on MySQL and on MariaDB."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cdcrep.connector import Pipeline, Sink
from cdcrep.table import Table
from cdcrep.testing import sink_contract
from cdcrep.testing.contract import SinkContract, SinkCopyContract
from cdcrep.testing.memory_tables import Row
from cdcrep_connectors.mysql.options import ServerOptions
from cdcrep_connectors.mysql.sink import MySQLSink
from cdcrep_connectors.mysql.target_names import quote
from tests.servers.fix_mysql import every_mysql_target
from tests.servers.mysql_database import MySQLDatabase

DATABASES = ("cdcrep", "shop", sink_contract.HOSTILE[3])
"""What the suites' tables and the bookkeeping stand in: databases of the server, whatever the URL says."""


class MySQLTarget:
    """A server without the databases that the suites use."""

    def __init__(self, database: MySQLDatabase) -> None:
        self.database = database
        self.options = ServerOptions(url=database.url)
        self.clear()

    def clear(self) -> None:
        for name in DATABASES:
            self.execute(f"DROP DATABASE IF EXISTS {quote(name)}")

    def sink(self, pipeline: Pipeline) -> Sink:
        return MySQLSink(pipeline, self.options)

    def rows(self, table: Table) -> list[Row]:
        columns = ", ".join(f"CAST({quote(column.name)} AS CHAR)" for column in table.columns)
        with self.database.connect(charset="utf8mb4") as connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT {columns} FROM {quote(table.schema)}.{quote(table.name)}")
            return list(cursor.fetchall())

    def execute(self, statement: str) -> None:
        with self.database.connect(charset="utf8mb4") as connection, connection.cursor() as cursor:
            # The suites' own statements give no length, which MySQL wants.
            cursor.execute(statement.replace("VARCHAR DEFAULT", "VARCHAR(20) DEFAULT"))

    def drop(self, table: Table) -> None:
        self.execute(f"DROP TABLE {quote(table.schema)}.{quote(table.name)}")

    def close(self) -> None:
        pass


@every_mysql_target
class TestMySQLSink(SinkContract):
    # MySQL has no names that end with a space or hold characters beyond U+FFFF.
    names = tuple(name for name in sink_contract.HOSTILE if name not in (" blank ", "Größe ☃ 🎉"))

    @pytest.fixture
    def target(self, mysql_target: MySQLDatabase) -> Iterator[MySQLTarget]:
        target = MySQLTarget(mysql_target)
        yield target
        target.clear()


@every_mysql_target
class TestMySQLSinkCopies(SinkCopyContract):
    @pytest.fixture
    def target(self, mysql_target: MySQLDatabase) -> Iterator[MySQLTarget]:
        target = MySQLTarget(mysql_target)
        yield target
        target.clear()
