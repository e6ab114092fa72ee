"""Pairs what TABLE_MAP says of a column with what its table says, and decodes the column's values.

Where the two contradict each other the table's shape is another than the rows', and nothing may be decoded with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cdcrep.columns import Bytes, gather_bytes
from cdcrep.errors import DataError
from cdcrep.table import Column, Kind
from cdcrep_connectors.mysql import charsets, temporal
from cdcrep_connectors.mysql.binary_json import decode_json
from cdcrep_connectors.mysql.charsets import decode_text, decode_value
from cdcrep_connectors.mysql.collations import charset_of
from cdcrep_connectors.mysql.compressed_columns import inflate_value
from cdcrep_connectors.mysql.dates import TYPES, Decoded, settle
from cdcrep_connectors.mysql.event_types import ColumnCode
from cdcrep_connectors.mysql.json_documents import decode_documents
from cdcrep_connectors.mysql.labels import decode_enum, decode_set
from cdcrep_connectors.mysql.mariadb_types import decode_inet4, decode_inet6, decode_uuid
from cdcrep_connectors.mysql.native import NativeType, parse_native, shown_label
from cdcrep_connectors.mysql.numbers import array, decode_bits, decode_decimals, decode_integers, decode_years
from cdcrep_connectors.mysql.row_layout import Cells
from cdcrep_connectors.mysql.slices import gather_each, gather_padded
from cdcrep_connectors.mysql.table_map import WireColumn
from cdcrep_connectors.mysql.types import BINARIES, GEOMETRIES, INTEGERS, TEXTS, ImpossibleDates


@dataclass(frozen=True)
class ColumnCodec:
    """Decodes the values of one column."""

    column: Column
    wire: WireColumn
    type_: pa.DataType
    """Arrow type of what `decode` returns."""
    decode: Callable[[Bytes, Cells], Decoded]


Decode = Callable[[Bytes, Cells], pa.Array]

_INTEGER_WIDTHS: Final = {
    "tinyint": (ColumnCode.TINY, 1),
    "smallint": (ColumnCode.SHORT, 2),
    "mediumint": (ColumnCode.INT24, 3),
    "int": (ColumnCode.LONG, 4),
    "bigint": (ColumnCode.LONGLONG, 8),
}
_BLOB_LENGTHS: Final = {"tiny": 1, "medium": 3, "long": 4}
_FIXED_STRINGS: Final = {"uuid": 16, "inet4": 4, "inet6": 16}
_NOT_SHOWN: Final = frozenset({"utf8mb4", "utf16", "utf16le", "utf32", "binary"})
"""Character sets with characters that the catalogues show as question marks."""
_TEMPORAL_CODES: Final = {
    "time": (ColumnCode.TIME2, ColumnCode.TIME),
    "datetime": (ColumnCode.DATETIME2, ColumnCode.DATETIME),
    "timestamp": (ColumnCode.TIMESTAMP2, ColumnCode.TIMESTAMP),
}


def codec_for(wire: WireColumn, column: Column, dates: ImpossibleDates) -> ColumnCodec:
    """Return how a column's values are decoded: dates of kind VERBATIM to text, text of kind BYTES to its bytes.

    Raises:
        DataError: the rows' column and the table's are not of the same type, or it is not supported.
    """
    native = parse_native(column.type.native)
    _check(wire, column, native)
    if column.type.kind is Kind.BYTES and native.name in TEXTS:
        native = NativeType("varbinary")
    type_, decode = _decoder(wire, column, native, dates)
    return ColumnCodec(column, wire, type_, guarded(column, decode))


def guarded(column: Column, decode: Callable[[Bytes, Cells], pa.Array | Decoded]) -> Callable[[Bytes, Cells], Decoded]:
    """Make errors of a column's decoder name the column, and all that it returns `Decoded`."""

    def decode_named(buffer: Bytes, cells: Cells) -> Decoded:
        try:
            decoded = decode(buffer, cells)
        except DataError as error:
            raise DataError(f"column {column.name!r}: {error.message}", hint=error.hint) from None
        return decoded if isinstance(decoded, Decoded) else Decoded(decoded)

    return decode_named


