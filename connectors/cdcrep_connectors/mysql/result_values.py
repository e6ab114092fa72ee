"""Decodes the values of a query's result to what the binary log's decoder makes of the same rows.

MySQL source documentation, "Binary Protocol Value": integers and floats are little-endian; a DECIMAL is its text, and
so are JSON, ENUM and SET; BIT is big-endian; text is in its column's character set, as long as the session's
`character_set_results` is NULL. Dates and times are written as far as they are not zero:

    date, datetime, timestamp   year 2, month 1, day 1 [, hour 1, minute 1, second 1 [, microsecond 4]]
    time                        negative 1, days 4, hours 1, minutes 1, seconds 1 [, microseconds 4]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdcrep.columns import SLACK, Bytes, Mask, Positions, gather, gather_bytes, integers
from cdcrep.errors import DataError, TransientError
from cdcrep.table import Column, Kind, TableId
from cdcrep_connectors.mysql import charsets
from cdcrep_connectors.mysql.charsets import decode_text
from cdcrep_connectors.mysql.collations import charset_of
from cdcrep_connectors.mysql.column_codecs import guarded
from cdcrep_connectors.mysql.dates import TYPES, Decoded, Tally, settle
from cdcrep_connectors.mysql.event_types import ColumnCode
from cdcrep_connectors.mysql.fields import FieldReader
from cdcrep_connectors.mysql.native import NativeType, parse_native
from cdcrep_connectors.mysql.numbers import MOST_DIGITS, array, decode_bits, decode_integers
from cdcrep_connectors.mysql.result_rows import WIDTHS, ResultLayout
from cdcrep_connectors.mysql.row_layout import Cells, Words
from cdcrep_connectors.mysql.temporal import Moments, Numbers, time_text
from cdcrep_connectors.mysql.types import TEXTS, ImpossibleDates

UNSIGNED: Final = 0x20
_CODES: Final = {
    "tinyint": ColumnCode.TINY,
    "smallint": ColumnCode.SHORT,
    "mediumint": ColumnCode.INT24,
    "int": ColumnCode.LONG,
    "bigint": ColumnCode.LONGLONG,
    "float": ColumnCode.FLOAT,
    "double": ColumnCode.DOUBLE,
    "year": ColumnCode.YEAR,
    "decimal": ColumnCode.NEWDECIMAL,
    "bit": ColumnCode.BIT,
    "date": ColumnCode.DATE,
    "time": ColumnCode.TIME,
    "datetime": ColumnCode.DATETIME,
    "timestamp": ColumnCode.TIMESTAMP,
}
"""How the values of these types are sent; all others are strings."""
_INTEGERS: Final = {
    "tinyint": (pa.int8(), pa.uint8()),
    "smallint": (pa.int16(), pa.uint16()),
    "mediumint": (pa.int32(), pa.uint32()),
    "int": (pa.int32(), pa.uint32()),
    "bigint": (pa.int64(), pa.uint64()),
}
_NUMBERS: Final = {"float": pa.float32(), "double": pa.float64(), "year": pa.uint16()}
_TEXT_IN_ASCII: Final = frozenset({"uuid", "inet4", "inet6"})

DATE_BYTES: Final = np.array([0, 4, 7, 11])
TIME_BYTES: Final = np.array([0, 8, 12])
_WHOLE: Final = np.array([0, 0, 0, 0, 2**32 - 1, 0, 0, 2**56 - 1, 2**64 - 1, 0, 0, 2**56 - 1, 2**64 - 1], np.uint64)
"""Which of a date's or a time's first eight bytes are there, by its length."""

Decode = Callable[[Bytes, Cells], pa.Array | Decoded]


@dataclass(frozen=True)
class SentColumn:
    """A column as the server describes it in front of the rows."""

    code: ColumnCode
    collation: int
    unsigned: bool

    @staticmethod
    def parse(packet: bytes) -> SentColumn:
        """Read a column definition.

        Raises:
            DataError: it is none, or of a type that nobody here knows.
        """
        reader = FieldReader(packet, "answer")
        for _ in ("catalog", "schema", "table", "original table", "name", "original name"):
            reader.packed_bytes()
        reader.integer(1)
        collation = reader.integer(2)
        reader.integer(4)
        number, flags = reader.integer(1), reader.integer(2)
        try:
            return SentColumn(ColumnCode(number), collation, bool(flags & UNSIGNED))
        except ValueError:
            raise reader.error(f"a column has an unknown type ({number})") from None


@dataclass(frozen=True)
class ResultColumn:
    """How the values of one column of a result are decoded."""

    column: Column
    decode: Callable[[Bytes, Cells], Decoded]

    @staticmethod
    def of(column: Column, sent: SentColumn, dates: ImpossibleDates) -> ResultColumn:
        """Pair what a table says of a column with what the server does.

        Raises:
            TransientError: the two contradict each other: the table was altered.
            DataError: the column's character set is not supported.
        """
        native = parse_native(column.type.native)
        if not _agree(native, sent):
            raise TransientError(f"column {column.name!r} was altered while the copy began; it begins again")
        return ResultColumn(column, guarded(column, _decoder(column, native, dates)))


class Result:
    """Decodes the rows of one result, which are of one table."""

    def __init__(
        self, id_: TableId, sent: Sequence[SentColumn], columns: Sequence[Column], dates: ImpossibleDates, tally: Tally
    ) -> None:
        """Pair the columns that were asked for with those that the server describes.

        Raises:
            TransientError: they contradict each other: the table was altered.
            DataError: a column's character set is not supported.
        """
        self._id = id_
        self._tally = tally
        self._layout = ResultLayout.of([column.code for column in sent])
        self._names = [column.name for column in columns]
        if len(sent) != len(columns):
            raise DataError(f"{id_}: the source answered with {len(sent)} columns instead of {len(columns)}")
        with self._named():
            self._columns = [ResultColumn.of(each, wire, dates) for each, wire in zip(columns, sent, strict=True)]

    def decode(self, buffer: Bytes, start: Positions, end: Positions) -> pa.RecordBatch:
        """Decode the rows `buffer[start:end]`, which `Answer.rows` returned.

        Raises:
            DataError: the bytes are no such rows, or a value cannot be carried.
        """
        with self._named():
            arrays = [
                self._tally.add_column(self._id, each.column, each.decode(buffer, cells))
                for each, cells in zip(self._columns, self._layout.cells(buffer, start, end), strict=True)
            ]
        return pa.RecordBatch.from_arrays(arrays, self._names)

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except (DataError, TransientError) as error:
            raise type(error)(f"{self._id}: {error.message}", hint=error.hint) from None


def _agree(native: NativeType, sent: SentColumn) -> bool:
    code = ColumnCode.DATE if sent.code is ColumnCode.NEWDATE else sent.code
    if native.name in _CODES or code in WIDTHS:
        signed = native.name not in _INTEGERS or native.unsigned == sent.unsigned
        return _CODES.get(native.name) is code and signed
    if code in _CODES.values():
        return False
    return native.charset is None or native.name not in TEXTS | {"enum", "set"} or _is_in(native.charset, sent)


def _is_in(charset: str, sent: SentColumn) -> bool:
    try:
        return charset_of(sent.collation) == charset
    except DataError:
        return False


def _decoder(column: Column, native: NativeType, dates: ImpossibleDates) -> Decode:
    name = native.name
    if name in _INTEGERS or name in _NUMBERS:
        type_ = _NUMBERS[name] if name in _NUMBERS else _INTEGERS[name][native.unsigned]
        width, unsigned = WIDTHS[_CODES[name]], not pa.types.is_signed_integer(type_)
        return lambda buffer, cells: array(
            type_, decode_integers(buffer, cells.start, width, unsigned=unsigned), cells.valid
        )
    if name == "decimal":
        return lambda buffer, cells: _decimals(gather(buffer, cells.start, cells.end, cells.valid), column)
    if name == "bit":
        return lambda buffer, cells: _bits(buffer, cells, ((native.numbers or (1,))[0] + 7) // 8)
    if name in TYPES:
        return lambda buffer, cells: _dates(buffer, cells, column, native, dates)
    if name == "time":
        return lambda buffer, cells: _times(buffer, cells, native.digits)
    return _string_decoder(column, native)


def _string_decoder(column: Column, native: NativeType) -> Decode:
    if native.name == "json" or native.name in _TEXT_IN_ASCII:
        return lambda buffer, cells: gather(buffer, cells.start, cells.end, cells.valid)
    if column.type.kind is Kind.BYTES:
        return lambda buffer, cells: gather_bytes(buffer, cells.start, cells.end, cells.valid)
    charset = native.charset
    if charset is None or charset not in charsets.SUPPORTED:
        raise DataError(
            f"column {column.name!r}: text of the character set {charset or 'that is not known'} is not supported"
        )
    return lambda buffer, cells: decode_text(buffer, cells.start, cells.end, cells.valid, charset)


def _decimals(text: pa.Array, column: Column) -> pa.Array:
    precision, scale = column.type.precision or 10, column.type.scale or 0
    if precision > MOST_DIGITS:
        # As ZEROFILL writes them; a digit stays in front of the point.
        return pc.replace_substring_regex(text, "^0+([0-9])", r"\1") if "zerofill" in column.type.native else text
    try:
        return pc.cast(text, pa.decimal128(precision, scale))
    except pa.ArrowInvalid:
        # Not chained: Arrow's message quotes the value.
        raise DataError("a DECIMAL value is none of its column's") from None


def _bits(buffer: Bytes, cells: Cells, width: int) -> pa.Array:
    _lengths(cells, np.array([width]))
    return array(pa.uint64(), decode_bits(buffer, cells.start, width), cells.valid)


def _dates(buffer: Bytes, cells: Cells, column: Column, native: NativeType, dates: ImpossibleDates) -> Decoded:
    length = _lengths(cells, DATE_BYTES)
    words: Words = integers(buffer, "<u8")[cells.start] & _WHOLE[length]
    year, month, day = _part(words, 0, 0xFFFF), _part(words, 16), _part(words, 24)
    second = _clock(_part(words, 32), _part(words, 40), _part(words, 48))
    moments = Moments(year, month, day, second, _microseconds(buffer, cells.start + 7, length == 11)).check()
    if column.type.kind is Kind.VERBATIM:
        is_date = native.name == "date"
        return Decoded(moments.date_text(cells.valid) if is_date else moments.text(native.digits, cells.valid))
    values = moments.days() if native.name == "date" else moments.microseconds()
    return settle(column, values, moments.impossible(), cells.valid, dates)


def _times(buffer: Bytes, cells: Cells, digits: int) -> pa.Array:
    length = _lengths(cells, TIME_BYTES)
    words: Words = integers(buffer, "<u8")[cells.start] & _WHOLE[length]
    hour = _part(words, 8, 0xFFFFFFFF) * 24 + _part(words, 40)
    minute, second = _part(words, 48), _part(words, 56)
    _clock(np.zeros(len(words), np.int64), minute, second)
    fraction = _microseconds(buffer, cells.start + 8, length == 12)
    return time_text(_part(words, 0) != 0, hour, minute * 60 + second, fraction, digits, cells.valid)


def _lengths(cells: Cells, possible: Positions) -> Positions:
    """Return how long values are; 0 for those that are NULL."""
    length = cells.end - cells.start
    there = length if cells.valid is None else length[cells.valid]
    if not np.isin(there, possible).all():
        raise DataError("a value has a length that none of its type has")
    return length


def _part(words: Words, shift: int, mask: int = 0xFF) -> Numbers:
    part: Numbers = (words >> np.uint64(shift) & np.uint64(mask)).astype(np.int64)
    return part


def _clock(hour: Numbers, minute: Numbers, second: Numbers) -> Numbers:
    """Return the seconds of a day."""
    for part, last in ((hour, 23), (minute, 59), (second, 59)):
        if len(part) and int(part.max()) > last:
            raise DataError("a temporal value is out of the range of its type")
    return hour * 3600 + minute * 60 + second


def _microseconds(buffer: Bytes, start: Positions, there: Mask) -> Numbers:
    # Values that have none may end where the buffer does.
    start = np.minimum(start, len(buffer) - SLACK)
    fraction: Numbers = integers(buffer, "<u4")[start].astype(np.int64) * there
    return fraction
