"""Decodes many documents of MySQL's binary JSON at once: those of the same shape share one walk through it.

The first document is walked by `binary_json`, which tells which of its bytes are numbers or the content of strings. All
documents of the same length that have the same other bytes have the same shape, and differ in those values only: their
texts are put together column by column. Documents that share their shape with few others are decoded one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cdcrep.columns import Bytes, Mask, Positions
from cdcrep.errors import DataError
from cdcrep_connectors.mysql.binary_json import (
    INLINED,
    LITERAL,
    NUMBERS,
    OBJECTS,
    OPAQUE,
    STRING,
    JsonParser,
    Node,
    quoted,
    write_double,
    write_json,
)
from cdcrep_connectors.mysql.slices import from_fixed, gather_each

FEWEST: Final = 8
"""Documents of a shape from which they are decoded together."""
LONGEST: Final = 4096
"""Bytes of a document up to which that is tried."""
MOST_FAILURES: Final = 16
"""Shapes of too few documents after which the others of a column are decoded one by one."""

Matrix = NDArray[np.uint8]


@dataclass(frozen=True)
class _Slot:
    """A value that documents of one shape do not share: a number, or a string of so many bytes."""

    kind: int
    at: int
    length: int


@dataclass(frozen=True)
class _Shape:
    pieces: tuple[str | _Slot, ...]
    """What the text consists of."""
    fixed: Positions
    """Places of the bytes that all documents of this shape share."""


class _ShapeParser(JsonParser):
    """Walks through one document and leaves marks in its text where the others may differ."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.slots: list[_Slot] = []
        self.shared = np.zeros(len(content), np.bool_)

    def value(self, kind: int, at: int, depth: int) -> Node:
        if kind in NUMBERS:
            # Reads the number, and so proves that it is there.
            super().value(kind, at, depth)
            return self._mark(_Slot(kind, at, NUMBERS[kind].size))
        if kind == STRING:
            begin, length = self.extent(at)
            self.shared[at:begin] = True
            super().bytes_at(begin, length).decode()
            return self._mark(_Slot(kind, begin, length))
        if kind == LITERAL:
            self.shared[at] = True
        elif kind == OPAQUE:
            self.shared[at : self.extent(at + 1)[0]] = True
        return super().value(kind, at, depth)

    def bytes_at(self, at: int, length: int) -> bytes:
        self.shared[at : at + length] = True
        return super().bytes_at(at, length)

    def container(self, kind: int, at: int, depth: int) -> Node:
        node = super().container(kind, at, depth)
        width, number = self.widths(kind)
        (count,) = number.unpack_from(self.content, at)
        entries = at + 2 * width + (count * (width + 2) if kind in OBJECTS else 0)
        self.shared[at:entries] = True
        for entry in range(entries, entries + count * (width + 1), width + 1):
            inlined = self.content[entry] in INLINED[width]
            self.shared[entry : entry + (1 if inlined else 1 + width)] = True
        return node

    def shape(self) -> _Shape | None:
        """Return the document's shape; None if a value of it is also something else."""
        text = write_json(self.value(self.content[0], 1, 0))
        fixed = np.ones(len(self.content), np.bool_)
        for slot in self.slots:
            fixed[slot.at : slot.at + slot.length] = False
        if (self.shared & ~fixed).any():
            return None
        # Every second part is the number of a slot; nothing else in the text holds a zero byte.
        parts = text.split("\0")
        pieces = tuple(self.slots[int(part)] if i % 2 else part for i, part in enumerate(parts))
        return _Shape(tuple(piece for piece in pieces if piece != ""), np.flatnonzero(fixed))

    def _mark(self, slot: _Slot) -> str:
        self.slots.append(slot)
        return f"\0{len(self.slots) - 1}\0"


