"""Writes names and texts in SQL as MySQL and MariaDB read them."""

from __future__ import annotations

from cdcrep.table import TableId


def quoted(name: str) -> str:
    """Write a name that the server has."""
    return f"`{name.replace('`', '``')}`"


def quoted_table(id_: TableId) -> str:
    """Write the name of a table that the server has."""
    return f"{quoted(id_.schema)}.{quoted(id_.name)}"


def text_literal(text: str) -> str:
    """Write a text."""
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
