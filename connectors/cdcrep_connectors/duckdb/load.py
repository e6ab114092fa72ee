"""Loading the first copy: chunks of Arrow batches streamed into a table, with their progress, one transaction each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Final

import duckdb
import numpy as np
import pyarrow as pa

from cdcrep import crashpoint
from cdcrep.connector import Chunk, Stream
from cdcrep.errors import DataError, TransientError
from cdcrep.fold import Net
from cdcrep.table import Table
from cdcrep_connectors.duckdb.apply import apply_net
from cdcrep_connectors.duckdb.bookkeeping import Bookkeeping
from cdcrep_connectors.duckdb.database import Database
from cdcrep_connectors.duckdb.failures import VALUE_ERRORS, ran_out_of_memory, translated
from cdcrep_connectors.duckdb.rows import is_text, typed
from cdcrep_connectors.duckdb.shape import Target, estimated_rows, quote
from cdcrep_connectors.duckdb.unfit import unfit

UPSERT_ROWS: Final = 200_000
"""Rows of an overlapping chunk that are deleted and inserted together: bounds memory."""

TYPED: Final = "arrow-typed"

STREAMED: Final = "cdcrep_chunk"

KEPT: Final = "temp.cdcrep_keys"


class DuckDBLoader:
    """One thread's connection for loading chunks."""

    def __init__(
        self,
        database: Database,
        book: Bookkeeping,
        fit: Callable[[duckdb.DuckDBPyConnection, Chunk], Target],
        check_epoch: Callable[[], None],
    ) -> None:
        self._database = database
        self._book = book
        self._fit = fit
        self._check_epoch = check_epoch
        self._connection = database.acquire()
        self._cancelled = threading.Event()
        self._read_typed = False
        self._closed = False

    def load(self, chunk: Chunk, formats: Mapping[str, Stream]) -> tuple[int, int]:
        """Write a chunk's rows and its name in the progress table in one transaction; return rows and bytes."""
        typed = TYPED in formats and not chunk.overlapping
        while True:
            try:
                return self._load(chunk, formats, typed=typed)
            except TransientError as error:
                if not ran_out_of_memory(error.__cause__) or not self._database.grow():
                    raise
            except DataError:
                if not self._read_typed:
                    raise
                # What has no place in a type of Arrow's may have one in DuckDB's, or is named by what does not fit.
                typed = False

    def _load(self, chunk: Chunk, formats: Mapping[str, Stream], *, typed: bool) -> tuple[int, int]:
        connection = self._connection
        self._read_typed = False
        with translated(f"loading {chunk.table.id}"):
            connection.begin()
            try:
                target = self._fit(connection, chunk)
                self._read_typed = typed and target.has_own_types
                rows = formats[TYPED if self._read_typed else "arrow"]
                counter = _Counter(rows(), self._cancelled)
                self._write(chunk, target, counter)
                self._book.chunk_loaded(connection, chunk.table.id, chunk.name, counter.rows, counter.bytes)
                self._check_epoch()
                if self._cancelled.is_set():
                    raise TransientError(f"loading {chunk.table.id}: cancelled")
                crashpoint.reached("load.before_commit")
                connection.commit()
            except BaseException:
                _roll_back(connection)
                raise
        crashpoint.reached("load.after_commit")
        return counter.rows, counter.bytes

    def prune(self, table: Table, keys: Mapping[str, Stream]) -> int:
        """Delete the rows whose key is not among `keys`, in one transaction; return how many."""
        connection = self._connection
        with translated(f"completing the copy of {table.id}"):
            connection.begin()
            try:
                target = self._fit(connection, Chunk(table, "keys"))
                self._provide_memory(target)
                removed = self._delete_others(target, _Counter(keys["arrow"](), self._cancelled))
                self._check_epoch()
                connection.commit()
            except BaseException:
                _roll_back(connection)
                raise
        return removed

    def cancel(self) -> None:
        """Make a running `load` roll back and raise TransientError soon; thread-safe."""
        self._cancelled.set()
        self._connection.interrupt()

    def close(self) -> None:
        """End the connection; what was not committed is rolled back."""
        if not self._closed:
            self._closed = True
            self._database.release(self._connection)

    def _write(self, chunk: Chunk, target: Target, counter: _Counter) -> None:
        try:
            if chunk.overlapping:
                self._provide_memory(target)
                self._upsert(target, counter)
            else:
                self._append(target, counter)
        except VALUE_ERRORS:
            if counter.failure is not None:
                raise counter.failure from None
            _roll_back(self._connection)
            ordinals = range(len(target.table.columns))
            where = f" (chunk {chunk.name} of the first copy)"
            raise unfit(self._connection, target, [(ordinals, counter.recent)], where) from None
        except duckdb.Error:
            if counter.failure is not None:
                raise counter.failure from None
            raise

    def _provide_memory(self, target: Target) -> None:
        self._database.provide(self._connection, estimated_rows(self._connection, target.table.id))

    def _append(self, target: Target, counter: _Counter) -> None:
        first = next(counter, None)
        if first is None:
            return
        columns = target.table.columns
        schema = pa.schema([pa.field(f"c{i}", type_) for i, type_ in enumerate(first.schema.types)])
        reader = pa.RecordBatchReader.from_batches(
            schema, (pa.RecordBatch.from_arrays(batch.columns, schema=schema) for batch in _chain(first, counter))
        )
        values = ", ".join(
            typed(f"r.c{i}", column, target.types[i], text=is_text(schema.types[i])) for i, column in enumerate(columns)
        )
        names = ", ".join(quote(column.name) for column in columns)
        self._connection.register(STREAMED, reader)
        try:
            self._connection.execute(f"INSERT INTO {target.name} ({names}) SELECT {values} FROM {STREAMED} r")
        finally:
            # As in `offered`: a failed transaction forgets it by itself.
            with suppress(duckdb.Error):
                self._connection.unregister(STREAMED)

    def _delete_others(self, target: Target, keys: _Counter) -> int:
        positions = target.table.key_positions
        names = [quote(column.name) for column in target.table.identity]
        self._connection.execute(
            f"CREATE OR REPLACE TEMP TABLE {KEPT} AS SELECT {', '.join(names)} FROM {target.name} LIMIT 0"
        )
        try:
            kept = replace(
                target,
                table=replace(target.table, columns=target.table.identity),
                name=KEPT,
                types=tuple(target.types[i] for i in positions),
                own=(),
            )
            self._append(kept, keys)
            same = " AND ".join(f"k.{name} = t.{name}" for name in names)
            deleted = self._connection.execute(
                f"DELETE FROM {target.name} t WHERE NOT EXISTS (SELECT 1 FROM {KEPT} k WHERE {same})"
            )
            return int(deleted.fetchall()[0][0])
        finally:
            self._connection.execute(f"DROP TABLE IF EXISTS {KEPT}")

    def _upsert(self, target: Target, counter: _Counter) -> None:
        waiting: list[pa.RecordBatch] = []
        for batch in counter:
            waiting.append(batch)
            if sum(map(len, waiting)) >= UPSERT_ROWS:
                self._upsert_rows(target, waiting)
                waiting = []
        if waiting:
            self._upsert_rows(target, waiting)

    def _upsert_rows(self, target: Target, batches: list[pa.RecordBatch]) -> None:
        rows = pa.Table.from_batches(batches)
        none = rows.select(list(target.table.key_positions)).slice(0, 0)
        net = Net(target.table, False, none, rows, np.zeros(len(rows), np.bool_))
        apply_net(self._connection, target, net)


