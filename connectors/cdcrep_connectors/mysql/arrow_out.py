"""Makes Arrow columns of query results, with the values that the binary log's decoder makes of the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from cdcrep.errors import DataError
from cdcrep.table import Column, Kind, TableId
from cdcrep_connectors.mysql.native import parse_native

_TYPES: Final = {
    Kind.INT8: pa.int8(),
    Kind.INT16: pa.int16(),
    Kind.INT32: pa.int32(),
    Kind.INT64: pa.int64(),
    Kind.UINT8: pa.uint8(),
    Kind.UINT16: pa.uint16(),
    Kind.UINT32: pa.uint32(),
    Kind.UINT64: pa.uint64(),
    Kind.FLOAT32: pa.float32(),
    Kind.FLOAT64: pa.float64(),
    Kind.DATE: pa.date32(),
    Kind.TIMESTAMP: pa.timestamp("us"),
    Kind.BYTES: pa.binary(),
}
WIDEST_DECIMAL: Final = 38


def expression(column: Column, name: str) -> str:
    """Return the SQL that selects a column so that the text which comes is exact."""
    native = parse_native(column.type.native).name
    if native == "bit":
        return f"{name} + 0"
    if native == "float":
        # The server writes six digits of a FLOAT, and all of a DOUBLE.
        return f"{name} + 0e0"
    return name


def to_arrow(id_: TableId, columns: Sequence[Column], rows: Sequence[Sequence[Any]]) -> pa.RecordBatch:
    """Make a batch of rows whose values are the server's text.

    Raises:
        DataError: a value cannot be carried; the message names table and column.
    """
    arrays = []
    for column, values in zip(columns, zip(*rows, strict=True), strict=True):
        try:
            arrays.append(_array(column, values))
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            # Not chained: Arrow's message quotes the value.
            raise DataError(
                f"{id_}: column {column.name!r} has a value that cannot be carried, such as the date 0000-00-00"
            ) from None
    return pa.RecordBatch.from_arrays(arrays, names=[column.name for column in columns])


def _array(column: Column, values: Sequence[Any]) -> pa.Array:
    kind = column.type.kind
    if kind is Kind.BYTES:
        return pa.array([v.encode() if isinstance(v, str) else v for v in values], pa.binary())
    text = pa.array([v.decode() if isinstance(v, bytes) else v for v in values], pa.string())
    if kind is Kind.DECIMAL:
        precision, scale = column.type.precision or 10, column.type.scale or 0
        return text if precision > WIDEST_DECIMAL else pc.cast(text, pa.decimal128(precision, scale))
    if kind is Kind.FLOAT32:
        return pc.cast(pc.cast(text, pa.float64()), pa.float32())
    if kind is Kind.TIMESTAMPTZ:
        return pc.assume_timezone(pc.cast(text, pa.timestamp("us")), "UTC")
    return pc.cast(text, _TYPES[kind]) if kind in _TYPES else text
