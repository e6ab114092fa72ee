"""Reads tables as they were at one position, in chunks of pages, on several connections that share one snapshot.

The session that created the slot exports a snapshot. A session of ours imports it, keeps it and exports it anew, so
that the replication session (and with it the temporary slot of a later snapshot) can go. Every chunk is read in a
short transaction of its own connection that imports it again.

Chunks are ranges of pages. A row version stays in its place until a rewrite of the whole file (VACUUM FULL, CLUSTER,
TRUNCATE, some ALTER TABLE) gives the table a new file number, which is therefore part of a chunk's name and checked
under a lock before each chunk is read.

Completing a copy that was interrupted. Its snapshot is gone; a later one must do. Chunks that the target holds show the
first snapshot. A row that changed since has a new version, which may lie in a range that is done: it would be missed.
So besides the remaining ranges one more chunk takes every row version of a transaction that the first snapshot did not
show as finished: those whose `xmin` is not older than the oldest transaction running then, its xmin horizon (what is
remembered as `note`). Rows that were deleted since, or that have another key now, are pruned: what is left of the copy
after that is the second snapshot, row for row.
`xmin` is a 32-bit counter that wraps around: the comparison by age is right while fewer than 2^31 transactions lie
between, which the 64-bit horizon proves; otherwise nothing counts as copied. Freezing keeps `xmin` as it was (since
9.4); the xmin of a very old frozen row may look new, and that row is copied once more, which an upsert forgives.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import psycopg
import pyarrow as pa

from cdcrep.connector import Chunk, Copied, Stream
from cdcrep.errors import DivergedError, TransientError
from cdcrep.table import Table, TableId
from cdcrep_connectors.postgres.arrow_out import arrow_out, typed_arrow_out
from cdcrep_connectors.postgres.connection import Connection, connect
from cdcrep_connectors.postgres.copy_binary import Wire, wire_of
from cdcrep_connectors.postgres.copy_out import copy_out, interrupt
from cdcrep_connectors.postgres.failures import translate
from cdcrep_connectors.postgres.lsn import format_position, parse_position
from cdcrep_connectors.postgres.options import SourceOptions
from cdcrep_connectors.postgres.publication import quoted, quoted_table
from cdcrep_connectors.postgres.set_up import NewSlot
from cdcrep_connectors.postgres.types import has_portable_binary

PARTS: Final = """
SELECT n.nspname, l.relname, l.oid, l.relfilenode, pg_relation_size(l.oid),
       CASE WHEN l.reltuples >= 0 THEN l.reltuples ELSE pg_relation_size(l.oid) / 100 END::bigint
FROM pg_class c JOIN pg_namespace cn ON cn.oid = c.relnamespace,
     pg_class l JOIN pg_namespace n ON n.oid = l.relnamespace
WHERE cn.nspname = %s AND c.relname = %s AND l.relkind = 'r'
  AND (l.oid = c.oid OR l.oid IN (SELECT relid FROM pg_partition_tree(c.oid) WHERE isleaf))
