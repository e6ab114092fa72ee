"""Patterns select the tables that a reader of the configuration expects."""

from __future__ import annotations

import pytest

from cdcrep.selection import Selection
from cdcrep.table import TableId


@pytest.mark.parametrize(
    ("include", "exclude", "name", "expected"),
    [
        (("public.orders",), (), "public.orders", True),
        (("public.orders",), (), "public.Orders", False),
        (("public.orders",), (), "public.orders2", False),
        (("public.*",), (), "public.orders", True),
        (("public.*",), (), "sales.orders", False),
        (("*",), (), "any.thing", True),
        (("public.*",), ("public.log_*",), "public.log_1", False),
        (("public.*",), ("public.log_*",), "public.orders", True),
        (("public.a.b",), (), "public.a.b", True),
        (("public.odd[1]",), (), "public.odd[1]", True),
        (("public.odd[1]",), (), "public.odd1", True),
        (("public.what?",), (), "public.what?", True),
        ((), (), "public.orders", False),
    ],
)
def test_a_table_is_meant_if_included_and_not_excluded(
    include: tuple[str, ...], exclude: tuple[str, ...], name: str, expected: bool
) -> None:
    schema, _, table = name.partition(".")

    assert (TableId(schema, table) in Selection(include, exclude)) is expected


def test_patterns_that_match_nothing_are_named() -> None:
    selection = Selection(("public.orders", "sales.*", "public.ordesr"))

    assert selection.unmatched([TableId("public", "orders"), TableId("sales", "x")]) == ["public.ordesr"]
