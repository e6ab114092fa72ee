"""Reads and writes the numbers of mysql::serialization, the format of tagged GTID events (MySQL 8.3 and later).

MySQL source, `libs/mysql/serialization/readme.md`: as many one-bits at the end of the first byte as bytes follow, then
a zero-bit, then the number, little-endian. Signed numbers have their sign in the lowest bit and -n-1 for negative ones.
"""

from __future__ import annotations

from cdcrep_connectors.mysql.fields import FieldReader


def read_number(reader: FieldReader) -> int:
    """Read an unsigned number."""
    first = reader.integer(1)
    following = (~first & (first + 1)).bit_length() - 1
    rest = reader.integer(following) << 8 | first
    return rest >> min(following + 1, 8)


def read_signed(reader: FieldReader) -> int:
    """Read a signed number."""
    number = read_number(reader)
    return -(number >> 1) - 1 if number & 1 else number >> 1


def write_number(number: int) -> bytes:
    """Write an unsigned number."""
    following = next((count for count in range(8) if number < 1 << 7 * (count + 1)), 8)
    shift = min(following + 1, 8)
    return (number << shift | (1 << following) - 1).to_bytes(following + 1, "little")


def write_signed(number: int) -> bytes:
    """Write a signed number."""
    return write_number((-number - 1) << 1 | 1 if number < 0 else number << 1)
