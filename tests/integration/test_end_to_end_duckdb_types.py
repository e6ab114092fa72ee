"""DuckDB holds what docs/types.md promises of every value, copied or streamed, or refuses it by name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Final

import duckdb
import pytest

from cdcrep.errors import DataError
from tests.integration.end_to_end import PINNED, Replicated
from tests.integration.test_duckdb_types import VALUES as TEXTS
from tests.integration.test_postgres_types import USER_TYPES
from tests.integration.type_matrix import MORE_USER_TYPES, Matrix
from tests.servers.database import Database

REFUSED: Final[Mapping[str, Sequence[str]]] = {
    "numeric(12,2)": ["NaN"],
    "numeric(5,1)[]": ["{1.5,NaN}"],
    "public.over_domain": ["NaN"],
    "timestamp": ["294276-12-31 23:59:59.999999"],
    "timestamptz": ["294276-12-31 23:59:59+00"],
    "interval": ["infinity", "-infinity"],
    "integer[]": ["{{1,2},{3,4}}", "[0:1]={1,2}", "[-1:0][2:2]={{1},{2}}"],
}
"""Values that the DuckDB type of the column does not have."""


@pytest.fixture
def replicated(source_database: Database, tmp_path: Path) -> Replicated:
    return Replicated(source_database, tmp_path, None, ("public.*",))


newest_only = pytest.mark.parametrize("postgres_major", [18], indirect=True)


@pytest.mark.slow
@newest_only
def test_every_value_is_what_was_promised_by_every_path(replicated: Replicated, postgres_major: int) -> None:
    matrix = Matrix(replicated.source, postgres_major, without=REFUSED, nested_arrays=False)
    matrix.create()
    matrix.insert(1000)
    matrix.prepare_updates()
    replicated.catch_up()
    matrix.insert(5000)
    matrix.change()
    replicated.catch_up()

    wrong: list[object] = []
    forms: dict[str, dict[str | None, str | None]] = {}
    with duckdb.connect(str(replicated.file), read_only=True) as target:
        for name, type_ in matrix.types.items():
            found = target.execute(f"SELECT id, v::VARCHAR, typeof(v) FROM public.{name}").fetchall()
            held, kind = {id_: text for id_, text, _ in found}, found[0][2]
            literals = matrix.values[type_]
            copied, streamed, updated, emptied = (
                [held.pop(first + i) for i in range(len(literals) + 1)] for first in (1000, 5000, 2000, 3000)
            )
            if held or not copied == streamed == updated or set(emptied) != {None} or copied[0] is not None:
                wrong.append((type_, copied, streamed, updated, emptied, held))
            written = texts_of(replicated.source, name, ["v"])
            wrong += [
                (type_, *value, kind)
                for value in zip(literals, (text for (text,) in written[1 : len(copied)]), copied[1:], strict=True)
                if not promised(type_, kind, *value)
            ]
            forms[name] = dict(zip((text for (text,) in written[: len(copied)]), copied, strict=True))
        arrays = target.execute("SELECT COLUMNS(* EXCLUDE id)::VARCHAR FROM public.arrays ORDER BY id").fetchall()
        bag = target.execute("SELECT COLUMNS(*)::VARCHAR FROM public.bag").fetchall()
    assert wrong == []
    assert arrays[:2] == arrays[2:]
    expected = texts_of(replicated.source, "bag", list(forms))
    assert Counter(bag) == Counter(
        tuple(form[text] for form, text in zip(forms.values(), row, strict=True)) for row in expected
    )


def texts_of(source: Database, table: str, columns: Sequence[str]) -> list[tuple[str | None, ...]]:
    """Read columns as the types' output functions write them, by key where there is one."""
    order = "" if table == "bag" else "ORDER BY id"
    texts = ", ".join(f"CASE WHEN {name} IS DISTINCT FROM NULL THEN format('%s', {name}) END" for name in columns)
    with source.connect(options=PINNED) as connection:
        return connection.execute(f"SELECT {texts} FROM public.{table} {order}".encode()).fetchall()


def promised(type_: str, kind: str, literal: str, written: str | None, text: str) -> bool:
    """Tell whether DuckDB's text is that of the source's value."""
    assert written is not None
    if literal in TEXTS.get(type_, {}):
        expected = TEXTS[type_][literal]
        return text == (literal if expected is None else expected)
    if kind in ("FLOAT", "DOUBLE"):
        return repr(float(text)) == repr(float(written))
    if kind == "BLOB":
        found = re.sub(r"\\x(..)|(.)", lambda m: (m[1] or f"{ord(m[2]):02x}").lower(), text)
        return f"\\x{found}" == written
    if kind == "INTERVAL":
        return _short(text) == _short(written)
    if kind.startswith(("TIMESTAMP", "DATE")) and not kind.endswith("[]"):
        return re.sub(r"(.*) \(BC\)(.*)", r"\1\2 BC", text) == written
    if kind.startswith("DECIMAL") and not kind.endswith("[]"):
        return Decimal(text).as_tuple() == Decimal(written).as_tuple()
    if kind.endswith("[]"):
        return text.strip("[]").replace("'", "").count(",") == written.strip("{}").count(",")
    return text == written


def _short(interval: str) -> str:
    return re.sub(r"(year|mon|day)(ths?|s)?", r"\1", interval.replace("+", ""))


def follow_the_hint(replicated: Replicated, refused: pytest.ExceptionInfo[DataError]) -> str:
    """Do what the error says; return the table that it names."""
    found = re.match(r"public\.(r\d+): column 'v': a value of type .+ cannot be held as ", refused.value.message)
    assert found is not None, refused.value.message
    table = found[1]
    assert f'add as_text = ["public.{table}.v"] to [target]; DROP TABLE "public"."{table}"' in str(refused.value.hint)
    replicated.target_options.setdefault("as_text", []).append(f"public.{table}.v")
    replicated.run_on_target(f'DROP TABLE "public"."{table}"')
    return table


def create_refused(source: Database) -> dict[str, tuple[str, str]]:
    source.execute(USER_TYPES + MORE_USER_TYPES)
    tables = {f"r{number}": (type_, literals[0]) for number, (type_, literals) in enumerate(REFUSED.items())}
    for name, (type_, _) in tables.items():
        source.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, v {type_}); INSERT INTO {name} VALUES (0, NULL)")
    return tables


@newest_only
@pytest.mark.parametrize("path", ["copied", "inserted", "updated"])
def test_a_refused_value_stops_until_its_column_is_kept_as_text(replicated: Replicated, path: str) -> None:
    source = replicated.source
    tables = create_refused(source)
    if path != "copied":
        replicated.catch_up()
    for name, (type_, literal) in tables.items():
        if path == "updated":
            source.execute(f"UPDATE {name} SET v = '{literal}'::{type_}")
        else:
            source.execute(f"INSERT INTO {name} VALUES (1, '{literal}'::{type_})")

    stopped = []
    for _ in tables:
        with pytest.raises(DataError) as refused:
            replicated.catch_up()
        assert not any(repr(literal) in refused.value.message for _, literal in tables.values())
        stopped.append(follow_the_hint(replicated, refused))
    replicated.catch_up()

    assert sorted(stopped) == sorted(tables)
    replicated.assert_equal()
