"""ENUM, SET and geometries of MySQL and MariaDB are the same columns with the same values in a target of the family."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from cdcrep.errors import DataError, DivergedError
from cdcrep.table import ColumnType, Kind
from cdcrep.testing.contract_data import INT, batch, following, inserted, pipeline, table
from cdcrep.testing.memory_tables import ordered
from cdcrep_connectors.mysql.column_types import Dialect
from tests.contract.test_mysql_sink import MySQLTarget
from tests.integration.pairs import Pair, Rows, opened
from tests.servers.database import RunningServer
from tests.servers.fix_mysql import StartMySQL, every_mysql_target
from tests.servers.mysql_binaries import RELEASES
from tests.servers.mysql_database import MySQLDatabase, RunningMySQL

LABELS: Final = r"'x','2','1','A','a','a,b','q''r','b\\c','n\nl',' first','%s','é','0'"
ENUM: Final = f"ENUM({LABELS}) CHARACTER SET latin1 COLLATE latin1_bin"
"""Labels that look like numbers of other labels, are equal under many collations, or need quoting."""
MEMBERS: Final = ",".join(f"'m{i}'" for i in range(63)) + r",'q''\\'"
SET: Final = f"SET({MEMBERS}) CHARACTER SET utf8mb4"
COLUMNS: Final = f"e {ENUM} NOT NULL, n int NOT NULL, s {SET}, g geometry, p point NOT NULL"
TABLES: Final = {
    "keyed": "PRIMARY KEY (e, n)",
    "wide": "note text, PRIMARY KEY (n)",
    "bag": "note text",
}
SHAPES: Final = (
    "ST_GeomFromText('POINT(1 2)', 4326)",
    "NULL",
    "ST_GeomFromText('LINESTRING(0 0,1 1)')",
    "ST_GeomFromText('POLYGON((0 0,1 1,1 0,0 1,0 0))', 4326)",
    "ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 2),LINESTRING(0 0,-0.0 1e300))')",
    "ST_GeomFromText('MULTIPOLYGON(((0 0,4 0,4 4,0 4,0 0),(1 1,2 1,2 2,1 2,1 1)))')",
)
ANY_VALUES: Final = "SET SESSION sql_mode = ''"
"""Lets numbers stand for labels, and 0 for none of them."""
TEXTS: Final = "HEX(CONVERT(e USING utf8mb4)), n, HEX(CONVERT(s USING utf8mb4)), HEX(g), HEX(p)"
HELD: Final = f"{TEXTS}, e + 0, CAST(s AS UNSIGNED)"

TYPES: Final = """
    SELECT column_name, column_type FROM information_schema.columns
    WHERE table_schema = '{s}' AND table_name = 'wide' AND column_name IN ('e', 's', 'g', 'p', 'later') ORDER BY 1"""

Servers = Callable[[str, str], Pair]


@pytest.fixture
def pair_of(
    tmp_path: Path,
    postgres_server: Callable[[int], RunningServer],
    mysql_server: Callable[[str], RunningMySQL],
    own_mysql_server: StartMySQL,
) -> Iterator[Servers]:
    """Open a source and a target: `pair_of("mysql-9.7", "mariadb-11.8")`."""
    with ExitStack() as stack:

        def pair(origin: str, destination: str) -> Pair:
            def another(name: str) -> RunningMySQL:
                # One server cannot be both sides: the database has the same name on either.
                own = name == origin
                return RunningMySQL(RELEASES[name], own_mysql_server(name).url) if own else mysql_server(name)

            source = stack.enter_context(opened(origin, tmp_path, postgres_server, mysql_server))
            target = stack.enter_context(opened(destination, tmp_path, postgres_server, another))
            pair = Pair(source, target, tmp_path)
            stack.callback(source.drop, pair.schema)
            stack.callback(target.drop, pair.schema)
            return pair

        yield pair


def rows(name: str, first: int, count: int) -> str:
    """Insert rows with every label of ENUM and its 0."""

    def row(i: int) -> str:
        bits = i * 0x9E3779B97F4A7C15 % 2**64
        return f"({i % 14}, {i}, {bits}, {SHAPES[i % 6]}, ST_GeomFromText('POINT({i} -{i})'))"

    return f"INSERT INTO {{s}}.{name} (e, n, s, g, p) VALUES {', '.join(map(row, range(first, first + count)))}"


def held(pair: Pair, name: str, values: str = HELD) -> Rows:
    """Return a table's rows, which are the same on both sides."""
    ours, theirs = (
        sorted(side.select(f"SELECT {values} FROM {pair.schema}.{name}"), key=repr)
        for side in (pair.source, pair.target)
    )
    assert theirs == ours
    return theirs


