"""The two PostgreSQL clusters of a run: equal settings, fsync on, gone afterwards."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psycopg
from psycopg import sql

from bench.processes import children, title
from bench.tables import Contents, Digest, postgres_digest
from bench.waiting import wait_for
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

CLIENT_BACKEND: Final = re.compile(
    r"postgres: (walsender )?\S+ \S+ (127\.0\.0\.1\(|\[local\])|postgres: parallel worker"
)
SUBSCRIPTION_WORKER: Final = re.compile(r"postgres: logical replication .*worker")

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

    def version(self) -> str:
        """The server's version."""
        ((version,),) = self.execute("postgres", "SHOW server_version")
        return str(version)

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

    def settle(self, database: str) -> None:
        """Bring the statistics up to date and take away what is dead, as time would."""
        self.execute(database, "VACUUM ANALYZE")

    def checkpoint(self) -> None:
        """Write out what the server has in memory now."""
        # Process ids are used again: those of our sessions that have ended must not hide a consumer's.
        self.own_backends &= set(children(self.server.pid or 0))
        self.execute("postgres", "CHECKPOINT")

    def digest(self, database: str, tables: Sequence[Contents]) -> Digest:
        """Digest tables that nobody writes."""
        with self.connect(database) as connection:
            return postgres_digest(connection, tables)

    def slots(self, database: str) -> set[str]:
        """Names of the logical slots."""
        statement = "SELECT slot_name FROM pg_replication_slots WHERE slot_type = 'logical'"
        return {str(name) for (name,) in self.execute(database, statement)}

    def slot_is_active(self, slot: str) -> bool:
        """Is the server sending to this slot's consumer?"""
        if self._watcher is None:
            # Asked every few milliseconds: not worth a connection each time.
            self._watcher = self.connect()
        found = self._watcher.execute("SELECT active FROM pg_replication_slots WHERE slot_name = %s", [slot]).fetchone()
        return bool(found and found[0])

    def end_stream(self, slot: str) -> None:
        """Wait until the server has noticed that this slot's consumer is gone."""
        wait_for(lambda: not self.slot_is_active(slot), f"the slot {slot} is free")

    def processes(self, role: str) -> Iterator[tuple[int, str]]:
        """Find the processes that work for others than the benchmark, with their role: `role`, or `consumer`."""
        for pid in children(self.server.pid or 0):
            if pid in self.own_backends:
                continue
            name = title(pid)
            if SUBSCRIPTION_WORKER.match(name):
                yield pid, "consumer"
            elif CLIENT_BACKEND.match(name):
                yield pid, role


def start_cluster(major: int, directory: Path) -> Cluster:
    """Start a new cluster, with its data in `directory`; one that does not start leaves nothing behind."""
    server = PostgresServer(find_binaries(major), directory, settings=SETTINGS)
    try:
        server.start()
    except BaseException:
        server.remove()
        raise
    return Cluster(server)


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
        self._started: list[Cluster] = []
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
            cluster.checkpoint()

    def processes(self) -> Iterator[tuple[int, str]]:
        """Find the servers' processes that work for consumers, each with its role."""
        yield from self.source.processes("source")
        yield from self.target.processes("target")

    def facts(self) -> Mapping[str, str]:
        """What to say about the servers."""
        return {"PostgreSQL": f"{self.source.version()}, two clusters, fsync on"}

    def _start(self, name: str) -> Cluster:
        cluster = start_cluster(self._major, self.files / name)
        self._started.append(cluster)
        return cluster

    def _remove(self) -> None:
        for cluster in self._started:
            cluster.server.remove()
        self._scratch.cleanup()