def decode_documents(buffer: Bytes, start: Positions, end: Positions, valid: Mask | None, decode: Any) -> pa.Array:
    """Decode n documents to text, as the server prints them; `decode` is what decodes one.

    Raises:
        DataError: one is no document.
    """
    rows = np.arange(len(start)) if valid is None else np.flatnonzero(valid)
    if len(rows) < FEWEST:
        return gather_each(buffer, start, end, valid, decode, pa.string())
    done: list[Positions] = []
    texts: list[pa.Array] = []
    for chosen, text in _together(buffer, start, end - start, rows):
        done.append(chosen)
        texts.append(text)
    alone = np.ones(len(start), np.bool_)
    for chosen in done:
        alone[chosen] = False
    rest = np.flatnonzero(alone)
    texts.append(
        gather_each(buffer, start[rest], end[rest], None if valid is None else valid[rest], decode, pa.string())
    )
    place = np.empty(len(start), np.int64)
    place[np.concatenate([*done, rest])] = np.arange(len(start))
    return pa.concat_arrays(texts).take(pa.array(place))


def _together(
    buffer: Bytes, start: Positions, length: Positions, rows: Positions
) -> Iterator[tuple[Positions, pa.Array]]:
    """Yield documents of one shape and their texts."""
    failures = 0
    lengths, counts = np.unique(length[rows], return_counts=True)
    for size in lengths[(counts >= FEWEST) & (lengths > 0) & (lengths <= LONGEST)].tolist():
        left = rows[length[rows] == size]
        documents = np.lib.stride_tricks.sliding_window_view(buffer, size)[start[left]]
        while len(left) >= FEWEST and failures < MOST_FAILURES:
            shape = _shape_of(documents[0].tobytes())
            same = _same(documents, shape)
            if shape is None or int(same.sum()) < FEWEST:
                failures += 1
            else:
                text = _written(shape, documents[same])
                yield left[same], text
            left, documents = left[~same], documents[~same]


def _shape_of(document: bytes) -> _Shape | None:
    """Return a document's shape; None for one that must be looked at by itself."""
    try:
        return _ShapeParser(document).shape()
    except (DataError, *JsonParser.ERRORS):
        return None


def _same(documents: Matrix, shape: _Shape | None) -> Mask:
    """Tell which documents have the shape of the first; without a shape it is the first alone."""
    if shape is None:
        alone: Mask = np.arange(len(documents)) == 0
        return alone
    fixed = documents[:, shape.fixed]
    same: Mask = (fixed == fixed[0]).all(axis=1)
    return same


def _written(shape: _Shape, documents: Matrix) -> pa.Array:
    """Put the texts of documents of one shape together."""
    parts = [pa.scalar(piece) if isinstance(piece, str) else _values(piece, documents) for piece in shape.pieces]
    if all(isinstance(piece, str) for piece in shape.pieces):
        return pa.array(["".join(map(str, shape.pieces))] * len(documents), pa.string())
    return pc.binary_join_element_wise(*parts, "")


def _values(slot: _Slot, documents: Matrix) -> pa.Array:
    """Write one value of each document."""
    content = np.ascontiguousarray(documents[:, slot.at : slot.at + slot.length])
    if slot.kind != STRING:
        numbers = content.view(np.dtype(NUMBERS[slot.kind].format)).reshape(-1)
        if numbers.dtype.kind == "f" and not _written_alike(numbers):
            return pa.array([write_double(number) for number in numbers.tolist()], pa.string())
        return pa.array(numbers).cast(pa.string())
    plain = (content >= ord(" ")) & (content < 0x80) & (content != ord('"')) & (content != ord("\\"))
    if plain.all():
        marks = np.full((len(content), 1), ord('"'), np.uint8)
        return from_fixed(np.concatenate([marks, content, marks], axis=1), None)
    try:
        return pa.array([quoted(value.tobytes().decode()) for value in content], pa.string())
    except UnicodeDecodeError:
        raise DataError("a JSON value is not in MySQL's binary form") from None


def _written_alike(numbers: NDArray[Any]) -> bool:
    """Tell whether Arrow writes numbers as the server does: not whole ones, nor where it prefers an exponent."""
    size = np.abs(numbers)
    return bool((np.isfinite(size) & (size >= 1e-3) & (size < 1e9) & (numbers != np.floor(numbers))).all())
