"""Quotes identifiers as MySQL does, and says what to type when a target table cannot follow its source any more."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from cdcrep.errors import SetupError
from cdcrep.table import TableId
from cdcrep_connectors.mysql.sql_text import quoted

LONGEST: Final = 64
"""Characters of a name (MySQL manual, "Identifier Length Limits"; MariaDB, "Identifier Names")."""

ROW_NUMBER: Final = "cdcrep_row"
"""The invisible column by which single copies of a row without a key can be removed."""


def quote(name: str) -> str:
    """Return a name as a delimited identifier.

    Raises:
        SetupError: no identifier can be like this.
    """
    if (wrong := unfit(name)) is not None:
        raise SetupError(f"the name {name!r} {wrong}", hint="leave its table out")
    return quoted(name)


def unfit(name: str) -> str | None:
    """Return what keeps MySQL from using a name (MySQL manual, "Schema Object Names"), or None."""
    if not name:
        return "is empty"
    if len(name) > LONGEST:
        return f"is longer than {LONGEST} characters"
    if name[-1].isspace():
        return "ends with a space, which MySQL does not allow"
    if "\0" in name or any(ord(character) > 0xFFFF for character in name):
        return "holds characters that MySQL does not allow in names"
    return None


def qualify(table: TableId) -> str:
    """Return a table's quoted name with its database."""
    return f"{quote(table.schema)}.{quote(table.name)}"


def listed(names: Iterable[str]) -> str:
    """Return quoted names separated by commas."""
    return ", ".join(map(quote, names))


def copy_again(table: TableId) -> str:
    """Return the hint for a table that has to be copied anew: the sink forgets the copies of tables that are gone."""
    return f"DROP TABLE {qualify(table)};  -- in the target, then start again: it is copied anew"
