"""The value of every type of MySQL and MariaDB is the same in every target, by the first copy and by the stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.mysql_type_matrix import canonical, values
from tests.integration.pairs import MySQLSide, Pair, PostgresSide, opened
from tests.servers.database import RunningServer
from tests.servers.mysql_database import RunningMySQL


@pytest.fixture
def pair(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    postgres_server: Callable[[int], RunningServer],
    mysql_server: Callable[[str], RunningMySQL],
) -> Iterator[Pair]:
    with ExitStack() as stack:
        source, target = (
            stack.enter_context(opened(name, tmp_path, postgres_server, mysql_server)) for name in request.param
        )
        pair = Pair(source, target, tmp_path)
        stack.callback(source.drop, pair.schema)
        stack.callback(target.drop, pair.schema)
        yield pair


def reading(type_: str, name: str, side: object) -> str:
    """Return the SQL that reads a column whole, whatever the driver would make of its values."""
    if isinstance(side, MySQLSide):
        if type_ == "uuid" and not side.server.release.is_mariadb:
            return f"BIN_TO_UUID({name})"
        # The server shows six digits of a FLOAT; the driver takes a VECTOR for text.
        return {"float": f"{name} + 0e0", "vector(3)": f"CAST({name} AS binary)"}.get(type_, name)
    if isinstance(side, PostgresSide):
        return f"{name}::text" if type_ == "json" else name
    return f"{name}::TIMESTAMP" if type_.startswith("timestamp") else name


@pytest.mark.parametrize(
    "pair",
    [
        ("mysql-9.7", "duckdb"),
        ("mysql-9.7", "postgresql-18"),
        ("mysql-9.7", "mariadb-11.8"),
        ("mariadb-11.8", "duckdb"),
        ("mariadb-11.8", "postgresql-18"),
        ("mariadb-11.8", "mysql-9.7"),
    ],
    indirect=True,
    ids="-to-".join,
)
def test_every_value_of_every_type_is_the_same(pair: Pair) -> None:
    assert isinstance(pair.source, MySQLSide)
    types = values(pair.source.server.release.name)
    names = [f"c{number}" for number in range(len(types))]
    rows = max(map(len, types.values()))

    def insert(first: int) -> str:
        written = ", ".join(
            f"({first + i}, {', '.join(literals[i % len(literals)] for literals in types.values())})"
            for i in range(rows)
        )
        return f"INSERT INTO {{s}}.t VALUES {written}"

    columns = ", ".join(f"{name} {type_}" for name, type_ in zip(names, types, strict=True))
    pair.write("CREATE DATABASE {s} CHARACTER SET utf8mb4", f"CREATE TABLE {{s}}.t (id int PRIMARY KEY, {columns})")
    pair.write(insert(1000), "INSERT INTO {s}.t (id) SELECT id + 1000 FROM {s}.t")
    pair.catch_up()
    pair.write(insert(3000), "INSERT INTO {s}.t (id) VALUES (4000)")
    changes = ", ".join(f"t.{name} = o.{name}" for name in names)
    pair.write(f"UPDATE {{s}}.t t JOIN {{s}}.t o ON o.id = t.id - 1000 SET {changes} WHERE t.id BETWEEN 2000 AND 2999")
    pair.catch_up()

    found = []
    for side in (pair.source, pair.target):
        selected = ", ".join(reading(type_, name, side) for name, type_ in zip(names, types, strict=True))
        held = side.select(f"SELECT {selected} FROM {pair.schema}.t ORDER BY id")
        found.append(dict(zip(types, zip(*held, strict=True), strict=True)))
    wrong = {
        type_: (ours, theirs)
        for type_, *both in zip(types, *(side.values() for side in found), strict=True)
        for ours, theirs in zip(*both, strict=True)
        if canonical(type_, ours) != canonical(type_, theirs)
    }
    assert wrong == {}
    assert {type_: len(held) for type_, held in found[0].items()} == dict.fromkeys(types, 3 * rows + 1)
