"""A stream that cannot go on from its position without losing a change does not begin."""

from __future__ import annotations

import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from cdcrep.errors import CdcrepError, DivergedError, SetupError
from cdcrep.position import Position
from cdcrep_connectors.postgres.lsn import format_lsn, format_position, parse_lsn, parse_position
from tests.integration.stream_following import Followed, column
from tests.servers.database import Database
from tests.servers.fix_postgres import MAJORS, StartServer
from tests.servers.waiting import wait_until

TABLE = "CREATE TABLE t (id int PRIMARY KEY, v text)"


def refusal(followed: Followed, after: Position) -> CdcrepError:
    with closing(followed.stream()) as stream, pytest.raises(CdcrepError) as raised:
        next(stream.stream(after, {}))
    return raised.value


def moved(position: Position, *, system: int = 0, timeline: int = 0, lsn: int = 0) -> Position:
    place = parse_position(position)
    return format_position(place.system + system, place.timeline + timeline, place.lsn + lsn)


def test_a_slot_that_moved_on_names_the_gap(source_database: Database) -> None:
    followed = Followed(source_database.dsn, TABLE)
    followed.execute("INSERT INTO t VALUES (1)")
    newest = followed.execute("SELECT pg_current_wal_lsn()::text")[0][0]
    followed.execute(f"SELECT pg_replication_slot_advance('{followed.slot}', '{newest}')")
    confirmed, start = parse_lsn(followed.confirmed()), parse_position(followed.start).lsn

    error = refusal(followed, followed.start)

    assert isinstance(error, DivergedError)
    assert f"has moved on to {format_lsn(confirmed)}, the target stands at {format_lsn(start)}" in error.message
    assert f"{confirmed - start} bytes" in error.message
    assert "teardown" in str(error.hint)


def test_another_server_is_refused(source_database: Database) -> None:
    followed = Followed(source_database.dsn, TABLE)

    error = refusal(followed, moved(followed.start, system=1))

    assert isinstance(error, DivergedError)
    assert "system identifier" in error.message


def test_a_position_that_the_server_has_not_reached_is_refused(source_database: Database) -> None:
    followed = Followed(source_database.dsn, TABLE)

    error = refusal(followed, moved(followed.start, lsn=1 << 40))

    assert isinstance(error, DivergedError)
    assert "ahead of the source" in error.message


def test_a_position_of_an_unknown_timeline_is_refused(source_database: Database) -> None:
    followed = Followed(source_database.dsn, TABLE)

    assert "not part of its history" in refusal(followed, moved(followed.start, timeline=5)).message


def test_a_missing_slot_is_not_created_again(source_database: Database) -> None:
    followed = Followed(source_database.dsn, TABLE)
    followed.execute(f"SELECT pg_drop_replication_slot('{followed.slot}')")

    error = refusal(followed, followed.start)

    assert isinstance(error, DivergedError)
    assert "does not exist any more" in error.message
    assert followed.execute(f"SELECT 1 FROM pg_replication_slots WHERE slot_name = '{followed.slot}'") == []


def test_a_slot_that_was_created_anew_is_refused(source_database: Database) -> None:
    followed = Followed(source_database.dsn, TABLE)
    followed.execute("INSERT INTO t VALUES (1)")
    followed.execute(f"SELECT pg_drop_replication_slot('{followed.slot}')")
    followed.execute(f"SELECT pg_create_logical_replication_slot('{followed.slot}', 'pgoutput')")

    assert "created anew" in refusal(followed, followed.start).message


def test_a_slot_with_another_plugin_is_refused(source_database: Database) -> None:
    followed = Followed(source_database.dsn, TABLE, plugin="test_decoding")

    error = refusal(followed, followed.start)

    assert isinstance(error, SetupError)
    assert "plugin test_decoding" in error.message


def test_a_slot_that_is_released_in_time_is_taken(source_database: Database) -> None:
    followed = Followed(source_database.dsn, TABLE)
    followed.execute("INSERT INTO t VALUES (1)")
    with closing(followed.stream()) as first:
        next(first.stream(followed.start, {}))
        first.close()
        with closing(followed.stream()) as second:
            assert column([next(second.stream(followed.start, {}))]) == ["1"]


@pytest.mark.parametrize("major", [MAJORS[0], MAJORS[-1]])
def test_a_slot_that_the_server_invalidated_is_refused(own_postgres_server: StartServer, major: int) -> None:
    server = own_postgres_server(major, max_slot_wal_keep_size="1MB", max_wal_size="32MB", min_wal_size="32MB")
    followed = Followed(server.dsn, TABLE)

    def is_lost() -> bool:
        followed.execute("SELECT pg_logical_emit_message(false, 'fill', repeat('x', 20000000))")
        followed.execute("SELECT pg_switch_wal()")
        followed.execute("CHECKPOINT")
        return followed.execute("SELECT wal_status FROM pg_replication_slots") == [("lost",)]

    wait_until(is_lost)

    error = refusal(followed, followed.start)

    assert isinstance(error, DivergedError)
    assert "invalidated" in error.message


def test_a_promoted_server_goes_on_only_before_its_switch_point(own_postgres_server: StartServer) -> None:
    server = own_postgres_server(17)
    followed = Followed(server.dsn, TABLE)
    followed.execute("INSERT INTO t VALUES (1)")
    with closing(followed.stream()) as stream:
        first = next(batch for batch in stream.stream(followed.start, {}) if batch.changes)
    assert first.position is not None
    server.stop()
    signal = Path(server.data_directory, "standby.signal")
    signal.touch()
    signal.chmod(0o666)
    server.start()
    subprocess.run(
        [server.binaries / "psql", "-X", server.dsn, "-c", "SELECT pg_promote()"],
        env=server.environment,
        check=True,
        capture_output=True,
    )
    followed.execute("INSERT INTO t VALUES (2)")

    with closing(followed.stream()) as stream:
        rest = list(stream.stream(first.position, {}, followed.now()))
    later = parse_position(followed.now()).lsn - parse_position(first.position).lsn
    error = refusal(followed, moved(first.position, lsn=later))

    assert column(rest) == ["2"]
    assert rest[-1].position is not None
    assert parse_position(rest[-1].position).timeline == 2
    assert isinstance(error, DivergedError)
    assert "left that timeline at" in error.message
