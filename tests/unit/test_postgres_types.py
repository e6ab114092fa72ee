"""How PostgreSQL's types become kinds, from rows of the catalogue alone."""

from __future__ import annotations

import pytest

from cdcrep.errors import SetupError
from cdcrep.table import ColumnType, Kind
from cdcrep_connectors.postgres.types import NativeType, column_type, has_portable_binary

TYPES = {
    native.oid: native
    for native in (
        NativeType(23, "pg_catalog", "int4", "b"),
        NativeType(25, "pg_catalog", "text", "b"),
        NativeType(1007, "pg_catalog", "_int4", "b", element=23),
        NativeType(1700, "pg_catalog", "numeric", "b"),
        NativeType(1231, "pg_catalog", "_numeric", "b", element=1700),
        NativeType(1186, "pg_catalog", "interval", "b"),
        NativeType(1184, "pg_catalog", "timestamptz", "b"),
        NativeType(9001, "shop", "mood", "e", labels=("sad", "ok")),
        NativeType(9002, "shop", "_mood", "b", element=9001),
        NativeType(9003, "shop", "price", "d", base=1700, base_modifier=(12 << 16 | 2) + 4),
        NativeType(9004, "shop", "pair", "c", fields=(("x", 23, -1), ("y", 9001, -1))),
        NativeType(9005, "shop", "span", "r", base=1700, range_name=("shop", "span")),
        NativeType(9006, "public", "hstore", "b", extension="hstore"),
        NativeType(9007, "shop", "own", "b"),
        NativeType(9008, "pg_catalog", "brand_new", "b"),
    )
}


def mapped(oid: int, modifier: int = -1) -> ColumnType:
    return column_type(oid, modifier, TYPES, lambda oid, modifier: f"{oid}:{modifier}")


@pytest.mark.parametrize(("precision", "scale"), [(12, 2), (1000, 0), (5, -3), (3, 5), (1000, -1000), (1, 1000)])
def test_a_numeric_keeps_precision_and_scale(precision: int, scale: int) -> None:
    column = mapped(1700, (precision << 16 | scale & 0x7FF) + 4)

    assert (column.kind, column.precision, column.scale) == (Kind.DECIMAL, precision, scale)


def test_an_unlimited_numeric_has_no_limits() -> None:
    assert (mapped(1700).precision, mapped(1700).scale) == (None, None)


def test_the_modifier_of_an_array_limits_its_elements() -> None:
    column = mapped(1231, (12 << 16 | 2) + 4)

    assert column.kind is Kind.ARRAY
    assert column.element is not None
    assert (column.element.precision, column.element.scale) == (12, 2)


@pytest.mark.parametrize(("modifier", "digits"), [(-1, None), (0x7FFF0003, 3), (0x7FFFFFFF, None)])
def test_an_interval_keeps_its_fractional_digits(modifier: int, digits: int | None) -> None:
    assert mapped(1186, modifier).scale == digits


def test_a_domain_is_what_it_is_over_and_says_so() -> None:
    column = mapped(9003)

    assert (column.kind, column.precision, column.scale) == (Kind.DECIMAL, 12, 2)
    assert column.user_type is not None
    assert (column.user_type.variety, column.user_type.name) == ("domain", "price")
    assert column.user_type.base is not None
    assert column.user_type.base.kind is Kind.DECIMAL


def test_user_types_carry_what_creates_them_again() -> None:
    enum, composite, range_ = mapped(9001).user_type, mapped(9004).user_type, mapped(9005).user_type

    assert enum is not None
    assert enum.labels == ("sad", "ok")
    assert composite is not None
    assert [name for name, _ in composite.fields] == ["x", "y"]
    assert range_ is not None
    assert range_.base is not None
    assert range_.base.kind is Kind.DECIMAL


def test_a_type_of_an_extension_is_carried_as_text() -> None:
    assert mapped(9006).kind is Kind.VERBATIM


@pytest.mark.parametrize("oid", [9007, 9008])
def test_a_type_that_nobody_mapped_is_refused(oid: int) -> None:
    with pytest.raises(SetupError, match="not supported"):
        mapped(oid)


@pytest.mark.parametrize(
    ("oid", "portable"),
    [(23, True), (1007, True), (1700, True), (9003, True), (9001, False), (9002, False), (1186, False)],
)
def test_only_fixed_binary_forms_are_portable(oid: int, portable: bool) -> None:
    assert has_portable_binary(mapped(oid)) is portable
