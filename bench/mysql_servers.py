"""The servers of a run on MySQL or MariaDB: source, replica, and a PostgreSQL cluster as a target; durable settings."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import pymysql

from bench.clusters import Cluster, Row, start_cluster
from bench.tables import Contents, Digest, mysql_digest
from bench.waiting import wait_for
from cdcrep_connectors.mysql.continuity import place_now
from cdcrep_connectors.mysql.position import Place
from tests.servers.mysql_binaries import RELEASES, Binaries, find_binaries
from tests.servers.mysql_server import MySQLServer

KINDS: Final[Mapping[str, str]] = {"mariadb": "mariadb-10.11", "mysql": "mysql-9.7"}
"""How workloads call a kind of server, and its release."""

SETTINGS: Final[Mapping[str, str]] = {
    "sync_binlog": "1",
    "innodb_flush_log_at_trx_commit": "1",
    "innodb_buffer_pool_size": "512M",
    "innodb_io_capacity": "4000",
    "max_binlog_size": "1G",
}
MYSQL_SETTINGS: Final[Mapping[str, str]] = {"innodb_redo_log_capacity": "2G"}
# A replica of MariaDB's writes no binary log of its own unless told to; MySQL's does.
MARIADB_SETTINGS: Final[Mapping[str, str]] = {"innodb_log_file_size": "2G", "log_slave_updates": "OFF"}

DUMPS: Final = "SELECT id FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'"
DIRTY_PAGES: Final = "SHOW GLOBAL STATUS LIKE 'Innodb_buffer_pool_pages_dirty'"
CLEAN_SECONDS: Final = 120.0


class DurableBinaries(Binaries):
    """Programs that really sync: the tests' have a library preloaded that ignores it."""

    syncs = True


class MySQLDatabases:
    """One server of MySQL or MariaDB (see `bench.servers.Server`)."""

    def __init__(self, server: MySQLServer) -> None:
        self.server = server
        self.is_mariadb = server.release.is_mariadb
        self._watcher: pymysql.Connection[Any] | None = None

    def connect(self, database: str | None = None) -> pymysql.Connection[Any]:
        """Open an autocommit connection."""
        return self.server.connect(database=database, init_command="SET time_zone = '+00:00'")

    def execute(self, database: str, *statements: str) -> list[Row]:
        rows: list[Row] = []
        with self.connect(database or None) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
                rows = list(cursor.fetchall())
        return rows

    def version(self) -> str:
        """The server's version."""
        return str(self.execute("", "SELECT version()")[0][0])

    def url(self, database: str) -> str:
        return self.server.url + database

    def create_database(self, name: str) -> None:
        self.drop_database(name)
        self.execute("", f"CREATE DATABASE {name} CHARACTER SET utf8mb4")

    def drop_database(self, name: str) -> None:
        self.execute("", f"DROP DATABASE IF EXISTS {name}")

    def settle(self, database: str) -> None:
        self.execute(database, "ANALYZE NO_WRITE_TO_BINLOG TABLE bench")

    def checkpoint(self) -> None:
        """Write out every changed page."""
        self.execute("", "SET GLOBAL innodb_max_dirty_pages_pct_lwm = 0", "SET GLOBAL innodb_max_dirty_pages_pct = 0")
        try:
            wait_for(self._is_clean, "all pages are written", seconds=CLEAN_SECONDS, pause_seconds=0.1)
        finally:
            self.execute("", "SET GLOBAL innodb_max_dirty_pages_pct = 90")

    def digest(self, database: str, tables: Sequence[Contents]) -> Digest:
        with self.connect(database) as connection:
            return mysql_digest(connection, tables)

    def slots(self, database: str) -> set[str]:  # noqa: ARG002 - it keeps nothing for anybody
        return set()

    def slot_is_active(self, slot: str) -> bool:  # noqa: ARG002 - one consumer at a time
        return bool(self._dumps())

    def end_stream(self, slot: str) -> None:
        """End every dump: the server notices that a reader is gone when it sends it something."""
        for (thread,) in self._dumps():
            try:
                self.execute("", f"KILL {thread}")
            except pymysql.OperationalError as error:
                if error.args[0] != pymysql.constants.ER.NO_SUCH_THREAD:
                    raise
        wait_for(lambda: not self.slot_is_active(slot), "the server sends its log to nobody")

    def place(self) -> Place:
        """Where the log ends now."""
        with self.connect() as connection:
            return place_now(connection)

    def _dumps(self) -> Sequence[Row]:
        if self._watcher is None:
            # Asked every few milliseconds: not worth a connection each time.
            self._watcher = self.connect()
        with self._watcher.cursor() as cursor:
            cursor.execute(DUMPS)
            return list(cursor.fetchall())

    def _is_clean(self) -> bool:
        return int(self.execute("", DIRTY_PAGES)[0][1]) < 100


class MySQLServers:
    """Source, replica and target, and a directory for files; a context that leaves nothing behind."""

    def __init__(self, kind: str, major: int, directory: Path) -> None:
        self.kind = kind
        self._major = major
        self._directory = directory

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="cdcrep-bench-", dir=self._directory))
            self.files = Path(scratch)
            # The servers' unprivileged user must be able to enter.
            self.files.chmod(0o755)
            self.source = self._start(stack, "1")
            self.replica = self._start(stack, "2")
            self.target: Cluster = start_cluster(self._major, self.files / "target")
            stack.callback(self.target.server.remove)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def checkpoint(self) -> None:
        """Write out what all servers have in memory now, so that it does not fall into the next measurement."""
        for server in (self.source, self.replica, self.target):
            server.checkpoint()

    def processes(self) -> Iterator[tuple[int, str]]:
        """Find the servers' processes that work for consumers: source and replica as a whole."""
        yield self.source.server.pid or 0, "source"
        yield self.replica.server.pid or 0, "consumer"
        yield from self.target.processes("target")

    def facts(self) -> Mapping[str, str]:
        """What to say about the servers."""
        name = "MariaDB" if self.source.is_mariadb else "MySQL"
        settings = "innodb_flush_log_at_trx_commit 1, sync_binlog 1, fsync on"
        return {
            name: f"{self.source.version()}, source and replica, {settings}",
            "PostgreSQL": f"{self.target.version()}, fsync on",
        }

    def _start(self, stack: ExitStack, server_id: str) -> MySQLDatabases:
        found = find_binaries(RELEASES[KINDS[self.kind]])
        more = MARIADB_SETTINGS if found.release.is_mariadb else MYSQL_SETTINGS
        settings = {**SETTINGS, **more, "server_id": server_id}
        return MySQLDatabases(stack.enter_context(MySQLServer(DurableBinaries(**vars(found)), settings)))
