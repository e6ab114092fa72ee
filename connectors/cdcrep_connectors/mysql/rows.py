"""Makes changes of the rows that were walked: which image a value comes from, what is unknown, what moved the key.

An image need not have all columns (`binlog_row_image` MINIMAL, NOBLOB): one that neither image of an UPDATE has was not
changed, which is not NULL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdcrep.changes import DELETE, INSERT, UPDATE, Changes
from cdcrep.columns import Bytes, Mask, Positions
from cdcrep.errors import DataError
from cdcrep.table import Table
from cdcrep_connectors.mysql.column_codecs import ColumnCodec, codec_for
from cdcrep_connectors.mysql.event_types import ColumnCode
from cdcrep_connectors.mysql.framing import Events
from cdcrep_connectors.mysql.json_diff import apply_differences
from cdcrep_connectors.mysql.native import parse_native
from cdcrep_connectors.mysql.row_events import TableRows, WalkedRows, walk_rows
from cdcrep_connectors.mysql.row_layout import Cells, RowLayout
from cdcrep_connectors.mysql.table_map import TableMap
from cdcrep_connectors.mysql.types import ImpossibleDates

FULL_IMAGES: Final = "SET GLOBAL binlog_row_image = FULL"
COPY_ANEW: Final = f"{FULL_IMAGES}, end the sessions that began before, and copy the table anew"
_OLD_TEMPORAL: Final = frozenset({ColumnCode.TIME, ColumnCode.DATETIME, ColumnCode.TIMESTAMP})


@dataclass(frozen=True)
class RowShape:
    """How rows of one TABLE_MAP look on the wire, and which table they become."""

    map: TableMap
    table: Table
    dates: ImpossibleDates
    codecs: tuple[ColumnCodec, ...] = field(init=False, repr=False, compare=False)
    digits: dict[int, int] = field(init=False, repr=False, compare=False)
    """Ordinal -> digits of the second's fraction, for MariaDB's oldest temporal types."""
    layouts: dict[tuple[int, ...], RowLayout] = field(default_factory=dict, repr=False, compare=False)
    """Ordinals of the columns that an image has -> its layout."""
    row_schema: Any = field(init=False, repr=False, compare=False)
    identity_schema: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Make sure that the two fit.

        Raises:
            DataError: they do not.
        """
        if len(self.map.columns) != len(self.table.columns):
            known = {column.name for column in self.table.columns}
            more = ", ".join(column.name for column in self.map.columns if column.name and column.name not in known)
            # The columns of a system-versioned table that only the log shows.
            also = f", but also {more}" if more else ""
            self.fail(f"the rows do not have the {len(self.table.columns)} columns of the table{also}")
        try:
            pairs = zip(self.map.columns, self.table.columns, strict=True)
            codecs = tuple(codec_for(wire, column, self.dates) for wire, column in pairs)
        except DataError as error:
            self.fail(error.message, hint=error.hint)
        digits = {
            i: parse_native(column.type.native).digits
            for i, (wire, column) in enumerate(zip(self.map.columns, self.table.columns, strict=True))
            if wire.code in _OLD_TEMPORAL
        }
        schema = [pa.field(codec.column.name, codec.type_) for codec in codecs]
        identity = self.identity_ordinals
        object.__setattr__(self, "codecs", codecs)
        object.__setattr__(self, "digits", {i: count for i, count in digits.items() if count})
        object.__setattr__(self, "row_schema", pa.schema(schema))
        object.__setattr__(self, "identity_schema", pa.schema([schema[i] for i in identity]))

    @property
    def identity_ordinals(self) -> tuple[int, ...]:
        """Ordinals of the columns that find a row."""
        return self.table.key_positions if self.table.key else tuple(range(len(self.table.columns)))

    def layout_of(self, present: tuple[int, ...]) -> RowLayout:
        """Return the layout of images that have the columns with these ordinals."""
        if present not in self.layouts:
            self.layouts[present] = RowLayout.of(self.map.columns, present, self.digits)
        return self.layouts[present]

    def fail(self, why: str, *, hint: str | None = None) -> NoReturn:
        """Raise a DataError about this table."""
        raise DataError(f"{self.table.id}: {why}", hint=hint)


