"""Others in a MySQL or MariaDB target (deadlocks, locks, ended sessions): a batch comes whole or not at all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from cdcrep import crashpoint
from cdcrep.connector import Checkpoint, Sink
from cdcrep.errors import DivergedError, TransientError
from cdcrep.testing.contract_data import (
    FIRST,
    INT,
    TEXT,
    batch,
    following,
    inserted,
    pipeline,
    position,
    table,
    updated,
)
from cdcrep.testing.memory_tables import Row, ordered
from cdcrep_connectors.mysql import predecessors
from cdcrep_connectors.mysql.options import ServerOptions
from cdcrep_connectors.mysql.sink import MySQLSink
from tests.contract.test_mysql_sink import MySQLTarget
from tests.servers.fault_proxy import FaultProxy
from tests.servers.mysql_database import MySQLDatabase
from tests.servers.waiting import wait_until

ITEMS = table("items", id=INT, note=TEXT)
BEFORE: list[Row] = [("1", "a"), ("2", "b")]
AFTER: list[Row] = [("1", "c"), ("2", "d")]
CHANGE = batch(1, updated(ITEMS, ("1", "a"), ("1", "c")), updated(ITEMS, ("2", "b"), ("2", "d")))
DEADLINE = 30.0
WAITING = "SELECT 1 FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"

either_family = pytest.mark.parametrize("mysql_target_release", ["mysql-9.7", "mariadb-11.8"], indirect=True)


@pytest.fixture
def target(mysql_target: MySQLDatabase) -> Iterator[MySQLTarget]:
    target = MySQLTarget(mysql_target)
    yield target
    crashpoint.listen(None)
    # A sink that a failed test left open would keep its tables.
    kill_sessions(target)
    target.clear()


def follow(target: MySQLTarget, transaction_timeout: float = 30.0) -> Sink:
    return following(target.sink(pipeline(transaction_timeout=transaction_timeout)), {ITEMS: BEFORE})


def failure_of(call: Callable[[], object]) -> TransientError:
    with pytest.raises(TransientError) as raised:
        call()
    return raised.value


def assert_applies_whole(target: MySQLTarget, sink: Sink) -> None:
    """See that nothing of the batch is there, and that it comes whole the second time."""
    sink.close()
    assert ordered(target.rows(ITEMS)) == BEFORE
    assert sink.open().position == FIRST
    sink.apply(CHANGE)
    sink.close()
    assert ordered(target.rows(ITEMS)) == AFTER


@either_family
def test_a_deadlock_takes_back_the_whole_batch(target: MySQLTarget) -> None:
    sink = follow(target)
    raised: list[TransientError] = []
    with target.database.connect(autocommit=False) as other, other.cursor() as cursor:
        # The server ends the transaction that has changed less.
        cursor.execute("CREATE TEMPORARY TABLE heavy (a INT PRIMARY KEY) ENGINE=InnoDB")
        cursor.execute(f"INSERT INTO heavy VALUES {', '.join(f'({i})' for i in range(1000))}")
        cursor.execute("UPDATE shop.items SET note = 'x' WHERE id = 2")
        applying = threading.Thread(target=lambda: raised.append(failure_of(lambda: sink.apply(CHANGE))))
        applying.start()
        wait_until(lambda: target.database.execute(WAITING), DEADLINE, "a batch that waits")
        cursor.execute("UPDATE shop.items SET note = 'x' WHERE id = 1")
        applying.join(DEADLINE)
        other.rollback()

    assert "(error 1213)" in str(raised[0])
    assert_applies_whole(target, sink)


@either_family
def test_waiting_too_long_for_a_lock_takes_back_the_whole_batch(target: MySQLTarget) -> None:
    sink = follow(target, transaction_timeout=1.0)
    with target.database.connect(autocommit=False) as other, other.cursor() as cursor:
        cursor.execute("UPDATE shop.items SET note = 'x' WHERE id = 2")
        with pytest.raises(TransientError):
            sink.apply(CHANGE)
        other.rollback()

    assert_applies_whole(target, sink)


def kill_sessions(target: MySQLTarget) -> None:
    """End the sessions of sinks: those that have the bookkeeping's database for theirs."""
    with target.database.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id FROM information_schema.processlist WHERE db = 'cdcrep'")
        for (session,) in cursor.fetchall():
            cursor.execute(f"KILL {session}")


