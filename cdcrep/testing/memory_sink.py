"""A sink over a database in memory that applies row by row: slow, plain, and the oracle of those that fold."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
from pydantic import BaseModel

from cdcrep.changes import DELETE, INSERT, Batch, Changes
from cdcrep.connector import Answer, Checkpoint, Chunk, Copied, Obstacle, Pipeline, Stream
from cdcrep.crashpoint import reached
from cdcrep.errors import ConfigError, DataError, DivergedError, SetupError, TransientError
from cdcrep.position import Position
from cdcrep.table import Table, TableId
from cdcrep.testing.memory_tables import Row, Value, table_id
from cdcrep.testing.memory_target import Book, Named, TargetDatabase, TargetTable, Transaction, lost


class MemorySinkOptions(BaseModel, extra="forbid"):
    """Options of a memory sink."""

    url: str


class MemorySink:
    """A sink whose tables are dictionaries."""

    Options = MemorySinkOptions

    def __init__(self, pipeline: Pipeline, options: MemorySinkOptions) -> None:
        self.pipeline = pipeline
        self.options = options
        self.database = TargetDatabase.at(options.url)
        self._epoch: int | None = None
        self._position: Position | None = None
        self._pieces: list[Batch] = []
        self._cancelled = threading.Event()

    def obstacles(self, tables: Sequence[Table]) -> list[Obstacle]:
        """Find tables that hold rows which no copy of ours has written."""
        if self.pipeline.on_existing != "refuse":
            return []
        with self.database.lock:
            ours = self.database.books.get(self.pipeline.name, Book()).tables
            return [
                Obstacle(f"{table.id}: the target table holds rows", 'set on_existing = "replace" or "keep"')
                for table in tables
                if table.id not in ours and len(self.database.tables.get(table.id, ()))
            ]

    def open(self, owner: str = "", replacing: int | None = None) -> Checkpoint:
        """Raise the epoch, forget copies of tables that are gone, and return the checkpoint."""
        self._pieces.clear()
        with self.database.transaction() as transaction:
            book = self.database.books.get(self.pipeline.name, Book())
            if replacing not in (None, book.epoch) and owner != book.owner:
                raise DivergedError(f"another process has taken over pipeline {self.pipeline.name}")
            present = {name: copied for name, copied in book.tables.items() if name in self.database.tables}
            book = replace(book, epoch=book.epoch + 1, owner=owner, source=self.pipeline.source, tables=present)
            transaction.book(self.pipeline.name, book)
        self._epoch, self._position = book.epoch, book.position
        return Checkpoint(book.position, book.epoch, dict(book.tables))

    def prepare(self, tables: Sequence[Table]) -> list[str]:
        """Create missing tables; refuse, empty or keep those with rows."""
        for obstacle in self.obstacles(tables):
            raise SetupError(obstacle.what, hint=obstacle.hint)
        done = []
        with self.database.transaction() as transaction:
            for table in tables:
                present = self.database.tables.get(table.id)
                if present is None:
                    transaction.create(table.id, [column.name for column in table.columns], table.key)
                    done.append(f"created table {table.id}")
                elif self.pipeline.on_existing == "replace" and len(present):
                    transaction.empty(table.id)
                    done.append(f"emptied table {table.id}")
        return done

    def register(self, tables: Mapping[TableId, Copied], position: Position | None = None) -> None:
        """Remember copies that begin; empty the tables whose copies begin again."""
        with self.database.transaction() as transaction:
            book = self._our_book()
            for name, copied in tables.items():
                if name in book.tables and not copied.chunks:
                    transaction.empty(name)
            if position is not None and book.position not in (None, position):
                raise DivergedError(f"pipeline {self.pipeline.name} has a position already")
            book = replace(book, tables={**book.tables, **tables}, position=position or book.position)
            transaction.book(self.pipeline.name, book)
        self._position = book.position

    def release(self, tables: Sequence[TableId]) -> None:
        """Forget the copies of tables."""
        with self.database.transaction() as transaction:
            book = self._our_book()
            left = {name: copied for name, copied in book.tables.items() if name not in set(tables)}
            transaction.book(self.pipeline.name, replace(book, tables=left))

    def loader(self) -> MemoryLoader:
        """Open a loader with our epoch."""
        return MemoryLoader(self)

    def finish(self, tables: Sequence[TableId]) -> None:
        """Remember that copies are complete."""
        with self.database.transaction() as transaction:
            book = self._our_book()
            finished = {name: replace(book.tables[name], done=True) for name in tables}
            transaction.book(self.pipeline.name, replace(book, tables={**book.tables, **finished}))

    def apply(self, batch: Batch) -> None:
        """Hold pieces back; write rows and position of a whole transaction at once."""
        self._pieces.append(batch)
        if batch.position is None:
            return
        pieces, self._pieces = self._pieces, []
        failure = self.database.begin_apply()
        if failure == "hang":
            self._cancelled.wait()
        if self._cancelled.is_set() or failure == "before commit":
            raise lost()
        with self.database.transaction() as transaction:
            book = self._our_book()
            if book.position != self._position:
                raise DivergedError(f"the position of pipeline {self.pipeline.name} was moved by somebody else")
            counts = book.counts.copy()
            reached("sink.before_rows")
            for piece in pieces:
                for changes in piece.changes:
                    _apply(transaction, changes)
                    counts[changes.table.id, "applied"] += len(changes)
            reached("sink.after_rows")
            book = replace(
                book,
                position=batch.position,
                commit_time=batch.commit_time if batch.commit_time is not None else book.commit_time,
                transactions=book.transactions + sum(piece.transactions for piece in pieces),
                rows=book.rows + sum(piece.rows for piece in pieces),
                updated_at=time.time(),
                counts=counts,
            )
            transaction.book(self.pipeline.name, book)
            reached("sink.before_commit")
        reached("sink.after_commit")
        self._position = batch.position
        if failure == "after commit":
            raise lost()

    def cancel(self) -> None:
        """Make an `apply` that hangs, and those to come, fail."""
        self._cancelled.set()

    def status(self) -> dict[str, Any]:
        """Read the checkpoint row."""
        with self.database.lock:
            book = self.database.books.get(self.pipeline.name)
            if book is None:
                return {}
            return {
                "position": book.position,
                "epoch": book.epoch,
                "owner": book.owner,
                "source": book.source,
                "commit_time": book.commit_time,
                "transactions": book.transactions,
                "rows": book.rows,
                "updated_at": book.updated_at,
                "tables": {
                    str(name): {
                        "rows_copied": book.counts[name, "copied"],
                        "changes_applied": book.counts[name, "applied"],
                        "copy_done": copied.done,
                    }
                    for name, copied in book.tables.items()
                },
            }

    def query(self, sql: str) -> Answer:
        """Answer `select * from schema.table` and nothing else."""
        head, _, name = sql.strip().rpartition(" ")
        if head.lower().split() != ["select", "*", "from"] or table_id(name) not in self.database.tables:
            raise ConfigError("a memory sink answers only: select * from schema.table")
        with self.database.lock:
            columns = self.database.tables[table_id(name)].columns
            rows, book = self.database.rows(name), self.database.books.get(self.pipeline.name, Book())
        data = pa.table([pa.array([row[i] for row in rows], pa.string()) for i in range(len(columns))], names=columns)
        return Answer(data, book.position, book.commit_time)

    def detach(self) -> None:
        """Forget the position, and that copies are complete."""
        with self.database.transaction() as transaction:
            book = self._our_book()
            interrupted = {name: replace(copied, done=False) for name, copied in book.tables.items()}
            transaction.book(self.pipeline.name, replace(book, position=None, tables=interrupted))
        self._position = None

    def forget(self) -> list[str]:
        """Delete the checkpoint row."""
        with self.database.transaction() as transaction:
            known = self.pipeline.name in self.database.books
            transaction.book(self.pipeline.name, None)
        return [f"removed pipeline {self.pipeline.name}"] if known else []

    def close(self) -> None:
        """Drop what was not committed."""
        self._pieces.clear()
        self._epoch = None

    def _our_book(self) -> Book:
        book = self.database.books.get(self.pipeline.name)
        if self._epoch is None:
            raise TransientError("the connection to the target is closed")
        if book is None or book.epoch != self._epoch:
            raise DivergedError(f"another process has taken over pipeline {self.pipeline.name}")
        return book


@dataclass
class MemoryLoader:
    """Loads chunks for one thread."""

    sink: MemorySink

    def load(self, chunk: Chunk, formats: Mapping[str, Stream]) -> tuple[int, int]:
        """Write a chunk's rows and its name at once."""
        rows = [row for batch in formats["arrow"]() for row in _rows(batch, len(batch))]
        name = chunk.table.id
        with self.sink.database.transaction() as transaction:
            if self.sink._cancelled.is_set():
                raise lost()
            book = self.sink._our_book()
            copied = book.tables[name]
            for row in rows:
                _write(transaction, chunk.table, dict(row), may_exist=chunk.overlapping)
            counts = book.counts.copy()
            counts[name, "copied"] += len(rows)
            loaded = replace(copied, chunks=copied.chunks | {chunk.name})
            transaction.book(
                self.sink.pipeline.name, replace(book, tables={**book.tables, name: loaded}, counts=counts)
            )
            reached("load.before_commit")
        reached("load.after_commit")
        return len(rows), sum(len(value or "") for row in rows for value in row.values())

    def prune(self, table: Table, keys: Mapping[str, Stream]) -> int:
        """Delete the rows whose key is not offered."""
        kept = {tuple(row.values()) for batch in keys["arrow"]() for row in _rows(batch, len(batch))}
        with self.sink.database.transaction() as transaction:
            self.sink._our_book()
            target = transaction.database.tables[table.id]
            gone = [key for key in target.rows if key not in kept]
            for key in gone:
                transaction.put(target, key, None)
        return len(gone)

    def cancel(self) -> None:
        """Make loads to come fail."""
        self.sink.cancel()

    def close(self) -> None:
        """Do nothing: a loader holds nothing open."""


