"""Dates that no calendar has become what the configuration says, in the copy and in the stream, and are counted."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import pyarrow as pa
import pytest

from cdcrep.connector import Copied
from cdcrep.errors import DataError
from cdcrep_connectors.mysql.position import parse_position
from cdcrep_connectors.mysql.source import MySQLSource
from tests.integration.mysql_following import here, ids, last_position, read, run, source_of
from tests.servers.fix_mysql import every_mysql
from tests.servers.mysql_database import MySQLDatabase

ROW = "'0000-00-00', '2024-02-31 01:02:03', '0000-00-00 00:00:00', '2024-02-29'"


@pytest.fixture
def dates(mysql_source: MySQLDatabase) -> MySQLDatabase:
    run(
        mysql_source,
        "CREATE TABLE t (id int PRIMARY KEY, d date NOT NULL, m datetime(3), s timestamp NULL, g date)",
    )
    return mysql_source


def insert(database: MySQLDatabase, number: int) -> None:
    run(database, "SET SESSION sql_mode = 'ALLOW_INVALID_DATES'", f"INSERT INTO t VALUES ({number}, {ROW})")


def copy(source: MySQLSource) -> pa.Table:
    (table,) = source.tables()
    snapshot = source.snapshot()
    (chunk,) = snapshot.chunks(table, None)
    found = pa.Table.from_batches(snapshot.read(chunk)["arrow"]())
    snapshot.close()
    return found


@every_mysql
def test_they_stop_the_copy_and_the_stream_unless_something_else_was_chosen(dates: MySQLDatabase) -> None:
    after, copied = here(dates)
    insert(dates, 1)

    with pytest.raises(DataError, match="date that is none") as streamed:
        read(dates, after, copied)
    with closing(source_of(dates)) as source, pytest.raises(DataError, match=r"date that is none") as selected:
        copy(source)

    assert 'impossible_dates = "text" or "null"' in str(streamed.value.hint)
    assert selected.value.hint == streamed.value.hint


@every_mysql
def test_as_text_they_are_what_the_server_shows(dates: MySQLDatabase) -> None:
    after, copied = here(dates)
    insert(dates, 1)

    with closing(source_of(dates, impossible_dates="text")) as source:
        copied_rows = copy(source).to_pylist()
    streamed = [
        row for batch in read(dates, after, copied, impossible_dates="text") for row in batch.changes[0].new.to_pylist()
    ]

    expected = {"id": 1, "d": "0000-00-00", "m": "2024-02-31 01:02:03.000", "s": "0000-00-00 00:00:00"}
    assert streamed == copied_rows == [{**expected, "g": "2024-02-29"}]


@every_mysql
def test_as_null_they_are_counted_once_also_after_restarts(dates: MySQLDatabase) -> None:
    insert(dates, 1)
    with closing(source_of(dates, impossible_dates="null")) as source:
        rows = copy(source)
        (table,) = source.tables()
        after = source.current()
        copied = {table.id: Copied(after)}
        begin = last_position(list(source.stream(after, copied, after)))
        insert(dates, 2)
        first = list(source.stream(begin, copied, source.current()))
        status = source.status(last_position(first))
    run(dates, "BEGIN", "SET SESSION sql_mode = ''", f"INSERT INTO t VALUES (9, {ROW.replace('31', '01')})", "ROLLBACK")
    insert(dates, 3)
    second = read(dates, last_position(first), copied, impossible_dates="null")
    with closing(source_of(dates, impossible_dates="null")) as source:
        later = source.status(last_position(second))

    assert parse_position(begin).nulled == 3
    assert [column.nullable for column in table.columns] == [False, True, True, True, True]
    assert rows.to_pylist()[0] | {"g": None} == {"id": 1, "d": None, "m": None, "s": None, "g": None}
    assert replace(first[0].changes[0], table=table).new.column("d").to_pylist() == [None]
    assert ids(second) == [3]
    assert status.details["impossible_dates"].startswith("6 became NULL, lately in")
    assert f"{dates.name}.t.m" in status.details["impossible_dates"]
    assert later.details["impossible_dates"] == "9 became NULL"
