"""Log sequence numbers, and the positions made of them: `pg/<system identifier>/<timeline>/<LSN>[+<memory>]`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cdcrep.errors import DivergedError
from cdcrep.position import Position

_POSITION = re.compile(r"pg/([0-9]{1,20})/([0-9]{1,10})/([0-9A-F]{1,8})/([0-9A-F]{1,8})(?:\+([0-9a-f.,]+))?", re.ASCII)
_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Place:
    """A position taken apart: the end of a commit record in one history of one cluster's log."""

    system: int
    """System identifier, made by initdb; the same on a primary, its standbys and restored backups."""
    timeline: int
    lsn: int
    memory: str = ""
    """What the last look at the tables' files left (`memory`): hexadecimal numbers, `.` and `,`."""


def format_position(system: int, timeline: int, lsn: int) -> Position:
    """Write a position."""
    return Position(f"pg/{system}/{timeline}/{format_lsn(lsn)}")


def remembering(position: Position, memory: str) -> Position:
    """Add a memory to a position that has none."""
    return Position(f"{position}+{memory}") if memory else position


def parse_position(position: Position) -> Place:
    """Read a position.

    Raises:
        DivergedError: it was not written by `format_position`, so the checkpoint belongs to something else.
    """
    match = _POSITION.fullmatch(position)
    if match is None:
        raise DivergedError(
            f"the position {position[:80]!r} is not one of a PostgreSQL server",
            hint="the target follows another kind of source under this pipeline name: choose another name",
        )
    system, timeline, high, low, memory = match.groups()
    return Place(int(system), int(timeline), int(high, 16) << 32 | int(low, 16), memory or "")


def format_lsn(lsn: int) -> str:
    """Write an LSN as PostgreSQL does: `16/B374D848`."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def parse_lsn(text: str) -> int:
    """Read an LSN as PostgreSQL writes it.

    Raises:
        ValueError: not an LSN.
    """
    match = _LSN.fullmatch(text)
    if match is None:
        raise ValueError(f"not an LSN: {text!r}")
    return int(match[1], 16) << 32 | int(match[2], 16)
