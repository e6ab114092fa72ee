"""A source over a database in memory that keeps every promise of the contract."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby

import numpy as np
import pyarrow as pa
from pydantic import BaseModel

from cdcrep.changes import DELETE, INSERT, UPDATE, Batch, Changes
from cdcrep.connector import Chunk, Copied, Obstacle, Pipeline, SourceStatus, Stream
from cdcrep.errors import DivergedError, SetupError, TransientError
from cdcrep.position import Position
from cdcrep.table import Column, Table, TableId
from cdcrep.testing.memory_tables import Row, RowChange, Slot, SourceDatabase, Transaction


class MemorySourceOptions(BaseModel, extra="forbid"):
    """Options of a memory source."""

    url: str
    chunks: int = 3
    """Into how many chunks a table is cut for the first copy."""


class MemorySource:
    """A source whose log is a list."""

    Options = MemorySourceOptions

    def __init__(self, pipeline: Pipeline, options: MemorySourceOptions) -> None:
        self.pipeline = pipeline
        self.options = options
        self.database = SourceDatabase.at(options.url)
        self._stopped = False

    def obstacles(self) -> list[Obstacle]:
        """Find include patterns that match nothing."""
        present = [table.id for table in self.database.tables()]
        return [
            Obstacle(f"no table is named {pattern}", "correct tables.include")
            for pattern in self.pipeline.tables.unmatched(present)
        ]

    def tables(self) -> list[Table]:
        """Return the configured tables in their present shape."""
        return [table for table in self.database.tables() if table.id in self.pipeline.tables]

    def set_up(
        self,
        replicated: Collection[TableId] = (),  # noqa: ARG002 - the log has every table
        after: Position | None = None,
    ) -> list[str]:
        """Refuse what `obstacles` finds fatal, and a position that is not ours; there is nothing to create."""
        if after is not None:
            self._continue_at(after)
        for obstacle in self.obstacles():
            raise SetupError(obstacle.what, hint=obstacle.hint)
        return []

    def start(self, interrupted: Mapping[TableId, Copied] | None = None) -> MemorySnapshot:
        """Create the slot, or replace it, and a snapshot of its place."""
        with self.database.changed:
            self.database.slots[self.pipeline.name] = Slot(len(self.database.log))
            return self.snapshot(interrupted)

    def snapshot(
        self,
        interrupted: Mapping[TableId, Copied] | None = None,  # noqa: ARG002 - nothing is looked up for them
    ) -> MemorySnapshot:
        """Freeze the tables as they are now."""
        with self.database.changed:
            rows = {table.id: self.database.rows(str(table.id)) for table in self.tables()}
            return MemorySnapshot(self.database.position, self.options.chunks, rows)

    def stream(
        self, after: Position, copied: Mapping[TableId, Copied], until: Position | None = None
    ) -> Iterator[Batch]:
        """Yield a batch per transaction, pieces of larger ones, and heartbeats."""
        done = self._continue_at(after)
        last = None if until is None else self._number(until)
        with self.database.changed:
            budget = self.database.failures.pop(0) if self.database.failures else None
        for batch in self._follow(done, copied, last):
            if budget is not None:
                if budget == 0:
                    raise TransientError("the connection to the source was lost")
                budget -= 1
            yield batch

    def confirm(self, durable: Position) -> None:
        """Note in the slot that the log up to here may go."""
        number = self._number(durable)
        with self.database.changed:
            slot = self.database.slots[self.pipeline.name]
            slot.confirmed = max(slot.confirmed, number)
            slot.confirmations.append(durable)

    def stop(self) -> None:
        """End the stream."""
        with self.database.changed:
            self._stopped = True
            self.database.changed.notify_all()

    def current(self) -> Position:
        """Return the newest position."""
        with self.database.changed:
            return self.database.position

    def status(self, position: Position | None) -> SourceStatus:
        """Count log entries as if each were a byte."""
        with self.database.changed:
            newest = len(self.database.log)
            slot = self.database.slots.get(self.pipeline.name)
            return SourceStatus(
                self.database.position,
                lag_bytes=newest - self._number(position) if position is not None else 0,
                retained_bytes=newest - slot.confirmed if slot else None,
            )

    def tear_down(self) -> list[str]:
        """Drop the slot."""
        with self.database.changed:
            dropped = self.database.slots.pop(self.pipeline.name, None)
        return [f"dropped the slot {self.pipeline.name}"] if dropped else []

    def close(self) -> None:
        """End the stream."""
        self.stop()

    def _follow(self, done: int, copied: Mapping[TableId, Copied], last: int | None) -> Iterator[Batch]:
        """Yield what comes after entry `done`; entries without a change for us only move the position."""
        reported = done
        while True:
            transaction = self._wait_for(done, self.pipeline.heartbeat_seconds if done == reported else 0.0, last)
            if transaction is not None:
                done = transaction.number
                for batch in self._batches(transaction, copied):
                    yield batch
                    reported = done
            elif done > reported:
                yield Batch(self.database.position_of(done))
                reported = done
            if self._stopped or (last is not None and reported >= last):
                return

    def _wait_for(self, done: int, seconds: float, last: int | None) -> Transaction | None:
        """Return the entry after `done`, or None if none comes in time or none is wanted."""
        with self.database.changed:
            if last is not None and done >= last:
                return None
            self.database.changed.wait_for(lambda: self._stopped or len(self.database.log) > done, seconds)
            if self._stopped or len(self.database.log) <= done:
                return None
            return self.database.log[done]

    def _batches(self, transaction: Transaction, copied: Mapping[TableId, Copied]) -> Iterator[Batch]:
        wanted = []
        for change in transaction.changes:
            copy = copied.get(change.table.id)
            if change.table.id not in self.pipeline.tables:
                continue
            if copy is None or transaction.number > self._number(copy.position):
                wanted.append(change)
        position = self.database.position_of(transaction.number)
        bound = self.pipeline.max_batch_rows
        for start in range(0, len(wanted), bound):
            piece = wanted[start : start + bound]
            ends = start + bound >= len(wanted)
            yield Batch(
                position if ends else None,
                tuple(columnar(piece)),
                transactions=1 if ends else 0,
                size=sum(_size(change) for change in piece),
                commit_time=transaction.commit_time,
            )

    def _continue_at(self, after: Position) -> int:
        number = self._number(after)
        with self.database.changed:
            slot = self.database.slots.get(self.pipeline.name)
            if slot is None:
                raise DivergedError(f"the slot {self.pipeline.name} does not exist", hint="copy the tables again")
            if number < slot.confirmed:
                raise DivergedError(f"entries {number + 1} to {slot.confirmed} of the log are gone")
            if number > len(self.database.log):
                raise DivergedError(f"the log ends at {len(self.database.log)}, before {number}")
        return number

    def _number(self, position: Position) -> int:
        identity, _, number = position.partition("/")
        if identity != self.database.identity:
            raise DivergedError(f"the position is one of database {identity}, this is {self.database.identity}")
        return int(number)


@dataclass
class MemorySnapshot:
    """Rows as they were at a position."""

    position: Position
    count: int
    """Chunks of a table that is copied from here on."""
    rows: Mapping[TableId, Sequence[Row]]

    def chunks(self, table: Table, copied: Copied | None) -> list[Chunk]:
        """Cut a table by a hash of the key, into as many chunks as the first snapshot did.

        Durable chunks come again, under names of this snapshot: which of their rows have changed is not known.
        """
        if copied is not None and not table.key:
            copied = None
        count = int(copied.snapshot) if copied is not None else self.count
        names = [f"{i}/{count}" for i in range(count)]
        chunks = [Chunk(table, name, overlapping=copied is not None) for name in names]
        done = copied.chunks if copied is not None else frozenset()
        named = [replace(c, name=f"{c.name}@{self.position}") if c.name in done else c for c in chunks]
        return [replace(chunk, rows=len(self._rows(chunk))) for chunk in named]

    def note(self, table: Table) -> str:  # noqa: ARG002 - the same for all
        """Remember how many chunks there are."""
        return str(self.count)

    def read(self, chunk: Chunk) -> Mapping[str, Stream]:
        """Offer record batches in text form."""
        return {"arrow": partial(self._arrow, chunk)}

    def keys(self, table: Table) -> Mapping[str, Stream]:
        """Offer the keys of a table's rows."""
        keys = [tuple(row[i] for i in table.key_positions) for row in self.rows[table.id]]
        return {"arrow": lambda: _text_table(table.identity, keys).to_batches()}

    def close(self) -> None:
        """Do nothing: a frozen list costs nothing."""

    def _rows(self, chunk: Chunk) -> list[Row]:
        ordinal, _, count = chunk.name.partition("@")[0].partition("/")
        positions = chunk.table.key_positions or range(len(chunk.table.columns))
        return [
            row
            for row in self.rows[chunk.table.id]
            if zlib.crc32(repr([row[i] for i in positions]).encode()) % int(count) == int(ordinal)
        ]

    def _arrow(self, chunk: Chunk) -> Iterable[pa.RecordBatch]:
        yield from _text_table(chunk.table.columns, self._rows(chunk)).to_batches()


