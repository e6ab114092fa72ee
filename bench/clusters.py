"""The two PostgreSQL clusters of a run: equal settings, fsync on, gone afterwards."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psycopg
from psycopg import sql

from cdcrep.demo.postgres_server import PostgresServer, find_binaries

SETTINGS: Final[Mapping[str, str]] = {
    "fsync": "on",
    "full_page_writes": "on",
    "shared_buffers": "512MB",
    "wal_level": "logical",
    "max_connections": "60",
    "max_wal_size": "8GB",
    # Checkpoints and vacuum happen between measurements, by command: at a random moment within one they would hit
    # one consumer and spare another.
    "checkpoint_timeout": "1h",
    "autovacuum": "off",
}

Row = tuple[Any, ...]


class Cluster:
    """One PostgreSQL server, and which of its backends belong to the benchmark itself."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self.own_backends: set[int] = set()
        """Process ids whose work is not the consumer's."""
        self._watcher: psycopg.Connection[Row] | None = None

    def connect(self, database: str = "postgres") -> psycopg.Connection[Row]:
        """Open an autocommit connection."""
        connection = psycopg.connect(f"{self.server.dsn} dbname={database}", autocommit=True)
        self.own_backends.add(connection.info.backend_pid)
        return connection

    def execute(self, database: str, *statements: str) -> list[Row]:
        """Run statements on a connection of their own; rows of the last."""
        rows: list[Row] = []
        with self.connect(database) as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
                rows = cursor.fetchall() if cursor.description else []
        return rows

    def url(self, database: str) -> str:
        """The superuser's URL of a database."""
        return self.server.url.removesuffix("/postgres") + f"/{database}"

    def dsn(self, database: str) -> str:
        """The superuser's connection string of a database, in libpq's keyword form."""
        return self.server.dsn.replace("dbname=postgres", f"dbname={database}")

    def create_database(self, name: str) -> None:
        """Create an empty database, in place of one of this name."""
        self.drop_database(name)
        with self.connect() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    def drop_database(self, name: str) -> None:
        """Drop a database with its slots."""
        with self.connect() as connection:
            slots = "SELECT slot_name, active_pid FROM pg_replication_slots WHERE database = %s"
            for slot, active_pid in connection.execute(slots, [name]).fetchall():
                if active_pid:
                    connection.execute("SELECT pg_terminate_backend(%s, 10000)", [active_pid])
                connection.execute("SELECT pg_drop_replication_slot(%s)", [slot])
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def slot_is_active(self, slot: str) -> bool:
        """Is the server sending to this slot's consumer?"""
        if self._watcher is None:
            # Asked every few milliseconds: not worth a connection each time.
            self._watcher = self.connect()
        found = self._watcher.execute("SELECT active FROM pg_replication_slots WHERE slot_name = %s", [slot]).fetchone()
        return bool(found and found[0])


class Clusters:
    """Source and target, and a directory for files; a context that leaves nothing behind."""

    def __init__(self, major: int, directory: Path) -> None:
        self._directory = directory
        self._major = major

    def __enter__(self) -> Self:
        self._scratch = tempfile.TemporaryDirectory(prefix="cdcrep-bench-", dir=self._directory)
        self.files = Path(self._scratch.name)
        # The servers' unprivileged user must be able to enter.
        self.files.chmod(0o755)
        self._servers: list[PostgresServer] = []
        try:
            self.source = self._start("source")
            self.target = self._start("target")
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def checkpoint(self) -> None:
        """Write out what both servers have in memory now, so that it does not fall into the next measurement."""
        for cluster in (self.source, self.target):
            cluster.execute("postgres", "CHECKPOINT")

    def _start(self, name: str) -> Cluster:
        server = PostgresServer(find_binaries(self._major), self.files / name, settings=SETTINGS)
        self._servers.append(server)
        server.start()
        return Cluster(server)

    def _remove(self) -> None:
        for server in self._servers:
            server.remove()
        self._scratch.cleanup()
