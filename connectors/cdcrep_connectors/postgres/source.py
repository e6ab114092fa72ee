"""A PostgreSQL database as a source: puts catalogue, slot, snapshot and stream together."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping
from itertools import count
from typing import ClassVar, Final

from pydantic import BaseModel

from cdcrep.changes import Batch
from cdcrep.connector import Copied, Obstacle, Pipeline, SourceStatus
from cdcrep.errors import TransientError
from cdcrep.position import Position
from cdcrep.table import Table, TableId
from cdcrep_connectors.postgres.catalog import Catalog
from cdcrep_connectors.postgres.connection import Connection, connect
from cdcrep_connectors.postgres.lsn import format_position, parse_lsn, parse_position
from cdcrep_connectors.postgres.obstacles import Survey, obstacles, refuse_fatal, survey
from cdcrep_connectors.postgres.options import SourceOptions
from cdcrep_connectors.postgres.publication import publication_name, query_one, slot_name
from cdcrep_connectors.postgres.relation import Relation
from cdcrep_connectors.postgres.set_up import create_slot, replace_slot, set_up_publication, tear_down
from cdcrep_connectors.postgres.snapshot import PostgresSnapshot
from cdcrep_connectors.postgres.stream import ReplicationStream
from cdcrep_connectors.postgres.watch import Watch

# The first eight digits of a WAL file's name are its timeline.
IDENTITY: Final = """
SELECT system_identifier::text, ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int
FROM pg_control_system()
"""

SLOT: Final = """
SELECT active_pid, wal_status, safe_wal_size, restart_lsn::text, confirmed_flush_lsn::text,
       greatest(pg_wal_lsn_diff(pg_current_wal_insert_lsn(), restart_lsn), 0)::bigint
FROM pg_replication_slots WHERE slot_name = %s
"""

SMALLEST_TRANSACTION: Final = 90
"""Bytes of WAL that the smallest change and its commit take. Less than that is an idle server's housekeeping."""

_serial = count(1)