@dataclass(frozen=True)
class DecodedRows:
    """Changes, and how many impossible dates became NULL in them, per column."""

    changes: Changes
    impossible: Mapping[str, int] = field(default_factory=dict)


def decode_rows(shape: RowShape, events: Events, *, truncated: bool = False) -> DecodedRows:
    """Decode the ROWS events of one table in commit order.

    Raises:
        DataError: the bytes are no such events, or a row cannot be carried.
    """
    try:
        rows = walk_rows(shape.map, events, shape.layout_of)
        return _RowDecoder(shape, events.buffer, rows).decode(truncated=truncated)
    except DataError as error:
        prefix = f"{shape.table.id}: "
        if error.message.startswith(prefix):
            raise
        raise DataError(prefix + error.message, hint=error.hint) from None


class _RowDecoder:
    def __init__(self, shape: RowShape, buffer: Bytes, rows: TableRows) -> None:
        self._shape = shape
        self._buffer = buffer
        self._rows = rows
        self._count = len(rows.operations)
        self._impossible: dict[str, int] = {}
        self._unchanged: dict[int, Mask] = {}

    def decode(self, *, truncated: bool) -> DecodedRows:
        """Decode new rows and the old ones' identities."""
        shape, operations = self._shape, self._rows.operations
        columns = [self._new_column(ordinal) for ordinal in range(len(shape.codecs))]
        new = pa.table(columns, schema=shape.row_schema)
        if bool((operations == INSERT).all()):
            return self._result(Changes(shape.table, operations, new, truncated=truncated))
        old, present = self._old(columns)
        if not present.any():
            return self._result(Changes(shape.table, operations, new, unchanged=self._unchanged, truncated=truncated))
        return self._result(Changes(shape.table, operations, new, old, present, self._unchanged, truncated))

    def _result(self, changes: Changes) -> DecodedRows:
        return DecodedRows(changes, self._impossible)

    def _new_column(self, ordinal: int) -> pa.Array:
        """Decode one column after the changes: null in rows of DELETE and where it is not known."""
        codec = self._shape.codecs[ordinal]
        chosen = [self._after(group, ordinal) for group in self._rows.groups]
        if all(cells is None for cells in chosen):
            return pa.nulls(self._count, codec.type_)
        cells = self._placed(chosen)
        partial = [group.differences.get(ordinal) for group in self._rows.groups]
        if any(mask is not None for mask in partial):
            return self._documents(ordinal, cells, partial)
        self._check_key(ordinal, cells)
        return self._decoded(codec, cells)

    def _after(self, group: WalkedRows, ordinal: int) -> Cells | None:
        """Return what a group's rows have in a column afterwards; None: nothing, or what is not known."""
        if group.operation == DELETE:
            return None
        found = group.after.get(ordinal)
        if found is not None:
            return found
        if group.operation == UPDATE and ordinal in group.before:
            return group.before[ordinal]
        self._check_unknown(group, ordinal)
        mask = self._unchanged.setdefault(ordinal, np.zeros(self._count, np.bool_))
        mask[slice(None) if group.order is None else group.order] = True
        return None

    def _check_unknown(self, group: WalkedRows, ordinal: int) -> None:
        """Refuse an unknown value where nothing could supply it."""
        shape, name = self._shape, self._shape.table.columns[ordinal].name
        if group.order is not None and not len(group.order):
            return
        if group.operation == INSERT:
            # Which default it was then nobody knows: the log does not say, and the catalogue's may be a later one.
            shape.fail(f"an inserted row has no value in the column {name!r}, only its default", hint=COPY_ANEW)
        if ordinal in shape.identity_ordinals:
            shape.fail(f"the source did not send the column {name!r}, which identifies the row", hint=COPY_ANEW)

    def _old(self, new: list[pa.Array]) -> tuple[pa.Table, Mask]:
        """Decode the identity's columns of old rows, and tell which rows need them to be found."""
        shape, operations = self._shape, self._rows.operations
        images = []
        for ordinal in shape.identity_ordinals:
            chosen = [self._before(group, ordinal) for group in self._rows.groups]
            images.append(self._decoded(shape.codecs[ordinal], self._placed(chosen), count=False))
        present: Mask = operations != INSERT
        updated = operations == UPDATE
        if shape.table.key and updated.any():
            same = np.ones(self._count, np.bool_)
            for ordinal, image in zip(shape.identity_ordinals, images, strict=True):
                same &= pc.fill_null(pc.equal(image, new[ordinal]), False).to_numpy(zero_copy_only=False)
            present &= ~(updated & same)
        return pa.table(images, schema=shape.identity_schema), present

    def _before(self, group: WalkedRows, ordinal: int) -> Cells | None:
        if group.operation == INSERT or (group.order is not None and not len(group.order)):
            return None
        if ordinal not in group.before:
            name = self._shape.table.columns[ordinal].name
            self._shape.fail(f"an old row has no value in the column {name!r}, which identifies it", hint=COPY_ANEW)
        return group.before[ordinal]

    def _placed(self, chosen: list[Cells | None]) -> Cells:
        """Put the groups' cells into the rows' order; rows of groups that have none get empty cells without value."""
        groups = self._rows.groups
        if len(groups) == 1 and chosen[0] is not None:
            return chosen[0]
        start = self._rows.filler.copy()
        end = start.copy()
        valid = np.zeros(self._count, np.bool_)
        for group, cells in zip(groups, chosen, strict=True):
            if cells is not None:
                rows = slice(None) if group.order is None else group.order
                start[rows], end[rows] = cells.start, cells.end
                valid[rows] = True if cells.valid is None else cells.valid
        return Cells(start, end, None if valid.all() else valid)

    def _decoded(self, codec: ColumnCodec, cells: Cells, *, count: bool = True) -> pa.Array:
        decoded = codec.decode(self._buffer, cells)
        if decoded.impossible is not None and count:
            name = codec.column.name
            self._impossible[name] = self._impossible.get(name, 0) + int(decoded.impossible.sum())
        return decoded.values

    def _check_key(self, ordinal: int, cells: Cells) -> None:
        if cells.valid is None or ordinal not in self._shape.table.key_positions:
            return
        if not (cells.valid | (self._rows.operations == DELETE)).all():
            name = self._shape.table.columns[ordinal].name
            self._shape.fail(f"a new row has no value in the key column {name!r}")

    def _documents(self, ordinal: int, cells: Cells, partial: list[Mask | None]) -> pa.Array:
        """Decode a JSON column of which some rows have changes of the document before; Python per value."""
        changed = np.zeros(self._count, np.bool_)
        for group, mask in zip(self._rows.groups, partial, strict=True):
            if mask is not None:
                changed[slice(None) if group.order is None else group.order] = mask
        changed &= True if cells.valid is None else cells.valid
        whole = Cells(cells.start, np.where(changed, cells.start, cells.end), cells.valid)
        values = self._decoded(self._shape.codecs[ordinal], whole).to_pylist()
        before = self._placed([group.before.get(ordinal) for group in self._rows.groups])
        rows = np.flatnonzero(changed)
        if before.valid is not None and not before.valid[rows].all():
            name = self._shape.table.columns[ordinal].name
            self._shape.fail(
                f"the source sent how the document in the column {name!r} changed, but not the document",
                hint=f"{COPY_ANEW}; or SET GLOBAL binlog_row_value_options = '' instead of the first",
            )
        for row in rows.tolist():
            document, changes = self._bytes(before, row), self._bytes(cells, row)
            values[row] = apply_differences(document, changes)
        return pa.array(values, pa.string())

    def _bytes(self, cells: Cells, row: int) -> bytes:
        begin: Positions = cells.start
        return self._buffer[begin[row] : cells.end[row]].tobytes()
