"""Whatever rows a server writes, decoding gives them back; whatever else it writes is a DataError."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdcrep.changes import Changes
from cdcrep_connectors.mysql.binlog import Decoder
from cdcrep_connectors.mysql.event_types import EventType
from cdcrep_connectors.mysql.expansion import expand
from tests.properties.binlog_columns import KINDS, Kind
from tests.properties.binlog_events import (
    Image,
    WrittenTable,
    compress,
    event,
    events,
    format_description,
    rows_event,
    table_map,
)

V1 = {"I": EventType.WRITE_ROWS_V1, "U": EventType.UPDATE_ROWS_V1, "D": EventType.DELETE_ROWS_V1}
V2 = {"I": EventType.WRITE_ROWS, "U": EventType.UPDATE_ROWS, "D": EventType.DELETE_ROWS}
COMPRESSED = {
    "I": EventType.WRITE_ROWS_COMPRESSED_V1,
    "U": EventType.UPDATE_ROWS_COMPRESSED_V1,
    "D": EventType.DELETE_ROWS_COMPRESSED_V1,
}
UNKNOWN = object()
"""Stands for a cell that the change left as it was."""


@dataclass
class Expected:
    """A change as the decoder should see it."""

    operation: str
    new: list[Any]
    old: list[Any] | None


@dataclass
class History:
    table: WrittenTable
    contents: list[bytes]
    expected: list[Expected]


@st.composite
def histories(draw: Any) -> History:
    chosen: list[Kind] = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=9))
    columns = tuple(kind.column(f"c{i}") for i, kind in enumerate(chosen))
    names = [column.name for column in columns]
    key = tuple(sorted(draw(st.lists(st.sampled_from(names), max_size=2, unique=True))))
    table = WrittenTable(columns, key)
    contents, expected = [event(EventType.TABLE_MAP, table_map(table))], []
    for _ in range(draw(st.integers(0, 5))):
        content, changes = _event(draw, table, chosen)
        contents.append(content)
        expected += changes
    return History(table, contents, expected)


def _event(draw: Any, table: WrittenTable, kinds: Sequence[Kind]) -> tuple[bytes, list[Expected]]:
    """Draw one event: all its rows have the same columns, those of the key among them."""
    operation = draw(st.sampled_from("IUD"))
    every = range(len(kinds))
    identity = [i for i in every if table.columns[i].name in table.key] or list(every)
    subset = st.lists(st.booleans(), min_size=len(kinds), max_size=len(kinds))
    chosen = draw(subset)
    before_has = [i for i in every if i in identity or chosen[i]]
    chosen = draw(subset)
    after_has = [i for i in every if operation == "I" or chosen[i]] or [0]
    rows: list[tuple[Image, ...]] = []
    changes = []
    for _ in range(draw(st.integers(1, 6))):
        before = {i: _cell(draw, kinds[i], i in identity and bool(table.key)) for i in before_has}
        after = {i: _cell(draw, kinds[i], i in identity and bool(table.key)) for i in after_has}
        if operation != "I":
            rows.append(
                tuple({i: raw for i, (raw, _) in image.items()} for image in (before, after)[: 1 + (operation == "U")])
            )
        else:
            rows.append(({i: raw for i, (raw, _) in after.items()},))
        changes.append(_expected(operation, before, after, identity, table))
    kind = draw(st.sampled_from([V1, V2, COMPRESSED]))[operation]
    content = rows_event(kind, table, rows, extra=draw(st.binary(max_size=3)))
    if kind in COMPRESSED.values():
        head = len(rows_event(kind, table, [tuple(dict.fromkeys(image) for image in rows[0])])) - sum(
            (len(image) + 7) // 8 for image in rows[0]
        )
        content = content[:head] + compress(content[head:])
    return event(kind, content), changes


def _cell(draw: Any, kind: Kind, is_key: bool) -> tuple[bytes | None, Any]:
    if not is_key and draw(st.integers(0, 3)) == 0:
        return None, None
    raw, value = draw(kind.values)
    return raw, value


def _expected(
    operation: str, before: dict[int, Any], after: dict[int, Any], identity: list[int], table: WrittenTable
) -> Expected:
    count = len(table.columns)
    old = [before[i][1] for i in identity]
    if operation == "D":
        return Expected("D", [None] * count, old)
    if operation == "I":
        return Expected("I", [after[i][1] for i in range(count)], None)
    new = [after[i][1] if i in after else before[i][1] if i in before else UNKNOWN for i in range(count)]
    moved = not table.key or [new[i] for i in identity] != old
    return Expected("U", new, old if moved else None)


def seen(changes: Changes) -> list[Expected]:
    new = [column.to_pylist() for column in changes.new.columns]
    old = [column.to_pylist() for column in changes.old.columns] if changes.old is not None else []
    found = []
    for i, operation in enumerate(changes.operations):
        row = [column[i] for column in new]
        for ordinal, mask in changes.unchanged.items():
            if mask[i]:
                assert row[ordinal] is None
                row[ordinal] = UNKNOWN
        present = changes.old_present is not None and bool(changes.old_present[i])
        found.append(Expected(chr(operation), row, [column[i] for column in old] if present else None))
    return found


@settings(max_examples=60)
@given(histories())
def test_decoding_gives_back_every_row_in_order(history: History) -> None:
    plain, _ = expand(events([format_description(), *history.contents]))

    decoded = Decoder(lambda _: history.table.table(), mariadb=False).decode(plain).changes

    assert [change for part in decoded for change in seen(part)] == history.expected


@pytest.mark.slow
@pytest.mark.unmeasured
@settings(max_examples=3000, deadline=None)
@given(histories())
def test_decoding_gives_back_every_row_in_order_of_many_histories(history: History) -> None:
    plain, _ = expand(events([format_description(), *history.contents]))

    decoded = Decoder(lambda _: history.table.table(), mariadb=False).decode(plain).changes

    assert [change for part in decoded for change in seen(part)] == history.expected
