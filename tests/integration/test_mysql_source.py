"""Following real MySQL and MariaDB servers: statements that stop, parts of a table, refusals."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import closing

import pyarrow as pa
import pytest

from cdcrep.connector import Pipeline
from cdcrep.errors import DataError, DivergedError
from cdcrep.selection import Selection
from cdcrep_connectors.mysql.options import SourceOptions
from cdcrep_connectors.mysql.position import parse_position
from cdcrep_connectors.mysql.source import MySQLSource
from tests.integration.mysql_following import here, ids, last_position, read, run, source_of
from tests.servers.fix_mysql import StartMySQL, every_mysql
from tests.servers.mysql_database import MySQLDatabase

TYPES = """
a tinyint, b bigint unsigned, c decimal(12,2), d decimal(65,30), e float, f double, g bit(12), h year, i date,
j datetime(6), k timestamp(3) NULL, l time(6), m char(5) character set latin1, n varchar(20), o binary(4),
p varbinary(9), q mediumblob, r longtext, s enum('x','y''z'), t set('a','b'), u json, v point
"""
VALUES = (
    "-7, 18446744073709551615, -1234567890.12, 12345678901234567890.000000000000000000000000000001, 1.2345678, 1e-300, "
    "b'101010101010', 2026, '2026-11-23', '1000-01-01 23:59:59.999999', '2038-01-19 03:14:07.123', "
    "'-838:59:58.000001', 'é', 'ü😀', 'ab', x'00ff', x'0001fe', 'long', 'y''z', 'a,b', "
    "'{\"b\": [1, null], \"a\": 1.5}', ST_GeomFromText('POINT(1 2)')"
)


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    yield
    gc.collect()


@every_mysql
@pytest.mark.parametrize(
    "statement", ["ALTER TABLE t ADD x int NOT NULL DEFAULT 3", "DROP TABLE t", "RENAME TABLE t TO s"]
)
def test_a_change_of_a_table_stops_behind_what_came_before(mysql_source: MySQLDatabase, statement: str) -> None:
    mysql_source.execute("CREATE TABLE t (id int PRIMARY KEY)")
    after, copied = here(mysql_source)
    mysql_source.execute("INSERT INTO t VALUES (1)")
    mysql_source.execute("CREATE TABLE other (id int)")
    mysql_source.execute(statement)

    with closing(source_of(mysql_source)) as source, pytest.raises(DivergedError, match=rf"{mysql_source.name}\.t"):
        list(source.stream(after, copied, source.current()))


@every_mysql
def test_a_change_logged_as_its_statement_stops(mysql_source: MySQLDatabase) -> None:
    mysql_source.execute("CREATE TABLE t (id int PRIMARY KEY)")
    after, copied = here(mysql_source)
    with mysql_source.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION binlog_format = STATEMENT")
        cursor.execute("INSERT INTO t VALUES (1)")

    with pytest.raises(DataError, match="as its statement"):
        read(mysql_source, after, copied)


@every_mysql
def test_an_inserted_row_without_its_defaults_is_refused_until_the_table_is_copied_anew(
    mysql_source: MySQLDatabase,
) -> None:
    run(mysql_source, "CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 7, v varchar(10))")
    after, copied = here(mysql_source)
    minimal = "SET SESSION binlog_row_image = MINIMAL"
    run(mysql_source, minimal, "INSERT INTO t VALUES (1, 2, 'v')", "UPDATE t SET n = 3", "DELETE FROM t")
    assert ids(read(mysql_source, after, copied)) == [1, 1, None]

    run(mysql_source, minimal, "INSERT INTO t (id) VALUES (2)")
    with pytest.raises(DataError, match=r"t: an inserted row has no value in the column 'n'") as raised:
        read(mysql_source, after, copied)
    _, anew = here(mysql_source)
    run(mysql_source, "INSERT INTO t VALUES (3, 4, 'w')")

    assert "copy the table anew" in str(raised.value.hint)
    assert ids(read(mysql_source, after, anew)) == [3]


@every_mysql
def test_the_snapshot_and_the_stream_give_the_same_values(mysql_source: MySQLDatabase) -> None:
    mysql_source.execute(f"CREATE TABLE t (id int PRIMARY KEY, {TYPES})")
    after, copied = here(mysql_source)
    for number in (1, 2):
        mysql_source.execute(f"INSERT INTO t VALUES ({number}, {VALUES})")
    mysql_source.execute("INSERT INTO t (id) VALUES (3)")

    streamed = pa.concat_tables(
        [changes.new for batch in read(mysql_source, after, copied) for changes in batch.changes]
    )
    with closing(source_of(mysql_source)) as source:
        (table,) = source.tables()
        snapshot = source.snapshot()
        (chunk,) = snapshot.chunks(table, None)
        copy = pa.Table.from_batches(snapshot.read(chunk)["arrow"]())
        snapshot.close()

    assert copy.schema == streamed.schema
    assert copy.to_pylist() == streamed.to_pylist()


@every_mysql
def test_a_transaction_larger_than_the_receiving_buffer_is_in_the_position_under_its_name(
    mysql_source: MySQLDatabase,
) -> None:
    mysql_source.execute("CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, v varchar(9000))")
    after, copied = here(mysql_source)
    with mysql_source.connect() as connection, connection.cursor() as cursor:
        connection.begin()
        cursor.executemany("INSERT INTO t (v) VALUES (%s)", [("v" * 9000,)] * 2000)
        connection.commit()
    batches = read(mysql_source, after, copied)
    with closing(source_of(mysql_source)) as source:
        now = parse_position(source.current())

    assert sum(batch.rows for batch in batches) == 2000
    assert parse_position(last_position(batches)).reached == now.reached


@every_mysql
def test_a_large_table_is_read_in_parts_that_are_the_whole(mysql_source: MySQLDatabase) -> None:
    mysql_source.execute("CREATE TABLE t (id bigint PRIMARY KEY, v varchar(3000))")
    with mysql_source.connect() as connection, connection.cursor() as cursor:
        cursor.executemany("INSERT INTO t VALUES (%s, %s)", [(i * 7 - 3000, "v" * 3000) for i in range(2000)])
        cursor.execute("ANALYZE TABLE t")
    with closing(source_of(mysql_source)) as source:
        (table,) = source.tables()
        snapshot = source.snapshot()
        chunks = snapshot.chunks(table, None)
        found = [id_ for chunk in chunks for part in snapshot.read(chunk)["arrow"]() for id_ in part["id"].to_pylist()]
        snapshot.close()

    assert len(chunks) > 2
    assert sorted(found) == [i * 7 - 3000 for i in range(2000)]


@every_mysql
def test_check_names_every_obstacle_and_what_to_type(own_mysql_server: StartMySQL, mysql_release: str) -> None:
    server = own_mysql_server(mysql_release, binlog_format="STATEMENT", binlog_ignore_db="left_out")
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE shop")
        cursor.execute("CREATE TABLE shop.t (id int PRIMARY KEY) ENGINE = MyISAM")
        cursor.execute("CREATE TABLE shop.parent (id int PRIMARY KEY)")
        cursor.execute(
            "CREATE TABLE shop.child (id int PRIMARY KEY, p int, "
            "CONSTRAINT f FOREIGN KEY (p) REFERENCES shop.parent (id) ON DELETE CASCADE)"
        )
    source = MySQLSource(
        Pipeline("test", Selection(("shop.*", "shop.missing"))), SourceOptions.model_validate({"url": server.url})
    )
    with closing(source):
        found = {obstacle.what: obstacle.hint for obstacle in source.obstacles() if obstacle.fatal}

    assert any("binlog_format is STATEMENT" in what and "SET GLOBAL" in hint for what, hint in found.items())
    assert any("leaves databases out" in what for what in found)
    assert any("shop.t uses the engine MyISAM" in what and "InnoDB" in hint for what, hint in found.items())
    # MySQL 9.7 logs what foreign keys change.
    cascades = any("foreign key f" in what and "DROP FOREIGN KEY" in hint for what, hint in found.items())
    assert cascades == server.release.is_mariadb
    assert any("shop.missing" in what for what in found)
