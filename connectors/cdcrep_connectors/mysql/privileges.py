"""Reads from SHOW GRANTS what the session's user may do.

MySQL manual, "SHOW GRANTS", "GRANT", "Privilege Restriction Using Partial Revokes"; MariaDB, "GRANT".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from cdcrep_connectors.mysql.sql_text import quoted, text_literal

_NAME: Final = r"\*|`(?:[^`]|``)*`"
# A column's name may hold a bracket.
_PRIVILEGE: Final = r"[A-Z][A-Z_ ]*(?: \((?:`(?:[^`]|``)*`|[^`)])*\))?"
_GRANT: Final = re.compile(
    rf"(?P<verb>GRANT|REVOKE) (?P<what>{_PRIVILEGE}(?:, ?{_PRIVILEGE})*) ON (?:TABLE )?"
    rf"(?P<schema>{_NAME})\.(?P<table>{_NAME}) (?:TO|FROM) (?P<grantee>PUBLIC|{_NAME}(?:@(?:{_NAME}))?)",
    re.DOTALL,
)
_LISTED: Final = re.compile(rf"({_PRIVILEGE})(?:, ?|$)", re.DOTALL)

EVERYTHING: Final = "ALL PRIVILEGES"


@dataclass(frozen=True)
class Grant:
    """A line of SHOW GRANTS about tables; a partial revoke is one of REVOKE."""

    verb: str
    names: frozenset[str]
    """Privileges, without those on single columns."""
    schema: str
    """`*`, or a name as it is quoted."""
    table: str
    grantee: str


@dataclass(frozen=True)
class Privileges:
    """What the lines of SHOW GRANTS allow, active roles included; privileges on single columns do not count."""

    lines: tuple[str, ...]
    wildcards: bool = True
    """`_` and `%` in the database of a grant are wildcards, but for `\\_` and `\\%`."""
    as_shown: bool = False
    """Of several grants with wildcards the first counts, not the one with the closest name: MySQL with roles."""

    def lacking(self, wanted: Sequence[str], schema: str | None = None, table: str | None = None) -> list[str]:
        """Return which privileges are lacking on a database, or on one of its tables; without either, on everything."""
        grants = [grant for grant in map(_parsed, self.lines) if grant is not None]
        held = _names(grant for grant in grants if grant.verb == "GRANT" and grant.schema == "*")
        if schema is not None:
            # What is revoked partially is what was granted on everything.
            held -= _names(grant for grant in grants if grant.verb == "REVOKE" and grant.schema == quoted(schema))
            given = [grant for grant in grants if grant.verb == "GRANT"]
            for grantee in {grant.grantee for grant in given}:
                held |= self._of_database([grant for grant in given if grant.grantee == grantee], schema)
            if table is not None:
                place = (quoted(schema), quoted(table))
                held |= _names(grant for grant in given if (grant.schema, grant.table) == place)
        return [] if EVERYTHING in held else [name for name in wanted if name not in held]

    def _of_database(self, grants: Iterable[Grant], schema: str) -> frozenset[str]:
        """Return what a user's or role's grants on databases say about one: only one of those that match counts."""
        found = [grant for grant in grants if grant.schema != "*" and grant.table == "*"]
        found = [grant for grant in found if self._covers(_unquoted(grant.schema), schema)]
        if not found:
            return frozenset()
        if self.as_shown:
            return next((grant for grant in found if _is_plain(grant.schema)), found[0]).names
        # Among those that are equally close it is the one that was granted first, or shown first.
        closest = max(self._closeness(_unquoted(grant.schema)) for grant in found)
        return _names(grant for grant in found if self._closeness(_unquoted(grant.schema)) == closest)

    def _covers(self, pattern: str, schema: str) -> bool:
        return _pattern(pattern).fullmatch(schema) is not None if self.wildcards else pattern == schema

    def _closeness(self, pattern: str) -> float:
        """Return how many characters a name has before its first wildcard."""
        found = re.match(r"(?:\\.|[^%_\\])*", pattern, re.DOTALL) if self.wildcards else None
        return len(pattern) + 1 if found is None or found.end() == len(pattern) else found.end()


def read_privileges(fetch: Callable[[str], Sequence[tuple[Any, ...]]]) -> Privileges:
    """Ask what the session's user may do; `fetch` runs a query and returns its rows."""
    revokes = fetch("SHOW GLOBAL VARIABLES LIKE 'partial_revokes'")
    ((roles, version),) = fetch("SELECT CURRENT_ROLE(), VERSION()")
    return Privileges(
        tuple(str(line) for (line,) in fetch("SHOW GRANTS")),
        wildcards=all(str(value).upper() != "ON" for _, value in revokes),
        as_shown=roles not in (None, "NONE") and "mariadb" not in str(version).lower(),
    )


def account(user: str) -> str:
    """Write a user, as CURRENT_USER() says it, for a GRANT."""
    name, _, host = user.rpartition("@")
    return f"{text_literal(name)}@{text_literal(host)}"


def whole_database(name: str) -> str:
    r"""Write all tables of a database for a GRANT, where `_` and `%` are wildcards."""
    return quoted(name).replace("_", r"\_").replace("%", r"\%") + ".*"


@lru_cache(maxsize=1024)
def _parsed(line: str) -> Grant | None:
    match = _GRANT.match(line)
    if match is None:
        return None
    names = frozenset(name for name in _LISTED.findall(match["what"]) if not name.endswith(")"))
    return Grant(match["verb"], names, match["schema"], match["table"], match["grantee"])


def _names(grants: Iterable[Grant]) -> frozenset[str]:
    return frozenset[str]().union(*(grant.names for grant in grants))


def _is_plain(name: str) -> bool:
    return not any(sign in name for sign in "_%")


def _unquoted(name: str) -> str:
    return name[1:-1].replace("``", "`")


@lru_cache(maxsize=1024)
def _pattern(name: str) -> re.Pattern[str]:
    r"""Compile the name in a grant on a database, in which `_` and `%` are wildcards but for `\_` and `\%`."""
    parts: Iterable[str] = re.findall(r"\\.|.", name, re.DOTALL)
    written = {"%": ".*", "_": "."}
    return re.compile("".join(written.get(part, re.escape(part[-1])) for part in parts), re.DOTALL)
