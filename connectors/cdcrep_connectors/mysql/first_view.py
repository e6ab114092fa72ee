"""What is remembered of the view that a table's copy began under, so that the copy can go on under another one."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from cdcrep.errors import DivergedError
from cdcrep.position import Position
from cdcrep.table import Table
from cdcrep_connectors.mysql.key_ranges import KeyRanges
from cdcrep_connectors.mysql.position import parse_position
from cdcrep_connectors.mysql.sql_text import quoted

_LITERAL: Final = re.compile(r"-?[0-9]+|x'(?:[0-9a-f]{2})*'|'(?:[^'\\]|''|\\\\)*'", re.ASCII)
"""What `key_scales` writes, and nothing else: it becomes SQL again, and the target may belong to others."""


@dataclass(frozen=True)
class FirstView:
    """The view of a table with a key that its copy began under."""

    position: Position
    ranges: KeyRanges
    """As which the table is copied, also under later views: by estimates, which would not come out the same again."""
    shape: str
    """A mark of the table's columns and key."""

    @staticmethod
    def of(table: Table, position: Position, ranges: KeyRanges) -> FirstView:
        """Take down the view that a copy begins under."""
        return FirstView(position, ranges, _shape(table))

    @staticmethod
    def parse(note: str, table: Table) -> FirstView | None:
        """Read what `note` wrote; None: it is something else, or the table does not have this shape any more."""
        try:
            found: Any = json.loads(note)
            ranges = KeyRanges(
                tuple(map(str, found["key"])), tuple(tuple(map(str, bound)) for bound in found["bounds"])
            )
            view = FirstView(Position(str(found["position"])), ranges, str(found["shape"]))
            parse_position(view.position)
        except (ValueError, TypeError, KeyError, DivergedError):
            return None
        return view if view.shape == _shape(table) and _is_ours(ranges, table) else None

    def note(self) -> str:
        """Write it; values of keys are in it."""
        return json.dumps(
            {
                "position": self.position,
                "shape": self.shape,
                "key": self.ranges.names,
                "bounds": self.ranges.bounds,
            },
            separators=(",", ":"),
        )

    def part(self, index: int) -> str:
        """Name the chunk of a range, under whatever view it is read."""
        return f"part {index + 1} of {len(self.ranges)}, view {sha256(self.position.encode()).hexdigest()[:12]}"

    def done(self, chunks: Collection[str]) -> frozenset[int]:
        """Return the ranges that are among the names of durable chunks."""
        return frozenset(i for i in range(len(self.ranges)) if self.part(i) in chunks)


def noted_position(note: str) -> Position | None:
    """Return the position that a note names; None: it is something else."""
    try:
        return Position(str(json.loads(note)["position"]))
    except (ValueError, TypeError, KeyError):
        return None


def _shape(table: Table) -> str:
    columns = [(column.name, column.type.native, column.nullable) for column in table.columns]
    return sha256(repr((columns, table.key)).encode()).hexdigest()[:16]


def _is_ours(ranges: KeyRanges, table: Table) -> bool:
    """Tell whether bounds are nothing but values for columns of the table's key."""
    if not ranges.bounds:
        return not ranges.names
    return sorted(ranges.names) == sorted(map(quoted, table.key)) and all(
        0 < len(bound) <= len(ranges.names) and all(_LITERAL.fullmatch(value) for value in bound)
        for bound in ranges.bounds
    )
