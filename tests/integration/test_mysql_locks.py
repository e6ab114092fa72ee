"""First copies and locks: where only tables may be locked the copy is exact for them; DDL meanwhile begins it anew."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from typing import Any

import pymysql
import pytest

from cdcrep.connector import Copied
from cdcrep.errors import TransientError
from cdcrep.table import TableId
from cdcrep_connectors.mysql import views, writer_locks
from cdcrep_connectors.mysql.connection import Connection, connect
from cdcrep_connectors.mysql.continuity import place_now
from cdcrep_connectors.mysql.options import SourceOptions
from cdcrep_connectors.mysql.position import Place
from cdcrep_connectors.mysql.snapshot import MySQLSnapshot
from cdcrep_connectors.mysql.source import MySQLSource
from tests.integration.mysql_following import run, source_of
from tests.servers.fix_mysql import every_mysql
from tests.servers.mysql_database import MySQLDatabase
from tests.servers.waiting import wait_until

WITHOUT_LOCK = "REPLICATION SLAVE, REPLICATION CLIENT"
WITHOUT_RELOAD = f"{WITHOUT_LOCK}, LOCK TABLES"
WATCHED = ("t", "u")

a_mariadb = pytest.mark.parametrize("mysql_release", ["mariadb-11.8"], indirect=True)


@pytest.fixture
def never_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let MariaDB's views never be the same without a lock."""
    monkeypatch.setattr(views, "_open_without_lock", lambda _: None)


def source_as(database: MySQLDatabase, privileges: str, **options: Any) -> MySQLSource:
    """Return a source that follows `t` and `u`, as a user with these privileges on everything."""
    url = database.url_as(database.create_user(privileges))
    return source_of(database, "[tu]", url=url, **options)


def fill(database: MySQLDatabase) -> None:
    for name in (*WATCHED, "other"):
        database.execute(f"CREATE TABLE {name} (id int PRIMARY KEY AUTO_INCREMENT, n int)")


@contextmanager
def busy(database: MySQLDatabase, statements: Sequence[str], writers: int = 3) -> Iterator[None]:
    """Commit these statements together, again and again, on several sessions."""
    stop = threading.Event()

    def write() -> None:
        with database.connect(autocommit=False) as connection, connection.cursor() as cursor:
            while not stop.is_set():
                for statement in statements:
                    cursor.execute(statement)
                connection.commit()

    threads = [threading.Thread(target=write) for _ in range(writers)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: database.execute("SELECT count(*) > 30 FROM t") == [(1,)], 60.0, "rows")
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def copied_in_each_session(source: MySQLSource, snapshot: MySQLSnapshot, name: str) -> list[list[int]]:
    """Return the ids that each session sees: all are held open until the last has begun."""
    (table,) = [table for table in source.tables() if table.name == name]
    (chunk,) = snapshot.chunks(table, None)
    seen = []
    with ExitStack() as stack:
        for _ in range(2):
            batches = iter(snapshot.read(chunk)["arrow"]())
            stack.callback(batches.close)  # type: ignore[attr-defined]
            seen.append((next(batches)["id"].to_pylist(), batches))
        return [sorted(first + [id_ for batch in rest for id_ in batch["id"].to_pylist()]) for first, rest in seen]


@every_mysql
@pytest.mark.usefixtures("never_alike")
def test_a_copy_under_locked_tables_is_exact_while_others_write(mysql_source: MySQLDatabase) -> None:
    fill(mysql_source)
    inserts = [f"INSERT INTO {name} (n) VALUES (1)" for name in (*WATCHED, "other")]

    with closing(source_as(mysql_source, WITHOUT_RELOAD)) as source:
        with busy(mysql_source, inserts):
            snapshot = source.snapshot()
            seen = {name: copied_in_each_session(source, snapshot, name) for name in WATCHED}
        ids = {TableId(mysql_source.name, name): list(seen[name][0]) for name in WATCHED}
        copied = {id_: Copied(snapshot.position) for id_ in ids}
        for batch in source.stream(snapshot.position, copied, source.current()):
            for changes in batch.changes:
                ids[changes.table.id] += changes.new["id"].to_pylist()

    for name in WATCHED:
        first, other = seen[name]
        found = ids[TableId(mysql_source.name, name)]
        assert first == other
        assert len(found) > len(first) > 0
        assert sorted(found) == [id_ for (id_,) in mysql_source.execute(f"SELECT id FROM {name} ORDER BY id")]