def types(pair: Pair) -> tuple[Rows, Rows]:
    """Return the columns' types on both sides, with one name for each."""
    found = [side.select(TYPES.replace("{s}", pair.schema)) for side in (pair.source, pair.target)]
    ours, theirs = ([(name, type_.replace("geomcoll", "geometrycoll")) for name, type_ in side] for side in found)
    return ours, theirs


def replicate(pair: Pair, values: str = HELD) -> dict[str, int]:
    """Copy and stream tables; compare them; return how many rows they have."""
    creations = [f"CREATE TABLE {{s}}.{name} ({COLUMNS}, {more})" for name, more in TABLES.items()]
    pair.write("CREATE DATABASE {s} CHARACTER SET utf8mb4", *creations)
    pair.write(ANY_VALUES, *(rows(name, 0, 130) for name in TABLES))
    pair.catch_up()
    for name in TABLES:
        held(pair, name, values)

    pair.write("ALTER TABLE {s}.wide ADD COLUMN later ENUM('z','a')")
    pair.write(ANY_VALUES, *(rows(name, 1000, 130) for name in TABLES), *(rows(name, 2000, 5) for name in TABLES))
    pair.write(ANY_VALUES, *(f"UPDATE {{s}}.{name} SET e = (e + 3) % 14 WHERE n % 4 = 1" for name in TABLES))
    pair.write(ANY_VALUES, *(f"UPDATE {{s}}.{name} SET s = 0, g = p WHERE n % 7 = 1" for name in TABLES))
    pair.write(*(f"DELETE FROM {{s}}.{name} WHERE e IN ('', '2', 'a') AND n % 3 = 0" for name in TABLES))
    # Changes that carry neither labels nor geometries.
    image = "SET SESSION binlog_row_image = 'MINIMAL'"
    pair.write(image, "UPDATE {s}.wide SET note = 'new' WHERE n % 2 = 0", "DELETE FROM {s}.keyed WHERE n = 2000")
    pair.catch_up()
    return {name: len(held(pair, name, values)) for name in TABLES}


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("mysql-9.7", "mysql-9.7"),
        ("mysql-9.7", "mariadb-10.11"),
        ("mariadb-10.11", "mariadb-11.8"),
        ("mariadb-11.8", "mysql-9.7"),
    ],
)
def test_labels_and_geometries_are_the_same_copied_or_streamed(pair_of: Servers, source: str, target: str) -> None:
    pair = pair_of(source, target)

    counts = replicate(pair)

    ours, theirs = types(pair)
    assert theirs == ours
    assert len(set(counts.values())) == 2
    assert counts["wide"] == counts["bag"] == counts["keyed"] + 1


def test_columns_of_text_and_bytes_as_earlier_versions_made_them_are_followed(pair_of: Servers) -> None:
    pair = pair_of("mysql-9.7", "mariadb-11.8")
    binary = "CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin"
    text = f"n int NOT NULL, s longtext {binary}, g longblob, p longblob"
    number = "cdcrep_row BIGINT UNSIGNED NOT NULL AUTO_INCREMENT INVISIBLE PRIMARY KEY"
    pair.target.execute(
        f"CREATE DATABASE {pair.schema}",
        f"CREATE TABLE {pair.schema}.keyed (e varchar(767) {binary}, {text}, PRIMARY KEY (e, n))",
        f"CREATE TABLE {pair.schema}.wide (e longtext {binary}, {text}, note longtext {binary}, PRIMARY KEY (n))",
        f"CREATE TABLE {pair.schema}.bag (e longtext {binary}, {text}, note longtext {binary}, {number})",
    )

    replicate(pair, TEXTS)

    kept = pair.target.select(TYPES.replace("{s}", pair.schema))
    assert kept == [
        ("e", "longtext"),
        ("g", "longblob"),
        ("later", "enum('z','a')"),
        ("p", "longblob"),
        ("s", "longtext"),
    ]


