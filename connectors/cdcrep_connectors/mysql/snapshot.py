"""Reads tables as they were at one position, in chunks of key ranges, on several sessions that share one view.

The view lives in these sessions, for as long as none of them is lost (`views`). So the server may let them wait for the
target for as long as it takes, and a result that nobody wants to read to its end is stopped and passed over.

Completing a copy that was interrupted. Its view is gone; a later one must do. Rows bear no mark of their age, but the
log between the two views names those that changed (`interrupted`). So the ranges that no durable chunk covers are
copied, cut as they were under the first view, and of the other ranges the rows whose key stands in the log, before or
after a change. Rows that were deleted since, or have another key now, are pruned: what is left is the later view, row
for row. Where the log cannot tell, and for a table without a key, the copy begins anew.
"""

from __future__ import annotations

import queue
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final

import pyarrow as pa

from cdcrep.connector import Chunk, Copied, Stream
from cdcrep.errors import CdcrepError, TransientError
from cdcrep.table import Column, Table, TableId
from cdcrep_connectors.mysql.connection import Connection
from cdcrep_connectors.mysql.continuity import query
from cdcrep_connectors.mysql.dates import Tally
from cdcrep_connectors.mysql.failures import DRIVER_ERRORS, translate
from cdcrep_connectors.mysql.first_view import FirstView
from cdcrep_connectors.mysql.interrupted import Completion, Interrupted, ReadLog
from cdcrep_connectors.mysql.key_ranges import key_ranges
from cdcrep_connectors.mysql.options import SourceOptions
from cdcrep_connectors.mysql.replication import hang_up
from cdcrep_connectors.mysql.reread import Reread, joined, with_keys
from cdcrep_connectors.mysql.result_reading import ResultReader
from cdcrep_connectors.mysql.sql_text import quoted, quoted_table
from cdcrep_connectors.mysql.views import open_session, open_views

SIZES: Final = """
SELECT coalesce(data_length, 0), coalesce(table_rows, 0) FROM information_schema.tables
WHERE table_schema = %s AND table_name = %s
"""


