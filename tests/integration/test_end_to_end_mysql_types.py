"""MySQL and MariaDB hold every value of every PostgreSQL type, copied or streamed, or refuse it by name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pytest

from cdcrep.errors import DataError
from cdcrep.table import ColumnType, Kind
from cdcrep.testing import contract_data
from cdcrep_connectors.mysql.bulk_values import NamedRows, value_lists
from tests.integration.end_to_end import PINNED
from tests.integration.pairs import MySQLSide, Pair, PostgresSide
from tests.integration.type_matrix import Matrix
from tests.servers.database import Database
from tests.servers.mysql_database import RunningMySQL

NO_NUMBERS: Final = ("NaN", "Infinity", "-Infinity")
NO_DATES: Final = ("infinity", "-infinity", "10000-01-01", "5874897-12-31")

REFUSED: Final[Mapping[str, Sequence[str]]] = {
    "real": NO_NUMBERS,
    "double precision": NO_NUMBERS,
    "numeric(12,2)": ["NaN"],
    "public.over_domain": ["NaN"],
    "date": [*NO_DATES, "4713-01-01 BC"],
    "timestamp": ["infinity", "-infinity", "4713-01-01 BC", "294276-12-31 23:59:59.999999"],
    "timestamptz": [
        *("infinity", "-infinity", "4713-01-01 BC", "294276-12-31 23:59:59+00", "0001-12-31 23:59:59 BC"),
    ],
}
"""Values that the MySQL type of the column does not have."""

Text = str | None


@pytest.fixture
def pair(
    source_database: Database, mysql_server: Callable[[str], RunningMySQL], mysql_release: str, tmp_path: Path
) -> Iterator[Pair]:
    pair = Pair(PostgresSide(source_database), MySQLSide(mysql_server(mysql_release)), tmp_path, "public")
    yield pair
    pair.target.drop(pair.schema)


def held(kind: str, written: Text) -> Text:
    """Return what a column of this MySQL type shows of a value that PostgreSQL writes so."""
    if written is None:
        return None
    match kind:
        case "tinyint":
            return {"t": "1", "f": "0"}[written]
        case "float" | "double":
            return number(kind, written)
        case "longblob":
            return written.removeprefix("\\x").upper()
        case "datetime" | "time":
            return short(written.removesuffix("+00"))
        case "binary":
            return written.replace("-", "").upper()
        case _:
            return written


def shown(kind: str, text: Text) -> Text:
    """Return the text of a column of this MySQL type without what only its form adds."""
    if text is None:
        return None
    if kind in ("float", "double"):
        return number(kind, text)
    return short(text) if kind in ("datetime", "time") else text


def number(kind: str, text: str) -> str:
    return repr(np.float32(text) if kind == "float" else float(text))


def short(text: str) -> str:
    return re.sub(r"\.?0+$", "", text) if "." in text else text


def texts_of(pair: Pair, table: str, columns: Sequence[str], order: str) -> list[tuple[Text, ...]]:
    """Read columns as the types' output functions write them."""
    assert isinstance(pair.source, PostgresSide)
    texts = ", ".join(f"CASE WHEN {name} IS DISTINCT FROM NULL THEN format('%s', {name}) END" for name in columns)
    with pair.source.database.connect(options=PINNED) as connection:
        return connection.execute(f"SELECT {texts} FROM public.{table} {order}".encode()).fetchall()


def found_in(pair: Pair, table: str, kinds: Mapping[str, str], order: str) -> list[tuple[Text, ...]]:
    form = {"longblob": "hex({})", "binary": "hex({})", "float": "CAST(CAST({} AS double) AS char)"}
    texts = ", ".join(form.get(kind, "CAST({} AS char)").format(f"`{name}`") for name, kind in kinds.items())
    rows = pair.target.select(f"SELECT {texts} FROM public.{table} {order}")
    return [tuple(shown(kind, value) for kind, value in zip(kinds.values(), row, strict=True)) for row in rows]


def kinds_of(pair: Pair, table: str) -> dict[str, str]:
    return {
        str(name): str(kind)
        for name, kind in pair.target.select(
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = 'public' "
            f"AND table_name = '{table}' AND extra NOT LIKE '%INVISIBLE%' ORDER BY ordinal_position"
        )
    }


@pytest.mark.slow
@pytest.mark.parametrize(("postgres_major", "mysql_release"), [(18, "mysql-9.7")], indirect=True)
def test_every_value_of_every_type_is_held(pair: Pair, source_database: Database, postgres_major: int) -> None:
    matrix = Matrix(source_database, postgres_major, without=REFUSED)
    matrix.create()
    matrix.insert(1000)
    matrix.prepare_updates()
    pair.catch_up()
    matrix.insert(5000)
    matrix.change()
    pair.catch_up()

    different: dict[str, object] = {}
    for table in (*matrix.types, "arrays", "bag"):
        kinds = kinds_of(pair, table)
        order = "" if table == "bag" else "ORDER BY id"
        written = texts_of(pair, table, list(kinds), order)
        ours = [tuple(held(kind, text) for kind, text in zip(kinds.values(), row, strict=True)) for row in written]
        theirs = found_in(pair, table, kinds, order)
        if Counter(ours) != Counter(theirs):
            wrong = [both for both in zip(ours, theirs, strict=False) if both[0] != both[1]]
            different[matrix.types.get(table, table)] = (len(ours), len(theirs), str(wrong)[:800])
    assert different == {}


@pytest.mark.parametrize(
    ("type_", "literal"),
    [("real", "NaN"), ("numeric(12,2)", "NaN"), ("date", "infinity"), ("timestamptz", "0001-12-31 23:59:59 BC")],
)
@pytest.mark.parametrize("streamed", [False, True], ids=["copied", "streamed"])
def test_a_value_that_mysql_does_not_have_is_refused_by_name(
    source_database: Database,
    mysql_server: Callable[[str], RunningMySQL],
    tmp_path: Path,
    type_: str,
    literal: str,
    streamed: bool,
) -> None:
    both = Pair(PostgresSide(source_database), MySQLSide(mysql_server("mariadb-11.8")), tmp_path)
    both.write("CREATE SCHEMA {s}", f"CREATE TABLE {{s}}.t (id int PRIMARY KEY, v {type_})")
    if streamed:
        both.catch_up()
    both.write(f"INSERT INTO {{s}}.t VALUES (1, '{literal}')")

    with pytest.raises(DataError, match=r"\.t: column 'v'"):
        both.catch_up()

    both.target.drop(both.schema)


@pytest.mark.parametrize(
    ("type_", "literal"), [(type_, literal) for type_, literals in REFUSED.items() for literal in literals]
)
def test_the_text_of_no_other_value_is_written(type_: str, literal: str) -> None:
    kind = {
        "real": Kind.FLOAT32,
        "double precision": Kind.FLOAT64,
        "date": Kind.DATE,
        "timestamp": Kind.TIMESTAMP,
        "timestamptz": Kind.TIMESTAMPTZ,
    }.get(type_, Kind.DECIMAL)
    shape = contract_data.table("t", key=(), v=ColumnType(kind, type_, 12, 2))

    with pytest.raises(DataError, match="column 'v'"):
        list(value_lists(NamedRows(shape, (), shape.columns, [pa.chunked_array([[literal]])], 1), 1000))
