"""A target database in memory: tables, bookkeeping and transactions that can be rolled back."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from cdcrep.connector import Copied
from cdcrep.errors import TransientError
from cdcrep.position import Position
from cdcrep.table import TableId
from cdcrep.testing.memory_tables import Row, Value, ordered, table_id

Named = dict[str, Value]
"""A row of the target: column name -> text."""


@dataclass
class TargetTable:
    """Rows by key, or counted where there is no key; columns that the source does not know keep their values."""

    columns: list[str]
    key: tuple[str, ...]
    rows: dict[Row, Named] = field(default_factory=dict)
    copies: Counter[Row] = field(default_factory=Counter)

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.rows) + self.copies.total()


@dataclass
class Book:
    """The checkpoint row of one pipeline."""

    position: Position | None = None
    epoch: int = 0
    owner: str = ""
    source: str = ""
    tables: dict[TableId, Copied] = field(default_factory=dict)
    commit_time: float | None = None
    transactions: int = 0
    rows: int = 0
    updated_at: float = 0.0
    counts: Counter[tuple[TableId, str]] = field(default_factory=Counter)
    """(table, "copied" or "applied") -> rows."""


class TargetDatabase:
    """Tables and bookkeeping; one transaction at a time."""

    _known: ClassVar[dict[str, TargetDatabase]] = {}

    def __init__(self) -> None:
        self.tables: dict[TableId, TargetTable] = {}
        self.books: dict[str, Book] = {}
        self.commits = 0
        """Transactions of `apply` so far."""
        self.failures: dict[int, Literal["before commit", "after commit", "hang"]] = {}
        """What goes wrong in the n-th `apply`, counted from 1: an error before the commit; an acknowledgement that is
        lost after it; a server that does not answer until `cancel`."""
        self.lock = threading.RLock()

    @classmethod
    def at(cls, url: str) -> TargetDatabase:
        """Return the database with this URL, `memory:name`; a new one is empty."""
        return cls._known.setdefault(url, cls())

    def rows(self, table: str) -> list[Row]:
        """Return a table's rows in sorted order, nulls first, columns in the target's order."""
        with self.lock:
            stored = self.tables[table_id(table)]
            keyed = (tuple(row[name] for name in stored.columns) for row in stored.rows.values())
            return ordered([*keyed, *stored.copies.elements()])

    def drop(self, table: str) -> None:
        """Drop a table; the bookkeeping does not notice."""
        with self.lock:
            del self.tables[table_id(table)]

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Run one transaction; an exception rolls it back."""
        with self.lock:
            transaction = Transaction(self)
            try:
                yield transaction
            except BaseException:
                transaction.roll_back()
                raise

    def begin_apply(self) -> str | None:
        """Count an `apply` and tell what goes wrong in it."""
        with self.lock:
            self.commits += 1
            return self.failures.pop(self.commits, None)


class Transaction:
    """Writes that remember how to undo themselves."""

    def __init__(self, database: TargetDatabase) -> None:
        self.database = database
        self._undo: list[Callable[[], None]] = []

    def roll_back(self) -> None:
        """Undo every write, the last one first."""
        for step in reversed(self._undo):
            step()
        self._undo.clear()

    def create(self, name: TableId, columns: list[str], key: tuple[str, ...]) -> None:
        """Create a table."""
        self.database.tables[name] = TargetTable(columns, key)
        self._undo.append(lambda: self.database.tables.__delitem__(name))

    def empty(self, name: TableId) -> None:
        """Remove all rows of a table."""
        before = self.database.tables[name]
        self._undo.append(lambda: self.database.tables.__setitem__(name, before))
        self.database.tables[name] = TargetTable(before.columns, before.key)

    def add_column(self, name: TableId, column: str) -> None:
        """Add a column, null in every row."""
        before = self.database.tables[name]
        self._undo.append(lambda: self.database.tables.__setitem__(name, before))
        self.database.tables[name] = TargetTable(
            [*before.columns, column],
            before.key,
            {key: {**row, column: None} for key, row in before.rows.items()},
            Counter({(*row, None): copies for row, copies in before.copies.items()}),
        )

    def put(self, table: TargetTable, key: Row, row: Named | None) -> None:
        """Write the row under a key; None: delete it."""
        before = table.rows.pop(key, None)
        if row is not None:
            table.rows[key] = row
        self._undo.append(lambda: self._restore(table, key, before))

    @staticmethod
    def _restore(table: TargetTable, key: Row, row: Named | None) -> None:
        table.rows.pop(key, None)
        if row is not None:
            table.rows[key] = row

    def count(self, table: TargetTable, row: Row, change: int) -> None:
        """Add copies of a row to a table without a key, or take them away."""
        before = table.copies[row]
        self._undo.append(lambda: table.copies.__setitem__(row, before))
        table.copies[row] = before + change

    def book(self, pipeline: str, book: Book | None) -> None:
        """Write the checkpoint row of a pipeline; None: delete it."""
        before = self.database.books.get(pipeline)
        self._undo.append(lambda: self._restore_book(pipeline, before))
        self._restore_book(pipeline, book)

    def _restore_book(self, pipeline: str, book: Book | None) -> None:
        self.database.books.pop(pipeline, None)
        if book is not None:
            self.database.books[pipeline] = book


def lost() -> TransientError:
    """Make the error of a connection that broke."""
    return TransientError("the connection to the target was lost")