def _check(wire: WireColumn, column: Column, native: NativeType) -> None:
    """Refuse a column that another one has taken the place of."""
    charset = native.charset
    if wire.collation is not None and native.name in TEXTS | BINARIES | {"enum", "set"}:
        sent = charset_of(wire.collation)
        agrees = sent == (charset or ("binary" if native.name in BINARIES else sent))
    else:
        agrees = True
    agrees &= wire.name is None or wire.name == column.name
    if native.name in INTEGERS or native.name in ("decimal", "float", "double"):
        agrees &= wire.unsigned is None or wire.unsigned == native.unsigned
    if native.name in ("enum", "set") and (sent_labels := _sent_labels(wire, native)) is not None:
        agrees &= list(map(shown_label, sent_labels)) == list(native.labels)
    if not agrees or not _same_layout(wire, native):
        raise DataError(
            f"column {column.name!r}: the rows were written when it was not {column.type.native} or stood elsewhere",
            hint="SET GLOBAL binlog_row_metadata = FULL tells the shape of rows from before an ALTER TABLE",
        )


def _same_layout(wire: WireColumn, native: NativeType) -> bool:
    """Tell whether rows of this layout may be of this type."""
    code, name = wire.code, native.name
    if name in _INTEGER_WIDTHS:
        return code is _INTEGER_WIDTHS[name][0]
    if name in _TEMPORAL_CODES:
        new, old = _TEMPORAL_CODES[name]
        return (code is new and wire.scale == native.digits) or code is old
    if name in GEOMETRIES:
        return code is ColumnCode.GEOMETRY
    if name in _FIXED_STRINGS:
        return code is ColumnCode.STRING and wire.size == _FIXED_STRINGS[name]
    if name in ("char", "binary", "varchar", "varbinary"):
        longest = charsets.LONGEST_CHARACTER.get(native.charset or "") if name in TEXTS else 1
        size = (native.numbers or (1,))[0] * longest if longest else wire.size
        fixed = name in ("char", "binary")
        codes = {ColumnCode.STRING} if fixed else {ColumnCode.VARCHAR, ColumnCode.VARCHAR_COMPRESSED}
        # A compressed column counts the byte that says how.
        return code in codes and size <= wire.size <= size + (code is ColumnCode.VARCHAR_COMPRESSED)
    if name in TEXTS | BINARIES:
        size = next((size for start, size in _BLOB_LENGTHS.items() if name.startswith(start)), 2)
        return code in (ColumnCode.BLOB, ColumnCode.BLOB_COMPRESSED) and wire.size == size
    match name:
        case "decimal":
            return code is ColumnCode.NEWDECIMAL and (wire.size, wire.scale) == (*native.numbers, 0)[:2]
        case "bit":
            return code is ColumnCode.BIT and wire.size == (native.numbers or (1,))[0]
        case "date":
            return code in (ColumnCode.DATE, ColumnCode.NEWDATE)
        case "vector":
            # MariaDB's is a VARBINARY.
            return code in (ColumnCode.VECTOR, ColumnCode.VARCHAR)
        case "float" | "double" | "year" | "enum" | "set" | "json":
            return code is ColumnCode[name.upper()]
    return False


def _decoder(
    wire: WireColumn, column: Column, native: NativeType, dates: ImpossibleDates
) -> tuple[pa.DataType, Callable[[Bytes, Cells], pa.Array | Decoded]]:
    name = native.name
    if name in _INTEGER_WIDTHS:
        return _integers(_INTEGER_WIDTHS[name][1], unsigned=native.unsigned)
    if name == "decimal":
        type_ = pa.decimal128(wire.size, wire.scale) if wire.size <= 38 else pa.string()
        return type_, lambda buffer, cells: decode_decimals(buffer, cells.start, cells.valid, wire.size, wire.scale)
    if name in ("float", "double"):
        width = wire.size
        type_ = pa.float32() if width == 4 else pa.float64()
        return type_, lambda buffer, cells: array(
            type_, decode_integers(buffer, cells.start, width, unsigned=True), cells.valid
        )
    if name == "bit":
        size = (wire.size + 7) // 8
        return pa.uint64(), lambda buffer, cells: array(
            pa.uint64(), decode_bits(buffer, cells.start, size), cells.valid
        )
    if name == "year":
        return pa.uint16(), lambda buffer, cells: array(pa.uint16(), decode_years(buffer, cells.start), cells.valid)
    if name in ("date", "datetime", "timestamp"):
        return _dates(wire, column, native, dates)
    if name == "time":
        return pa.string(), lambda buffer, cells: temporal.decode_times(
            buffer, cells.start, cells.valid, wire.code, native.digits
        )
    if name in ("enum", "set"):
        return _labels(wire, column, native)
    return _strings(wire, native)


def _integers(width: int, *, unsigned: bool) -> tuple[pa.DataType, Decode]:
    type_ = {
        (1, False): pa.int8(),
        (2, False): pa.int16(),
        (3, False): pa.int32(),
        (4, False): pa.int32(),
        (8, False): pa.int64(),
        (1, True): pa.uint8(),
        (2, True): pa.uint16(),
        (3, True): pa.uint32(),
        (4, True): pa.uint32(),
        (8, True): pa.uint64(),
    }[width, unsigned]
    return type_, lambda buffer, cells: array(
        type_, decode_integers(buffer, cells.start, width, unsigned=unsigned), cells.valid
    )