def _apply(transaction: Transaction, changes: Changes) -> None:
    table = changes.table
    _target(transaction, table)
    if changes.truncated:
        transaction.empty(table.id)
    target = transaction.database.tables[table.id]
    news = _rows(changes.new, len(changes))
    for i, (operation, new, old) in enumerate(zip(changes.operations, news, _old(changes), strict=True)):
        if not table.key:
            _count(transaction, table, target, None if operation == DELETE else new, old)
        elif operation == DELETE:
            assert old is not None, f"{table.id}: a DELETE lacks the key"
            transaction.put(target, _key(table, old), None)
        else:
            unsent = [table.columns[ordinal].name for ordinal, mask in changes.unchanged.items() if mask[i]]
            before = _key(table, old if operation != INSERT and old is not None else new)
            _upsert(transaction, table, target, before, new, unsent)


def _upsert(
    transaction: Transaction, table: Table, target: TargetTable, before: Row, new: Named, unsent: Sequence[str]
) -> None:
    """Write the row that is under the key `before`, under the key of `new`."""
    kept = target.rows.get(before)
    if unsent and kept is None:
        raise DivergedError(f"{table.id}: the target lacks a row that was updated in part")
    if before != _key(table, new):
        transaction.put(target, before, None)
    row = {**dict.fromkeys(target.columns), **(kept or {}), **new, **{name: (kept or {})[name] for name in unsent}}
    transaction.put(target, _key(table, new), row)


