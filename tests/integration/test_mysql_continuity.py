"""Positions are continued on the server that can, by GTID or by file, and refused with a way on where it cannot."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from threading import Timer

import pytest

from cdcrep.connector import Copied
from cdcrep.errors import DivergedError, SetupError, TransientError
from cdcrep.position import Position
from cdcrep_connectors.mysql import stream
from cdcrep_connectors.mysql.position import parse_position
from cdcrep_connectors.mysql.source import MySQLSource
from tests.integration.interrupted_copy import InterruptedCopy
from tests.integration.mysql_following import database_on, here, ids, last_position, read, run, source_of
from tests.servers.fix_mysql import StartMySQL
from tests.servers.mysql_binaries import RELEASES, find_binaries
from tests.servers.mysql_database import MySQLDatabase
from tests.servers.mysql_server import MySQLServer
from tests.servers.waiting import wait_until

WITHOUT_GTIDS = {"gtid_mode": "OFF", "enforce_gtid_consistency": "OFF", "innodb_native_foreign_keys": "ON"}
TABLE = "CREATE TABLE t (id int PRIMARY KEY)"

both = pytest.mark.parametrize("release", ["mysql-9.7", "mariadb-11.8"])


# `unnumbered` is no fixture by which such tests are known.
pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def unnumbered() -> Iterator[MySQLDatabase]:
    """A database on a server of MySQL that has no GTIDs."""
    with MySQLServer(find_binaries(RELEASES["mysql-9.7"]), WITHOUT_GTIDS) as server:
        yield database_on(server)


@pytest.fixture
def by_file(unnumbered: MySQLDatabase) -> MySQLDatabase:
    run(unnumbered, "DROP TABLE IF EXISTS t", TABLE)
    return unnumbered


def test_without_gtids_a_restart_goes_on_at_its_place_in_the_file(by_file: MySQLDatabase) -> None:
    position, copied = here(by_file)
    found = []
    for step in range(4):
        run(
            by_file, f"INSERT INTO t VALUES ({10 * step})", "BEGIN", f"INSERT INTO t VALUES ({10 * step + 1})", "COMMIT"
        )
        if step % 2:
            run(by_file, "FLUSH BINARY LOGS")
        batches = read(by_file, position, copied)
        found += ids(batches)
        position = last_position(batches)

    assert parse_position(position).reached.gtids is None
    assert found == [0, 1, 10, 11, 20, 21, 30, 31]
    assert ids(read(by_file, position, copied)) == []


def test_without_gtids_an_interrupted_copy_goes_on(by_file: MySQLDatabase) -> None:
    run(by_file, "INSERT INTO t VALUES (1), (2), (3)")
    with closing(source_of(by_file)) as source:
        copy = InterruptedCopy.begun(by_file, source)
        run(by_file, "UPDATE t SET id = 4 WHERE id = 1", "FLUSH BINARY LOGS", "DELETE FROM t WHERE id = 2")
        expected = copy.goes_on(lambda: run(by_file, "INSERT INTO t VALUES (5)"))

    assert sorted(copy.rows) == expected == [(3,), (4,)]
    assert copy.changed() == [(4,)]


def test_without_gtids_a_prepared_transaction_survives_a_restart(by_file: MySQLDatabase) -> None:
    after, copied = here(by_file)
    run(by_file, "XA START 'x'", "INSERT INTO t VALUES (1)", "XA END 'x'", "XA PREPARE 'x'")
    run(by_file, "INSERT INTO t VALUES (2)")
    first = read(by_file, after, copied)
    run(by_file, "FLUSH BINARY LOGS", "INSERT INTO t VALUES (3)")
    second = read(by_file, last_position(first), copied)
    run(by_file, "XA COMMIT 'x'", "INSERT INTO t VALUES (4)")

    assert (ids(first), ids(second)) == ([2], [3])
    assert ids(read(by_file, last_position(second), copied)) == [1, 4]


def test_without_gtids_a_file_of_the_same_name_is_not_the_same(by_file: MySQLDatabase) -> None:
    run(by_file, reset(by_file))
    after, copied = here(by_file)
    run(by_file, "INSERT INTO t VALUES (1)")
    position = last_position(read(by_file, after, copied))
    begin_anew(by_file)

    with pytest.raises(DivergedError, match="was reset"):
        read(by_file, position, copied)


def test_without_gtids_a_log_that_is_reset_during_the_first_copy_is_refused(by_file: MySQLDatabase) -> None:
    run(by_file, reset(by_file))
    with closing(source_of(by_file)) as source, closing(source.start()) as snapshot:
        copied = {table.id: Copied(snapshot.position) for table in source.tables()}
        run(by_file, "INSERT INTO t VALUES (1)")
        begin_anew(by_file)

        with pytest.raises(DivergedError, match="was reset"):
            source.set_up(copied, snapshot.position)


@both
def test_gtids_that_are_given_anew_are_not_the_same(own_mysql_server: StartMySQL, release: str) -> None:
    database = database_on(own_mysql_server(release))
    run(database, TABLE, reset(database), "INSERT INTO t VALUES (0)")
    after, copied = here(database)
    run(database, "INSERT INTO t VALUES (1)")
    in_first = last_position(read(database, after, copied))
    run(database, "FLUSH BINARY LOGS", "INSERT INTO t VALUES (5)")
    in_second = last_position(read(database, in_first, copied))
    begin_anew(database)

    for position in (in_first, in_second):
        assert parse_position(position).reached.gtids is not None
        with pytest.raises(DivergedError, match="was reset") as raised:
            read(database, position, copied)
        assert "copied anew" in str(raised.value.hint)


@both
def test_a_position_that_does_not_say_when_its_file_was_begun_is_gone_on_from(
    own_mysql_server: StartMySQL, release: str
) -> None:
    database = database_on(own_mysql_server(release))
    run(database, TABLE)
    after, copied = here(database)
    run(database, "INSERT INTO t VALUES (1)")
    said = last_position(read(database, after, copied))
    run(database, "INSERT INTO t VALUES (2)")

    earlier, created = said.split("/created=")

    assert abs(int(created) - time.time()) < 3600
    assert ids(read(database, Position(earlier), copied)) == ids(read(database, said, copied)) == [2]


def test_without_gtids_another_server_is_refused(by_file: MySQLDatabase, mysql_source: MySQLDatabase) -> None:
    after, copied = here(by_file)

    with pytest.raises(DivergedError, match=r"another one than the target was filled from.* without GTIDs") as raised:
        read(mysql_source, after, copied)
    assert "URL" in str(raised.value.hint)


def reset(database: MySQLDatabase) -> str:
    return "RESET MASTER" if database.server.release.is_mariadb else "RESET BINARY LOGS AND GTIDS"


def begin_anew(database: MySQLDatabase) -> None:
    """Reset the log and fill it further than it was."""
    # Files are told apart by the second they were begun in.
    begun = time.time()
    wait_until(lambda: time.time() > begun + 1.1, 10.0, "another second")
    run(database, reset(database), *(f"INSERT INTO t VALUES ({i})" for i in range(100, 110)))


def repeat(database: MySQLDatabase, other: MySQLDatabase, *statements: str) -> None:
    """Run statements on one server, and on another one as if it replicated them."""
    mariadb = database.server.release.is_mariadb
    ((server,),) = database.execute("SELECT @@server_id" if mariadb else "SELECT @@server_uuid")
    for statement in statements:
        run(database, statement)
        ((gtids,),) = database.execute("SELECT @@gtid_binlog_pos" if mariadb else "SELECT @@gtid_executed")
        number = re.split("[-:]", str(gtids))[-1]
        by = f"server_id = {server}, gtid_seq_no = {number}" if mariadb else f"gtid_next = '{server}:{number}'"
        run(other, f"SET SESSION {by}", statement)


@both
def test_a_server_that_has_all_transactions_of_the_failed_one_goes_on(
    own_mysql_server: StartMySQL, release: str
) -> None:
    failed = database_on(own_mysql_server(release, server_id="7"), "shop")
    promoted = database_on(own_mysql_server(release, server_id="8"), "shop")
    for database in (failed, promoted):
        run(database, reset(database))
    repeat(failed, promoted, TABLE, "INSERT INTO t VALUES (1)")
    after, copied = here(failed)
    repeat(failed, promoted, "INSERT INTO t VALUES (2)")
    run(promoted, "INSERT INTO t VALUES (3)")

    found = read(promoted, after, copied)
    run(failed, "INSERT INTO t VALUES (4)")

    assert ids(found) == [2, 3]
    assert parse_position(last_position(found)).server != parse_position(after).server
    with pytest.raises(DivergedError, match="lacks transactions that the target holds") as raised:
        read(failed, last_position(found), copied)
    assert "caught up" in str(raised.value.hint)


def change_format(database: MySQLDatabase) -> None:
    run(database, "SET GLOBAL binlog_format = STATEMENT")


def revoke(database: MySQLDatabase) -> None:
    user = database.users[-1]
    run(database, f"REVOKE REPLICATION CLIENT ON *.* FROM {user}@'%'")


@pytest.mark.parametrize(
    ("change", "message"), [(change_format, "binlog_format is STATEMENT"), (revoke, "REPLICATION CLIENT")]
)
def test_what_changes_beside_the_log_is_noticed_while_running(
    by_file: MySQLDatabase,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[MySQLDatabase], None],
    message: str,
) -> None:
    monkeypatch.setattr(stream, "LOOK_SECONDS", 0.3)
    user = by_file.create_user("REPLICATION SLAVE, REPLICATION CLIENT, RELOAD")
    after, copied = here(by_file)
    heard = 0

    def follow(source: MySQLSource) -> None:
        nonlocal heard
        for batch in source.stream(after, copied):
            heard += batch.rows
            if batch.rows:
                change(by_file)

    with closing(source_of(by_file, url=by_file.url_as(user))) as source:
        deadline = Timer(60.0, source.stop)
        deadline.start()
        run(by_file, "INSERT INTO t VALUES (1)")
        with pytest.raises(SetupError, match=message) as raised:
            follow(source)
        deadline.cancel()
    run(by_file, "SET GLOBAL binlog_format = ROW")

    assert heard == 1
    assert raised.value.hint


@both
def test_a_log_that_is_reset_under_a_running_stream_stops_it(
    own_mysql_server: StartMySQL, monkeypatch: pytest.MonkeyPatch, release: str
) -> None:
    monkeypatch.setattr(stream, "LOOK_SECONDS", 0.3)
    database = database_on(own_mysql_server(release))
    run(database, TABLE)
    after, copied = here(database)
    run(database, "INSERT INTO t VALUES (1)")

    def follow() -> None:
        """Begin again after lost connections, like the engine."""
        position = after
        for _ in range(3):
            with closing(source_of(database)) as source, contextlib.suppress(TransientError):
                deadline = Timer(20.0, source.stop)
                deadline.start()
                for batch in source.stream(position, copied):
                    position = batch.position or position
                    if batch.rows:
                        run(database, reset(database), "INSERT INTO t VALUES (2)")
                deadline.cancel()

    with pytest.raises(DivergedError) as raised:
        follow()
    assert raised.value.hint


@pytest.mark.parametrize("mysql_release", ["mariadb-11.8"], indirect=True)
def test_a_system_versioned_table_is_refused_with_a_way_out(mysql_source: MySQLDatabase) -> None:
    run(mysql_source, "CREATE TABLE t (id int PRIMARY KEY) WITH SYSTEM VERSIONING")

    with closing(source_of(mysql_source)) as source:
        (found,) = [obstacle for obstacle in source.obstacles() if "system-versioned" in obstacle.what]
        assert source.tables() == []
    assert found.fatal
    assert "DROP SYSTEM VERSIONING" in found.hint


def test_foreign_keys_of_the_storage_engine_are_refused(by_file: MySQLDatabase) -> None:
    run(
        by_file,
        "CREATE TABLE parent (id int PRIMARY KEY)",
        "CREATE TABLE child (p int, CONSTRAINT f FOREIGN KEY (p) REFERENCES parent (id) ON DELETE CASCADE)",
    )

    with closing(source_of(by_file)) as source:
        hints = [obstacle.hint for obstacle in source.obstacles() if "the foreign key f" in obstacle.what]
    run(by_file, "DROP TABLE child, parent")

    assert "DROP FOREIGN KEY" in hints[0]
