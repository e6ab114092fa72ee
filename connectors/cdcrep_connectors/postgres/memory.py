"""What a look at the tables' files leaves in the position, so that the next start can compare with it.

The target is the only memory, and of the source it keeps a position and the chunks of first copies. A position carries
numbers and checksums of the last look after which all was well, in hexadecimal:

    lsn,horizon{,oid.partitions.files}

One entry per partitioned table; CRC-32 over the oids of the partitions that were attached before the horizon, and over
their oids with file numbers. Present partitions that were attached before the horizon have the same checksums, unless
one is gone or has another file; which file is newer than the horizon, pg_class tells. A table that was copied later is
compared with its copy, whose chunks are named after the files.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from cdcrep.connector import Copied
from cdcrep.errors import DivergedError
from cdcrep_connectors.postgres.gaps import Known
from cdcrep_connectors.postgres.storage import Look, Part

HORIZON: Final = re.compile(r"xmin ([0-9]+)", re.ASCII)
"""What a first copy notes of its snapshot."""
FILE: Final = re.compile(r"([0-9]+)\.([0-9]+) ", re.ASCII)
"""How the name of a copied chunk begins: oid and file number."""


@dataclass(frozen=True)
class Memory:
    """The last look after which all was well."""

    lsn: int
    horizon: int | None
    """None: there was no look."""
    checksums: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    """By a partitioned table's oid: of its partitions, and of their files."""


def write_memory(look: Look) -> str:
    """Write down what a look showed."""
    entries = [
        f"{root:x}.{_of_partitions(known):x}.{_of_files(known):x}"
        for table, root in sorted(look.roots.items())
        for known in [_attached_before(look.partitions[table].values(), look.horizon)]
    ]
    return ",".join([f"{look.lsn:x}", f"{look.horizon:x}", *entries])


def no_memory(lsn: int) -> str:
    """Write down that there was no look yet, and where the stream began: copies from there on may be compared with."""
    return f"{lsn:x},0"


def read_memory(text: str) -> Memory:
    """Read what `write_memory` or `no_memory` wrote."""
    try:
        lsn, horizon, *entries = text.split(",")
        numbers = [[int(number, 16) for number in entry.split(".")] for entry in entries]
        return Memory(int(lsn, 16), int(horizon, 16) or None, {root: (parts, files) for root, parts, files in numbers})
    except ValueError:
        raise DivergedError(
            f"the position's memory {text[:80]!r} is not what this program writes",
            hint="install the version of cdcrep that wrote it, or a newer one",
        ) from None


def known_by_memory(memory: Memory, root: int, now: Mapping[int, Part]) -> Known:
    """Reconstruct what was known of a partitioned table, from what it is like now and the checksums."""
    horizon = memory.horizon or 0
    known = _attached_before(now.values(), horizon)
    partitions, files = memory.checksums[root]
    complete, unchanged = _of_partitions(known) == partitions, _of_files(known) == files
    renewed = {part.oid for part in known if part.file_number != part.oid and part.written >= horizon}
    if complete and not unchanged and not renewed:
        renewed = {part.oid for part in known}
    return Known(
        horizon,
        {part.oid: None if not unchanged and part.oid in renewed else part for part in known},
        missing=not complete,
    )


def known_by_copy(copied: Copied, now: Mapping[int, Part]) -> Known | None:
    """Return what a copy says about a partitioned table's files; None: nothing."""
    horizon = copied_horizon(copied)
    if horizon is None:
        return None
    files = {match.groups() for chunk in copied.chunks if (match := FILE.match(chunk))}
    partitions: dict[int, Part | None] = {}
    for oid in {int(oid) for oid, _ in files}:
        part = now.get(oid)
        if part is None or (str(oid), str(part.file_number)) not in files:
            partitions[oid] = None
        elif part.attached < horizon:
            partitions[oid] = part
    return Known(horizon, partitions)


def copied_horizon(copied: Copied) -> int | None:
    """Return the first transaction that a copy's snapshot may not show; None: unknown."""
    match = HORIZON.fullmatch(copied.snapshot)
    return int(match[1]) if match else None


def _attached_before(partitions: Iterable[Part], horizon: int) -> list[Part]:
    return sorted((part for part in partitions if part.attached < horizon), key=lambda part: part.oid)


def _of_partitions(partitions: Iterable[Part]) -> int:
    return zlib.crc32(",".join(str(part.oid) for part in partitions).encode())


def _of_files(partitions: Iterable[Part]) -> int:
    return zlib.crc32(",".join(f"{part.oid}.{part.file_number}" for part in partitions).encode())
