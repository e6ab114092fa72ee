"""Servers of MySQL and MariaDB that turn the names of tables into lower case, as sources and as targets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from cdcrep.connector import Obstacle, Pipeline
from cdcrep.selection import Selection
from cdcrep.table import Column, ColumnType, Kind, Table
from cdcrep_connectors.mysql.options import SourceOptions
from cdcrep_connectors.mysql.sink import MySQLSink
from cdcrep_connectors.mysql.source import MySQLSource
from tests.integration.pairs import MySQLSide, Pair
from tests.servers.fix_postgres import unavailable
from tests.servers.mysql_binaries import RELEASES, NoServerError, find_binaries
from tests.servers.mysql_database import RunningMySQL
from tests.servers.mysql_server import MySQLServer

NAMES = ("mysql-9.7", "mariadb-11.8")
FOLDING = {"lower_case_table_names": "1"}

# `sides` is no fixture by which such tests are known.
pytestmark = pytest.mark.servers

Sides = dict[str, MySQLSide]


@pytest.fixture(scope="module")
def sides() -> Iterator[Sides]:
    """A server of each family that turns names into lower case."""
    with ExitStack() as stack:
        try:
            servers = {name: stack.enter_context(MySQLServer(find_binaries(RELEASES[name]), FOLDING)) for name in NAMES}
        except NoServerError as error:
            unavailable(str(error))
        yield {name: MySQLSide(RunningMySQL(RELEASES[name], server.url)) for name, server in servers.items()}


@pytest.fixture(params=[NAMES, NAMES[::-1]], ids="-".join)
def pair(request: pytest.FixtureRequest, tmp_path: Path, sides: Sides) -> Pair:
    source, target = request.param
    return Pair(sides[source], sides[target], tmp_path)


def test_tables_are_followed_however_statements_write_their_names(pair: Pair) -> None:
    pair.write("CREATE SCHEMA {s}")
    name = pair.schema.upper()
    pair.write(f"CREATE TABLE {name}.Orders (id int PRIMARY KEY, n int)", f"CREATE TABLE {name}.Lines (what text)")
    pair.write(f"INSERT INTO {name}.ORDERS VALUES (1, 1), (2, 2)", f"INSERT INTO {name}.LINES VALUES ('a'), ('a')")
    pair.catch_up()
    pair.write(f"UPDATE {name}.Orders SET n = 3 WHERE id = 1", f"TRUNCATE {name}.LINES")
    pair.write(f"ALTER TABLE {name}.ORDERS ADD COLUMN M int", f"INSERT INTO {name}.lines VALUES ('b')")
    pair.write(f"INSERT INTO {name}.oRDERS VALUES (4, 4, 4)")
    pair.catch_up()

    assert len(pair.assert_equal("orders", ["id", "n", "M"])) == 3
    assert pair.assert_equal("lines", ["what"]) == [("str b",)]


def obstacles_of(side: MySQLSide, tables: Selection, url: str = "") -> list[Obstacle]:
    """Return the fatal obstacles that a source finds."""
    options = SourceOptions.model_validate({"url": url or side.url})
    with closing(MySQLSource(Pipeline("test", tables), options)) as source:
        return [obstacle for obstacle in source.obstacles() if obstacle.fatal]


@pytest.mark.parametrize("name", NAMES)
def test_patterns_that_no_name_can_match_are_named_with_those_that_can(sides: Sides, name: str) -> None:
    sides[name].execute(
        "CREATE SCHEMA IF NOT EXISTS Named", "CREATE TABLE IF NOT EXISTS Named.Orders (id int PRIMARY KEY)"
    )

    written = obstacles_of(sides[name], Selection(("Named.Orders",)))
    excluded = obstacles_of(sides[name], Selection(("named.*",), ("*.Secret",)))

    assert obstacles_of(sides[name], Selection(("named.orders",), ("*.secret",))) == []
    for (obstacle,), pattern in ((written, "Named.Orders"), (excluded, "*.Secret")):
        assert f"{pattern!r} matches no table" in obstacle.what
        assert repr(pattern.lower()) in obstacle.hint


@pytest.mark.parametrize("name", NAMES)
def test_grants_count_however_they_write_names(sides: Sides, name: str) -> None:
    side = sides[name]
    side.execute("CREATE SCHEMA Granted", "CREATE TABLE Granted.Orders (id int)", "CREATE TABLE Granted.Lines (id int)")
    side.execute("CREATE USER cdc@'%' IDENTIFIED BY 'secret'")
    side.execute("GRANT REPLICATION SLAVE, REPLICATION CLIENT, RELOAD ON *.* TO cdc@'%'")
    side.execute("GRANT SELECT ON Granted.ORDERS TO cdc@'%'", "GRANT SELECT (id) ON Granted.Lines TO cdc@'%'")

    (obstacle,) = obstacles_of(side, Selection(("granted.*",)), url=side.url.replace("root@", "cdc:secret@"))
    side.execute(obstacle.hint)

    assert "granted.lines" in obstacle.what
    assert obstacles_of(side, Selection(("granted.*",)), url=side.url.replace("root@", "cdc:secret@")) == []


@pytest.mark.parametrize("name", NAMES)
def test_tables_whose_names_a_target_would_change_are_refused(sides: Sides, name: str) -> None:
    columns = (Column("ID", ColumnType(Kind.INT32, "integer"), nullable=False),)
    plain, upper = (Table("shop", table, columns, ("ID",), "postgresql") for table in ("orders", "Orders"))
    pipeline = Pipeline("test", Selection(("shop.*",)), source="postgresql://somewhere/shop")

    with closing(MySQLSink(pipeline, MySQLSink.Options.model_validate({"url": sides[name].url}))) as sink:
        fit = [obstacle for obstacle in sink.obstacles([plain]) if obstacle.fatal]
        (unfit,) = [obstacle for obstacle in sink.obstacles([plain, upper]) if obstacle.fatal]

    assert fit == []
    assert "into lower case (lower_case_table_names): shop.Orders" in unfit.what
