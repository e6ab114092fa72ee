"""Reads tables as they were at one position, in chunks of key ranges, on several sessions that share one view.

MySQL and MariaDB cannot hand a view from one session to another. So for a moment all writing is locked out (`FLUSH
TABLES WITH READ LOCK`): the sessions open their views, the log's end is read, and the lock is released.

An interrupted copy cannot be told apart from what changed since: rows bear no mark of their age. So it is completed by
every row of the new view, which the target takes by key; a table without a key begins anew.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import sha256
from itertools import pairwise
from typing import Any, Final

import pyarrow as pa
from pymysql.cursors import SSCursor

from cdcrep.connector import Chunk, Copied, Stream
from cdcrep.errors import CdcrepError, SetupError, TransientError
from cdcrep.position import Position
from cdcrep.table import Column, Kind, Table, TableId
from cdcrep_connectors.mysql.arrow_out import expression, to_arrow
from cdcrep_connectors.mysql.connection import Connection, connect
from cdcrep_connectors.mysql.continuity import place_now, query
from cdcrep_connectors.mysql.failures import DRIVER_ERRORS, translate
from cdcrep_connectors.mysql.options import SourceOptions

ROWS_AT_ONCE: Final = 10_000
INTEGERS: Final = frozenset(
    {Kind.INT8, Kind.INT16, Kind.INT32, Kind.INT64, Kind.UINT8, Kind.UINT16, Kind.UINT32, Kind.UINT64}
)
MOST_CHUNKS: Final = 10_000
SIZES: Final = """
SELECT coalesce(data_length, 0), coalesce(table_rows, 0) FROM information_schema.tables
WHERE table_schema = %s AND table_name = %s
"""


class MySQLSnapshot:
    """The tables as they were at `position`."""

    def __init__(self, options: SourceOptions, program_name: str, workers: int) -> None:
        """Open the views; raises SetupError or TransientError where the lock cannot be had."""
        self._options = options
        self._selected: dict[tuple[TableId, str], str] = {}
        self._closed = threading.Event()
        self._idle: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        self._sessions: list[Connection] = []
        try:
            # One for each thread that copies, one for the questions asked meanwhile.
            self._sessions = [_session(options, program_name) for _ in range(workers + 1)]
            self.position = _freeze(self._sessions, options, program_name)
        except BaseException:
            self.close()
            raise
        self._asking, *readers = self._sessions
        self._lock = threading.Lock()
        for session in readers:
            self._idle.put(session)
        self.note = ""

    def chunks(self, table: Table, copied: Copied | None) -> Sequence[Chunk]:
        """Cut a table into ranges of its key where that is one integer, else leave it whole."""
        overlapping = copied is not None and bool(table.key)
        # Named after this view: a chunk of an earlier one does not stand for it.
        view = sha256(self.position.encode()).hexdigest()[:12]
        with self._lock:
            sizes = query(self._asking, SIZES, table.schema, table.name)
            size, rows = (int(sizes[0][0]), int(sizes[0][1])) if sizes else (0, 0)
            ranges = self._ranges(table, size)
        chunks = []
        for name, condition in ranges:
            full = f"{name} of {view}"
            self._selected[table.id, full] = condition
            chunks.append(Chunk(table, full, rows // len(ranges), size // len(ranges), overlapping))
        return chunks

    def keys(self, table: Table) -> Mapping[str, Stream]:
        """Offer the key columns of all rows of a table."""
        return {"arrow": partial(self._read, table.id, table.identity, "")}

    def read(self, chunk: Chunk) -> Mapping[str, Stream]:
        """Offer a chunk's rows as record batches."""
        condition = self._selected[chunk.table.id, chunk.name]
        return {"arrow": partial(self._read, chunk.table.id, chunk.table.columns, condition)}

    def close(self) -> None:
        """Let go of the views; a chunk that is being read fails."""
        self._closed.set()
        sessions, self._sessions = self._sessions, []
        for session in sessions:
            _drop(session)

    def _ranges(self, table: Table, size: int) -> list[tuple[str, str]]:
        """Return names and conditions of parts that together are the whole table."""
        key = [table.columns[i] for i in table.key_positions]
        count = min(size // self._options.chunk_bytes + 1, MOST_CHUNKS)
        if count == 1 or len(key) != 1 or key[0].type.kind not in INTEGERS:
            return [("all", "")]
        name = quoted(key[0].name)
        ((low, high),) = query(self._asking, f"SELECT min({name}), max({name}) FROM {quoted_table(table.id)}")
        if low is None:
            return [("all", "")]
        low, high = int(low), int(high)
        step = max((high - low) // count + 1, 1)
        edges = list(range(low + step, high + 1, step))
        bounds = [None, *edges, None]
        parts = []
        for first, after in pairwise(bounds):
            tests = [f"{name} >= {first}"] * (first is not None) + [f"{name} < {after}"] * (after is not None)
            parts.append((f"keys {'' if first is None else first}-{'' if after is None else after}", _where(tests)))
        return parts

    def _read(self, id_: TableId, columns: Sequence[Column], condition: str) -> Iterator[pa.RecordBatch]:
        selected = ", ".join(expression(column, quoted(column.name)) for column in columns)
        with self._reader(id_) as session, session.cursor(SSCursor) as cursor:
            cursor.execute(f"SELECT {selected} FROM {quoted_table(id_)}{condition}")
            while rows := cursor.fetchmany(ROWS_AT_ONCE):
                yield to_arrow(id_, columns, rows)

    @contextmanager
    def _reader(self, id_: TableId) -> Iterator[Connection]:
        session = self._take()
        done = False
        try:
            yield session
            done = True
        except DRIVER_ERRORS as error:
            raise translate(error, f"copying {id_}") from error
        finally:
            # The view of a session that was left in the middle of a result is lost with it.
            if done:
                self._idle.put(session)
            else:
                self._closed.set()
                _drop(session)

    def _take(self) -> Connection:
        while not self._closed.is_set():
            with suppress(queue.Empty):
                return self._idle.get(timeout=0.2)
        raise TransientError("the snapshot was closed")


def _session(options: SourceOptions, program_name: str) -> Connection:
    session = connect(
        options,
        program_name=program_name,
        autocommit=True,
        statement_timeout=0,
        lock_timeout=options.lock_timeout,
        settings={"net_write_timeout": "3600"},
    )
    # Every value as the server writes it; typed by `arrow_out`.
    session.decoders = {}
    return session


def _freeze(sessions: Sequence[Connection], options: SourceOptions, program_name: str) -> Position:
    """Open a view in each session at one place in the log; return its position."""
    locking = connect(
        options, program_name=program_name, statement_timeout=options.lock_timeout, lock_timeout=options.lock_timeout
    )
    try:
        query(locking, "FLUSH TABLES WITH READ LOCK")
        for session in sessions:
            query(session, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        _refuse_prepared(locking)
        place = place_now(locking)
        query(locking, "UNLOCK TABLES")
    finally:
        _drop(locking)
    return place.position()


def _refuse_prepared(session: Connection) -> None:
    """Refuse a moment at which an XA transaction is prepared: its changes lie before the position, unseen.

    Who may not ask learns of it when the transaction is committed: the stream stops then.
    """
    try:
        prepared = query(session, "XA RECOVER")
    except SetupError:
        return
    if prepared:
        raise TransientError(
            f"{len(prepared)} XA transactions are prepared, whose changes neither the copy nor the stream would show",
            hint="XA COMMIT or XA ROLLBACK them: XA RECOVER names them",
        )


def _drop(session: Connection) -> None:
    with suppress(*DRIVER_ERRORS, CdcrepError):
        driver: Any = session
        driver._force_close()


def _where(tests: Sequence[str]) -> str:
    return f" WHERE {' AND '.join(tests)}" if tests else ""


def quoted(name: str) -> str:
    """Write a name in SQL."""
    return f"`{name.replace('`', '``')}`"


def quoted_table(id_: TableId) -> str:
    """Write a table's name in SQL."""
    return f"{quoted(id_.schema)}.{quoted(id_.name)}"