def _target(transaction: Transaction, table: Table) -> TargetTable:
    """Find the target table and let it grow by the nullable columns that are new."""
    target = transaction.database.tables.get(table.id)
    if target is None:
        raise DivergedError(f"{table.id}: the target has no such table", hint="start again: it is copied anew")
    if target.key != table.key:
        raise DataError(f"{table.id}: the key has changed")
    if not set(target.columns) <= {column.name for column in table.columns}:
        raise DataError(f"{table.id}: a column is gone")
    for column in table.columns:
        if column.name not in target.columns:
            if not column.nullable:
                raise DataError(f"{table.id}: column {column.name!r} is new and not nullable")
            transaction.add_column(table.id, column.name)
    return transaction.database.tables[table.id]


def _write(transaction: Transaction, table: Table, row: Named, *, may_exist: bool) -> None:
    target = _target(transaction, table)
    if not table.key:
        _count(transaction, table, target, row, None)
        return
    key = _key(table, row)
    if key in target.rows and not may_exist:
        raise DivergedError(f"{table.id}: a copied row is in the target already")
    transaction.put(target, key, {**dict.fromkeys(target.columns), **target.rows.get(key, {}), **row})


def _count(
    transaction: Transaction, table: Table, target: TargetTable, new: Named | None, old: Mapping[str, Value] | None
) -> None:
    if old is not None:
        gone = tuple(old.get(name) for name in target.columns)
        if target.copies[gone] < 1:
            raise DivergedError(f"{table.id}: the target lacks a row that was deleted or updated")
        transaction.count(target, gone, -1)
    if new is not None:
        transaction.count(target, tuple(new.get(name) for name in target.columns), +1)


def _key(table: Table, row: Mapping[str, Value]) -> Row:
    return tuple(row[name] for name in table.key)


def _old(changes: Changes) -> Iterator[Named | None]:
    if changes.old is None or changes.old_present is None:
        yield from [None] * len(changes)
        return
    for present, row in zip(changes.old_present, _rows(changes.old, len(changes)), strict=True):
        yield row if present else None


def _rows(table: pa.Table | pa.RecordBatch, length: int) -> list[Named]:
    """Read rows as text; typed values become text as Arrow writes them."""
    if not table.column_names:
        return [{} for _ in range(length)]
    texts = [column.cast(pa.string()).to_pylist() for column in table.columns]
    return [dict(zip(table.column_names, row, strict=True)) for row in zip(*texts, strict=True)]