class PostgresSource:
    """A PostgreSQL database whose committed changes can be followed (see `cdcrep.connector.Source`)."""

    Options: ClassVar[type[BaseModel]] = SourceOptions

    def __init__(self, pipeline: Pipeline, options: SourceOptions) -> None:
        self._pipeline = pipeline
        self._options = options
        self._slot = slot_name(pipeline, options)
        self._publication = publication_name(pipeline, options)
        self._application_name = f"cdcrep {pipeline.name}"
        self._lock = threading.RLock()
        self._session: Connection | None = None
        self._catalog: Catalog | None = None
        self._snapshots: list[PostgresSnapshot] = []
        self._stream = ReplicationStream(
            self._connect, self._shape, slot=self._slot, publications=[self._publication], pipeline=pipeline
        )

    def obstacles(self) -> list[Obstacle]:
        """Find everything that stands in the way, all at once, changing nothing."""
        return obstacles(self._survey())

    def tables(self) -> list[Table]:
        """Return the configured tables in their present shape, those that can be replicated."""
        found = self._survey()
        return [each.table for each in found.described if each.table is not None and each.has_identity]

    def set_up(self, replicated: Collection[TableId] = (), after: Position | None = None) -> list[str]:
        """Create the publication of exactly the configured tables, or bring it up to date; say what was done.

        Raises:
            SetupError: a fatal obstacle is met.
            DivergedError: the stream cannot go on from `after`, or the slot exists but its publication does not, or
                lacks a replicated table.
        """
        # First: nothing may be created at a server that is another one.
        if after is not None:
            self._stream.check(after)
        found = self._survey()
        refuse_fatal(obstacles(found))
        return set_up_publication(found, self._open(), replicated)

    def start(
        self,
        interrupted: Mapping[TableId, Copied] | None = None,  # noqa: ARG002 - each table is looked at by itself
    ) -> PostgresSnapshot:
        """Create the slot and a snapshot of exactly its consistent point; replaces a slot that is not in use."""
        slot = replace_slot(self._open(), self._options, self._slot, self._application_name)
        return self._keep(PostgresSnapshot(self._options, slot, self._application_name))

    def snapshot(
        self,
        interrupted: Mapping[TableId, Copied] | None = None,  # noqa: ARG002 - each table is looked at by itself
    ) -> PostgresSnapshot:
        """Take a snapshot with its exact position by creating a slot for a moment."""
        session = self._open()
        name = f"{self._slot[:40]}_{session.info.backend_pid}_{next(_serial)}"
        slot = create_slot(session, self._options, name, self._application_name, temporary=True)
        return self._keep(PostgresSnapshot(self._options, slot, self._application_name))

    def stream(
        self, after: Position, copied: Mapping[TableId, Copied], until: Position | None = None
    ) -> Iterator[Batch]:
        """Yield what was committed after `after`, in commit order (see `cdcrep.connector.Source.stream`)."""
        batches = self._stream.stream(after, copied, until)
        keep = self._options.removed_partitions == "keep"
        watch = Watch(self._open, self._stream, self._publication, after, copied, keep_removed=keep)
        return watch.over(batches)

    def confirm(self, durable: Position) -> None:
        """Allow the server to forget what is at or before `durable`; thread-safe, returns at once."""
        self._stream.confirm(durable)

    def stop(self) -> None:
        """Make a running `stream` end soon; thread-safe, also before it started."""
        self._stream.stop()

    def current(self) -> Position:
        """Return a position at or after every transaction that has committed by now, which the stream will reach.

        No function tells such a position: the insert position may stand behind a page's header, where no record ever
        ends, and commits may not be flushed yet. So an empty logical message is committed, which any role may do, and
        the end of its record is returned: everything committed before lies before it, the flush of our commit takes
        along commits that did not wait for theirs, and our commit record, which the stream passes, lies behind it.
        """
        with connect(self._options, application_name=self._application_name) as session:
            system, timeline = self._identity(session)
            # Also where standbys are waited for, the stream only waits for this server.
            query_one(session, "SELECT set_config('synchronous_commit', 'local', false)")
            row = query_one(session, "SELECT pg_logical_emit_message(true, 'cdcrep', '')::text")
        assert row is not None, "the function returns one row"
        return format_position(system, timeline, parse_lsn(row[0]))

    def status(self, position: Position | None) -> SourceStatus:
        """Look at log position, slot and publication on a connection of its own.

        Log that the stream of this source has passed counts only where it held something that the target lacks.
        """
        with connect(self._options, application_name=self._application_name) as session:
            system, timeline = self._identity(session)
            flushed = query_one(session, "SELECT pg_current_wal_flush_lsn()::text")
            slot = query_one(session, SLOT, [self._slot])
        assert flushed is not None, "the function returns one row"
        newest = parse_lsn(flushed[0])
        lag = newest - self._stream.passed(parse_position(position).lsn, newest) if position is not None else 0
        details = {"slot": self._slot, "publication": self._publication}
        retained = None
        if slot is None:
            details["slot_state"] = "missing"
        else:
            active_pid, wal_status, safe_size, restart_lsn, confirmed_flush_lsn, retained = slot
            details["slot_state"] = f"active (process {active_pid})" if active_pid else "inactive"
            details["wal_status"] = str(wal_status)
            details["safe_wal_size"] = "unlimited" if safe_size is None else f"{safe_size} bytes"
            details["restart_lsn"], details["confirmed_flush_lsn"] = str(restart_lsn), str(confirmed_flush_lsn)
        return SourceStatus(
            format_position(system, timeline, newest), lag if lag >= SMALLEST_TRANSACTION else 0, retained, details
        )

    def tear_down(self) -> list[str]:
        """Drop the slot, and the publication where we made it; say what was done. Ends a stream that is open."""
        self._stream.close()
        own = self._options.create_publication
        return tear_down(self._slot, self._publication, self._open(), own_publication=own)

    def close(self) -> None:
        """End every connection; idempotent."""
        self._stream.close()
        with self._lock:
            snapshots, self._snapshots = self._snapshots, []
            session, self._session, self._catalog = self._session, None, None
        for snapshot in snapshots:
            snapshot.close()
        if session is not None:
            session.close()

    def _survey(self) -> Survey:
        session = self._open()
        assert self._catalog is not None, "opened with the session"
        return survey(self._pipeline, self._options, session, self._catalog)

    def _shape(self, relation: Relation) -> Table:
        self._open()
        assert self._catalog is not None, "opened with the session"
        return self._catalog.table_of(relation)

    def _connect(self, replication: bool) -> Connection:
        return connect(self._options, application_name=self._application_name, replication=replication)

    def _open(self) -> Connection:
        """Return the session for catalogue look-ups and setting up, opened when first needed or lost."""
        with self._lock:
            if self._session is None or self._session.closed:
                self._session = connect(
                    self._options,
                    application_name=self._application_name,
                    statement_timeout=self._options.statement_timeout,
                    lock_timeout=self._options.lock_timeout,
                )
                self._catalog = Catalog(self._session)
            return self._session

    def _keep(self, snapshot: PostgresSnapshot) -> PostgresSnapshot:
        with self._lock:
            self._snapshots.append(snapshot)
        return snapshot

    @staticmethod
    def _identity(session: Connection) -> tuple[int, int]:
        """Return system identifier and timeline."""
        row = query_one(session, IDENTITY)
        if row is None:
            raise TransientError("the server did not say who it is")
        return int(row[0]), int(row[1])
