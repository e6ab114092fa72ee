"""A replication stream from a real server: order, restarts, sizes, confirmations, keepalives."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime

import pytest

from cdcrep.changes import Batch
from cdcrep.errors import TransientError
from cdcrep_connectors.postgres.lsn import format_lsn, parse_lsn, parse_position
from cdcrep_connectors.postgres.stream import ReplicationStream
from tests.integration.stream_following import Followed, column, limited
from tests.servers.database import Database
from tests.servers.fix_postgres import StartServer, every_major
from tests.servers.waiting import DEADLINE_SECONDS, wait_until

TABLE = "CREATE TABLE t (id int PRIMARY KEY, v text)"


@every_major
def test_all_kinds_of_changes_arrive_from_every_version(source_database: Database) -> None:
    followed = Followed(source_database.dsn, TABLE + "; CREATE TABLE e (); ALTER TABLE e REPLICA IDENTITY FULL")
    followed.execute("INSERT INTO t SELECT n, 'v' || n FROM generate_series(1, 3) n")
    followed.execute("UPDATE t SET v = 'ü' WHERE id = 1")
    followed.execute("UPDATE t SET id = 9 WHERE id = 2")
    followed.execute("DELETE FROM t WHERE id = 3")
    followed.execute("INSERT INTO e DEFAULT VALUES")
    before = time.time()

    with closing(followed.stream()) as stream:
        batches = list(stream.stream(followed.start, {}, followed.now()))

    by_table = {name: [c for b in batches for c in b.changes if c.table.name == name] for name in ("t", "e")}
    assert b"".join(bytes(changes.operations) for changes in by_table["t"]) == b"IIIUUD"
    assert column(Batch(None, (changes,)) for changes in by_table["t"]) == ["1", "2", "3", "1", "9", None]
    assert sum(map(len, by_table["e"])) == 1
    # Up to version 14 also transactions that changed nothing of ours are sent.
    assert sum(batch.transactions for batch in batches) in (5, 6)
    times = [batch.commit_time for batch in batches if batch.commit_time is not None]
    assert all(abs(before - commit_time) < 600 for commit_time in times)


def test_a_new_stream_goes_on_exactly_where_the_last_one_was_left(source_database: Database) -> None:
    followed = Followed(source_database.dsn, TABLE)
    followed.execute("INSERT INTO t VALUES (1), (2)")
    with closing(followed.stream()) as stream:
        first = next(batch for batch in stream.stream(followed.start, {}) if batch.changes)
    followed.execute("INSERT INTO t VALUES (3)")

    with closing(followed.stream()) as stream:
        assert first.position is not None
        rest = list(stream.stream(first.position, {}, followed.now()))

    assert column([first]) == ["1", "2"]
    assert column(rest) == ["3"]


def test_a_confirmation_moves_the_slot_and_close_sends_the_last_one(source_database: Database) -> None:
    followed = Followed(source_database.dsn, TABLE)
    followed.execute("INSERT INTO t VALUES (1)")
    with closing(followed.stream()) as stream:
        batches = list(stream.stream(followed.start, {}, followed.now()))
        position = batches[-1].position
        assert position is not None
        unconfirmed = followed.confirmed()

        stream.confirm(position)

    assert parse_lsn(unconfirmed) == parse_position(followed.start).lsn
    assert followed.confirmed() == format_lsn(parse_position(position).lsn)


def test_nothing_is_confirmed_that_the_consumer_did_not_confirm(source_database: Database) -> None:
    followed = Followed(source_database.dsn, TABLE)
    followed.execute("INSERT INTO t VALUES (1)")

    with closing(followed.stream()) as stream:
        list(stream.stream(followed.start, {}, followed.now()))

    assert parse_lsn(followed.confirmed()) == parse_position(followed.start).lsn


def test_a_blocked_consumer_does_not_lose_the_connection(source_database: Database) -> None:
    followed = Followed(source_database.dsn, TABLE)
    followed.execute("INSERT INTO t VALUES (1)")
    replies: list[datetime] = []

    def blocked_long_enough() -> bool:
        (row,) = followed.execute(
            "SELECT reply_time FROM pg_stat_replication JOIN pg_replication_slots ON active_pid = pid "
            f"WHERE slot_name = '{followed.slot}'"
        )
        replies.append(row[0])
        return (replies[-1] - replies[0]).total_seconds() > 5

    with closing(followed.stream(options="-c wal_sender_timeout=2s")) as stream:
        batches = stream.stream(followed.start, {})
        first = next(batch for batch in batches if batch.changes)
        followed.execute("INSERT INTO t VALUES (2)")
        wait_until(blocked_long_enough)
        second = next(batch for batch in batches if batch.changes)

    assert column([first, second]) == ["1", "2"]


def test_a_value_of_50_megabytes_arrives(source_database: Database) -> None:
    followed = Followed(source_database.dsn, TABLE)
    followed.execute("INSERT INTO t VALUES (1, repeat('x', 50000000)), (2, 'small')")

    with closing(followed.stream()) as stream:
        batches = list(stream.stream(followed.start, {}, followed.now()))

    values = column(batches, "v")
    assert [len(value) for value in values] == [50_000_000, 5]
    assert set(values[0]) == {"x"}


def test_a_huge_transaction_comes_in_pieces_between_others(source_database: Database) -> None:
    followed = Followed(source_database.dsn, TABLE)
    followed.execute("INSERT INTO t VALUES (-1)")
    followed.execute("INSERT INTO t SELECT n, repeat('x', 200) FROM generate_series(1, 60000) n")
    followed.execute("INSERT INTO t VALUES (-2)")

    with closing(followed.stream(limited(max_batch_rows=10_000))) as stream:
        batches = [b for b in stream.stream(followed.start, {}, followed.now()) if b.rows]

    assert column(batches) == ["-1", *map(str, range(1, 60_001)), "-2"]
    pieces = [batch for batch in batches if batch.position is None]
    assert len(pieces) >= 5
    assert all(batch.rows <= 10_000 for batch in batches)
    assert [batch.transactions for batch in batches] == [1, *[0] * len(pieces), 1, 1]


def test_no_heartbeat_comes_between_the_pieces_of_a_transaction(source_database: Database) -> None:
    followed = Followed(source_database.dsn, TABLE)
    followed.execute("INSERT INTO t VALUES (-1)")
    bounds = limited(max_batch_rows=500, heartbeat_seconds=2.0)
    seen: list[Batch] = []

    def consume(batches: Iterator[Batch]) -> None:
        for batch in batches:
            seen.append(batch)
            if batch.position is None:
                wait_until(lambda: time.monotonic() > began + bounds.heartbeat_seconds)

    def received() -> bool:
        query = f"SELECT 1 FROM pg_stat_replication WHERE write_lsn >= '{other}'"
        return bool(followed.execute(query))

    with closing(followed.stream(bounds, options="-c wal_sender_timeout=2s")) as stream:
        consumer = threading.Thread(target=consume, args=[stream.stream(followed.start, {})])
        consumer.start()
        wait_until(lambda: seen)
        began = time.monotonic()
        # The log goes on, so that a heartbeat will be due, and before that a transaction begins.
        other = followed.execute("SELECT pg_logical_emit_message(true, 'other', '')::text")[0][0]
        wait_until(received)
        followed.execute("INSERT INTO t SELECT n, repeat('x', 200) FROM generate_series(1, 40000) n")
        wait_until(lambda: sum(batch.rows for batch in seen) > 40_000)
        stream.stop()
        consumer.join()

    whole = [batch for batch in seen if batch.position is None or batch.rows]
    first, last = seen.index(whole[1]), seen.index(whole[-1])
    assert [batch.position is None for batch in seen[first:last]] == [True] * (last - first)


def test_many_transactions_come_in_large_batches(source_database: Database) -> None:
    followed = Followed(source_database.dsn, TABLE)
    followed.execute(
        "DO $$ BEGIN FOR n IN 1..3000 LOOP INSERT INTO t VALUES (n, repeat('x', 300)); COMMIT; END LOOP; END $$"
    )

    with closing(followed.stream()) as stream:
        batches = list(stream.stream(followed.start, {}, followed.now()))

    assert column(batches) == [str(n) for n in range(1, 3001)]
    assert len(batches) < 300


def test_heartbeats_advance_an_idle_stream(source_database: Database) -> None:
    followed = Followed(source_database.dsn, TABLE)
    with closing(followed.stream()) as stream:
        heartbeats = stream.stream(followed.start, {})
        followed.execute("SELECT pg_logical_emit_message(true, 'other', repeat('x', 1000000))")
        written = parse_position(
            followed.position(str(followed.execute("SELECT pg_current_wal_lsn()::text")[0][0]))
        ).lsn

        for batch in heartbeats:
            assert batch.changes == ()
            assert batch.position is not None
            if parse_position(batch.position).lsn >= written - 1000:
                break


def test_stop_ends_an_idle_stream_and_one_that_has_not_begun(source_database: Database) -> None:
    followed = Followed(source_database.dsn, TABLE)
    followed.execute("INSERT INTO t VALUES (1)")
    with closing(followed.stream(limited(heartbeat_seconds=60))) as stream:
        for _ in stream.stream(followed.start, {}):
            stream.stop()

    with closing(followed.stream()) as stopped:
        stopped.stop()
        assert list(stopped.stream(followed.start, {})) == []


def confirming(stream: ReplicationStream, batches: Iterator[Batch]) -> None:
    for batch in batches:
        if batch.position is not None:
            stream.confirm(batch.position)


def test_a_fast_shutdown_of_the_server_does_not_wait_for_us(own_postgres_server: StartServer) -> None:
    server = own_postgres_server()
    followed = Followed(server.dsn, TABLE)
    followed.execute("INSERT INTO t SELECT n FROM generate_series(1, 10000) n")
    with closing(followed.stream()) as stream:
        batches = stream.stream(followed.start, {})
        first = next(batches)
        assert first.position is not None
        stream.confirm(first.position)
        stopping = threading.Thread(target=server.stop, args=["fast"])
        began = time.monotonic()
        stopping.start()
        with pytest.raises(TransientError):
            confirming(stream, batches)
        stopping.join(DEADLINE_SECONDS)

    assert server.pid is None
    # It would wait for us until its wal_sender_timeout, a minute.
    assert time.monotonic() - began < 50


def test_after_a_crash_the_stream_goes_on_without_repeating(own_postgres_server: StartServer) -> None:
    server = own_postgres_server()
    followed = Followed(server.dsn, TABLE)
    followed.execute("INSERT INTO t VALUES (1)")
    with closing(followed.stream()) as stream:
        batches = stream.stream(followed.start, {})
        seen = [next(batch for batch in batches if batch.changes)]
        assert seen[0].position is not None
        stream.confirm(seen[0].position)
        server.restart("immediate")
        with pytest.raises(TransientError):
            list(batches)
    followed.execute("INSERT INTO t VALUES (2)")

    with closing(followed.stream()) as stream:
        seen += stream.stream(seen[0].position, {}, followed.now())

    assert column(seen) == ["1", "2"]
