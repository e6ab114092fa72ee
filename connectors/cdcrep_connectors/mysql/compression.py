"""Undoes the compression of events and values, within limits: what would grow beyond them is refused.

MariaDB source, `log_event.cc`, "binlog_buf_compress":

    0x80 | algorithm << 4 | bytes of the length 1   length (big-endian)   zlib stream

MySQL 9 source documentation, "Transaction_payload_event":

    { type packed, length packed, value } 0   payload
    types: 1 length of the payload, 2 algorithm (0 zstd, 255 none), 3 length when uncompressed
"""

from __future__ import annotations

import zlib
from typing import Final

import pyarrow as pa

from cdcrep.errors import DataError
from cdcrep_connectors.mysql.fields import FieldReader

LONGEST_EVENT: Final = 1 << 30
"""Bytes of one uncompressed event or value: MySQL's and MariaDB's own limit (max_allowed_packet)."""
LONGEST_TRANSACTION: Final = 1 << 30
"""Bytes of one uncompressed transaction. The caller may set less."""
PIECE: Final = 1 << 20
ZSTD, NONE = 0, 255
ZLIB: Final = 0


def inflate(content: bytes, limit: int = LONGEST_EVENT) -> bytes:
    """Undo MariaDB's compression of a part of an event.

    Raises:
        DataError: it is no such thing, or larger than it says, or than the limit.
    """
    if not content or not content[0] & 0x80:
        raise DataError("a compressed event of the source is none")
    width = content[0] & 7
    if (content[0] >> 4) & 7 != ZLIB or not 1 <= width <= 4:
        raise DataError("an event of the source is compressed by an unknown algorithm")
    length = int.from_bytes(content[1 : 1 + width], "big")
    return inflate_exactly(content[1 + width :], length, limit)


def inflate_exactly(content: bytes, length: int, limit: int = LONGEST_EVENT, *, raw: bool = False) -> bytes:
    """Undo zlib's compression (`raw`: without its header) of so many bytes, and no more.

    Raises:
        DataError: it is no such thing, or longer or shorter than that, or than the limit.
    """
    if length > limit:
        raise DataError(f"the source sent something compressed that is larger than {limit >> 20} MiB")
    inflater = zlib.decompressobj(-zlib.MAX_WBITS if raw else zlib.MAX_WBITS)
    try:
        # One byte more than announced shows that there is more; the announced size is never allocated in advance.
        plain = inflater.decompress(content, length + 1)
    except zlib.error:
        raise DataError("something compressed that the source sent cannot be read") from None
    if len(plain) != length or not (inflater.eof or not length):
        raise DataError("something compressed that the source sent does not have the length that it announces")
    return plain


def open_payload(content: bytes, limit: int = LONGEST_TRANSACTION) -> bytes:
    """Return the events in a TRANSACTION_PAYLOAD event: without checksums, one behind the other.

    Raises:
        DataError: it is no such event, or larger than it says, or than the limit.
    """
    reader = FieldReader(content, "TRANSACTION_PAYLOAD event")
    length = algorithm = plain_length = None
    while field := reader.packed():
        value = FieldReader(reader.packed_bytes(), "TRANSACTION_PAYLOAD event").packed()
        if field == 1:
            length = value
        elif field == 2:
            algorithm = value
        elif field == 3:
            plain_length = value
    payload = reader.take(reader.left if length is None else length)
    reader.end()
    if algorithm == NONE:
        return payload
    if algorithm != ZSTD:
        raise reader.error("it is compressed by an unknown algorithm")
    if plain_length is not None and plain_length > limit:
        raise _too_large(limit)
    plain = _decompress_zstd(payload, limit)
    if plain_length is not None and len(plain) != plain_length:
        raise reader.error("it does not have the length that it announces")
    return plain


def _decompress_zstd(payload: bytes, limit: int) -> bytes:
    """Decompress in pieces, so that no more than the limit is ever held."""
    pieces: list[bytes] = []
    size = 0
    try:
        with pa.CompressedInputStream(pa.BufferReader(payload), "zstd") as stream:
            while piece := stream.read(PIECE):
                size += len(piece)
                if size > limit:
                    raise _too_large(limit)
                pieces.append(piece)
    except (OSError, pa.ArrowException):
        raise DataError("a compressed transaction of the source cannot be read") from None
    return b"".join(pieces)


def _too_large(limit: int) -> DataError:
    return DataError(
        f"a compressed transaction of the source is larger than {limit >> 20} MiB",
        hint="SET GLOBAL binlog_transaction_compression = OFF",
    )
