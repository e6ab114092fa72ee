"""XA transactions come when they are committed, whatever their size and however often the stream begins again."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from cdcrep.errors import SetupError
from cdcrep_connectors.mysql.position import parse_position
from tests.integration.mysql_following import here, ids, last_position, read, run
from tests.servers.fix_mysql import every_mysql
from tests.servers.mysql_database import MySQLDatabase

ROWS = 40


def prepare(database: MySQLDatabase, xid: str, first: int, *, count: int = 1, end: str = "XA PREPARE") -> None:
    """Prepare a transaction of so many rows of 10 kB, each in an event of its own."""
    inserts = [f"INSERT INTO t VALUES ({number}, repeat('v', 10000))" for number in range(first, first + count)]
    run(database, f"XA START '{xid}'", *inserts, f"XA END '{xid}'", end.replace("PREPARE", f"PREPARE '{xid}'"))


@pytest.fixture
def xid(mysql_source: MySQLDatabase) -> str:
    run(mysql_source, "CREATE TABLE t (id int PRIMARY KEY, v text)")
    return mysql_source.name


@every_mysql
def test_a_large_one_waits_in_a_file_and_comes_in_pieces(mysql_source: MySQLDatabase, xid: str) -> None:
    after, copied = here(mysql_source)
    prepare(mysql_source, xid, 0, count=ROWS)
    run(mysql_source, "INSERT INTO t VALUES (-1, '')")

    before = read(mysql_source, after, copied, batch_bytes=70_000)
    run(mysql_source, f"XA COMMIT '{xid}'")
    committed = read(mysql_source, after, copied, batch_bytes=70_000)

    assert ids(before) == [-1]
    assert ids(committed) == [-1, *range(ROWS)]
    assert max(batch.rows for batch in committed) <= 7
    assert all(batch.position is None for batch in committed[1:-1])


@every_mysql
def test_a_large_one_that_is_rolled_back_never_comes(mysql_source: MySQLDatabase, xid: str) -> None:
    after, copied = here(mysql_source)
    prepare(mysql_source, xid, 0, count=ROWS)
    run(mysql_source, f"XA ROLLBACK '{xid}'", "INSERT INTO t VALUES (-1, '')")

    assert ids(read(mysql_source, after, copied, batch_bytes=70_000)) == [-1]


@every_mysql
def test_one_that_is_committed_at_once_comes_whole(mysql_source: MySQLDatabase, xid: str) -> None:
    after, copied = here(mysql_source)
    prepare(mysql_source, xid, 0, count=ROWS, end=f"XA COMMIT '{xid}' ONE PHASE")

    found = read(mysql_source, after, copied, batch_bytes=70_000)

    assert ids(found) == list(range(ROWS))
    assert len(found) > 5


@every_mysql
def test_a_restart_at_any_place_brings_each_once(mysql_source: MySQLDatabase, xid: str) -> None:
    after, copied = here(mysql_source)
    steps: list[Callable[[], None]] = [
        partial(prepare, mysql_source, f"{xid}a", 10),
        partial(run, mysql_source, "INSERT INTO t VALUES (1, '')"),
        partial(prepare, mysql_source, f"{xid}b", 20),
        partial(run, mysql_source, f"XA COMMIT '{xid}b'", "INSERT INTO t VALUES (2, '')"),
        partial(prepare, mysql_source, f"{xid}c", 30),
        partial(run, mysql_source, f"XA ROLLBACK '{xid}c'", "INSERT INTO t VALUES (3, '')"),
        partial(run, mysql_source, f"XA COMMIT '{xid}a'"),
    ]

    found = []
    position = after
    for step in steps:
        step()
        batches = read(mysql_source, position, copied)
        found += ids(batches)
        position = last_position(batches) if batches else position

    end = parse_position(position)
    assert found == [1, 20, 2, 3, 10]
    assert end.begin == end.reached


def test_no_room_for_the_file_says_what_to_type(
    mysql_source: MySQLDatabase, xid: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    after, copied = here(mysql_source)
    prepare(mysql_source, xid, 0, count=ROWS)
    run(mysql_source, "INSERT INTO t VALUES (-1, '')")

    try:
        with pytest.raises(SetupError, match="does not fit") as raised:
            read(mysql_source, after, copied, batch_bytes=70_000)
    finally:
        run(mysql_source, f"XA ROLLBACK '{xid}'")

    assert "TMPDIR" in str(raised.value.hint)
