"""Compressed events are opened within limits: bombs are refused before they are in memory."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pyarrow as pa
import pytest

from cdcrep.columns import padded
from cdcrep.errors import DataError
from cdcrep_connectors.mysql import slices
from cdcrep_connectors.mysql.compressed_columns import inflate_value
from cdcrep_connectors.mysql.compression import inflate, open_payload
from cdcrep_connectors.mysql.event_types import EventType
from cdcrep_connectors.mysql.expansion import expand
from tests.properties.binlog_events import compress, event, events, packed

XID = event(EventType.XID, bytes(8), checksum=False)
QUERY = event(EventType.QUERY, bytes(13) + b"\0BEGIN", checksum=False)


def payload(content: bytes, *, announced: int | None = None, algorithm: int = 0) -> bytes:
    body = pa.compress(content, "zstd", asbytes=True) if algorithm == 0 else content
    fields = b"".join(
        bytes([kind]) + packed(len(packed(value))) + packed(value)
        for kind, value in ((2, algorithm), (3, len(content) if announced is None else announced), (1, len(body)))
    )
    return fields + b"\0" + body


def test_a_transaction_becomes_its_events() -> None:
    outer = events([event(EventType.TRANSACTION_PAYLOAD, payload(QUERY + XID)), event(EventType.STOP, b"")])

    plain, origin = expand(outer)

    assert plain.types.tolist() == [EventType.QUERY, EventType.XID, EventType.STOP]
    assert plain.content(0).endswith(b"BEGIN")
    assert origin.tolist() == [0, 0, 1]


def test_a_transaction_without_compression_becomes_its_events() -> None:
    plain, _ = expand(events([event(EventType.TRANSACTION_PAYLOAD, payload(XID, algorithm=255))]))

    assert plain.types.tolist() == [EventType.XID]


def test_events_without_compression_are_not_copied() -> None:
    outer = events([event(EventType.XID, bytes(8))])

    assert expand(outer)[0] is outer


def test_a_bomb_is_refused_whatever_it_announces() -> None:
    bomb = bytes(64 << 20)

    assert len(payload(bomb)) < 10_000
    with pytest.raises(DataError, match="larger than 1 MiB"):
        open_payload(payload(bomb), 1 << 20)
    with pytest.raises(DataError, match="larger than 1 MiB"):
        open_payload(payload(bomb, announced=100), 1 << 20)


def test_a_payload_must_have_the_length_that_it_announces() -> None:
    with pytest.raises(DataError, match="the length that it announces"):
        open_payload(payload(XID, announced=len(XID) + 1))


@pytest.mark.parametrize("content", [payload(XID)[:-3], payload(XID, algorithm=7), b"\2\1\0\0nonsense", b"\0"])
def test_a_payload_that_is_none_is_refused(content: bytes) -> None:
    with pytest.raises(DataError):
        open_payload(content)


def test_an_event_inside_a_transaction_that_belongs_outside_is_refused() -> None:
    inner = event(EventType.TRANSACTION_PAYLOAD, payload(XID), checksum=False)

    with pytest.raises(DataError, match="belongs outside"):
        expand(events([event(EventType.TRANSACTION_PAYLOAD, payload(inner))]))


def test_mariadbs_compression_is_undone_within_limits() -> None:
    assert inflate(compress(b"statement")) == b"statement"
    bomb = bytes([0x84]) + struct.pack(">I", 100) + zlib.compress(bytes(1 << 24))
    with pytest.raises(DataError, match="the length that it announces"):
        inflate(bomb)
    with pytest.raises(DataError, match="larger than 0 MiB"):
        inflate(compress(bytes(2000)), 1000)


@pytest.mark.parametrize("content", [b"", b"\1abc", b"\x84\0\0\0\5abc", b"\x94\0\0\0\1a", b"\x80"])
def test_what_mariadb_did_not_compress_is_refused(content: bytes) -> None:
    with pytest.raises(DataError):
        inflate(content)


def test_small_cells_that_grow_to_much_are_refused_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "MOST_MADE", 2 << 20)
    cell = bytes([0x84]) + struct.pack(">I", 1 << 20) + zlib.compress(bytes(1 << 20))
    end = np.arange(1, 4) * len(cell)

    assert (
        len(slices.gather_each(padded(cell * 2), end[:2] - len(cell), end[:2], None, inflate_value, pa.binary())) == 2
    )
    with pytest.raises(DataError, match="more than 2 MiB at once"):
        slices.gather_each(padded(cell * 3), end - len(cell), end, None, inflate_value, pa.binary())


def test_compressed_columns_are_undone() -> None:
    raw = zlib.compressobj(wbits=-15)
    body = raw.compress(b"value" * 50) + raw.flush()

    assert inflate_value(b"") == b""
    assert inflate_value(b"\0plain") == b"plain"
    assert inflate_value(bytes([0x81, 250]) + zlib.compress(b"value" * 50)) == b"value" * 50
    assert inflate_value(bytes([0x89, 250]) + body) == b"value" * 50
    with pytest.raises(DataError):
        inflate_value(bytes([0x81, 5]) + zlib.compress(b"value" * 50))
