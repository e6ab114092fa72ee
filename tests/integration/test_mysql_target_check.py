"""`check` finds everything that stands in the way of a MySQL or MariaDB target at once, and says what removes it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cdcrep.connector import Copied, Obstacle
from cdcrep.errors import DataError, SetupError
from cdcrep.table import Column, ColumnType, Kind, Table
from cdcrep.testing.contract_data import FIRST, INT, TEXT, batch, following, inserted, pipeline, table
from cdcrep_connectors.mysql.options import ServerOptions
from cdcrep_connectors.mysql.sink import MySQLSink
from tests.contract.test_mysql_sink import MySQLTarget
from tests.servers.mysql_database import MySQLDatabase

USERS = table("users", id=INT, mail=TEXT, age=INT)
EVENTS = table("events", key=(), what=TEXT)
TEXTS = tuple(Column(f"c{i}", TEXT, nullable=False) for i in range(250))
WIDE = Table("shop", "wide", TEXTS, (), "postgresql")
LONG_KEY = Table("shop", "long_key", TEXTS[:50], tuple(column.name for column in TEXTS[:50]), "postgresql")

either_family = pytest.mark.parametrize("mysql_target_release", ["mysql-9.7", "mariadb-11.8"], indirect=True)


@pytest.fixture
def target(mysql_target: MySQLDatabase) -> Iterator[MySQLTarget]:
    target = MySQLTarget(mysql_target)
    yield target
    target.clear()


def obstacles(target: MySQLTarget, *tables: Table, url: str = "") -> list[Obstacle]:
    sink = MySQLSink(pipeline(), ServerOptions(url=url or target.options.url))
    return sink.obstacles(tables)


@either_family
def test_everything_about_an_existing_table_is_said_at_once_with_what_removes_it(target: MySQLTarget) -> None:
    target.execute("CREATE DATABASE shop")
    target.execute("CREATE TABLE shop.parents (id BIGINT PRIMARY KEY)")
    target.execute(
        "CREATE TABLE shop.users (id BIGINT, mail VARCHAR(20) CHARACTER SET latin1, extra INT NOT NULL, parent BIGINT, "
        "UNIQUE mails (mail), CONSTRAINT family FOREIGN KEY (parent) REFERENCES shop.parents (id)) ENGINE=InnoDB"
    )
    target.execute("CREATE TRIGGER shop.meddle BEFORE INSERT ON shop.users FOR EACH ROW SET NEW.extra = 1")
    target.execute("CREATE TABLE shop.events (what TEXT) ENGINE=MyISAM")

    found = obstacles(target, USERS, EVENTS)
    for obstacle in found:
        if obstacle.hint.startswith(("ALTER", "DROP")):
            target.execute(obstacle.hint)

    about = "\n".join(obstacle.what for obstacle in found if obstacle.fatal)
    for said in ("'meddle'", "'extra'", "'mail'", "no unique index on its key", "MyISAM", "copies of a row apart"):
        assert said in about, found
    remarks = "\n".join(obstacle.what for obstacle in found if not obstacle.fatal)
    for said in ("'mails'", "'family'", "'age' will be added"):
        assert said in remarks, found
    left = [each for each in obstacles(target, USERS, EVENTS) if each.fatal]
    assert left == []
    sink = following(target.sink(pipeline()), {USERS: [("1", "a@b", "5")], EVENTS: [("x",)]})
    sink.close()
    assert target.rows(USERS) == [("1", "a@b", "5")]


@either_family
def test_privileges_that_are_lacking_are_named_with_the_grant_that_suffices(target: MySQLTarget) -> None:
    target.execute("CREATE DATABASE shop")
    target.execute("CREATE TABLE shop.events (what LONGTEXT) COLLATE utf8mb4_bin")
    user = target.database.create_user(privileges="USAGE")
    url = target.database.url_as(user)
    target.execute(f"GRANT SELECT ON shop.events TO {user}@'%'")

    found = [each for each in obstacles(target, USERS, EVENTS, url=url) if f"user {user}@" in each.what]
    for obstacle in found:
        target.execute(obstacle.hint)
    target.execute("DROP TABLE shop.events")

    fatal = "\n".join(each.what for each in found if each.fatal)
    for said in ("the target's database cdcrep", "shop.users: user", "shop.events: user"):
        assert said in fatal, found
    assert [each for each in obstacles(target, USERS, EVENTS, url=url) if each.fatal] == []
    sink = following(
        MySQLSink(pipeline(), ServerOptions(url=url)), {USERS: [("1", "a@b", "5")], EVENTS: [("x",), ("x",)]}
    )
    sink.apply(batch(1, inserted(USERS, "2", "c", None)))
    sink.close()
    assert len(target.rows(USERS)) == 2


@pytest.mark.parametrize("shape", [WIDE, LONG_KEY], ids=["row", "key"])
def test_what_does_not_fit_into_a_page_is_refused_before_anything_is_created(target: MySQLTarget, shape: Table) -> None:
    (obstacle,) = [each for each in obstacles(target, shape) if each.fatal]

    assert str(shape.id) in obstacle.what
    assert obstacle.hint == f'add "{shape.id}" to exclude in [tables]'
    sink = target.sink(pipeline())
    sink.open()
    with pytest.raises(SetupError):
        sink.prepare([shape])
    sink.close()
    assert target.database.execute("SELECT 1 FROM information_schema.schemata WHERE schema_name = 'shop'") == []


def test_a_server_that_insists_on_primary_keys_is_served(target: MySQLTarget) -> None:
    decimal = table("prices", id=ColumnType(Kind.DECIMAL, "numeric(5,2)", 5, 2), note=TEXT)
    target.execute("SET GLOBAL sql_require_primary_key = 1")
    try:
        sink = following(target.sink(pipeline()), {decimal: [("1.50", "a")], EVENTS: [("x",), ("x",)]})
        again = inserted(decimal, "1.50", "b")
        sink.apply(batch(1, again))
        sink.close()
    finally:
        target.execute("SET GLOBAL sql_require_primary_key = 0")

    assert target.rows(decimal) == [("1.50", "b")]
    assert target.rows(EVENTS) == [("x",), ("x",)]


def test_an_interrupted_copy_into_a_table_with_another_unique_index_begins_again(target: MySQLTarget) -> None:
    sink = following(target.sink(pipeline()), {USERS: [("1", "a", None)]})
    sink.register({USERS.id: Copied(FIRST, chunks=frozenset({"all"}))})
    unfinished = sink.open().tables[USERS.id].chunks
    target.execute("ALTER TABLE shop.users ADD UNIQUE (mail(20))")

    begun_again = sink.open().tables[USERS.id].chunks
    sink.close()

    assert unfinished == {"all"}
    assert begun_again == set()


@either_family
def test_a_key_that_may_be_too_long_is_remarked_and_such_a_row_stops(target: MySQLTarget) -> None:
    words = table("words", id=TEXT, v=INT)
    sink = following(target.sink(pipeline()), {words: [("a" * 768, "1")]})

    (remark,) = [each for each in obstacles(target, words) if "VARCHAR(768)" in each.what]
    with pytest.raises(DataError) as raised:
        sink.apply(batch(1, inserted(words, "a" * 769, "2")))
    sink.close()

    assert not remark.fatal
    assert "limit the column's length" in remark.hint
    assert "shop.words" in raised.value.message
    assert "'id'" in raised.value.message
    assert raised.value.hint
    assert target.rows(words) == [("a" * 768, "1")]
