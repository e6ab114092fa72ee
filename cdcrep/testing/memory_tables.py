"""A source database in memory: tables that transactions change, and the log of those transactions."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar

from cdcrep.position import Position
from cdcrep.table import Column, Table, TableId

Value = str | None
Row = tuple[Value, ...]


@dataclass(frozen=True)
class Insert:
    """Insert one row; columns that are not named become null."""

    table: str
    row: Mapping[str, Value]


@dataclass(frozen=True)
class Update:
    """Change the one row that `where` finds; columns that are not named keep their values."""

    table: str
    where: Mapping[str, Value]
    to: Mapping[str, Value]


@dataclass(frozen=True)
class Delete:
    """Delete the one row that `where` finds; of several equal rows of a table without a key, one."""

    table: str
    where: Mapping[str, Value]


@dataclass(frozen=True)
class Truncate:
    """Empty a table."""

    table: str


@dataclass(frozen=True)
class AddColumn:
    """Add a column at the end, null in the rows that exist."""

    table: str
    column: Column


Statement = Insert | Update | Delete | Truncate | AddColumn


@dataclass(frozen=True)
class RowChange:
    """One row of the log: None for what is not there; `old` and `new` both None: TRUNCATE."""

    table: Table
    old: Row | None
    new: Row | None
    unsent: frozenset[int] = frozenset()
    """Ordinals of the cells of `new` that the log does not carry, because they stayed as they were."""


@dataclass(frozen=True)
class Transaction:
    """One entry of the log."""

    number: int
    changes: tuple[RowChange, ...]
    commit_time: float


@dataclass
class Slot:
    """What the database keeps for one pipeline."""

    confirmed: int
    confirmations: list[Position] = field(default_factory=list)


@dataclass
class _Stored:
    table: Table
    unsent: frozenset[str]
    rows: dict[int, Row] = field(default_factory=dict)
    by_key: dict[Row, set[int]] = field(default_factory=dict)

    def key(self, row: Row) -> Row:
        return tuple(row[i] for i in self.table.key_positions) if self.table.key else row

    def find(self, where: Mapping[str, Value]) -> int:
        """Return the number of the one row that has these values."""
        wanted = {self.ordinal(name): value for name, value in where.items()}
        candidates: Iterable[int] = self.rows
        if self.table.key and wanted.keys() >= set(self.table.key_positions):
            candidates = self.by_key.get(tuple(wanted[i] for i in self.table.key_positions), ())
        found = [number for number in candidates if all(self.rows[number][i] == v for i, v in wanted.items())]
        if not found or (len({self.rows[number] for number in found}) > 1):
            raise ValueError(f"{self.table.id}: {len(found)} rows are {dict(where)}, not one")
        return found[0]

    def ordinal(self, name: str) -> int:
        return next(i for i, column in enumerate(self.table.columns) if column.name == name)

    def put(self, number: int, row: Row) -> None:
        self.remove(number)
        if self.table.key and self.by_key.get(self.key(row)):
            raise ValueError(f"{self.table.id}: a row with this key exists")
        self.rows[number] = row
        self.by_key.setdefault(self.key(row), set()).add(number)

    def remove(self, number: int) -> None:
        if (row := self.rows.pop(number, None)) is not None:
            self.by_key[self.key(row)].discard(number)
            if not self.by_key[self.key(row)]:
                del self.by_key[self.key(row)]


class SourceDatabase:
    """Tables, a log of committed transactions, and the slots that read it; thread-safe."""

    _known: ClassVar[dict[str, SourceDatabase]] = {}

    def __init__(self) -> None:
        self.identity = uuid.uuid4().hex[:12]
        """Changes when another server takes over the address (`replace`)."""
        self.log: list[Transaction] = []
        self.slots: dict[str, Slot] = {}
        self.changed = threading.Condition()
        """Guards everything here; notified at every commit."""
        self.failures: list[int] = []
        """How many batches each of the coming streams yields before its connection is lost."""
        self._tables: dict[TableId, _Stored] = {}
        self._next_row = 0

    @classmethod
    def at(cls, url: str) -> SourceDatabase:
        """Return the database with this URL, `memory:name`; a new one has no tables."""
        return cls._known.setdefault(url, cls())

    def create(self, table: Table, unsent: Iterable[str] = ()) -> None:
        """Create a table; an UPDATE that leaves one of the `unsent` columns as it was does not log its value."""
        with self.changed:
            self._tables[table.id] = _Stored(table, frozenset(unsent))

    def commit(self, *statements: Statement) -> Position:
        """Run statements in one transaction and return its position; keys are unique at every moment of it."""
        with self.changed:
            undo: list[Callable[[], None]] = []
            try:
                changes = [change for statement in statements for change in self._run(statement, undo)]
            except BaseException:
                for step in reversed(undo):
                    step()
                raise
            self.log.append(Transaction(len(self.log) + 1, tuple(changes), time.time()))
            self.changed.notify_all()
            return self.position

    @property
    def position(self) -> Position:
        """The newest position."""
        return self.position_of(len(self.log))

    def position_of(self, number: int) -> Position:
        """Return the position of the transaction with this number."""
        return Position(f"{self.identity}/{number:08d}")

    def tables(self) -> list[Table]:
        """Return the tables in their present shape."""
        with self.changed:
            return [stored.table for stored in self._tables.values()]

    def rows(self, table: str) -> list[Row]:
        """Return a table's rows in sorted order, nulls first."""
        with self.changed:
            return ordered(self._tables[table_id(table)].rows.values())

    def replace(self) -> None:
        """Have another server, with the same tables and rows, answer at this address."""
        with self.changed:
            self.identity = uuid.uuid4().hex[:12]
            self.changed.notify_all()

    def _run(self, statement: Statement, undo: list[Callable[[], None]]) -> Iterator[RowChange]:
        stored = self._tables[table_id(statement.table)]
        table = stored.table
        match statement:
            case Insert(_, values):
                self._next_row += 1
                new = tuple(values.get(column.name) for column in table.columns)
                stored.put(self._next_row, new)
                undo.append(partial(stored.remove, self._next_row))
                yield RowChange(table, None, new)
            case Update(_, where, to):
                number = stored.find(where)
                old = stored.rows[number]
                new = tuple(to.get(column.name, value) for column, value in zip(table.columns, old, strict=True))
                stored.remove(number)
                undo.append(partial(stored.put, number, old))
                stored.put(number, new)
                undo.append(partial(stored.remove, number))
                yield RowChange(table, old, new, self._unsent(stored, old, new))
            case Delete(_, where):
                number = stored.find(where)
                old = stored.rows[number]
                undo.append(partial(stored.put, number, old))
                stored.remove(number)
                yield RowChange(table, old, None)
            case Truncate(_):
                undo.append(partial(self._tables.__setitem__, table.id, stored))
                self._tables[table.id] = _Stored(table, stored.unsent)
                yield RowChange(table, None, None)
            case AddColumn(_, column):
                undo.append(partial(self._tables.__setitem__, table.id, stored))
                wider = self._tables[table.id] = _Stored(
                    replace(table, columns=(*table.columns, column)), stored.unsent
                )
                for number, row in stored.rows.items():
                    wider.put(number, (*row, None))

    @staticmethod
    def _unsent(stored: _Stored, old: Row, new: Row) -> frozenset[int]:
        if not stored.table.key:
            return frozenset()
        ordinals = (stored.ordinal(name) for name in stored.unsent)
        return frozenset(i for i in ordinals if old[i] == new[i] and i not in stored.table.key_positions)


def table_id(name: str) -> TableId:
    """Read `schema.table`; the schema ends at the first dot."""
    schema, _, table = name.partition(".")
    return TableId(schema, table)


def ordered(rows: Iterable[Row]) -> list[Row]:
    """Sort rows so that two multisets can be compared; nulls come first."""
    return sorted(rows, key=lambda row: [(value is not None, value or "") for value in row])
