"""The page that lists the types of MySQL and MariaDB, on either side, says what the code does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from cdcrep.table import ColumnType, Kind
from cdcrep_connectors.duckdb import types as duckdb
from cdcrep_connectors.mysql import column_types as mysql
from cdcrep_connectors.mysql.same_family import own_type
from cdcrep_connectors.mysql.types import GEOMETRIES, INTEGERS, SIMPLE, column_type
from cdcrep_connectors.postgres import column_types as postgres
from cdcrep_connectors.postgres.types import BUILTIN
from tests.unit.test_duckdb_types import NAMES, in_families

PAGE: Final = Path(__file__).parents[3] / "docs" / "types.md"

NARROW: Final = frozenset(
    {
        *("mediumint", "mediumint unsigned", "bit", "year", "time", "enum", "set", "vector", "inet4", "inet6"),
        *(GEOMETRIES - {"geometry"}),
    }
)
"""Types that have fewer values than their kind, and so than every target's type."""
WIDER_IN_POSTGRES: Final = frozenset({Kind.INT8, Kind.UINT8, Kind.UINT16, Kind.UINT32, Kind.UINT64})
LIMITED: Final = {
    **{"bit": "bit(64)", "vector": "vector(3)"},
    **{name: f"{name}('a') character set utf8mb4" for name in ("enum", "set")},
}


def rows(cells: int) -> Iterator[list[str]]:
    """Yield the rows of the page's tables that have so many cells and begin with names of types."""
    for line in PAGE.read_text().splitlines():
        found = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("| `") and len(found) == cells:
            yield found


def documented(cells: int) -> dict[str, list[str]]:
    """Return the other cells by each of the names in the first."""
    return {name: row[1:] for row in rows(cells) for name in re.findall(r"`([^`]+)`", row[0])}


def native_types() -> Iterator[str]:
    for name in INTEGERS:
        yield from (name, f"{name} unsigned")
    yield from SIMPLE


@pytest.mark.parametrize("name", list(native_types()))
def test_the_page_lists_every_type_of_mysql_as_the_code_maps_it(name: str) -> None:
    type_ = column_type(LIMITED.get(name, name))
    kind, *cells = documented(8)[name]

    in_postgres = "widened" if type_.kind in WIDER_IN_POSTGRES else "exact"
    hows = [duckdb.exactness(type_), in_postgres, mysql.exactness(type_)]
    own = own_type(type_, "mysql")
    in_mysql = mysql.plain_type(type_) if own is None else "the same"
    types = [duckdb.duckdb_type(type_), postgres.column_type(type_, "mysql"), in_mysql]
    if name in NARROW:
        hows = ["widened"] * 2 + ["widened" if own is None else "exact"]
    assert kind == str(type_.kind)
    assert [re.sub(r"\(d\)|\([0-6]\)", "", cell) for cell in cells[::2]] == [
        re.sub(r"\([0-6]\)", "", each) for each in types
    ]
    assert [cell.rstrip("¹²³⁴") for cell in cells[1::2]] == hows


@pytest.mark.parametrize("name", [name for name in BUILTIN if name != "numeric" and not in_families(name)])
def test_the_page_says_what_mysql_makes_of_every_type_of_postgresql(name: str) -> None:
    type_ = ColumnType(BUILTIN[name], name)
    held, how = documented(3)[NAMES.get(name, name)]

    assert (held, how.rstrip("¹²³")) == (mysql.plain_type(type_), mysql.exactness(type_))


@pytest.mark.parametrize(
    ("precision", "scale", "expected"),
    [(65, 30, "DECIMAL(65,30)"), (66, 0, "LONGTEXT"), (40, 31, "LONGTEXT"), (None, None, "LONGTEXT")],
)
def test_decimals_that_mysql_cannot_have_are_text(precision: int | None, scale: int | None, expected: str) -> None:
    assert mysql.plain_type(ColumnType(Kind.DECIMAL, "numeric", precision, scale)) == expected
