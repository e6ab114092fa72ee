"""Changes of JSON documents are applied as the server applies them, or refused where they do not fit."""

from __future__ import annotations

import pytest

from cdcrep.errors import DataError
from cdcrep_connectors.mysql.json_diff import Difference, Operation, apply_differences, read_differences
from tests.properties.binary_json_writing import write_document
from tests.properties.binlog_events import packed_bytes

DOCUMENT = {"a": [1, 2, 3], "bb": {"c": "x"}, "": 0}


def difference(operation: Operation, path: str, value: object = ...) -> bytes:
    content = bytes([operation]) + packed_bytes(path.encode())
    return content if value is ... else content + packed_bytes(write_document(value))


def apply(*differences: bytes) -> str:
    return apply_differences(write_document(DOCUMENT), b"".join(differences))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (difference(Operation.REPLACE, "$.a[1]", "two"), '{"": 0, "a": [1, "two", 3], "bb": {"c": "x"}}'),
        (difference(Operation.REPLACE, "$.bb.c", [None]), '{"": 0, "a": [1, 2, 3], "bb": {"c": [null]}}'),
        (difference(Operation.REMOVE, "$.a[0]"), '{"": 0, "a": [2, 3], "bb": {"c": "x"}}'),
        (difference(Operation.REMOVE, "$.bb"), '{"": 0, "a": [1, 2, 3]}'),
        (difference(Operation.REMOVE, '$.""'), '{"a": [1, 2, 3], "bb": {"c": "x"}}'),
        (difference(Operation.INSERT, "$.a[0]", 0), '{"": 0, "a": [0, 1, 2, 3], "bb": {"c": "x"}}'),
        (difference(Operation.INSERT, "$.a[3]", 4), '{"": 0, "a": [1, 2, 3, 4], "bb": {"c": "x"}}'),
        (difference(Operation.INSERT, "$.b", 1), '{"": 0, "a": [1, 2, 3], "b": 1, "bb": {"c": "x"}}'),
        (difference(Operation.INSERT, '$."q\\"]."', 1.5), '{"": 0, "a": [1, 2, 3], "bb": {"c": "x"}, "q\\"].": 1.5}'),
        (difference(Operation.REPLACE, "$", []), "[]"),
        (b"", '{"": 0, "a": [1, 2, 3], "bb": {"c": "x"}}'),
    ],
)
def test_a_change_is_applied(change: bytes, text: str) -> None:
    assert apply(change) == text


def test_changes_are_applied_one_after_the_other() -> None:
    changes = (difference(Operation.INSERT, "$.new", {}), difference(Operation.INSERT, "$.new.x", 1))

    assert apply(*changes, difference(Operation.REMOVE, "$.a")) == '{"": 0, "bb": {"c": "x"}, "new": {"x": 1}}'


def test_changes_are_read_as_operations() -> None:
    found = read_differences(difference(Operation.REPLACE, '$.a[10]."b c"', "v") + difference(Operation.REMOVE, "$[0]"))

    assert found == [
        Difference(Operation.REPLACE, ("a", 10, "b c"), '"v"'),
        Difference(Operation.REMOVE, (0,), None),
    ]


@pytest.mark.parametrize(
    "change",
    [
        difference(Operation.REPLACE, "$.none", 1),
        difference(Operation.REPLACE, "$.a[3]", 1),
        difference(Operation.INSERT, "$.a[4]", 1),
        difference(Operation.INSERT, "$.bb", 1),
        difference(Operation.REMOVE, "$.a.b"),
        difference(Operation.REMOVE, "$"),
        difference(Operation.REPLACE, "a", 1),
        difference(Operation.REPLACE, "$[", 1),
        difference(Operation.REPLACE, "$.a[99999999999]", 1),
        difference(Operation.REPLACE, "$.bb.c.d", 1),
    ],
)
def test_a_change_that_does_not_fit_is_refused(change: bytes) -> None:
    with pytest.raises(DataError, match="do not fit the document"):
        apply(change)


def test_an_unknown_operation_is_refused() -> None:
    with pytest.raises(DataError, match="changed in an unknown way"):
        apply(b"\7\1$")
