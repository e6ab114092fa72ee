"""Reads from SHOW GRANTS what the session's user may do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

_GRANT: Final = re.compile(
    r"(?P<verb>GRANT|REVOKE) (?P<what>.+?) ON (?:TABLE )?(?P<schema>\*|`(?:[^`]|``)*`)\.(?P<table>\*|`(?:[^`]|``)*`)"
    r" (?:TO|FROM) ",
    re.DOTALL,
)
_LISTED: Final = re.compile(r"([A-Z][A-Z ]*[A-Z])( \([^)]*\))?(?:, |$)")

EVERYTHING: Final = "ALL PRIVILEGES"


@dataclass(frozen=True)
class Privileges:
    """What the lines of SHOW GRANTS allow; privileges on single columns do not count."""

    lines: tuple[str, ...]

    def lacking(self, wanted: Sequence[str], schema: str, table: str | None = None) -> list[str]:
        """Return which privileges are lacking on a database, or on one of its tables."""
        held: set[str] = set()
        for verb, names, of_schema, of_table in map(_parsed, self.lines):
            if not _covers(of_schema, of_table, schema, table):
                continue
            held = held | names if verb == "GRANT" else held - names
        return [] if EVERYTHING in held else [name for name in wanted if name not in held]


@lru_cache(maxsize=1024)
def _parsed(line: str) -> tuple[str, frozenset[str], str, str]:
    match = _GRANT.match(line)
    if match is None:
        return "GRANT", frozenset(), "", ""
    names = frozenset(name for name, columns in _LISTED.findall(match["what"]) if not columns)
    return match["verb"], names, match["schema"], match["table"]


def _covers(of_schema: str, of_table: str, schema: str, table: str | None) -> bool:
    if of_schema == "*":
        return True
    if of_table == "*":
        return _pattern(_unquoted(of_schema)).fullmatch(schema) is not None
    return bool(of_schema) and (_unquoted(of_schema), _unquoted(of_table)) == (schema, table)


def _unquoted(name: str) -> str:
    return name[1:-1].replace("``", "`")


@lru_cache(maxsize=1024)
def _pattern(name: str) -> re.Pattern[str]:
    r"""Compile the name in a grant on a database, in which `_` and `%` are wildcards but for `\_` and `\%`."""
    parts: Iterable[str] = re.findall(r"\\.|.", name, re.DOTALL)
    written = {"%": ".*", "_": "."}
    return re.compile("".join(written.get(part, re.escape(part[-1])) for part in parts), re.DOTALL)
