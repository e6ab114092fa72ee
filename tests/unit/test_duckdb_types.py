"""DuckDB's types: the page that lists them and the code agree, and no kind is left out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cdcrep.table import Column, ColumnType, Kind, Table
from cdcrep_connectors.duckdb.types import column_type, duckdb_type, exactness
from cdcrep_connectors.postgres.types import BUILTIN

PAGE = Path(__file__).parents[2] / "docs" / "types.md"

NAMES = {
    "bool": "boolean",
    "int2": "smallint",
    "int4": "integer",
    "int8": "bigint",
    "float4": "real",
    "float8": "double precision",
    "bpchar": "char(n)",
    "char": '"char"',
}
"""`typname` of types that SQL calls otherwise."""


def documented() -> dict[str, tuple[str, str]]:
    """Read the page: PostgreSQL's name -> DuckDB's type, exactness."""
    found = {}
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 5 and cells[0].startswith("`"):
            names = re.findall(r"`([^`]+)`", cells[0])
            types = cells[3].split(", ")
            for i, name in enumerate(names):
                found[name] = (types[i] if len(types) == len(names) else types[0], cells[4])
    return found


def in_families(name: str) -> bool:
    return name.startswith("reg") or name.endswith(("range", "multirange"))


@pytest.mark.parametrize("name", [name for name in BUILTIN if name != "numeric" and not in_families(name)])
def test_the_page_lists_every_type_as_the_code_maps_it(name: str) -> None:
    type_ = ColumnType(BUILTIN[name], name)

    duckdb, how = documented()[NAMES.get(name, name)]

    assert (duckdb, how.rstrip("¹")) == (duckdb_type(type_), exactness(type_))


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.ARRAY])
def test_every_kind_has_a_type(kind: Kind) -> None:
    assert duckdb_type(ColumnType(kind, "x"))


@pytest.mark.parametrize(
    ("precision", "scale", "expected"),
    [
        (12, 2, "DECIMAL(12,2)"),
        (38, 38, "DECIMAL(38,38)"),
        (39, 0, "VARCHAR"),
        (None, None, "VARCHAR"),
        (5, -2, "DECIMAL(7,0)"),
        (3, 5, "DECIMAL(5,5)"),
        (37, -2, "VARCHAR"),
    ],
)
def test_decimals_are_exact_or_text(precision: int | None, scale: int | None, expected: str) -> None:
    assert duckdb_type(ColumnType(Kind.DECIMAL, "numeric", precision, scale)) == expected


def test_arrays_of_verbatim_types_stay_text() -> None:
    inet, text = ColumnType(Kind.VERBATIM, "inet"), ColumnType(Kind.TEXT, "text")

    assert duckdb_type(ColumnType(Kind.ARRAY, "inet[]", element=inet)) == "VARCHAR"
    assert duckdb_type(ColumnType(Kind.ARRAY, "text[]", element=text)) == "VARCHAR[]"


def test_a_pattern_keeps_columns_as_text() -> None:
    column = Column("amount", ColumnType(Kind.DECIMAL, "numeric(12,2)", 12, 2))
    table = Table("public", "orders", (column,), (), "postgresql")

    assert column_type(table, column, ["public.*.amount"]) == "VARCHAR"
    assert column_type(table, column, ["sales.orders.amount"]) == "DECIMAL(12,2)"
