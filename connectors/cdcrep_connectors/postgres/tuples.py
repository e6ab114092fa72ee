"""Reads the rows of one table out of Insert, Update and Delete messages: all rows' first column, then the second, ...

PostgreSQL manual, "Logical Replication Message Formats", servers 14 to 18:

    Insert   Byte1('I') Int32 oid Byte1('N') TupleData
    Update   Byte1('U') Int32 oid [ Byte1('K' or 'O') TupleData ] Byte1('N') TupleData
    Delete   Byte1('D') Int32 oid Byte1('K' or 'O') TupleData
    TupleData   Int16 columns { Byte1('n') | Byte1('u') | Byte1('t' or 'b') Int32 length Byten value }

An old tuple of kind 'K' carries the replica identity's columns and NULL, which means nothing, for the others; one of
kind 'O' (REPLICA IDENTITY FULL) carries all. 'u' stands for a stored-out-of-line value that the change left alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cdcrep.changes import DELETE, INSERT, UPDATE, Changes
from cdcrep.columns import Bytes, Mask, Positions, gather, integers
from cdcrep.errors import DataError
from cdcrep.table import Column, Table
from cdcrep_connectors.postgres.relation import Relation

NEW, OLD_KEY, OLD_ROW = ord("N"), ord("K"), ord("O")
NULL, UNCHANGED, TEXT, BINARY = ord("n"), ord("u"), ord("t"), ord("b")

Kinds = NDArray[np.uint8]


@dataclass(frozen=True)
class RowShape:
    """How rows of one relation look on the wire, and which table they become."""

    relation: Relation
    table: Table
    row_schema: Any = field(init=False, repr=False, compare=False)
    """Arrow schema of all columns."""
    identity_schema: Any = field(init=False, repr=False, compare=False)
    """Arrow schema of the columns that find a row."""

    def __post_init__(self) -> None:
        """Make sure that the two fit.

        Raises:
            DataError: they do not.
        """
        sent = [column.name for column in self.relation.columns]
        if sent != [column.name for column in self.table.columns]:
            raise DataError(f"{self.table.id}: the columns that the source sends are not those of its catalogue")
        flagged = {column.name for column in self.relation.columns if column.is_key}
        if self.relation.replica_identity in ("d", "i") and not flagged.issuperset(self.table.key):
            raise DataError(
                f"{self.table.id}: the replica identity lacks a column of the key {', '.join(self.table.key)}",
                hint=f"ALTER TABLE {self.table.id} REPLICA IDENTITY DEFAULT",
            )
        object.__setattr__(self, "row_schema", _schema(self.table.columns))
        object.__setattr__(self, "identity_schema", _schema(self.table.identity))

    def fail(self, why: str, *, hint: str | None = None) -> NoReturn:
        """Raise a DataError about this table."""
        raise DataError(f"{self.table.id}: {why}", hint=hint)


class TupleCursor:
    """Walks n tuples side by side, column by column; `at` is where each of them stands."""

    def __init__(self, shape: RowShape, buffer: Bytes, at: Positions, end: Positions) -> None:
        self.at = at
        self._shape = shape
        self._buffer = buffer
        self._end = end
        self._words = integers(buffer, "<u8")
        if (at + 2 > end).any():
            shape.fail("a row ends before its first column")
        if (integers(buffer, ">u2")[at] != len(shape.table.columns)).any():
            shape.fail("a row does not have as many columns as its Relation message")
        self.at = at + 2

    def column(self) -> tuple[Kinds | None, Positions, Positions]:
        """Read the next column: kinds (None: all are TEXT) and the slices of the values, empty where there is none."""
        if (self.at >= self._end).any():
            self._shape.fail("a row ends in the middle")
        # One read for kind and length: kind in the highest byte, then four bytes of length.
        word = self._words[self.at].byteswap()
        kind = (word >> np.uint64(56)).astype(np.uint8)
        length = ((word >> np.uint64(24)) & np.uint64(0xFFFFFFFF)).view(np.int64)
        start = self.at + 5
        is_text = kind == TEXT
        if is_text.all():
            self.at = start + length
            return None, start, self.at
        if not (is_text | (kind == NULL) | (kind == UNCHANGED)).all():
            why = "binary values" if (kind == BINARY).any() else "a value of unknown kind"
            self._shape.fail(f"the source sent {why}")
        start = np.where(is_text, start, self.at + 1)
        self.at = np.where(is_text, start + length, start)
        return kind, start, self.at


@dataclass(frozen=True)
class OldTuples:
    """The old tuples of m of n rows."""

    rows: Positions
    """(m,) which of the n rows."""
    whole: Mask
    """(m,) of kind 'O', not 'K'."""
    kinds: list[Kinds | None]
    starts: list[Positions]
    ends: list[Positions]
    after: Positions
    """(m,) where the tuples end."""

    def fill(self, shape: RowShape, ordinal: int, kinds: Kinds, start: Positions, end: Positions) -> None:
        """Replace unchanged values of n new rows by what the old rows know, in place."""
        mine = self.kinds[ordinal]
        known = kinds[self.rows] == UNCHANGED
        if mine is not None:
            # NULL in a key-only tuple says nothing about columns outside the key.
            says_null = self.whole | shape.relation.columns[ordinal].is_key
            known &= (mine == TEXT) | ((mine == NULL) & says_null)
        rows = self.rows[known]
        start[rows], end[rows] = self.starts[ordinal][known], self.ends[ordinal][known]
        kinds[rows] = TEXT if mine is None else mine[known]


def decode_rows(shape: RowShape, buffer: Bytes, start: Positions, end: Positions, *, truncated: bool) -> Changes:
    """Decode n row messages of one relation, given as slices of `buffer` in commit order.

    Raises:
        DataError: the bytes are no such messages, or a row cannot be identified.
    """
    # Kind, oid and marker must be there before they are read.
    if (end - start < 6).any():
        shape.fail("a row message is too short")
    operations = buffer[start]
    old = _old_tuples(shape, buffer, operations, start, end)
    begin = start + 6
    if old is not None:
        followed = operations[old.rows] == UPDATE
        rows, after = old.rows[followed], old.after[followed]
        if (old.after[~followed] != end[old.rows[~followed]]).any():
            shape.fail("a row message is longer than its content")
        if (after >= end[rows]).any() or (buffer[after] != NEW).any():
            shape.fail("an Update message has no new row")
        begin[rows] = after + 1
    columns, unchanged = _new_columns(shape, buffer, operations, (start, begin, end), old)
    new = pa.table(columns, schema=shape.row_schema)
    if old is None:
        return Changes(shape.table, operations, new, unchanged=unchanged, truncated=truncated)
    images, present = _old_images(shape, buffer, operations, start, old, columns)
    if not present.any():
        return Changes(shape.table, operations, new, unchanged=unchanged, truncated=truncated)
    return Changes(shape.table, operations, new, images, present, unchanged, truncated)


def _old_tuples(
    shape: RowShape, buffer: Bytes, operations: NDArray[np.uint8], start: Positions, end: Positions
) -> OldTuples | None:
    """Walk the old tuples; None: there are none."""
    marker = buffer[start + 5]
    with_old = marker != NEW
    identifies = (marker == OLD_ROW) | ((marker == OLD_KEY) & bool(shape.table.key))
    if (with_old & ((operations == INSERT) | ~((marker == OLD_KEY) | (marker == OLD_ROW)))).any():
        shape.fail("a row message has an unknown kind of row")
    needs_old = (operations == DELETE) | ((operations == UPDATE) & (not shape.table.key))
    if (needs_old & ~identifies).any():
        shape.fail(
            "an UPDATE or DELETE does not say which row it changed",
            hint=f"ALTER TABLE {shape.table.id} REPLICA IDENTITY FULL, or give the table a primary key",
        )
    if not with_old.any():
        return None
    rows = np.flatnonzero(with_old)
    cursor = TupleCursor(shape, buffer, start[rows] + 6, end[rows])
    columns = [cursor.column() for _ in shape.table.columns]
    if (cursor.at > end[rows]).any():
        shape.fail("a row ends in the middle of a value")
    kinds, starts, ends = (list(part) for part in zip(*columns, strict=True)) if columns else ([], [], [])
    return OldTuples(rows, marker[rows] == OLD_ROW, kinds, starts, ends, cursor.at)


def _new_columns(
    shape: RowShape,
    buffer: Bytes,
    operations: NDArray[np.uint8],
    message: tuple[Positions, Positions, Positions],
    old: OldTuples | None,
) -> tuple[list[pa.Array], dict[int, Mask]]:
    """Decode the new rows, null in rows of DELETE; `message` says where each begins, its new tuple begins, it ends."""
    message_start, begin, end = message
    deleted = operations == DELETE
    rows = np.flatnonzero(~deleted) if deleted.any() else None
    cursor = TupleCursor(shape, buffer, *((begin, end) if rows is None else (begin[rows], end[rows])))
    columns: list[pa.Array] = []
    unchanged: dict[int, Mask] = {}
    for ordinal, column in enumerate(shape.table.columns):
        kinds, start, stop = cursor.column()
        if rows is not None:
            kinds, start, stop = _spread(message_start, rows, kinds, start, stop)
        if kinds is not None and (kinds == UNCHANGED).any():
            if old is not None:
                start, stop = start.copy(), stop.copy()
                old.fill(shape, ordinal, kinds, start, stop)
            if (mask := kinds == UNCHANGED).any():
                _check_unknown(shape, ordinal, bool((operations[mask] == INSERT).any()))
                unchanged[ordinal] = mask
        valid = None if kinds is None else kinds == TEXT
        if valid is not None and ordinal in shape.table.key_positions and not (valid | deleted).all():
            shape.fail(f"a new row has no value in the key column {column.name!r}")
        # Only now is it known that the slices lie inside their messages, but for the last column.
        if (stop > end).any():
            shape.fail("a row ends in the middle of a value")
        columns.append(_texts(shape, column, buffer, start, stop, valid))
    if (cursor.at != (end if rows is None else end[rows])).any():
        shape.fail("a row message is longer than its content")
    return columns, unchanged


def _old_images(
    shape: RowShape,
    buffer: Bytes,
    operations: NDArray[np.uint8],
    message_start: Positions,
    old: OldTuples,
    new: list[pa.Array],
) -> tuple[pa.Table, Mask]:
    """Decode the identity's columns of old rows, and tell which rows need them to be found."""
    table = shape.table
    ordinals = table.key_positions if table.key else range(len(table.columns))
    images = []
    for ordinal in ordinals:
        kinds, start, stop = _spread(
            message_start, old.rows, old.kinds[ordinal], old.starts[ordinal], old.ends[ordinal]
        )
        valid = kinds == TEXT
        incomplete = (kinds[old.rows] == UNCHANGED).any() or (table.key and not valid[old.rows].all())
        if incomplete:
            shape.fail(f"an old row has no value in the column {table.columns[ordinal].name!r} that identifies it")
        images.append(_texts(shape, table.columns[ordinal], buffer, start, stop, valid))
    present = np.zeros(len(operations), np.bool_)
    present[old.rows] = True
    updated = operations == UPDATE
    if table.key and (updated & present).any():
        same = np.ones(len(operations), np.bool_)
        for ordinal, image in zip(ordinals, images, strict=True):
            same &= pc.fill_null(pc.equal(image, new[ordinal]), False).to_numpy(zero_copy_only=False)
        present &= ~(updated & same)
    return pa.table(images, schema=shape.identity_schema), present


