"""Following a test database's tables with a replication stream."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import psycopg

from cdcrep.changes import Batch
from cdcrep.connector import Pipeline
from cdcrep.position import Position
from cdcrep.selection import Selection
from cdcrep_connectors.postgres.continuity import identify
from cdcrep_connectors.postgres.lsn import format_position, parse_lsn
from cdcrep_connectors.postgres.stream import ReplicationStream
from tests.properties.pgoutput_messages import make_table

Connection = psycopg.Connection[Any]

PIPELINE = Pipeline("test", Selection(("*",)), heartbeat_seconds=0.2)


class Followed:
    """A database with a slot and a publication of all its present tables; streams of it begin at the slot's start."""

    def __init__(self, dsn: str, schema: str, slot: str = "", plugin: str = "pgoutput") -> None:
        self.dsn = dsn
        with self.connect(False) as connection:
            connection.execute(schema.encode())
            connection.execute("CREATE PUBLICATION published FOR ALL TABLES")
            row = connection.execute("SELECT current_database()").fetchone()
            assert row is not None
            self.slot = slot or str(row[0])
            row = connection.execute(
                "SELECT lsn::text FROM pg_create_logical_replication_slot(%s, %s)", [self.slot, plugin]
            ).fetchone()
            assert row is not None
            self.start = self.position(str(row[0]))

    def connect(self, replication: bool, **parameters: Any) -> Connection:
        mode: dict[str, Any] = {"replication": "database"} if replication else {}
        return psycopg.connect(self.dsn, autocommit=True, **mode, **parameters)

    def position(self, lsn: str) -> Position:
        with self.connect(True) as connection:
            system = identify(connection)
        return format_position(system.identifier, system.timeline, parse_lsn(lsn))

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        with self.connect(False) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def now(self) -> Position:
        """Return a position behind everything committed, which a stream will pass."""
        (row,) = self.execute("SELECT pg_logical_emit_message(true, 'test', '')::text")
        return self.position(str(row[0]))

    def stream(self, pipeline: Pipeline = PIPELINE, dsn: str = "", **parameters: Any) -> ReplicationStream:
        """Make a stream; `parameters` are those of its connections."""

        def connect(replication: bool) -> Connection:
            mode: dict[str, Any] = {"replication": "database"} if replication else {}
            return psycopg.connect(dsn or self.dsn, autocommit=True, **mode, **parameters)

        return ReplicationStream(connect, make_table, slot=self.slot, publications=["published"], pipeline=pipeline)

    def confirmed(self) -> str:
        (row,) = self.execute(
            f"SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = '{self.slot}'"
        )
        return str(row[0])


def column(batches: Iterable[Batch], name: str = "id") -> list[Any]:
    """Return one column of all changes, in order."""
    return [value for batch in batches for changes in batch.changes for value in changes.new.column(name).to_pylist()]


def limited(**bounds: Any) -> Pipeline:
    return replace(PIPELINE, **bounds)