class _Counter(Iterator[pa.RecordBatch]):
    """Counts what passes; keeps the latest batches and the reader's own failure, which DuckDB would wrap."""

    def __init__(self, batches: Iterable[pa.RecordBatch], cancelled: threading.Event) -> None:
        self.rows = 0
        self.bytes = 0
        self.failure: BaseException | None = None
        self._batches = iter(batches)
        self._cancelled = cancelled
        self._recent: list[pa.RecordBatch] = []

    def __next__(self) -> pa.RecordBatch:
        if self._cancelled.is_set():
            self.failure = TransientError("loading: cancelled")
            raise self.failure
        try:
            batch = next(self._batches)
        except StopIteration:
            raise
        except BaseException as error:
            self.failure = error
            raise
        self.rows += batch.num_rows
        self.bytes += batch.nbytes
        # DuckDB's threads read ahead by a batch each: the one that it fails on is among the latest.
        self._recent = [*self._recent[-3:], batch]
        return batch

    @property
    def recent(self) -> pa.Table | None:
        """The latest batches as one table."""
        return pa.Table.from_batches(self._recent) if self._recent else None


def _chain(first: pa.RecordBatch, others: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield first
    yield from others


def _roll_back(connection: duckdb.DuckDBPyConnection) -> None:
    with suppress(duckdb.Error):  # the transaction may have ended by itself
        connection.rollback()
