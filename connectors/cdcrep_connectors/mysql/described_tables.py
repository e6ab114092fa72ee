"""Makes a table out of what the log itself says of it, with `binlog_row_metadata` FULL.

That is enough for every type of MySQL. MariaDB does not say in its log that a column is JSON, UUID, INET4, INET6 or a
VECTOR: such columns become what they are stored as, and a catalogue that knows them must be asked instead.
"""

from __future__ import annotations

from typing import Final

from cdcrep.errors import DataError
from cdcrep.table import Column, Table
from cdcrep_connectors.mysql.charsets import LONGEST_CHARACTER, decode_value
from cdcrep_connectors.mysql.collations import charset_of
from cdcrep_connectors.mysql.event_types import ColumnCode
from cdcrep_connectors.mysql.native import quote_label, shown_label
from cdcrep_connectors.mysql.table_map import TableMap, WireColumn
from cdcrep_connectors.mysql.types import DIALECT, ImpossibleDates, column_type

_INTEGERS: Final = {
    ColumnCode.TINY: "tinyint",
    ColumnCode.SHORT: "smallint",
    ColumnCode.INT24: "mediumint",
    ColumnCode.LONG: "int",
    ColumnCode.LONGLONG: "bigint",
}
_PLAIN: Final = {
    ColumnCode.YEAR: "year",
    ColumnCode.DATE: "date",
    ColumnCode.NEWDATE: "date",
    ColumnCode.JSON: "json",
    ColumnCode.GEOMETRY: "geometry",
    ColumnCode.VECTOR: "vector",
}
_TEMPORAL: Final = {
    ColumnCode.TIME2: "time",
    ColumnCode.DATETIME2: "datetime",
    ColumnCode.TIMESTAMP2: "timestamp",
}
_SIZES: Final = {1: "tiny", 2: "", 3: "medium", 4: "long"}


def describe(table: TableMap, dates: ImpossibleDates = ImpossibleDates.REFUSE) -> Table:
    """Return the table of a TABLE_MAP event with full metadata.

    Raises:
        DataError: the metadata is not full.
        SetupError: a type that is not supported.
    """
    if any(column.name is None for column in table.columns):
        raise DataError(
            f"{table.schema}.{table.name}: the log does not name the columns",
            hint="SET GLOBAL binlog_row_metadata = FULL",
        )
    columns = tuple(Column(str(c.name), column_type(native_text(c), dates), c.nullable) for c in table.columns)
    # A key that covers a part of a column only does not identify by the column's value.
    whole = not any(table.primary_key_prefixes)
    key = sorted(table.primary_key or ()) if whole else []
    return Table(table.schema, table.name, columns, tuple(columns[i].name for i in key), DIALECT)


def native_text(column: WireColumn) -> str:
    """Return the column's type as the catalogue would write it."""
    code = column.code
    unsigned = " unsigned" if column.unsigned else ""
    if code in _INTEGERS:
        return _INTEGERS[code] + unsigned
    if code is ColumnCode.NEWDECIMAL:
        return f"decimal({column.size},{column.scale}){unsigned}"
    if code in (ColumnCode.FLOAT, ColumnCode.DOUBLE):
        return code.name.lower() + unsigned
    if code is ColumnCode.BIT:
        return f"bit({column.size})"
    if code in _PLAIN:
        return _PLAIN[code]
    if code in _TEMPORAL:
        return _TEMPORAL[code] + (f"({column.scale})" if column.scale else "")
    if code in (ColumnCode.TIME, ColumnCode.DATETIME, ColumnCode.TIMESTAMP):
        # On MariaDB rows with another number of digits would be read wrongly.
        raise DataError(f"the log does not say how many digits the column {column.name!r} has")
    return _string(column)


def _string(column: WireColumn) -> str:
    if column.collation is None:
        raise DataError(f"the log does not say the character set of the column {column.name!r}")
    charset = charset_of(column.collation)
    said = "" if charset == "binary" else f" character set {charset}"
    if column.code in (ColumnCode.ENUM, ColumnCode.SET):
        labels = ",".join(quote_label(shown_label(decode_value(label, charset))) for label in column.labels or ())
        return f"{column.code.name.lower()}({labels}){said}"
    if column.code in (ColumnCode.BLOB, ColumnCode.BLOB_COMPRESSED):
        return _SIZES[column.size] + ("text" if said else "blob") + said
    size = column.size - (column.code is ColumnCode.VARCHAR_COMPRESSED)
    length = size // LONGEST_CHARACTER.get(charset, 1)
    name = "char" if column.code is ColumnCode.STRING else "varchar"
    return f"{name}({length}){said}" if said else f"{'' if name == 'char' else 'var'}binary({length})"