@either_family
def test_a_session_that_is_killed_before_its_commit_has_done_nothing(target: MySQLTarget) -> None:
    sink = follow(target)
    crashpoint.listen(lambda point: kill_sessions(target) if point == "sink.before_commit" else None)
    with pytest.raises(TransientError):
        sink.apply(CHANGE)
    crashpoint.listen(None)

    assert_applies_whole(target, sink)


@either_family
@pytest.mark.parametrize("lost", ["the request", "the reply"])
def test_what_became_of_a_lost_commit_stands_in_the_checkpoint(
    target: MySQLTarget, fault_proxy: Callable[[str], FaultProxy], lost: str
) -> None:
    follow(target).close()
    url = f"{target.options.url}?ssl-mode=DISABLED"
    proxy = fault_proxy(url)
    sink = MySQLSink(pipeline(), ServerOptions(url=proxy.url(url)))
    sink.open()
    (proxy.drop_reply_to if lost == "the reply" else proxy.drop_request)(b"COMMIT")

    with pytest.raises(TransientError):
        sink.apply(CHANGE)
    sink.close()
    found = sink.open().position
    if found == FIRST:
        sink.apply(CHANGE)
    sink.close()

    assert found == (position(1) if lost == "the reply" else FIRST)
    assert ordered(target.rows(ITEMS)) == AFTER


@either_family
def test_a_predecessor_that_stands_still_before_its_commit_is_ended(
    target: MySQLTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predecessors, "PATIENCE_SECONDS", 1)
    predecessor = follow(target)
    successor = target.sink(pipeline(transaction_timeout=3.0))
    opened: list[Checkpoint] = []
    crashpoint.listen(lambda point: opened.append(successor.open()) if point == "sink.before_commit" else None)

    with pytest.raises(DivergedError, match="fenced"):
        predecessor.apply(CHANGE)

    crashpoint.listen(None)
    assert opened[0].position == FIRST
    successor.apply(CHANGE)
    successor.close()
    predecessor.close()
    assert ordered(target.rows(ITEMS)) == AFTER


@either_family
def test_an_open_piece_of_a_predecessor_does_not_hold_up_the_successor(target: MySQLTarget) -> None:
    predecessor = follow(target)
    predecessor.apply(batch(1, updated(ITEMS, ("1", "a"), ("1", "z")), ends=False))
    successor = target.sink(pipeline(transaction_timeout=3.0))

    successor.open()
    successor.apply(CHANGE)

    with pytest.raises(DivergedError):
        predecessor.apply(batch(1, inserted(ITEMS, "3", "z")))
    successor.close()
    predecessor.close()
    assert ordered(target.rows(ITEMS)) == AFTER


def test_sessions_that_may_not_be_ended_are_named(target: MySQLTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predecessors, "PATIENCE_SECONDS", 1)
    predecessor = follow(target)
    user = target.database.create_user()
    target.execute(f"GRANT ALL ON cdcrep.* TO {user}@'%'")
    other = MySQLSink(pipeline(transaction_timeout=1.0), ServerOptions(url=target.database.url_as(user)))
    refusals: list[TransientError] = []
    crashpoint.listen(lambda point: refusals.append(failure_of(other.open)) if point == "sink.before_commit" else None)

    predecessor.apply(CHANGE)

    assert "checkpoint row of pipeline 'contract'" in refusals[0].message
    assert "KILL " in (refusals[0].hint or "")
    predecessor.close()
    assert ordered(target.rows(ITEMS)) == AFTER
