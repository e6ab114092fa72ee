"""Every type of MySQL and MariaDB with its extremes, and their values as every target has to hold them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import numpy as np

TEXTS: Final = ("''", "'a '", "'NULL'", "'\\\\N'", "'tab\\there'", "'new\\nline'", "'quo\"te''s \\\\'")

EVERYWHERE: Final[Mapping[str, Sequence[str]]] = {
    "tinyint": ["-128", "127"],
    "tinyint unsigned": ["0", "255"],
    "tinyint(1)": ["0", "1", "-5"],
    "smallint": ["-32768", "32767"],
    "smallint unsigned": ["65535"],
    "mediumint": ["-8388608", "8388607"],
    "mediumint unsigned": ["16777215"],
    "int": ["-2147483648", "2147483647"],
    "int unsigned": ["4294967295"],
    "int(5) unsigned zerofill": ["7"],
    "bigint": ["-9223372036854775808", "9223372036854775807"],
    "bigint unsigned": ["18446744073709551615", "0"],
    "decimal(1,0)": ["-9", "0"],
    "decimal(12,2)": ["-9999999999.99", "0.10", "0"],
    "decimal(38,30)": ["12345678." + "1234567890" * 3, "-0." + "0" * 29 + "1"],
    "decimal(65,30)": ["9" * 35 + "." + "9" * 30, "-0." + "0" * 29 + "1", "1.5"],
    "decimal(65,0) unsigned": ["9" * 65],
    "float": ["0.1", "-3.40282e38", "1e-45", "16777217", "0"],
    "double": ["0.1", "-1.7976931348623157e308", "5e-324", "1e23", "0.30000000000000004"],
    "bit(1)": ["b'0'", "b'1'"],
    "bit(12)": ["b'101010101010'"],
    "bit(64)": ["0xffffffffffffffff", "b'1'"],
    "year": ["1901", "2155", "0"],
    "date": ["'1000-01-01'", "'9999-12-31'", "'2024-02-29'", "'0001-01-01'"],
    "datetime": ["'1000-01-01 00:00:00'", "'9999-12-31 23:59:59'"],
    "datetime(6)": ["'9999-12-31 23:59:59.999999'", "'1969-12-31 23:59:59.999999'", "'2024-01-01 00:00:00.5'"],
    "timestamp NULL": ["'1970-01-01 00:00:01'", "'2038-01-19 03:14:07'"],
    "timestamp(3) NULL": ["'2038-01-19 03:14:07.499'", "'2024-03-31 02:30:00.001'"],
    "time": ["'838:59:59'", "'-838:59:59'", "'00:00:00'", "'24:00:00'"],
    "time(6)": ["'838:59:58.999999'", "'-00:00:00.000001'", "'-838:59:58.000001'"],
    "char(5)": ["'ab'", "'žluť'", "''"],
    "char(5) character set latin1": ["'é'", "0x80"],
    "varchar(40)": [*TEXTS, "'😀 é'"],
    "varchar(40) character set latin1": ["'žÿ€'"],
    "varchar(40) character set gbk": ["'中文'"],
    "varchar(40) character set ujis": ["'日本'"],
    "varchar(40) character set utf8mb3": ["'☃'"],
    "varchar(40) character set utf16": ["'😀x'"],
    "tinytext": ["'t'"],
    "text": ["repeat('é', 20000)"],
    "mediumtext": ["repeat('x', 70000)"],
    "longtext": ["'l'"],
    "binary(4)": ["'ab'", "0x00000000"],
    "varbinary(9)": ["0x00ff275c", "''"],
    "tinyblob": ["0x00"],
    "blob": ["repeat(0xff00, 3000)"],
    "mediumblob": ["0x01"],
    "longblob": ["0x02"],
    "enum('x','y''z','ž')": ["'x'", "'y''z'", "'ž'"],
    "set('a','b','ž')": ["'a,b'", "''", "'ž,a'"],
    "json": ['\'{"b": [1, null, true], "a": "é"}\'', "'18446744073709551615'", "'[]'", "'1.5'"],
    "geometry": ["ST_GeomFromText('POINT(1 2)')"],
    "point": ["ST_GeomFromText('POINT(1.5 -2)', 4326)"],
    "linestring": ["ST_GeomFromText('LINESTRING(0 0,1 1)')"],
    "polygon": ["ST_GeomFromText('POLYGON((0 0,1 0,1 1,0 0))')"],
    "multipoint": ["ST_GeomFromText('MULTIPOINT(0 0,1 1)')"],
    "multilinestring": ["ST_GeomFromText('MULTILINESTRING((0 0,1 1))')"],
    "multipolygon": ["ST_GeomFromText('MULTIPOLYGON(((0 0,1 0,1 1,0 0)))')"],
    "geometrycollection": ["ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 2))')"],
}
IN_MYSQL: Final[Mapping[str, Sequence[str]]] = {"vector(3)": ["STRING_TO_VECTOR('[1,-2.5,1e-30]')"]}
IN_MARIADB: Final[Mapping[str, Sequence[str]]] = {
    "uuid": ["'123e4567-e89b-12d3-a456-426655440000'", "'ffffffff-ffff-ffff-ffff-fffffffffffe'"],
    "inet4": ["'192.0.2.1'", "'0.0.0.0'"],
    "inet6": ["'2001:db8::ff00:42:8329'", "'::ffff:192.0.2.1'", "'::'"],
    "varchar(200) compressed": ["repeat('long ', 30)"],
    "blob compressed": ["repeat(0x00ff, 500)"],
}
SINCE_MARIADB_11: Final[Mapping[str, Sequence[str]]] = {"vector(2)": ["VEC_FromText('[1,-2.5]')"]}


def values(release: str) -> dict[str, Sequence[str]]:
    """Collect the types of a release with literals of their values."""
    if not release.startswith("mariadb"):
        return {**EVERYWHERE, **IN_MYSQL}
    return {**EVERYWHERE, **IN_MARIADB, **({} if release == "mariadb-10.11" else SINCE_MARIADB_11)}


def canonical(type_: str, value: Any) -> Any:
    """Return a driver's value of a column of this type as something that is equal for the same value only."""
    name = type_.partition(" ")[0].partition("(")[0]
    if value is None:
        return None
    if name == "bit" and isinstance(value, bytes):
        return str(int.from_bytes(value))
    if name == "float":
        return repr(np.float32(value))
    if name == "time":
        return value if isinstance(value, timedelta) else span(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, datetime):
        # Of TIMESTAMP PostgreSQL and DuckDB say that it is UTC, MySQL keeps it so.
        return value.replace(tzinfo=None).isoformat()
    if isinstance(value, Decimal):
        return format(value, "f")
    return str(value) if isinstance(value, int | date | uuid.UUID) else value


def span(text: str) -> timedelta:
    """Read MySQL's text of a TIME."""
    hours, minutes, seconds = text.lstrip("-").split(":")
    size = timedelta(hours=int(hours), minutes=int(minutes), microseconds=round(Decimal(seconds) * 1_000_000))
    return -size if text.startswith("-") else size
