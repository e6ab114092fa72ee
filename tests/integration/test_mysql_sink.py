"""The MySQL sink beyond the contract: unique values, growth inside large transactions, values of every kind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pytest

from cdcrep.connector import Sink
from cdcrep.errors import DataError, TransientError
from cdcrep.table import Column, ColumnType, Kind
from cdcrep.testing.contract_data import (
    FIRST,
    INT,
    TEXT,
    batch,
    deleted,
    following,
    inserted,
    pipeline,
    position,
    table,
    truncated,
    updated,
)
from cdcrep.testing.memory_tables import ordered
from cdcrep_connectors.mysql.bulk_values import NamedRows, value_lists
from tests.contract.test_mysql_sink import MySQLTarget
from tests.servers.fix_mysql import every_mysql_target
from tests.servers.mysql_database import MySQLDatabase

USERS = table("users", id=INT, mail=TEXT)


@pytest.fixture
def target(mysql_target: MySQLDatabase) -> Iterator[MySQLTarget]:
    target = MySQLTarget(mysql_target)
    yield target
    target.clear()


@pytest.fixture
def sink(target: MySQLTarget) -> Iterator[Sink]:
    """Follow USERS, whose mail is unique in the target."""
    sink = following(target.sink(pipeline()), {USERS: [("1", "a"), ("2", "b")]})
    target.execute("ALTER TABLE shop.users ADD UNIQUE (mail(50))")
    yield sink
    sink.close()


@every_mysql_target
def test_unique_values_may_swap(target: MySQLTarget, sink: Sink) -> None:
    sink.apply(batch(1, updated(USERS, ("1", "a"), ("1", "b")), updated(USERS, ("2", "b"), ("2", "a"))))

    assert ordered(target.rows(USERS)) == [("1", "b"), ("2", "a")]


@every_mysql_target
def test_unique_values_may_be_passed_on_in_a_chain(target: MySQLTarget, sink: Sink) -> None:
    changes = [
        updated(USERS, ("2", "b"), ("2", "c")),
        updated(USERS, ("1", "a"), ("1", "b")),
        inserted(USERS, "3", "a"),
    ]

    sink.apply(batch(1, *changes))

    assert ordered(target.rows(USERS)) == [("1", "b"), ("2", "c"), ("3", "a")]


@every_mysql_target
def test_foreign_keys_of_the_target_neither_refuse_nor_change_rows(target: MySQLTarget, sink: Sink) -> None:
    target.execute(
        "CREATE TABLE shop.letters (id INT PRIMARY KEY, user BIGINT, "
        "FOREIGN KEY (user) REFERENCES shop.users (id) ON DELETE CASCADE)"
    )
    target.execute("INSERT INTO shop.letters VALUES (7, 1), (8, 2)")

    sink.apply(batch(1, updated(USERS, ("1", "a"), ("1", "z")), deleted(USERS, "2", "b")))
    sink.apply(batch(2, truncated(USERS), inserted(USERS, "5", "e")))

    assert target.rows(USERS) == [("5", "e")]
    assert target.database.execute("SELECT id FROM shop.letters ORDER BY id") == [(7,), (8,)]


def test_rows_that_should_have_been_there_are_counted(target: MySQLTarget, sink: Sink) -> None:
    target.execute("DELETE FROM shop.users")

    sink.apply(batch(1, updated(USERS, ("1", "a"), ("1", "z")), deleted(USERS, "2", "b"), inserted(USERS, "3", "c")))

    assert ordered(target.rows(USERS)) == [("1", "z"), ("3", "c")]
    assert target.database.execute("SELECT missing FROM cdcrep.tables WHERE table_name = 'users'") == [(2,)]


@every_mysql_target
def test_a_row_that_collides_with_another_row_s_unique_value_is_refused(target: MySQLTarget, sink: Sink) -> None:
    with pytest.raises(DataError):
        sink.apply(batch(1, inserted(USERS, "3", "a")))
    sink.close()

    assert ordered(target.rows(USERS)) == [("1", "a"), ("2", "b")]


@every_mysql_target
def test_a_table_that_grows_in_the_middle_of_a_large_transaction_comes_again(target: MySQLTarget, sink: Sink) -> None:
    wider = replace(USERS, columns=(*USERS.columns, Column("age", INT)))
    sink.apply(batch(1, inserted(USERS, "3", "c"), ends=False))

    with pytest.raises(TransientError):
        sink.apply(batch(1, inserted(wider, "4", "d", "44")))
    sink.close()
    before = ordered(target.rows(USERS))
    again = target.sink(pipeline())
    at = again.open().position
    again.apply(batch(1, inserted(USERS, "3", "c"), ends=False))
    again.apply(batch(1, inserted(wider, "4", "d", "44")))
    again.close()

    assert (before, at) == ([("1", "a"), ("2", "b")], FIRST)
    assert target.sink(pipeline()).status()["position"] == position(1)
    assert ordered(target.rows(wider))[2:] == [("3", "c", None), ("4", "d", "44")]


def test_values_become_literals_and_statements_stay_small() -> None:
    kinds = {"b": Kind.BOOL, "t": Kind.TEXT, "x": Kind.BYTES, "n": Kind.INT64, "z": Kind.TIMESTAMPTZ}
    values = table("values", (), "shop", **{name: ColumnType(kind, str(kind)) for name, kind in kinds.items()})
    rows = [("t", "it's \\ a\0b", "\\x00ff", "-5", "2024-01-02 03:04:05.6+00"), (None,) * 5]
    columns = [pa.chunked_array([pa.array([row[i] for row in rows], pa.string())]) for i in range(len(kinds))]

    pieces = list(value_lists(NamedRows(values, (), values.columns, columns, 2), 1))

    assert pieces == [
        b"(1,'it\\'s \\\\ a\0b',x'00ff',-5,'2024-01-02 03:04:05.6')",
        b"(NULL,NULL,NULL,NULL,NULL)",
    ]


@pytest.mark.parametrize("value", ["infinity", "0044-03-15 BC", "10000-01-01"])
def test_dates_that_mysql_would_take_a_part_of_are_refused(value: str) -> None:
    dates = table("dates", key=(), d=ColumnType(Kind.DATE, "date"))

    with pytest.raises(DataError, match="'d'"):
        list(value_lists(NamedRows(dates, (), dates.columns, [pa.chunked_array([[value]])], 1), 100))
