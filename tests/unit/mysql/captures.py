"""Reads the captured logs, and brings decoded values into the text form in which the server sent its own."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from cdcrep.changes import DELETE, INSERT, Changes
from cdcrep.columns import padded
from cdcrep.table import Column, Table
from cdcrep_connectors.mysql.binlog import Decoder
from cdcrep_connectors.mysql.described_tables import describe
from cdcrep_connectors.mysql.expansion import expand
from cdcrep_connectors.mysql.framing import Events, Framing, cut
from cdcrep_connectors.mysql.table_map import TableMap
from cdcrep_connectors.mysql.types import DIALECT, ImpossibleDates, column_type
from tests.golden.mysql_capture import DATABASE, FOLDER

SERVERS = ("mysql-9.7", "mariadb-11.8", "mariadb-10.11")
MAGIC = b"\xfebin"


@cache
def said(server: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FOLDER / f"{server}.json").read_text())
    return loaded


def log(server: str) -> bytes:
    content = gzip.decompress((FOLDER / f"{server}.binlog.gz").read_bytes())
    assert content.startswith(MAGIC)
    return content[len(MAGIC) :]


@cache
def events(server: str) -> Events:
    content = log(server)
    buffer = padded(content)
    start, end, after = cut(buffer, 0, len(content))
    assert after == len(content)
    return Framing(checksums=False).verify(buffer, start, end)


def catalogue(server: str, dates: ImpossibleDates = ImpossibleDates.TEXT) -> Callable[[TableMap], Table | None]:
    """Make tables as a catalogue does; the log says what columns they had before an ALTER."""

    def shape(described: TableMap) -> Table | None:
        table = said(server)["tables"].get(described.name)
        if table is None or described.schema != DATABASE:
            return None
        columns = table["columns"][: len(described.columns)]
        key = tuple(c["name"] for c in columns if c["key"])
        made = tuple(Column(c["name"], column_type(c["native"], dates), c["nullable"]) for c in columns)
        return Table(described.schema, described.name, made, key, DIALECT)

    return shape


@cache
def decode(
    server: str, dates: ImpossibleDates = ImpossibleDates.TEXT, *, from_log: bool = False
) -> dict[str, list[Changes]]:
    plain, _ = expand(events(server))
    shape = (lambda seen: describe(seen, dates)) if from_log else catalogue(server, dates)
    mariadb = server.startswith("mariadb")
    refused = {"versioned", "ancient"} if from_log else {"versioned"}
    decoder = Decoder(
        lambda seen: shape(seen) if seen.schema == DATABASE and seen.name not in refused else None,
        mariadb=mariadb,
        dates=dates,
    )
    found: dict[str, list[Changes]] = {}
    for changes in decoder.decode(plain).changes:
        found.setdefault(changes.table.name, []).append(changes)
    return found


def as_text(value: Any, native: str) -> str | None:
    """Write a value as the capture's SELECT did."""
    if value is None:
        return None
    if isinstance(value, bytes):
        return value.hex().upper()
    if native.startswith("year"):
        return f"{value:04}"
    if native.startswith("float"):
        return repr(float(np.float32(value)))
    return format(value, "f") if type(value).__name__ == "Decimal" else str(value)


def fold(changes: list[Changes]) -> list[list[str | None]]:
    """Carry changes out, row by row, and return the rows that are left, as text."""
    rows: dict[Any, list[list[str | None]]] = {}
    width = max(len(part.table.columns) for part in changes)
    for part in changes:
        natives = [column.type.native for column in part.table.columns]
        ordinals = part.table.key_positions or range(len(natives))
        old = part.old.columns if part.old is not None else None
        for i, operation in enumerate(part.operations):
            new = [as_text(part.new.columns[c][i].as_py(), native) for c, native in enumerate(natives)]
            key = tuple(new[c] for c in ordinals)
            if operation != INSERT:
                found = key
                if part.old_present is not None and part.old_present[i]:
                    assert old is not None
                    found = tuple(as_text(old[n][i].as_py(), natives[c]) for n, c in enumerate(ordinals))
                before = rows[found].pop()
                for c, mask in part.unchanged.items():
                    if mask[i]:
                        assert new[c] is None
                        new[c] = before[c]
            if operation != DELETE:
                rows.setdefault(key, []).append(new)
    return [row + [None] * (width - len(row)) for found in rows.values() for row in found]


def same_double(mine: str | None, theirs: str | None) -> bool:
    return mine == theirs or (mine is not None and theirs is not None and float(mine) == float(theirs))


def types_of(changes: Changes) -> dict[str, pa.DataType]:
    return {field.name: field.type for field in changes.new.schema}