def _dates(
    wire: WireColumn, column: Column, native: NativeType, dates: ImpossibleDates
) -> tuple[pa.DataType, Callable[[Bytes, Cells], pa.Array | Decoded]]:
    """Decode what can be no date: to text, or typed with a policy for those that are none."""
    digits = native.digits

    def read(buffer: Bytes, cells: Cells) -> temporal.Moments:
        if native.name == "date":
            return temporal.read_dates(buffer, cells.start, cells.valid)
        if native.name == "datetime":
            return temporal.read_datetimes(buffer, cells.start, cells.valid, wire.code, digits)
        return temporal.timestamp_moments(temporal.read_timestamps(buffer, cells.start, cells.valid, wire.code, digits))

    def to_text(buffer: Bytes, cells: Cells) -> pa.Array:
        moments = read(buffer, cells)
        return moments.date_text(cells.valid) if native.name == "date" else moments.text(digits, cells.valid)

    def to_typed(buffer: Bytes, cells: Cells) -> Decoded:
        values: NDArray[Any]
        if native.name == "timestamp":
            values = temporal.read_timestamps(buffer, cells.start, cells.valid, wire.code, digits)
            impossible = values == 0
        else:
            moments = read(buffer, cells)
            values = moments.days() if native.name == "date" else moments.microseconds()
            impossible = moments.impossible()
        return settle(column, values, impossible, cells.valid, dates)

    if column.type.kind is Kind.VERBATIM:
        return pa.string(), to_text
    return TYPES[native.name], to_typed


def _labels(wire: WireColumn, column: Column, native: NativeType) -> tuple[pa.DataType, Decode]:
    decode = decode_enum if native.name == "enum" else decode_set
    labels = _sent_labels(wire, native)
    if labels is None:
        labels = native.labels
        if native.charset in _NOT_SHOWN and any("?" in label for label in labels):
            raise DataError(
                f"column {column.name!r}: nothing says which characters its labels have for question marks",
                hint="SET GLOBAL binlog_row_metadata = FULL",
            )
    return pa.string(), lambda buffer, cells: decode(buffer, cells.start, cells.valid, wire.size, labels)


def _sent_labels(wire: WireColumn, native: NativeType) -> Sequence[str] | None:
    """Return the labels that the log names."""
    if wire.labels is None:
        return None
    charset = native.charset or (charset_of(wire.collation) if wire.collation is not None else "utf8mb4")
    return [decode_value(label, charset) for label in wire.labels]


def _strings(wire: WireColumn, native: NativeType) -> tuple[pa.DataType, Decode]:
    """Decode what has a length in front."""
    name = native.name
    if name == "json":
        return pa.string(), lambda buffer, cells: decode_documents(
            buffer, cells.start, cells.end, cells.valid, decode_json
        )
    if name in _FIXED_STRINGS:
        decode = {"uuid": decode_uuid, "inet4": decode_inet4, "inet6": decode_inet6}[name]
        return pa.string(), decode
    compressed = wire.code in (ColumnCode.BLOB_COMPRESSED, ColumnCode.VARCHAR_COMPRESSED)
    if name not in TEXTS:
        if compressed:
            return pa.binary(), lambda buffer, cells: gather_each(
                buffer, cells.start, cells.end, cells.valid, inflate_value, pa.binary()
            )
        if name == "binary":
            return pa.binary(), lambda buffer, cells: gather_padded(
                buffer, cells.start, cells.end, cells.valid, wire.size
            )
        return pa.binary(), lambda buffer, cells: gather_bytes(buffer, cells.start, cells.end, cells.valid)
    charset = native.charset or (charset_of(wire.collation) if wire.collation is not None else None)
    if charset is None or charset not in charsets.SUPPORTED:
        raise DataError(f"text of the character set {charset or 'that is not known'} is not supported")
    if compressed:
        return pa.string(), lambda buffer, cells: gather_each(
            buffer,
            cells.start,
            cells.end,
            cells.valid,
            lambda value: decode_value(inflate_value(value), charset),
            pa.string(),
        )
    return pa.string(), lambda buffer, cells: decode_text(buffer, cells.start, cells.end, cells.valid, charset)


def missing(cells: Cells) -> Cells:
    """Return cells of the same rows without any value."""
    return Cells(cells.start, cells.start, np.zeros(len(cells.start), np.bool_))
