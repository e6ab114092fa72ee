"""Fixtures of the crash suites: a source of one kind, and the way into a target of another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.crash.pipeline import Pipeline
from tests.crash.workload_sessions import TABLES, SourceDatabase
from tests.servers.database import Database, RunningServer
from tests.servers.fix_postgres import DEFAULT_MAJOR
from tests.servers.mysql_binaries import RELEASES
from tests.servers.mysql_database import MySQLDatabase, RunningMySQL


@dataclass(frozen=True)
class Ends:
    """An empty database to replicate from, and the URL of a target."""

    source: SourceDatabase
    schema: str
    target_url: str
    directory: Path

    def pipeline(self, *tables: str) -> Pipeline[SourceDatabase]:
        """Write the configuration of a pipeline over these tables, or those of the workload."""
        return Pipeline.create(self.directory, self.source, self.target_url, tables or TABLES, self.schema)


@dataclass(frozen=True)
class Databases:
    """Makes databases on the servers that tests share, and drops them."""

    stack: ExitStack
    postgres: Callable[[int], RunningServer]
    mysql: Callable[[str], RunningMySQL]

    def source(self, kind: str) -> SourceDatabase:
        """Create an empty database to replicate from."""
        return self._mysql(kind) if kind in RELEASES else self._postgres()

    def target_url(self, kind: str, schema: str, directory: Path) -> str:
        """Return the URL of a target that has no schema of this name."""
        if kind == "duckdb":
            return f"duckdb:///{directory / 'target.duckdb'}"
        if kind not in RELEASES:
            return self._postgres().url
        server = self.mysql(kind)
        self.stack.callback(drop_mysql_database, server, schema)
        return server.url("")

    def _postgres(self) -> Database:
        database = Database.create(self.postgres(DEFAULT_MAJOR))
        self.stack.callback(database.drop)
        return database

    def _mysql(self, release: str) -> MySQLDatabase:
        database = MySQLDatabase.create(self.mysql(release))
        self.stack.callback(database.drop)
        return database


def drop_mysql_database(server: RunningMySQL, name: str) -> None:
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS `{name}`")


def own_schema(database: Database) -> str:
    """Make a schema with the database's name that statements mean when they name none."""
    database.execute(f"CREATE SCHEMA {database.name}; ALTER DATABASE {database.name} SET search_path = {database.name}")
    return database.name


@pytest.fixture
def databases(
    postgres_server: Callable[[int], RunningServer], mysql_server: Callable[[str], RunningMySQL]
) -> Iterator[Databases]:
    """Databases on shared servers, which are started when first asked for."""
    with ExitStack() as stack:
        yield Databases(stack, postgres_server, mysql_server)


@pytest.fixture
def ends(request: pytest.FixtureRequest, databases: Databases, tmp_path: Path) -> Ends:
    """The two ends that a parameter such as `postgresql-to-mysql-9.7` names."""
    origin, _, destination = request.param.partition("-to-")
    source = databases.source(origin)
    if isinstance(source, MySQLDatabase):
        schema = source.name
    else:
        # The name that a MySQL server's other users will not choose.
        schema = own_schema(source) if destination in RELEASES else "public"
    return Ends(source, schema, databases.target_url(destination, schema, tmp_path), tmp_path)
