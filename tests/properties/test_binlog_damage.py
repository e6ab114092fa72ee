"""Random and damaged bytes in place of a binary log raise only DataErrors, and quickly."""

from __future__ import annotations

import contextlib
import random
import struct
import zlib
from collections.abc import Callable, Sequence
from functools import cache

import pytest

from cdcrep.columns import padded
from cdcrep.errors import DataError, SetupError
from cdcrep_connectors.mysql import control_events, gtid_events
from cdcrep_connectors.mysql.binary_json import decode_json
from cdcrep_connectors.mysql.binlog import Decoder
from cdcrep_connectors.mysql.compressed_columns import inflate_value
from cdcrep_connectors.mysql.described_tables import describe
from cdcrep_connectors.mysql.event_types import ROWS, EventType
from cdcrep_connectors.mysql.expansion import expand
from cdcrep_connectors.mysql.framing import HEADER, Framing, cut
from cdcrep_connectors.mysql.gtid_sets import GtidSet
from cdcrep_connectors.mysql.json_diff import apply_differences
from cdcrep_connectors.mysql.query_event import read_query
from cdcrep_connectors.mysql.table_map import TableMap, read_table_map
from cdcrep_connectors.mysql.types import ImpossibleDates
from tests.unit.mysql.captures import SERVERS, catalogue, events

FUZZ_INPUTS = 200_000

READERS: Sequence[Callable[[bytes], object]] = (
    lambda content: read_table_map(content, mariadb=True),
    lambda content: read_table_map(content, mariadb=False),
    read_query,
    lambda content: gtid_events.read_gtid(content, anonymous=False),
    gtid_events.read_tagged_gtid,
    lambda content: gtid_events.read_mariadb_gtid(content, 1),
    gtid_events.read_gtid_list,
    GtidSet.decode,
    control_events.read_rotate,
    lambda content: control_events.read_heartbeat(content, 1),
    control_events.read_heartbeat_v2,
    control_events.read_xa_prepare,
    decode_json,
    inflate_value,
    lambda content: apply_differences(b"\0\0\0\4\0", content),
)


@cache
def valid_events() -> list[tuple[str, list[bytes]]]:
    """Return, per server, its format and then pairs of a TABLE_MAP and an event behind it, checksums left out."""
    found = []
    for server in SERVERS:
        plain = events(server)
        whole = [plain.buffer[a:b].tobytes() for a, b in zip(plain.start.tolist(), plain.end.tolist(), strict=True)]
        found.append((server, whole))
    return found


def sealed(content: bytes) -> bytes:
    """Give an event the length and the checksum that it needs to be looked at."""
    content = content[:9] + struct.pack("<I", len(content) + 4) + content[13:]
    return content + struct.pack("<I", zlib.crc32(content))


def mutate(rng: random.Random, content: bytes, first: int = 0) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(first, len(damaged) + 1)
        match rng.randrange(5):
            case 0 | 1 if at < len(damaged):
                damaged[at] = rng.choice((rng.randrange(256), 0, 255, 254, damaged[at] ^ 1 << rng.randrange(8)))
            case 2:
                del damaged[at : at + rng.randrange(1, 5)]
            case 3:
                damaged[at:at] = rng.randbytes(rng.randrange(1, 5))
            case _:
                del damaged[at:]
        if len(damaged) < first:
            damaged.extend(bytes(first - len(damaged)))
    return bytes(damaged)


def survives(decode: Callable[[], object]) -> None:
    with contextlib.suppress(DataError, SetupError):
        decode()


def decode_log(server: str, content: bytes, dates: ImpossibleDates) -> None:
    buffer = padded(content)
    start, end, _ = cut(buffer, 0, len(content))
    plain, _ = expand(Framing(checksums=False).verify(buffer, start, end), 1 << 20)
    shape = catalogue(server, dates)

    def known(described: TableMap) -> object:
        return shape(described) or describe(described, dates)

    Decoder(known, mariadb=server != "mysql-9.7", dates=dates).decode(plain)  # type: ignore[arg-type]


def damaged_logs(rng: random.Random, count: int) -> None:
    """Damage a TABLE_MAP or the rows behind it, checksums and lengths put right so that both are looked at."""
    kinds = {int(kind) for kind in (*ROWS, EventType.TRANSACTION_PAYLOAD, EventType.QUERY_COMPRESSED)}
    for _ in range(count):
        server, whole = rng.choice(valid_events())
        at = rng.choice([i for i, event in enumerate(whole) if event[4] in kinds and len(event) < 3000])
        parts = [whole[at - 1], whole[at]]
        which = rng.randrange(3) % 2
        parts[1 - which] = mutate(rng, parts[1 - which], HEADER)
        if rng.random() < 0.2:
            parts.append(whole[at])
        content = sealed(whole[0]) + b"".join(map(sealed, parts))
        dates = rng.choice(list(ImpossibleDates))
        survives(lambda a=server, b=content, c=dates: decode_log(a, b, c))  # type: ignore[misc]


def damaged_contents(rng: random.Random, count: int) -> None:
    """Give every reader damaged events of any kind, and random bytes."""
    whole = [event for _, part in valid_events() for event in part if len(event) < 2000]
    for _ in range(count):
        content = rng.randbytes(rng.randrange(60)) if rng.random() < 0.2 else mutate(rng, rng.choice(whole)[HEADER:])
        read = rng.choice(READERS)
        survives(lambda a=read, b=content: a(b))  # type: ignore[misc]


def damaged_streams(rng: random.Random, count: int) -> None:
    """Damage bytes anywhere, which a length or a checksum must notice."""
    for _ in range(count):
        server, whole = rng.choice(valid_events())
        content = sealed(whole[0]) + b"".join(map(sealed, whole[1 : rng.randrange(2, 8)]))
        damaged = mutate(rng, content)
        survives(lambda a=server, b=damaged: decode_log(a, b, ImpossibleDates.TEXT))  # type: ignore[misc]


def run(record_property: Callable[[str, object], None], inputs: int) -> None:
    seed = random.randrange(1 << 32)
    record_property("seed", seed)
    rng = random.Random(seed)
    damaged_logs(rng, inputs // 5)
    damaged_streams(rng, inputs // 20)
    damaged_contents(rng, inputs * 3 // 4)


def test_damaged_events_raise_only_data_errors(record_property: Callable[[str, object], None]) -> None:
    run(record_property, FUZZ_INPUTS // 200)


@pytest.mark.slow
@pytest.mark.unmeasured
@pytest.mark.timeout(900)
def test_very_many_damaged_events_raise_only_data_errors(record_property: Callable[[str, object], None]) -> None:
    run(record_property, FUZZ_INPUTS)
