"""A MySQL or MariaDB server as a source: puts catalogue, snapshot and stream together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from typing import ClassVar, Final

from pydantic import BaseModel

from cdcrep.changes import Batch
from cdcrep.connector import Copied, Obstacle, Pipeline, SourceStatus
from cdcrep.errors import TransientError
from cdcrep.position import Position
from cdcrep.table import Table, TableId
from cdcrep_connectors.mysql.catalog import Catalog
from cdcrep_connectors.mysql.connection import Connection, connect
from cdcrep_connectors.mysql.continuity import check_history, place_now, read_log
from cdcrep_connectors.mysql.dates import Tally
from cdcrep_connectors.mysql.obstacles import Survey, look_again, obstacles, refuse_fatal, survey
from cdcrep_connectors.mysql.options import SourceOptions
from cdcrep_connectors.mysql.position import Place, parse_position
from cdcrep_connectors.mysql.snapshot import MySQLSnapshot
from cdcrep_connectors.mysql.stream import BinlogStream
from cdcrep_connectors.mysql.writer_locks import ServerLockRefusedError, tables_locked

LOOKUP_BYTES: Final = 4 << 20
"""Of the log that are decoded together to find out what changed since an interrupted copy began."""


class MySQLSource:
    """A MySQL or MariaDB server whose committed changes can be followed (see `cdcrep.connector.Source`).

    The server keeps nothing for us: it removes its logs when it wants to, and nothing has to be created or dropped.
    """

    Options: ClassVar[type[BaseModel]] = SourceOptions
    EXAMPLE_TABLES: ClassVar[str] = "shop.*"
    """What `cdcrep init` writes; a schema is a database here."""

    def __init__(self, pipeline: Pipeline, options: SourceOptions) -> None:
        self._pipeline = pipeline
        self._options = options
        self._program_name = f"cdcrep {pipeline.name}"
        self._lock = threading.RLock()
        self._session: Connection | None = None
        self._catalog: Catalog | None = None
        self._snapshots: list[MySQLSnapshot] = []
        self._tally = Tally()
        self._stream = self._reader(pipeline, self._tally)
        # Of what it reads only keys are kept, and what the copies lack was counted when it was copied.
        self._changes = self._reader(replace(pipeline, max_batch_bytes=LOOKUP_BYTES), Tally())

    def obstacles(self) -> list[Obstacle]:
        """Find everything that stands in the way, all at once, changing nothing."""
        return obstacles(self._survey())

    def tables(self) -> list[Table]:
        """Return the configured tables in their present shape, those that can be replicated."""
        return self._survey().tables

    def set_up(self, replicated: Collection[TableId] = (), after: Position | None = None) -> list[str]:
        """Make sure that replication can start, or go on from `after`; there is nothing to create.

        Raises:
            SetupError: a fatal obstacle is met.
            DivergedError: the stream cannot go on from `after`.
        """
        del replicated
        if after is not None:
            self._stream.check(after)
        refuse_fatal(self.obstacles())
        return []

    def start(self, interrupted: Mapping[TableId, Copied] | None = None) -> MySQLSnapshot:
        """Take a snapshot with its exact position."""
        return self.snapshot(interrupted)

    def snapshot(self, interrupted: Mapping[TableId, Copied] | None = None) -> MySQLSnapshot:
        """Take a snapshot with its exact position, locking out writers for a moment."""
        open_snapshot = partial(
            MySQLSnapshot,
            self._options,
            self._program_name,
            self._pipeline.copy_workers,
            self._tally,
            read_log=self._read_log,
            interrupted=interrupted,
        )
        try:
            snapshot = open_snapshot()
        except ServerLockRefusedError:
            snapshot = self._between_writers(open_snapshot)
        with self._lock:
            self._snapshots.append(snapshot)
        return snapshot

    def stream(
        self, after: Position, copied: Mapping[TableId, Copied], until: Position | None = None
    ) -> Iterator[Batch]:
        """Yield what was committed after `after`, in commit order (see `cdcrep.connector.Source.stream`)."""
        return self._stream.stream(after, copied, until)

    def confirm(self, durable: Position) -> None:
        """Do nothing: the server keeps its logs for as long as it is configured to."""

    def stop(self) -> None:
        """Make a running `stream` end soon; thread-safe, also before it started."""
        self._stream.stop()
        self._changes.stop()

    def current(self) -> Position:
        """Return a position at or after every transaction that has committed by now."""
        with self._connect() as session:
            return place_now(session).position()

    def status(self, position: Position | None) -> SourceStatus:
        """Look at the server's log on a connection of its own."""
        with self._connect() as session:
            log = read_log(session)
        reached = log.place.reached
        lag = 0
        place = None if position is None else parse_position(position)
        if place is not None:
            lag = 0 if place.reached.contains(reached) else max(log.bytes_after(place.reached), 1)
        details = {"log": f"{reached.file}:{reached.offset}"}
        if log.files:
            details["oldest_log"] = log.files[0][0]
        if place is not None and place.nulled:
            details["impossible_dates"] = f"{place.nulled:,} became NULL{_in_columns(self._tally.columns())}"
        return SourceStatus(log.place.position(), lag, sum(size for _, size in log.files), details)

    def tear_down(self) -> list[str]:
        """Do nothing but end a stream that is open: nothing was created at the server."""
        self._stream.close()
        self._changes.close()
        return []

    def close(self) -> None:
        """End every connection; idempotent."""
        self._stream.close()
        self._changes.close()
        with self._lock:
            snapshots, self._snapshots = self._snapshots, []
            session, self._session, self._catalog = self._session, None, None
        for snapshot in snapshots:
            snapshot.close()
        if session is not None and session.open:
            session.close()

    def _reader(self, pipeline: Pipeline, tally: Tally) -> BinlogStream:
        return BinlogStream(
            self._connect, self._look_up, self._look_again, options=self._options, pipeline=pipeline, tally=tally
        )

    def _read_log(self, after: Position, tables: Collection[TableId], until: Position) -> Iterator[Batch]:
        return self._changes.stream(after, dict.fromkeys(tables, Copied(after)), until)

    def _between_writers(self, open_snapshot: Callable[..., MySQLSnapshot]) -> MySQLSnapshot:
        """Take a snapshot of tables that nobody writes meanwhile.

        Raises:
            TransientError: another table is among the configured ones now, which could be written all the while.
        """
        # Also those that cannot be replicated: an ALTER TABLE may change that before they are locked.
        before = self._names()
        with ExitStack() as unless_exact:
            with tables_locked(sorted(before), self._options, self._program_name):
                snapshot = unless_exact.enter_context(closing(open_snapshot(locked=True)))
                after = self._names()
            if after == before:
                unless_exact.pop_all()
                return snapshot
        raise TransientError("a table appeared or went while the others were locked for a copy")

    def _names(self) -> set[TableId]:
        return {id_ for id_ in self._look_up().names() if id_ in self._pipeline.tables}

    def _survey(self) -> Survey:
        catalog = self._look_up()
        return survey(self._pipeline, catalog, mariadb=catalog.is_mariadb)

    def _look_again(self, place: Place) -> None:
        """Look at what a stream relies on that has passed a place."""
        with self._connect() as session:
            check_history(place, session)
            look_again(self._pipeline, Catalog(session), mariadb=place.mariadb)

    def _look_up(self) -> Catalog:
        """Return the catalogue on a session that is opened when first needed or lost."""
        with self._lock:
            if self._session is None or self._catalog is None or not self._session.open:
                self._session = self._connect()
                self._catalog = Catalog(self._session, self._options.impossible_dates)
            return self._catalog

    def _connect(self) -> Connection:
        options = self._options
        return connect(
            options,
            program_name=self._program_name,
            statement_timeout=options.statement_timeout,
            lock_timeout=options.lock_timeout,
        )


def _in_columns(columns: Sequence[str]) -> str:
    """Name the columns that this process has met such dates in."""
    return f", lately in {', '.join(columns)}" if columns else ""
