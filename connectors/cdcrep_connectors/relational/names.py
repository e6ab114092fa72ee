"""Quotes identifiers as standard SQL does: the one place through which names reach SQL text."""

from __future__ import annotations

from collections.abc import Iterable

from cdcrep.errors import DataError


def quote(name: str) -> str:
    """Return a name as a delimited identifier.

    Raises:
        DataError: the name holds a NUL, which no server accepts.
    """
    if "\0" in name:
        raise DataError(f"the name {name!r} holds a NUL character")
    return '"' + name.replace('"', '""') + '"'


def qualify(schema: str, name: str) -> str:
    """Return a table's or type's quoted name with its schema."""
    return f"{quote(schema)}.{quote(name)}"


def listed(names: Iterable[str]) -> str:
    """Return quoted names separated by commas."""
    return ", ".join(map(quote, names))
