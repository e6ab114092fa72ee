"""Which tables are meant: `schema.table` names and shell patterns to include and exclude."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from cdcrep.table import TableId


@dataclass(frozen=True, slots=True)
class Selection:
    """Include and exclude patterns over `schema.table`.

    A pattern matches case-sensitively; `*` and `?` also match dots, so a table whose name contains a dot can be
    named as it is. A literal name always beats its reading as a pattern.
    """

    include: tuple[str, ...]
    exclude: tuple[str, ...] = ()

    def __contains__(self, table: TableId) -> bool:
        """Tell whether a table is meant."""
        name = str(table)
        return _matches(name, self.include) and not _matches(name, self.exclude)

    def unmatched(self, tables: Sequence[TableId]) -> list[str]:
        """Return the include patterns that match none of the tables: misspelt, or not created yet."""
        return [pattern for pattern in self.include if not any(_matches(str(table), (pattern,)) for table in tables)]


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)