def columnar(changes: Sequence[RowChange]) -> Iterator[Changes]:
    """Turn rows of the log into columns: per table, one `Changes` for each shape."""
    for name in dict.fromkeys(change.table.id for change in changes):
        of_table = [change for change in changes if change.table.id == name]
        last_truncate = max((i for i, c in enumerate(of_table) if c.old is None and c.new is None), default=None)
        if last_truncate is not None:
            yield_first = of_table[last_truncate].table
            of_table = of_table[last_truncate + 1 :]
            if not of_table or of_table[0].table != yield_first:
                yield Changes.truncate(yield_first)
                last_truncate = None
        for i, (table, run) in enumerate(groupby(of_table, key=lambda change: change.table)):
            yield _changes(table, list(run), truncated=i == 0 and last_truncate is not None)


def _changes(table: Table, rows: Sequence[RowChange], *, truncated: bool) -> Changes:
    operations = np.array([_operation(row) for row in rows], np.uint8)
    present = np.array([_old_is_sent(row) for row in rows], np.bool_)
    unchanged = {
        i: np.array([i in row.unsent for row in rows], np.bool_)
        for i in sorted(frozenset().union(*(row.unsent for row in rows)))
    }
    nothing: Row = (None,) * len(table.columns)
    new = [tuple(None if i in row.unsent else value for i, value in enumerate(row.new or nothing)) for row in rows]
    ordinals = [table.columns.index(column) for column in table.identity]
    old = [
        tuple((row.old if sent and row.old else nothing)[i] for i in ordinals)
        for row, sent in zip(rows, present, strict=True)
    ]
    return Changes(
        table,
        operations,
        _text_table(table.columns, new),
        _text_table(table.identity, old) if present.any() else None,
        present if present.any() else None,
        unchanged,
        truncated,
    )


def _operation(change: RowChange) -> int:
    return INSERT if change.old is None else DELETE if change.new is None else UPDATE


def _old_is_sent(change: RowChange) -> bool:
    if change.old is None or change.new is None or not change.table.key:
        return change.old is not None
    return any(change.old[i] != change.new[i] for i in change.table.key_positions)


def _text_table(columns: Sequence[Column], rows: Sequence[Row]) -> pa.Table:
    arrays = [pa.array([row[i] for row in rows], pa.string()) for i in range(len(columns))]
    return pa.table(arrays, names=[column.name for column in columns])


def _size(change: RowChange) -> int:
    return sum(len(value or "") for value in (*(change.old or ()), *(change.new or ())))
