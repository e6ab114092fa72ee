"""A table knows its identity and its name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cdcrep.table import Table, TableId
from cdcrep.testing.contract_data import INT, table


def test_key_positions_are_the_ordinals_of_the_key_columns() -> None:
    items = table("items")

    assert replace(items, key=("big", "id")).key_positions == (2, 0)
    assert replace(items, key=()).key_positions == ()


def test_a_key_column_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(KeyError):
        replace(table("items"), key=("missing",))


def test_the_identity_of_a_table_without_a_key_is_the_whole_row() -> None:
    items = table("items")

    assert items.identity == items.columns[:1]
    assert replace(items, key=()).identity == items.columns


def test_shapes_compare_by_what_they_say() -> None:
    assert table("items") == table("items")
    assert hash(table("items")) == hash(table("items"))
    assert table("items") != Table("shop", "items", table("items").columns, (), "postgresql")


def test_whether_columns_may_be_null_does_not_make_another_shape() -> None:
    items = table("items")
    loose = replace(items, columns=tuple(replace(column, nullable=True) for column in items.columns))

    assert items != loose
    assert items.same_shape(loose)
    assert not items.same_shape(replace(loose, key=()))
    assert not items.same_shape(replace(loose, name="others"))
    assert not items.same_shape(replace(loose, columns=loose.columns[:2]))
    assert not items.same_shape(replace(loose, columns=(*loose.columns[:2], replace(loose.columns[2], type=INT))))


def test_names_are_written_with_a_dot_and_sort() -> None:
    assert str(TableId("a.b", "c")) == "a.b.c"
    assert sorted([TableId("b", "a"), TableId("a", "z")]) == [TableId("a", "z"), TableId("b", "a")]
    assert table("items").id == TableId("shop", "items")