def test_a_label_that_the_target_lacks_stops_the_stream_before_its_row(pair_of: Servers) -> None:
    pair = pair_of("mysql-9.7", "mariadb-11.8")
    pair.write("CREATE DATABASE {s}", "CREATE TABLE {s}.t (id int PRIMARY KEY, e ENUM('a','b'))")
    pair.write("INSERT INTO {s}.t VALUES (1, 'a')")
    pair.catch_up()
    pair.write("INSERT INTO {s}.t VALUES (2, 'b')")
    pair.write("ALTER TABLE {s}.t MODIFY e ENUM('a','b','c')")
    pair.write("INSERT INTO {s}.t VALUES (3, 'c')")

    with pytest.raises(DivergedError, match="ALTER TABLE"):
        pair.catch_up()

    assert pair.target.select(f"SELECT id, e FROM {pair.schema}.t ORDER BY id") == [(1, "a"), (2, "b")]


@pytest.mark.parametrize("streamed", [False, True], ids=["copied", "streamed"])
def test_a_geometry_that_the_target_refuses_stops_with_a_way_out(pair_of: Servers, streamed: bool) -> None:
    pair = pair_of("mariadb-11.8", "mysql-9.7")
    pair.write("CREATE DATABASE {s}", "CREATE TABLE {s}.t (id int PRIMARY KEY, g polygon, h geometry)")
    closed = ", ".join(f"({i}, ST_GeomFromText('POLYGON((0 0,1 0,1 {i},0 0))'), NULL)" for i in range(3, 123))
    pair.write(f"INSERT INTO {{s}}.t VALUES {closed}")
    if streamed:
        pair.catch_up()
    open_ring = struct.pack("<IBIII6d", 0, 1, 3, 1, 3, 0, 0, 1, 0, 1, 1).hex()
    pair.write(f"INSERT INTO {{s}}.t VALUES (2, x'{open_ring}', NULL)")

    with pytest.raises(DataError, match=r"\.t: the target does not take a geometry of column 'g' or 'h'") as refused:
        pair.catch_up()
    hint = refused.value.hint or ""
    pair.target.execute(hint.partition("  --")[0])
    pair.catch_up()

    ours, theirs = (
        side.select(f"SELECT id, HEX(g), HEX(h) FROM {pair.schema}.t ORDER BY id")
        for side in (pair.source, pair.target)
    )
    assert theirs == ours
    assert len(theirs) == 121


@every_mysql_target
def test_no_other_value_is_changed_where_a_row_has_an_enum_s_zero(mysql_target: MySQLDatabase) -> None:
    target = MySQLTarget(mysql_target)
    labels = ColumnType(Kind.TEXT, "enum('a','b') character set utf8mb4")
    shape = replace(table("t", id=INT, e=labels, f=labels, n=ColumnType(Kind.INT32, "int")), dialect="mysql")
    sink = following(target.sink(pipeline()), {shape: [("1", "a", "b", "1")]})
    collation = Dialect(mysql_target.server.release.is_mariadb).character_set
    target.execute(f"ALTER TABLE shop.t MODIFY f LONGTEXT {collation}")

    sink.apply(batch(1, inserted(shape, "2", "", "", "2"), inserted(shape, "3", "", "b", "3")))
    target.execute("ALTER TABLE shop.t MODIFY n SMALLINT")
    with pytest.raises(DataError, match="'n'"):
        sink.apply(batch(2, inserted(shape, "4", "", "", "70000")))
    sink.close()

    assert ordered(target.rows(shape)) == [("1", "a", "b", "1"), ("2", "", "", "2"), ("3", "", "b", "3")]
    assert target.database.execute("SELECT e + 0 FROM shop.t ORDER BY id") == [(1,), (0,), (0,)]
    target.clear()
