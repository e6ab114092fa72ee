"""Undoes the compression of MariaDB's COMPRESSED columns, value by value.

MariaDB source, `sql/field_comp.cc`; an empty value has no bytes, method 0 keeps the value as it is:

    method 4 bits, 1: no zlib header 1 bit, bytes of the length 3 bits   length (big-endian)   deflated bytes
"""

from __future__ import annotations

from typing import Final

from cdcrep.errors import DataError
from cdcrep_connectors.mysql.compression import inflate_exactly

UNCOMPRESSED: Final = 0
ZLIB: Final = 8
RAW: Final = 0x08


def inflate_value(content: bytes) -> bytes:
    """Return the value that a cell of a compressed column holds.

    Raises:
        DataError: it is no such cell, or grows beyond what it announces.
    """
    if not content:
        return b""
    method, width = content[0] >> 4, content[0] & 7
    if method == UNCOMPRESSED:
        return content[1:]
    if method != ZLIB or not width or len(content) < 1 + width:
        raise DataError("a compressed value is none")
    length = int.from_bytes(content[1 : 1 + width], "big")
    return inflate_exactly(content[1 + width :], length, raw=bool(content[0] & RAW))