@every_mysql
@pytest.mark.usefixtures("never_alike")
def test_only_those_who_wrote_the_tables_are_waited_for(mysql_source: MySQLDatabase) -> None:
    fill(mysql_source)
    with closing(source_as(mysql_source, WITHOUT_RELOAD, lock_timeout=1)) as source:
        with mysql_source.connect(autocommit=False) as writer, writer.cursor() as cursor:
            cursor.execute("INSERT INTO other (n) VALUES (1)")
            source.snapshot().close()
            cursor.execute("INSERT INTO t (n) VALUES (1)")
            with pytest.raises(TransientError):
                source.snapshot()
            writer.commit()
        mysql_source.execute("INSERT INTO t (n) VALUES (2)")
        with closing(source.snapshot()) as snapshot:
            seen = copied_in_each_session(source, snapshot, "t")

    assert seen == [[1, 2], [1, 2]]


@every_mysql
@pytest.mark.usefixtures("never_alike")
def test_a_table_that_appears_behind_the_locks_begins_the_copy_anew(
    mysql_source: MySQLDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    mysql_source.execute("CREATE TABLE t (id int PRIMARY KEY)")

    def late(connection: Connection) -> Place:
        run(mysql_source, "CREATE TABLE IF NOT EXISTS u (id int PRIMARY KEY)")
        return place_now(connection)

    monkeypatch.setattr("cdcrep_connectors.mysql.views.place_now", late)
    with closing(source_as(mysql_source, WITHOUT_RELOAD)) as source:
        with pytest.raises(TransientError, match="appeared"):
            source.snapshot()
        with closing(source.snapshot()) as snapshot:
            names = [table.name for table in source.tables() if snapshot.chunks(table, None)]

    assert names == ["t", "u"]


@every_mysql
def test_a_table_that_is_truncated_before_it_is_read_begins_the_copy_anew(mysql_source: MySQLDatabase) -> None:
    run(mysql_source, "CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    with closing(source_of(mysql_source)) as source:
        with closing(source.snapshot()) as snapshot:
            run(mysql_source, "TRUNCATE t", "INSERT INTO t VALUES (2)")
            with pytest.raises(TransientError, match=f"copying {mysql_source.name}.t: ") as raised:
                copied_in_each_session(source, snapshot, "t")
        with closing(source.snapshot()) as snapshot:
            seen = copied_in_each_session(source, snapshot, "t")

    assert "truncated" in str(raised.value.hint)
    assert seen == [[2], [2]]


@a_mariadb
@pytest.mark.usefixtures("never_alike")
def test_a_table_that_is_made_transactional_before_the_locks_is_locked_too(
    mysql_source: MySQLDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(mysql_source, "CREATE TABLE t (id int PRIMARY KEY)", "CREATE TABLE u (id int PRIMARY KEY) ENGINE = MyISAM")
    writable: list[bool] = []

    def altered(*arguments: Any) -> AbstractContextManager[None]:
        mysql_source.execute("ALTER TABLE u ENGINE = InnoDB")
        return writer_locks.tables_locked(*arguments)

    def late(connection: Connection) -> Place:
        with mysql_source.connect(init_command="SET lock_wait_timeout = 1") as writer, writer.cursor() as cursor:
            try:
                writable.append(bool(cursor.execute("INSERT INTO u VALUES (1)")))
            except pymysql.OperationalError:
                writable.append(False)
        return place_now(connection)

    monkeypatch.setattr("cdcrep_connectors.mysql.source.tables_locked", altered)
    monkeypatch.setattr(views, "place_now", late)
    with closing(source_as(mysql_source, WITHOUT_RELOAD)) as source:
        source.snapshot().close()

    assert writable == [False]


@every_mysql
@pytest.mark.usefixtures("never_alike")
def test_a_prepared_transaction_whose_client_is_gone_lets_no_copy_begin(
    mysql_source: MySQLDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(mysql_source)
    transaction = f"'{mysql_source.name}'"
    with mysql_source.connect() as writer, writer.cursor() as cursor:
        for statement in (f"XA START {transaction}", "INSERT INTO t VALUES (1, 1)", f"XA END {transaction}"):
            cursor.execute(statement)
        cursor.execute(f"XA PREPARE {transaction}")
        number = writer.thread_id()  # type: ignore[no-untyped-call]
    gone = f"SELECT count(*) = 0 FROM information_schema.processlist WHERE id = {number}"
    wait_until(lambda: mysql_source.execute(gone) == [(1,)], 30.0, "the writer's end")

    def late(connection: Connection) -> Place:
        mysql_source.execute(f"XA COMMIT {transaction}")
        return place_now(connection)

    try:
        monkeypatch.setattr(views, "place_now", late)
        with (
            closing(source_as(mysql_source, WITHOUT_RELOAD, lock_timeout=1)) as source,
            pytest.raises(TransientError),
        ):
            source.snapshot()
    finally:
        left = mysql_source.execute("XA RECOVER")
        if left:
            mysql_source.execute(f"XA ROLLBACK {transaction}")

    assert left


@every_mysql
def test_an_attempt_to_lock_many_tables_ends_in_time(mysql_source: MySQLDatabase) -> None:
    fill(mysql_source)
    options = SourceOptions.model_validate({"url": mysql_source.url})
    with (
        mysql_source.connect(autocommit=False) as writer,
        writer.cursor() as cursor,
        # The server's own limit, which counts for each table anew.
        connect(options, statement_timeout=60.0, lock_timeout=60.0) as locking,
        connect(options, statement_timeout=60.0) as killing,
    ):
        cursor.execute("INSERT INTO t (n) VALUES (1)")
        began = time.monotonic()
        with pytest.raises(TransientError):
            writer_locks._query_in_time(locking, "LOCK TABLES t READ", killing)

    assert time.monotonic() - began < 40


@a_mariadb
def test_mariadb_copies_without_any_lock_when_writers_pause(mysql_source: MySQLDatabase) -> None:
    fill(mysql_source)
    mysql_source.execute("INSERT INTO t VALUES (1, 1)")
    with closing(source_as(mysql_source, WITHOUT_LOCK)) as source:
        (obstacle,) = source.obstacles()
        with closing(source.snapshot()) as snapshot:
            seen = copied_in_each_session(source, snapshot, "t")

    assert not obstacle.fatal
    assert "LOCK TABLES" in obstacle.hint
    assert seen == [[1], [1]]


@a_mariadb
def test_mariadbs_views_are_not_trusted_without_a_lock_where_an_xa_transaction_commits_meanwhile(
    mysql_source: MySQLDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(mysql_source)
    name = f"'{mysql_source.name}'"
    statements = [f"XA START {name}", "INSERT INTO t VALUES (1, 1)"]
    statements += [f"XA {verb} {name}" for verb in ("END", "PREPARE", "COMMIT")]
    opened = views._open

    def committing(session: Connection) -> tuple[str, int]:
        with mysql_source.connect() as writer, writer.cursor() as cursor:
            while statements:
                cursor.execute(statements.pop(0))
        return opened(session)

    monkeypatch.setattr(views, "_open", committing)
    with closing(source_as(mysql_source, WITHOUT_LOCK)) as source:
        with pytest.raises(TransientError, match="writers cannot be locked out"):
            source.snapshot()
        source.snapshot().close()


@a_mariadb
@pytest.mark.usefixtures("never_alike")
def test_mariadb_waits_for_a_pause_of_its_writers_where_nothing_may_be_locked(mysql_source: MySQLDatabase) -> None:
    fill(mysql_source)
    with closing(source_as(mysql_source, WITHOUT_LOCK)) as source, pytest.raises(TransientError) as raised:
        source.snapshot()

    assert "LOCK TABLES" in str(raised.value.hint)
