"""MySQL's GTID sets: which transactions of which servers; as text, as bytes, and what contains what.

MySQL 9 manual, "GTID Format and Storage"; source documentation, `Gtid_set::encode`:

    sets 8 { uuid 16 [ tag: length, bytes ] intervals 8 { first 8 after-last 8 } }

The eight bytes of `sets` are the number, or with tags 0x01, six bytes of the number, 0x01. A tag's length is in the
variable-length form of `serialization`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from cdcrep.errors import DataError
from cdcrep_connectors.mysql.fields import FieldReader
from cdcrep_connectors.mysql.serialization import read_number, write_number

LAST: Final = 2**63 - 2
"""The highest transaction number that MySQL gives."""
TAGGED: Final = 1
_TAG: Final = re.compile(r"[a-z_][a-z0-9_]{0,31}")
_INTERVAL: Final = re.compile(r"(\d+)(?:-(\d+))?")

Interval = tuple[int, int]
"""First and last number, both included."""


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """Where transactions are numbered: a server, or a tag of it."""

    uuid: UUID
    tag: str = ""

    def __str__(self) -> str:
        """Render as in a GTID."""
        return f"{self.uuid}:{self.tag}" if self.tag else str(self.uuid)


@dataclass(frozen=True, slots=True)
class Gtid:
    """One transaction."""

    origin: Origin
    number: int

    def __str__(self) -> str:
        """Render as MySQL writes it."""
        return f"{self.origin}:{self.number}"


@dataclass(frozen=True)
class GtidSet:
    """Transactions per origin, as disjoint intervals in ascending order that do not touch."""

    intervals: Mapping[Origin, tuple[Interval, ...]] = field(default_factory=dict)

    @staticmethod
    def of(intervals: Mapping[Origin, Iterable[Interval]]) -> GtidSet:
        """Make a set of intervals in any order that may overlap.

        Raises:
            DataError: an interval that cannot be one.
        """
        joined = {origin: _joined(some) for origin, some in sorted(intervals.items())}
        return GtidSet({origin: some for origin, some in joined.items() if some})

    @staticmethod
    def parse(text: str) -> GtidSet:
        """Read `uuid:1-5:7,uuid:tag:1-3`, with white space wherever MySQL allows it.

        Raises:
            DataError: it is no GTID set.
        """
        found: dict[Origin, list[Interval]] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            for origin, interval in _parse_part(part):
                found.setdefault(origin, []).append(interval)
        return GtidSet.of(found)

    @staticmethod
    def decode(content: bytes) -> GtidSet:
        """Read the binary form, as in PREVIOUS_GTIDS and COM_BINLOG_DUMP_GTID.

        Raises:
            DataError: it is no GTID set.
        """
        reader = FieldReader(content, "GTID set")
        head = reader.integer(8)
        tagged = head >> 56 == TAGGED
        found: dict[Origin, list[Interval]] = {}
        for _ in range((head >> 8) & (2**48 - 1) if tagged else head):
            uuid = UUID(bytes=reader.take(16))
            tag = _check_tag(reader.string(read_number(reader))) if tagged else ""
            edges = found.setdefault(Origin(uuid, tag), [])
            for _ in range(reader.integer(8)):
                first, after = struct.unpack("<QQ", reader.take(16))
                edges.append((first, after - 1))
        reader.end()
        return GtidSet.of(found)

    def encode(self) -> bytes:
        """Write the binary form; with tags only where the set has some, since old servers do not read them."""
        tagged = any(origin.tag for origin in self.intervals)
        count = len(self.intervals)
        parts = [struct.pack("<Q", TAGGED << 56 | count << 8 | TAGGED if tagged else count)]
        for origin, some in self.intervals.items():
            parts.append(origin.uuid.bytes)
            if tagged:
                parts.append(write_number(len(origin.tag)) + origin.tag.encode())
            parts.append(struct.pack("<Q", len(some)))
            parts += [struct.pack("<QQ", first, last + 1) for first, last in some]
        return b"".join(parts)

    def __str__(self) -> str:
        """Render as MySQL writes it: origins in order, a server named once for all its tags."""
        texts: dict[UUID, str] = {}
        for origin, some in sorted(self.intervals.items()):
            numbers = ":".join(f"{first}-{last}" if last > first else str(first) for first, last in some)
            tag = f":{origin.tag}" if origin.tag else ""
            texts[origin.uuid] = f"{texts.get(origin.uuid, origin.uuid)}{tag}:{numbers}"
        return ",".join(texts.values())

    def __bool__(self) -> bool:
        """Tell whether there is any transaction in it."""
        return bool(self.intervals)

    def __contains__(self, gtid: Gtid) -> bool:
        """Tell whether a transaction is in it."""
        some = self.intervals.get(gtid.origin, ())
        return any(first <= gtid.number <= last for first, last in some)

    def contains(self, other: GtidSet) -> bool:
        """Tell whether every transaction of another set is in it."""
        return not other.subtract(self)

    def add(self, other: GtidSet) -> GtidSet:
        """Return the transactions of either."""
        merged = {origin: list(some) for origin, some in self.intervals.items()}
        for origin, some in other.intervals.items():
            merged.setdefault(origin, []).extend(some)
        return GtidSet.of(merged)

    def add_runs(self, runs: Iterable[tuple[Origin, int, int]]) -> GtidSet:
        """Return the set with transactions added, given as origin, first and last number."""
        found: dict[Origin, list[Interval]] = {}
        for origin, first, last in runs:
            found.setdefault(origin, []).append((first, last))
        return self.add(GtidSet.of(found))

    def subtract(self, other: GtidSet) -> GtidSet:
        """Return the transactions that the other has not."""
        return GtidSet.of(
            {origin: list(_without(some, other.intervals.get(origin, ()))) for origin, some in self.intervals.items()}
        )

    def intersect(self, other: GtidSet) -> GtidSet:
        """Return the transactions of both."""
        return self.subtract(self.subtract(other))


def _parse_part(part: str) -> Iterator[tuple[Origin, Interval]]:
    """Read one server's part: numbers before the first tag have none, others the tag in front of them."""
    name, *pieces = (piece.strip() for piece in part.split(":"))
    if not re.fullmatch(r"[0-9A-Fa-f]{8}(-?)(?:[0-9A-Fa-f]{4}\1){3}[0-9A-Fa-f]{12}", name) or not pieces:
        raise DataError("not a GTID set: it must look like uuid:1-5:7 or uuid:tag:1-5")
    origin = Origin(UUID(name))
    for piece in pieces:
        if number := _INTERVAL.fullmatch(piece.replace(" ", "")):
            first = int(number[1])
            yield origin, (first, int(number[2] or first))
        else:
            origin = Origin(origin.uuid, _check_tag(piece.lower() or "-"))


def _check_tag(tag: str) -> str:
    if tag and not _TAG.fullmatch(tag):
        raise DataError("a GTID set has a tag that cannot be one")
    return tag


def _joined(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    joined: list[Interval] = []
    for first, last in sorted(intervals):
        if not 1 <= first <= last <= LAST:
            raise DataError("a GTID set has an interval that cannot be one")
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return tuple(joined)


def _without(some: Iterable[Interval], others: tuple[Interval, ...]) -> Iterator[Interval]:
    at = 0
    for first, last in some:
        begin = first
        while at < len(others) and others[at][1] < first:
            at += 1
        following = at
        while following < len(others) and others[following][0] <= last:
            if begin < others[following][0]:
                yield begin, others[following][0] - 1
            begin = max(begin, others[following][1] + 1)
            following += 1
        if begin <= last:
            yield begin, last
