"""Reads QUERY events: statements, with what the session had set when it ran them.

MySQL 9 source documentation, "Query_event"; MariaDB documentation, "QUERY_EVENT":

    thread 4   seconds 4   length of the schema 1   error 2   length of the variables 2
    { variable 1, value }   schema   0   statement

A variable that is not known ends the reading of the variables: those behind it have no lengths. MariaDB's
QUERY_COMPRESSED events become plain ones in `expansion`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cdcrep_connectors.mysql.fields import FieldReader

SQL_MODE: Final = 1
CHARSET: Final = 4
TIME_ZONE: Final = 5


@dataclass(frozen=True, slots=True)
class Query:
    """A statement that the source ran: BEGIN, COMMIT, DDL, XA, or a change logged as its statement."""

    schema: str
    statement: bytes
    """In the session's character set."""
    error: int
    charset: tuple[int, int, int] | None = None
    """Collation numbers of client, connection and server; None: not said."""
    sql_mode: int | None = None
    time_zone: str | None = None

    @property
    def text(self) -> str:
        """The statement, as far as it is UTF-8."""
        return self.statement.decode(errors="replace")


def read_query(content: bytes) -> Query:
    """Read a QUERY event that is not compressed, or is no longer."""
    reader = FieldReader(content, "QUERY event")
    reader.take(8)
    schema_length, error, variables_length = reader.integer(1), reader.integer(2), reader.integer(2)
    variables = _read_variables(FieldReader(reader.take(variables_length), "QUERY event"))
    schema = reader.string(schema_length)
    if reader.integer(1):
        raise reader.error("a string has no end")
    return Query(schema, reader.rest(), error, *variables)


def _read_variables(reader: FieldReader) -> tuple[tuple[int, int, int] | None, int | None, str | None]:
    charset: tuple[int, int, int] | None = None
    sql_mode: int | None = None
    time_zone: str | None = None
    while reader.left:
        variable = reader.integer(1)
        if variable == SQL_MODE:
            sql_mode = reader.integer(8)
        elif variable == CHARSET:
            charset = struct.unpack("<HHH", reader.take(6))
        elif variable == TIME_ZONE:
            time_zone = reader.string(reader.integer(1))
        elif variable in _PASSED_OVER:
            _PASSED_OVER[variable](reader)
        else:
            break
    return charset, sql_mode, time_zone


def _fixed(length: int) -> Callable[[FieldReader], object]:
    return lambda reader: reader.take(length)


def _short_string(reader: FieldReader) -> None:
    reader.take(reader.integer(1))


def _catalog(reader: FieldReader) -> None:
    _short_string(reader)
    reader.take(1)


def _two_short_strings(reader: FieldReader) -> None:
    _short_string(reader)
    _short_string(reader)


def _updated_databases(reader: FieldReader) -> None:
    count = reader.integer(1)
    # 254 stands for too many to name.
    for _ in range(count if count <= 16 else 0):
        reader.terminated()


_PASSED_OVER: Final[dict[int, Callable[[FieldReader], object]]] = {
    0: _fixed(4),  # options
    2: _catalog,
    3: _fixed(4),  # auto_increment
    6: _short_string,  # catalog
    7: _fixed(2),  # lc_time_names
    8: _fixed(2),  # collation_database
    9: _fixed(8),  # tables to update
    10: _fixed(4),  # master data written
    11: _two_short_strings,  # invoker
    12: _updated_databases,
    13: _fixed(3),  # microseconds
    16: _fixed(1),  # explicit_defaults_for_timestamp
    17: _fixed(8),  # XID of DDL
    18: _fixed(2),  # default collation for utf8mb4
    19: _fixed(1),  # sql_require_primary_key
    20: _fixed(1),  # default_table_encryption
    128: _fixed(3),  # MariaDB: microseconds
    129: _fixed(8),  # MariaDB: XID of DDL
}
