"""A slot that another session holds: who is alive keeps it, what a process before has left behind is ended."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import MutableMapping
from contextlib import closing
from typing import Any

import psycopg
import pytest
from structlog.testing import capture_logs

from cdcrep.errors import TransientError
from cdcrep.position import Position
from cdcrep_connectors.postgres import occupied_slot
from cdcrep_connectors.postgres.stream import ReplicationStream
from tests.integration.stream_following import PIPELINE, Followed, column
from tests.properties.pgoutput_messages import make_table
from tests.servers.database import Database
from tests.servers.waiting import wait_until

SHORT = 0.5
OURS = "cdcrep shop"
SESSIONS = f"SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND application_name = '{OURS}'"


@pytest.fixture
def followed(source_database: Database, monkeypatch: pytest.MonkeyPatch) -> Followed:
    monkeypatch.setattr(occupied_slot, "GRACE_SECONDS", SHORT)
    monkeypatch.setattr(occupied_slot, "SILENCE_SECONDS", SHORT)
    followed = Followed(source_database.dsn, "CREATE TABLE t (id int PRIMARY KEY)")
    followed.execute("INSERT INTO t VALUES (1)")
    return followed


def holder(followed: Followed) -> int | None:
    (row,) = followed.execute(f"SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{followed.slot}'")
    return None if row[0] is None else int(row[0])


def hold(followed: Followed, application_name: str) -> ReplicationStream:
    """Receive a batch and fall silent."""
    stream = followed.stream(application_name=application_name)
    next(stream.stream(followed.start, {}))
    return stream


def test_a_session_of_another_name_keeps_the_slot_and_is_named(followed: Followed) -> None:
    with closing(hold(followed, "somebody else")), closing(followed.stream(application_name=OURS)) as second:
        pid = holder(followed)

        with pytest.raises(TransientError, match=f"process {pid}") as refused:
            next(second.stream(followed.start, {}))

        assert holder(followed) == pid
    assert f"pg_terminate_backend({pid})" in str(refused.value.hint)


def test_a_silent_session_of_a_process_before_is_ended(followed: Followed) -> None:
    with closing(hold(followed, OURS)), closing(followed.stream(application_name=OURS)) as second:
        pid = holder(followed)

        with capture_logs() as lines:
            assert column([next(second.stream(followed.start, {}))]) == ["1"]

        assert holder(followed) != pid
    assert [line.get("active_pid") or line.get("pid") for line in lines] == [pid, pid]


def test_a_process_of_the_same_name_that_confirms_keeps_the_slot(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A slow machine may take its time with the confirmation.
    monkeypatch.setattr(occupied_slot, "SILENCE_SECONDS", 60.0)
    alive = followed.stream(application_name=OURS)
    received = next(alive.stream(followed.start, {})).position
    assert received is not None
    ahead, pid, before = followed.now(), holder(followed), followed.confirmed()

    def confirm_later(lines: list[MutableMapping[str, Any]]) -> None:
        # A confirmation before the second process has looked at the slot would not be a sign of life to it.
        wait_until(lambda: lines, what="a second process that waits")
        alive.confirm(received)
        wait_until(lambda: followed.confirmed() != before, what="a confirmation")

    with closing(alive), closing(followed.stream(application_name=OURS)) as second, capture_logs() as lines:
        confirming = threading.Thread(target=confirm_later, args=(lines,))
        confirming.start()
        with pytest.raises(TransientError, match=f"process {pid}"):
            next(second.stream(ahead, {}))
        confirming.join()

        assert holder(followed) == pid


def test_a_session_that_may_not_be_ended_is_waited_for(followed: Followed, source_database: Database) -> None:
    role = source_database.create_role()

    def connect(replication: bool) -> psycopg.Connection[Any]:
        mode: dict[str, Any] = {"replication": "database"} if replication else {}
        return psycopg.connect(source_database.url_as(role), autocommit=True, application_name=OURS, **mode)

    second = ReplicationStream(connect, make_table, slot=followed.slot, publications=["published"], pipeline=PIPELINE)
    first, got = hold(followed, OURS), []
    with closing(second):
        waiting = threading.Thread(target=lambda: got.append(next(second.stream(followed.start, {}))))
        waiting.start()
        # Longer than a session that may be ended would last.
        waiting.join(3 * SHORT)
        held = holder(followed)
        first.close()
        waiting.join()

        assert held is not None
        assert column(got) == ["1"]


def test_stopping_ends_the_waiting(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(occupied_slot, "GRACE_SECONDS", 600.0)
    with closing(hold(followed, "somebody else")), closing(followed.stream(application_name=OURS)) as second:
        waiting = threading.Thread(target=wait_in_vain, args=(second, followed.start))
        waiting.start()
        wait_until(lambda: followed.execute(SESSIONS), what="a second process")

        second.stop()
        waiting.join(10.0)

        assert not waiting.is_alive()


def wait_in_vain(stream: ReplicationStream, after: Position) -> None:
    with contextlib.suppress(TransientError):
        assert list(stream.stream(after, {})) == []