ORDER BY l.oid
"""

READER_SETTINGS: Final[Mapping[str, str]] = {
    "default_transaction_isolation": "repeatable\\ read",
    "default_transaction_read_only": "on",
}
"""For sessions that import a snapshot with their first statement."""

WRAPAROUND: Final = 1 << 31

_RANGE: Final = re.compile(r"([0-9]+)\.([0-9]+) pages ([0-9]+)-([0-9]*)", re.ASCII)
_NOTE: Final = re.compile(r"xmin ([0-9]+)", re.ASCII)


@dataclass(frozen=True)
class Part:
    """A table or a partition: what has pages."""

    id: TableId
    oid: int
    file_number: int
    size: int
    rows: int


@dataclass(frozen=True)
class Selected:
    """Which rows are read together."""

    parts: tuple[Part, ...]
    """Where they lie: what must not have been rewritten."""
    rows: str
    """SQL: `FROM …`, with a condition if not all."""


class PostgresSnapshot:
    """The tables as they were at `position`."""

    def __init__(self, options: SourceOptions, slot: NewSlot, application_name: str) -> None:
        """Take over the slot's exported snapshot and end its session."""
        self.position = format_position(slot.system, slot.timeline, slot.lsn)
        self._options = options
        self._application_name = application_name
        self._lock_timeout = options.lock_timeout
        self._selected: dict[tuple[TableId, str], Selected] = {}
        self._readers: set[Connection] = set()
        self._lock = threading.Lock()
        self._closed = False
        with closing(slot.session):
            self._holder = connect(
                options, application_name=application_name, statement_timeout=60, idle_in_transaction_timeout=0
            )
            try:
                self._holder.execute(b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                self._holder.execute(f"SET TRANSACTION SNAPSHOT '{slot.snapshot}'".encode())
                exported, horizon, newest, block = self._ask(
                    """SELECT pg_export_snapshot(), pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
                              pg_snapshot_xmax(pg_current_snapshot())::text::bigint,
                              current_setting('block_size')::int"""
                )[0]
            except psycopg.Error as error:
                self._holder.close()
                raise translate(error, "importing the slot's snapshot") from error
        self._name: str = exported
        self._newest: int = newest
        self._block: int = block
        self._horizon_now: int = horizon

    def chunks(self, table: Table, copied: Copied | None) -> Sequence[Chunk]:
        """Cut a table into ranges of pages, without those that are copied already.

        Raises:
            DivergedError: the interrupted copy is of another server.
        """
        parts = self._parts(table)
        if copied is None or not table.key:
            return [chunk for part in parts for chunk in self._cut(table, part, [], overlapping=False)]
        horizon = self._horizon(copied)
        chunks: list[Chunk] = []
        for part in parts:
            done = _done(part, copied.chunks) if horizon is not None else []
            chunks += self._cut(table, part, done, overlapping=True)
            if done:
                chunks.append(self._catch_up(table, part, done, horizon or 0))
        return chunks

    def note(self, table: Table) -> str:  # noqa: ARG002 - the same for all
        """Remember the xmin horizon."""
        return f"xmin {self._horizon_now}"

    def read(self, chunk: Chunk) -> Mapping[str, Stream]:
        """Offer a chunk as `arrow`, `pgcopy-text` and, if all columns allow it, `arrow-typed` and COPY's binary form.

        That is `pgcopy-binary`, the bytes themselves, and `pgcopy-binary-frames`, the same in CopyData messages.
        """
        return self._formats(chunk.table, self._selected[chunk.table.id, chunk.name])

    def keys(self, table: Table) -> Mapping[str, Stream]:
        """Offer the key columns of all rows of a table, in the same formats."""
        parts = self._parts(table)
        # One statement for all partitions: the binary form has one header.
        only = "ONLY " if [part.id for part in parts] == [table.id] else ""
        selected = Selected(tuple(parts), f"FROM {only}{quoted_table(table.id)}")
        return self._formats(replace(table, columns=table.identity), selected)

    def close(self) -> None:
        """Let go of the snapshot; a chunk that is being read fails."""
        with self._lock:
            self._closed = True
            readers, self._readers = self._readers, set()
        for connection in readers:
            interrupt(connection)
        self._holder.close()

    def _parts(self, table: Table) -> list[Part]:
        try:
            with self._lock:
                rows = self._ask(PARTS, [table.schema, table.name])
        except psycopg.Error as error:
            raise translate(error, f"looking at the files of {table.id}") from error
        return [Part(TableId(schema, name), *rest) for schema, name, *rest in rows]

    def _formats(self, table: Table, selected: Selected) -> Mapping[str, Stream]:
        streams: dict[str, Stream] = {
            "arrow": partial(self._arrow, table, selected),
            "pgcopy-text": partial(self._copy, table, selected, "text"),
        }
        if all(has_portable_binary(column.type) for column in table.columns):
            streams["pgcopy-binary"] = partial(self._copy, table, selected, "binary")
            streams["pgcopy-binary-frames"] = partial(self._copy, table, selected, "binary", framed=True)
        wires = [wire for column in table.columns if (wire := wire_of(column.type)) is not None]
        if wires and len(wires) == len(table.columns):
            streams["arrow-typed"] = partial(self._typed_arrow, table, selected, wires)
        return streams

    def _cut(
        self, table: Table, part: Part, done: Sequence[tuple[int, int | None]], *, overlapping: bool
    ) -> list[Chunk]:
        """Cut the page ranges that are not done into chunks; the last range has no end, for it may have grown."""
        step = max(1, self._options.chunk_bytes // self._block)
        pages = -(-part.size // self._block)
        chunks = []
        for begin, end in _remaining(done):
            starts = list(range(begin, max(pages if end is None else end, begin + 1), step))
            for start, after in zip(starts, [*starts[1:], end], strict=True):
                share = (min(after, pages) if after is not None else pages) - start
                name = f"{part.oid}.{part.file_number} pages {start}-{'' if after is None else after}"
                condition = _in_pages(start, after)
                rows = part.rows * share // pages if pages else 0
                self._selected[table.id, name] = _rows_of(part, "" if (start, after) == (0, None) else condition)
                chunks.append(Chunk(table, name, max(rows, 0), max(share, 0) * self._block, overlapping))
        return chunks

    def _catch_up(self, table: Table, part: Part, done: Sequence[tuple[int, int | None]], horizon: int) -> Chunk:
        """Make the chunk of the row versions in ranges done that are newer than the first snapshot's horizon."""
        # Named after this snapshot: a third one must catch up again.
        name = f"{part.oid}.{part.file_number} since {horizon} until {self._newest}"
        condition = f"age(xmin) <= age('{horizon & 0xFFFFFFFF}'::xid)"
        # No row may be in two chunks, which two threads may write at once.
        condition += "".join(f" AND NOT ({_in_pages(*pages)})" for pages in _remaining(done))
        self._selected[table.id, name] = _rows_of(part, condition)
        return Chunk(table, name, overlapping=True)

    def _horizon(self, copied: Copied) -> int | None:
        """Return the first snapshot's xmin horizon; None: it cannot be compared with, nothing counts as copied."""
        first, now = parse_position(copied.position), parse_position(self.position)
        if first.system != now.system:
            raise DivergedError(
                f"the interrupted copy is of the server with system identifier {first.system}, this is {now.system}",
                hint="connect to the first server, or start over: cdcrep teardown, then cdcrep run",
            )
        note = _NOTE.fullmatch(copied.snapshot)
        if note is None or first.timeline != now.timeline:
            return None
        horizon = int(note[1])
        return horizon if 3 <= horizon <= self._newest < horizon + WRAPAROUND else None

    def _copy(self, table: Table, selected: Selected, form: str, *, framed: bool = False) -> Iterator[bytes]:
        columns = ", ".join(quoted(column.name) for column in table.columns)
        statement = f"COPY (SELECT {columns} {selected.rows}) TO STDOUT (FORMAT {form})"
        with self._reader() as connection, reported(table.id):
            self._enter(connection, selected)
            yield from copy_out(connection, statement, framed=framed)

    def _arrow(self, table: Table, selected: Selected) -> Iterator[pa.RecordBatch]:
        columns = ", ".join(quoted(column.name) for column in table.columns)
        with self._reader() as connection, reported(table.id):
            self._enter(connection, selected)
            yield from arrow_out(connection, table, selected.rows, columns)

    def _typed_arrow(self, table: Table, selected: Selected, wires: Sequence[Wire]) -> Iterator[pa.RecordBatch]:
        with self._reader() as connection, reported(table.id):
            self._enter(connection, selected)
            yield from typed_arrow_out(connection, table, selected.rows, wires)

    def _enter(self, connection: Connection, selected: Selected) -> None:
        """Begin reading: import the snapshot, lock the parts against rewriting, make sure that none was rewritten."""
        connection.execute(f"SET TRANSACTION SNAPSHOT '{self._name}'".encode())
        for part in selected.parts:
            connection.execute(f"LOCK TABLE ONLY {quoted_table(part.id)} IN ACCESS SHARE MODE".encode())
            # pg_relation_filenode sees the present, pg_class is read as of the snapshot.
            unchanged = connection.execute(
                f"SELECT relfilenode = {part.file_number} AND pg_relation_filenode(oid) = {part.file_number} "
                f"FROM pg_class WHERE oid = {part.oid}".encode()
            ).fetchall()
            if unchanged != [(True,)]:
                raise TransientError(f"{part.id} was truncated or rewritten while it was copied; the copy begins again")

    @contextmanager
    def _reader(self) -> Iterator[Connection]:
        connection = connect(
            self._options,
            application_name=self._application_name,
            autocommit=False,
            statement_timeout=0,
            lock_timeout=self._lock_timeout,
            idle_in_transaction_timeout=0,
            settings=READER_SETTINGS,
        )
        with self._lock:
            closed = self._closed
            self._readers.add(connection)
        try:
            if closed:
                raise TransientError("the snapshot was closed")
            yield connection
        finally:
            with self._lock:
                self._readers.discard(connection)
            connection.close()

    def _ask(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._holder.execute(statement.encode(), list(values) or None).fetchall()


@contextmanager
def reported(table: TableId) -> Iterator[None]:
    """Turn drivers' exceptions into ours while a table is read."""
    try:
        yield
    except (psycopg.Error, OSError) as error:
        raise translate(error, f"copying {table}") from error


def _rows_of(part: Part, condition: str) -> Selected:
    where = f" WHERE {condition}" if condition else ""
    return Selected((part,), f"FROM ONLY {quoted_table(part.id)}{where}")


def _in_pages(start: int, after: int | None) -> str:
    return f"ctid >= '({start},0)'" + ("" if after is None else f" AND ctid < '({after},0)'")


def _done(part: Part, chunks: frozenset[str]) -> list[tuple[int, int | None]]:
    """Return the page ranges of a part, as its file is now, that are among the copied chunks."""
    found = [match for name in chunks if (match := _RANGE.fullmatch(name))]
    return [
        (int(match[3]), int(match[4]) if match[4] else None)
        for match in found
        if (int(match[1]), int(match[2])) == (part.oid, part.file_number)
    ]


def _remaining(done: Sequence[tuple[int, int | None]]) -> list[tuple[int, int | None]]:
    """Return what is left of all pages; None: without end."""
    remaining: list[tuple[int, int | None]] = []
    at = 0
    for begin, end in sorted(done, key=lambda pages: pages[0]):
        if begin > at:
            remaining.append((at, begin))
        if end is None:
            return remaining
        at = max(at, end)
    return [*remaining, (at, None)]