def _spread(
    filler: Positions, rows: Positions, kinds: Kinds | None, start: Positions, end: Positions
) -> tuple[Kinds, Positions, Positions]:
    """Place m slices among n rows; the others get NULL and an empty slice at `filler`, where the message begins."""
    all_kinds = np.full(len(filler), NULL, np.uint8)
    all_kinds[rows] = TEXT if kinds is None else kinds
    all_start, all_end = filler.copy(), filler.copy()
    all_start[rows], all_end[rows] = start, end
    return all_kinds, all_start, all_end


def _check_unknown(shape: RowShape, ordinal: int, inserted: bool) -> None:
    """Refuse an unknown value where nothing could supply it."""
    name = shape.table.columns[ordinal].name
    if inserted:
        shape.fail(f"an inserted row has no value in the column {name!r}")
    if not shape.table.key or ordinal in shape.table.key_positions:
        shape.fail(
            f"the source did not send the column {name!r}, which identifies the row",
            hint=f"ALTER TABLE {shape.table.id} REPLICA IDENTITY FULL",
        )


def _texts(
    shape: RowShape, column: Column, buffer: Bytes, start: Positions, end: Positions, valid: Mask | None
) -> pa.Array:
    try:
        return gather(buffer, start, end, valid)
    except DataError as error:
        shape.fail(f"column {column.name!r}: {error.message}")


def _schema(columns: tuple[Column, ...]) -> Any:
    return pa.schema([pa.field(column.name, pa.string()) for column in columns])