class MySQLSnapshot:
    """The tables as they were at `position`."""

    def __init__(
        self,
        options: SourceOptions,
        program_name: str,
        workers: int,
        tally: Tally | None = None,
        *,
        read_log: ReadLog,
        interrupted: Mapping[TableId, Copied] | None = None,
        locked: bool = False,
    ) -> None:
        """Open the views; raises SetupError or TransientError where that fails. `tally` counts impossible dates.

        `locked`: the tables are, by the caller, until this returns (`tables_locked`).
        `read_log` is asked what changed since the copies that are to be completed, the `interrupted` ones, began.
        """
        self._options = options
        self._tally = Tally() if tally is None else tally
        self._selected: dict[tuple[TableId, str], str | Reread] = {}
        self._notes: dict[TableId, str] = {}
        # Changes that another view showed never stand for those of this one, not even where the position is the same.
        self._mark = secrets.token_hex(6)
        self._closed = threading.Event()
        self._idle: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        self._sessions: list[Connection] = []
        try:
            # One for each thread that copies, one for the questions asked meanwhile.
            self._sessions = [open_session(options, program_name) for _ in range(workers + 1)]
            self.position = open_views(self._sessions, options, program_name, locked=locked)
        except BaseException:
            self.close()
            raise
        self._asking, *readers = self._sessions
        self._lock = threading.Lock()
        for session in readers:
            self._idle.put(session)
        self._interrupted = Interrupted(interrupted or {}, read_log, self.position)

    def chunks(self, table: Table, copied: Copied | None) -> Sequence[Chunk]:
        """Cut a table into ranges of its key, as far as its values can be told apart (`key_scales`).

        Of a copy that is completed only those are left that no durable chunk covers, and the rows that changed since.

        Raises:
            TransientError: the log could not be read to its end, which may be tried again.
        """
        completion = self._interrupted.completion(table, copied) if copied is not None else None
        try:
            with self._lock:
                sizes = query(self._asking, SIZES, table.schema, table.name)
                size, rows = (int(sizes[0][0]), int(sizes[0][1])) if sizes else (0, 0)
                if completion is not None:
                    return self._remaining(table, completion, rows, size)
                ranges, shares = key_ranges(self._ask, table, size // self._options.chunk_bytes + 1, rows)
        except DRIVER_ERRORS as error:
            raise translate(error, f"looking at the keys of {table.id}") from error
        view = FirstView.of(table, self.position, ranges)
        self._notes[table.id] = view.note() if table.key else ""
        return [
            self._part(view, table, index, (int(rows * share), int(size * share)), overlapping=False)
            for index, share in enumerate(shares)
        ]

    def note(self, table: Table) -> str:
        """Remember this view's position and the table's ranges."""
        return self._notes.get(table.id, "")

    def keys(self, table: Table) -> Mapping[str, Stream]:
        """Offer the key columns of all rows of a table."""
        return {"arrow": partial(self._read, table.id, table.identity, "")}

    def read(self, chunk: Chunk) -> Mapping[str, Stream]:
        """Offer a chunk's rows as record batches."""
        selected = self._selected[chunk.table.id, chunk.name]
        if isinstance(selected, Reread):
            return {"arrow": lambda: joined(self._read_again(selected))}
        return {"arrow": partial(self._read, chunk.table.id, chunk.table.columns, selected)}

    def close(self) -> None:
        """Let go of the views; a chunk that is being read fails."""
        self._closed.set()
        sessions, self._sessions = self._sessions, []
        for session in sessions:
            hang_up(session)

    def _part(
        self, view: FirstView, table: Table, index: int, expected: tuple[int, int], *, overlapping: bool
    ) -> Chunk:
        name = view.part(index)
        self._selected[table.id, name] = view.ranges.condition(index)
        return Chunk(table, name, *expected, overlapping)

    def _remaining(self, table: Table, completion: Completion, rows: int, size: int) -> list[Chunk]:
        """Make the chunks that complete a table's copy."""
        count = len(completion.view.ranges)
        left = [index for index in range(count) if index not in completion.done]
        expected = rows // count, size // count
        chunks = [self._part(completion.view, table, index, expected, overlapping=True) for index in left]
        # No row may be in two chunks, which two threads may write at once.
        within = completion.view.ranges.within(completion.done)
        for number, keys in enumerate(completion.keys, 1):
            name = f"changes {number} of {len(completion.keys)}, view {self._mark}"
            self._selected[table.id, name] = Reread(table, keys, within)
            chunks.append(Chunk(table, name, len(keys), size * len(keys) // max(rows, 1), overlapping=True))
        return chunks

    def _ask(self, statement: str) -> list[dict[str, Any]]:
        with self._asking.cursor() as cursor:
            cursor.execute(statement)
            names = [column[0].lower() for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def _read(self, id_: TableId, columns: Sequence[Column], condition: str) -> Iterator[pa.RecordBatch]:
        listed = ", ".join(quoted(column.name) for column in columns)
        statement = f"SELECT {listed} FROM {quoted_table(id_)}{condition}"
        with self._reader(id_) as reader:
            yield from reader.batches(statement, id_, columns, self._options.impossible_dates, self._tally)

    def _read_again(self, rows: Reread) -> Iterator[pa.RecordBatch]:
        """Yield few rows at a time."""
        id_, columns = rows.table.id, rows.table.columns
        for condition, keys in rows.lookups():
            for batch in self._read(id_, columns, condition):
                yield with_keys(batch, keys)

    @contextmanager
    def _reader(self, id_: TableId) -> Iterator[ResultReader]:
        """Lend a session to one result."""
        session = self._take()
        reader = ResultReader(session, f"copying {id_}")
        try:
            yield reader
        except DRIVER_ERRORS as error:
            raise translate(error, f"copying {id_}") from error
        finally:
            # The view is lost with its session, and with the view all of this snapshot.
            if reader.is_busy:
                self._end_early(session, reader)
            if reader.is_busy or not session.open:
                self._closed.set()
                hang_up(session)
            else:
                self._idle.put(session)

    def _end_early(self, session: Connection, reader: ResultReader) -> None:
        """Free a session whose result nobody wants to read to its end."""
        if self._closed.is_set() or not session.open:
            return
        with suppress(CdcrepError):
            with self._lock:
                query(self._asking, f"KILL QUERY {session.thread_id()}")  # type: ignore[no-untyped-call]
            reader.skip()
        if not reader.is_busy:
            # Where the result had ended before, the server may end the next statement instead.
            with suppress(CdcrepError):
                query(session, "DO 0")

    def _take(self) -> Connection:
        while not self._closed.is_set():
            with suppress(queue.Empty):
                return self._idle.get(timeout=0.2)
        raise TransientError("the snapshot was closed")
