"""Both sides of every pair of databases: how a test writes to one and reads either as Python values."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol

import duckdb

from cdcrep.config import load
from cdcrep.progress import LogLines
from cdcrep.supervise import Supervisor
from tests.servers.database import Database, RunningServer
from tests.servers.mysql_binaries import RELEASES
from tests.servers.mysql_database import RunningMySQL

SOURCES: Final = ("postgresql-18", "mysql-9.7", "mariadb-10.11")
TARGETS: Final = ("duckdb", "postgresql-18", "mysql-9.7", "mariadb-11.8")

Rows = list[tuple[Any, ...]]


class Side(Protocol):
    """A database that can hold a schema of any name (which MySQL calls a database)."""

    @property
    def url(self) -> str:
        """Its URL in the configuration."""
        ...

    def execute(self, *statements: str) -> None:
        """Run statements in one transaction."""
        ...

    def select(self, statement: str) -> Rows:
        """Return a query's rows."""
        ...

    def drop(self, schema: str) -> None:
        """Leave nothing behind on a server that other tests use."""
        ...


@dataclass
class PostgresSide:
    """A database of a PostgreSQL server, of this test's own."""

    database: Database

    @property
    def url(self) -> str:
        return self.database.url

    def execute(self, *statements: str) -> None:
        with self.database.connect() as connection, connection.transaction():
            for statement in statements:
                connection.execute(statement.encode())

    def select(self, statement: str) -> Rows:
        with self.database.connect(options="-c TimeZone=UTC") as connection:
            return connection.execute(statement.encode()).fetchall()

    def drop(self, schema: str) -> None:
        self.database.drop()


@dataclass
class MySQLSide:
    """A MySQL or MariaDB server."""

    server: RunningMySQL

    @property
    def url(self) -> str:
        return self.server.url("")

    def execute(self, *statements: str) -> None:
        with self.server.connect(autocommit=False, charset="utf8mb4") as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            connection.commit()

    def select(self, statement: str) -> Rows:
        with self.server.connect(charset="utf8mb4") as connection, connection.cursor() as cursor:
            cursor.execute("SET time_zone = '+00:00'")
            cursor.execute(statement.replace('"', "`"))
            return list(cursor.fetchall())

    def drop(self, schema: str) -> None:
        self.execute(f"DROP DATABASE IF EXISTS {schema}")


@dataclass
class DuckDBSide:
    """A DuckDB file."""

    file: Path

    @property
    def url(self) -> str:
        return f"duckdb:///{self.file}"

    def execute(self, *statements: str) -> None:
        with duckdb.connect(str(self.file)) as connection:
            for statement in statements:
                connection.execute(statement)

    def select(self, statement: str) -> Rows:
        with duckdb.connect(str(self.file), read_only=True) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            return connection.execute(statement).fetchall()

    def drop(self, schema: str) -> None:
        self.file.unlink(missing_ok=True)


@dataclass
class Pair:
    """A source, a target, and one schema that is replicated from the one into the other."""

    source: Side
    target: Side
    directory: Path
    schema: str = field(default_factory=lambda: f"shop_{uuid.uuid4().hex[:10]}")
    settings: str = ""
    source_options: str = ""
    target_options: str = ""
    tables_options: str = ""

    @property
    def config(self) -> Path:
        """The pipeline's configuration file, written anew."""
        path = self.directory / "pipeline.toml"
        path.write_text(
            f'name = "{self.schema}"\nmax_retries = 0\n{self.settings}\n'
            f'[source]\nurl = "{self.source.url}"\n{self.source_options}\n'
            f'[target]\nurl = "{self.target.url}"\n{self.target_options}\n'
            f'[tables]\ninclude = ["{self.schema}.*"]\n{self.tables_options}\n'
        )
        return path

    def catch_up(self) -> None:
        """Replicate what was committed so far; the first time with the first copy."""
        Supervisor(load(self.config), events=LogLines("pair"), until_current=True).run()

    def write(self, *statements: str) -> None:
        """Run statements in one transaction of the source; `{s}` stands for the schema."""
        self.source.execute(*(statement.replace("{s}", self.schema) for statement in statements))

    def assert_equal(self, table: str, columns: Sequence[str]) -> Rows:
        """Compare a table row by row, value by value; return the rows."""
        names = ", ".join(f'"{name}"' for name in columns)
        rows = [
            sorted(tuple(map(plain, row)) for row in side.select(f'SELECT {names} FROM {self.schema}."{table}"'))
            for side in (self.source, self.target)
        ]
        assert rows[1] == rows[0]
        return rows[0]


def plain(value: Any) -> str:
    """Write a value as text that is the same from every driver, for equal values only."""
    if isinstance(value, bool):
        value = int(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"bytes {bytes(value).hex()}"
    if isinstance(value, datetime):
        # The instant: PostgreSQL and DuckDB say that it is UTC, MySQL keeps it in UTC.
        return value.replace(tzinfo=None).isoformat(" ")
    return f"{type(value).__name__} {value}"


@contextmanager
def opened(
    name: str,
    directory: Path,
    postgres: Callable[[int], RunningServer],
    mysql: Callable[[str], RunningMySQL],
) -> Iterator[Side]:
    """Open one side by its name, such as `mysql-9.7`."""
    if name == "duckdb":
        yield DuckDBSide(directory / "target.duckdb")
    elif name in RELEASES:
        yield MySQLSide(mysql(name))
    else:
        yield PostgresSide(Database.create(postgres(int(name.rpartition("-")[2]))))
