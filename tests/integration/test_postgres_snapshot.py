"""Copying under one snapshot: every row once while writers run, and interrupted copies that are completed."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import psycopg
import pytest

from cdcrep.connector import Copied
from cdcrep.errors import DataError, DivergedError, TransientError
from cdcrep.position import Position
from cdcrep_connectors.postgres.copy_in import copy_frames
from cdcrep_connectors.postgres.snapshot import PostgresSnapshot
from cdcrep_connectors.postgres.source import PostgresSource
from tests.integration.postgres_source import all_rows, rows, source
from tests.servers.database import Database
from tests.servers.fix_postgres import every_major
from tests.servers.waiting import wait_until

WIDE = "CREATE TABLE t (id int PRIMARY KEY, v int, filler text DEFAULT repeat('x', 1000));"
MANY = WIDE + "INSERT INTO t SELECT g, 0 FROM generate_series(1, 3000) AS g;"
CHUNK = 1 << 20


@contextmanager
def writing(database: Database, seed: int) -> Iterator[list[int]]:
    """Insert, update, move and delete rows at random until the block ends; yields a counter of transactions."""
    stop, done = threading.Event(), [0]

    def write() -> None:
        chance = random.Random(seed)
        with database.connect() as connection:
            while not stop.is_set():
                id_ = chance.randrange(1, 3001)
                statement = chance.choice(
                    (
                        b"UPDATE t SET v = v + 1, filler = repeat('y', 1000) WHERE id = %s",
                        b"DELETE FROM t WHERE id = %s",
                        b"INSERT INTO t VALUES (%s, 1) ON CONFLICT DO NOTHING",
                        b"UPDATE t SET id = id + 10000 WHERE id = %s AND NOT EXISTS "
                        b"(SELECT FROM t WHERE id = %s + 10000)",
                    )
                )
                values = [id_] * statement.count(b"%s")
                connection.execute(statement, values)
                done[0] += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join()


def is_alive(database: Database, connection: psycopg.Connection[tuple[object, ...]]) -> bool:
    return bool(database.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", connection.info.backend_pid))


@contextmanager
def started(database: Database) -> Iterator[tuple[PostgresSource, PostgresSnapshot]]:
    with source(database, chunk_bytes=CHUNK) as opened:
        opened.set_up()
        yield opened, opened.start()


@every_major
def test_every_row_is_copied_once_while_writers_run(source_database: Database) -> None:
    source_database.execute(MANY)

    with writing(source_database, random.getrandbits(32)) as done, started(source_database) as (opened, snapshot):
        (table,) = opened.tables()
        with source_database.connect() as reference:
            # Its own view of the same snapshot.
            reference.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            reference.execute(f"SET TRANSACTION SNAPSHOT '{snapshot._name}'".encode())
            so_far = done[0]
            wait_until(lambda: done[0] > so_far + 200, what="writers go on")
            copied = all_rows(snapshot, table)
            expected = reference.execute("SELECT id::text, v::text, filler FROM t").fetchall()

        assert len(snapshot.chunks(table, None)) > 2
    assert Counter(copied) == Counter(expected)


def test_the_snapshot_shows_what_committed_before_its_position_and_nothing_later(source_database: Database) -> None:
    source_database.execute(WIDE + "INSERT INTO t VALUES (1, 0)")

    with started(source_database) as (opened, snapshot):
        source_database.execute("INSERT INTO t VALUES (2, 0)")
        later = opened.snapshot()
        (table,) = opened.tables()

        assert [row[0] for row in all_rows(snapshot, table)] == ["1"]
        assert sorted(row[0] for row in all_rows(later, table)) == ["1", "2"]
        assert snapshot.position != later.position


def test_a_later_snapshot_leaves_no_slot_behind(source_database: Database) -> None:
    source_database.execute(WIDE)

    with source(source_database) as opened:
        opened.set_up()
        opened.snapshot()

        def slots() -> list[tuple[object, ...]]:
            return source_database.execute("SELECT 1 FROM pg_replication_slots WHERE database = current_database()")

        wait_until(lambda: not slots(), what="the temporary slot is gone")


@every_major
def test_an_interrupted_copy_is_completed_with_rows_that_moved(source_database: Database) -> None:
    source_database.execute(MANY)
    chance = random.Random(random.getrandbits(32))

    with started(source_database) as (opened, first):
        (table,) = opened.tables()
        chunks = list(first.chunks(table, None))
        finished = chance.sample(chunks, k=len(chunks) // 2 + 1)
        target = {row[0]: row for chunk in finished for row in rows(first, chunk)}
        note, position = first.note(table), first.position
    with writing(source_database, random.getrandbits(32)) as done:
        wait_until(lambda: done[0] > 500, what="writers have moved rows")
    copied = Copied(position, snapshot=note, chunks=frozenset(chunk.name for chunk in finished))
    with source(source_database, chunk_bytes=CHUNK) as opened:
        second = opened.snapshot()
        remaining = second.chunks(table, copied)
        copied_again = [row for chunk in remaining for row in rows(second, chunk)]
        target.update((row[0], row) for row in copied_again)
        kept = set(b"".join(second.keys(table)["pgcopy-text"]()).decode().split())
    expected = dict(source_database.execute("SELECT id::text, ARRAY[id::text, v::text, filler] FROM t"))

    assert len({row[0] for row in copied_again}) == len(copied_again)
    assert all(chunk.overlapping for chunk in remaining)
    assert not copied.chunks.intersection(chunk.name for chunk in remaining)
    assert {id_: list(row) for id_, row in target.items() if id_ in kept} == expected


def test_a_copy_that_is_interrupted_twice_is_completed(source_database: Database) -> None:
    source_database.execute(MANY)

    with started(source_database) as (opened, first):
        (table,) = opened.tables()
        (begun, *_) = first.chunks(table, None)
        target = {row[0]: row for row in rows(first, begun)}
        copied = Copied(first.position, snapshot=first.note(table), chunks=frozenset([begun.name]))
    with source(source_database, chunk_bytes=CHUNK) as opened:
        catch_up = opened.snapshot().chunks(table, copied)[-1]
        copied = replace(copied, chunks=copied.chunks | {catch_up.name})
    # Rows of a range that is not copied yet get new versions in the range that is.
    source_database.execute("DELETE FROM t WHERE id <= 500")
    source_database.execute("VACUUM t")
    source_database.execute("UPDATE t SET v = 7 WHERE id > 2500")
    with source(source_database, chunk_bytes=CHUNK) as opened:
        third = opened.snapshot()
        for chunk in third.chunks(table, copied):
            target.update((row[0], row) for row in rows(third, chunk))

    assert {id_ for id_, row in target.items() if row[1] == "7"} == {str(id_) for id_ in range(2501, 3001)}


def test_a_rewritten_table_is_copied_whole(source_database: Database) -> None:
    source_database.execute(MANY)

    with started(source_database) as (opened, first):
        (table,) = opened.tables()
        names = frozenset(chunk.name for chunk in first.chunks(table, None))
        copied = Copied(first.position, snapshot=first.note(table), chunks=names)
    source_database.execute("VACUUM FULL t")
    with source(source_database, chunk_bytes=CHUNK) as opened:
        second = opened.snapshot()
        again = all_rows(second, table, copied)

    assert len(again) == 3000


@pytest.mark.parametrize("statement", ["VACUUM FULL t", "TRUNCATE t", "ALTER TABLE t ALTER v TYPE bigint"])
def test_a_table_that_is_rewritten_while_it_is_copied_is_not_copied_wrongly(
    source_database: Database, statement: str
) -> None:
    source_database.execute(MANY)

    with started(source_database) as (opened, snapshot):
        (table,) = opened.tables()
        (chunk, *_) = snapshot.chunks(table, None)
        source_database.execute(statement)

        for read in snapshot.read(chunk).values():
            with pytest.raises(TransientError, match="truncated or rewritten"):
                list(read())


def test_a_table_without_a_key_starts_over(source_database: Database) -> None:
    source_database.execute(
        "CREATE TABLE t (a int); ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t VALUES (1), (1)"
    )

    with started(source_database) as (opened, snapshot):
        (table,) = opened.tables()
        copied = Copied(snapshot.position, snapshot=snapshot.note(table), chunks=frozenset(["anything"]))
        chunks = snapshot.chunks(table, copied)

        assert not any(chunk.overlapping for chunk in chunks)
        assert all_rows(snapshot, table, copied) == [("1",), ("1",)]


def test_an_interrupted_copy_of_another_server_is_refused(source_database: Database) -> None:
    source_database.execute(MANY)

    with started(source_database) as (opened, snapshot):
        (table,) = opened.tables()
        with pytest.raises(DivergedError, match="system identifier"):
            snapshot.chunks(table, Copied(Position("pg/1/1/0/1"), snapshot="xmin 5", chunks=frozenset(["x"])))


def test_keys_of_all_partitions_are_offered_in_every_format(source_database: Database) -> None:
    source_database.execute(
        "CREATE TABLE p (v text, id int PRIMARY KEY) PARTITION BY LIST (id); CREATE TABLE p1 PARTITION OF p DEFAULT;"
        "CREATE TABLE p2 PARTITION OF p FOR VALUES IN (1); INSERT INTO p VALUES ('x', 1), ('y', 2)"
    )

    with started(source_database) as (opened, snapshot):
        (table,) = opened.tables()
        streams = snapshot.keys(table)
        (batch,) = streams["arrow"]()
        text, binary = (b"".join(streams[form]()) for form in ("pgcopy-text", "pgcopy-binary"))

    assert sorted(batch.to_pylist(), key=lambda row: row["id"]) == [{"id": "1"}, {"id": "2"}]
    assert sorted(text.split()) == [b"1", b"2"]
    assert binary.count(b"PGCOPY") == 1


@pytest.mark.parametrize("note", ["", "xmin 1", "xmin 99999999999999", "nonsense"])
def test_a_horizon_that_proves_nothing_makes_the_copy_start_over(source_database: Database, note: str) -> None:
    source_database.execute(MANY)

    with started(source_database) as (opened, snapshot):
        (table,) = opened.tables()
        names = frozenset(chunk.name for chunk in snapshot.chunks(table, None))
        again = all_rows(snapshot, table, Copied(snapshot.position, snapshot=note, chunks=names))

    assert len(again) == 3000


def test_tables_without_columns_keep_their_number_of_rows(source_database: Database) -> None:
    source_database.execute(
        "CREATE TABLE t (); ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t SELECT; INSERT INTO t SELECT"
    )

    with started(source_database) as (opened, snapshot):
        (table,) = opened.tables()
        (chunk,) = snapshot.chunks(table, None)
        (batch,) = snapshot.read(chunk)["arrow"]()

        assert batch.num_rows == 2


def test_values_longer_than_a_piece_arrive_whole(source_database: Database) -> None:
    source_database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT g, repeat('v', g * 2000000) FROM "
        "generate_series(0, 5) AS g"
    )

    with started(source_database) as (opened, snapshot):
        (table,) = opened.tables()
        lengths = [len(row[1] or "") for row in all_rows(snapshot, table)]
        (chunk,) = snapshot.chunks(table, None)
        frames = sum(map(len, snapshot.read(chunk)["pgcopy-binary-frames"]()))
        plain = sum(map(len, snapshot.read(chunk)["pgcopy-binary"]()))

    assert lengths == [g * 2_000_000 for g in range(6)]
    # One message for the header with the first row or alone, one per row, one for the trailer.
    assert frames - plain in (7 * 5, 8 * 5)


def test_binary_copies_load_into_another_table_unchanged(source_database: Database) -> None:
    source_database.execute(MANY + "CREATE SCHEMA other; CREATE TABLE other.copy (LIKE t)")

    with started(source_database) as (opened, snapshot), source_database.connect() as loader:
        (table,) = opened.tables()
        for chunk in snapshot.chunks(table, None):
            with loader.cursor().copy("COPY other.copy FROM STDIN (FORMAT binary)") as copy:
                for piece in snapshot.read(chunk)["pgcopy-binary"]():
                    copy.write(piece)

    assert source_database.execute("SELECT count(*) FROM (TABLE t EXCEPT TABLE other.copy) AS missing") == [(0,)]
    assert source_database.execute("SELECT count(*) FROM other.copy") == [(3000,)]


def test_frames_pass_from_one_server_to_another_as_they_are(source_database: Database) -> None:
    source_database.execute(MANY + "CREATE SCHEMA other; CREATE TABLE other.copy (LIKE t)")

    with started(source_database) as (opened, snapshot), source_database.connect() as loader:
        (table,) = opened.tables()
        for chunk in snapshot.chunks(table, None):
            streams = snapshot.read(chunk)
            statement = "COPY other.copy FROM STDIN (FORMAT binary)"
            copied, sent = copy_frames(loader, statement, streams["pgcopy-binary-frames"]())
            plain = sum(map(len, streams["pgcopy-binary"]()))
            assert copied == len(rows(snapshot, chunk))
            assert sent > plain

    assert source_database.execute("SELECT count(*) FROM (TABLE t EXCEPT TABLE other.copy) AS missing") == [(0,)]
    assert source_database.execute("SELECT count(*) FROM other.copy") == [(3000,)]


def test_a_copy_of_frames_fails_with_the_server_or_with_the_source(source_database: Database) -> None:
    source_database.execute(MANY + "CREATE SCHEMA other; CREATE TABLE other.copy (LIKE t)")

    def broken(pieces: Iterable[bytes]) -> Iterator[bytes]:
        yield from pieces
        raise TransientError("the source is gone")

    with started(source_database) as (opened, snapshot), source_database.connect() as loader:
        (table,) = opened.tables()
        (chunk, *_) = snapshot.chunks(table, None)
        frames = snapshot.read(chunk)["pgcopy-binary-frames"]
        with pytest.raises(psycopg.errors.BadCopyFileFormat):
            copy_frames(loader, "COPY other.copy (id) FROM STDIN (FORMAT binary)", frames())
        with pytest.raises(psycopg.errors.UndefinedTable):
            copy_frames(loader, "COPY nowhere FROM STDIN (FORMAT binary)", frames())
        with pytest.raises(TransientError, match="the source is gone"):
            copy_frames(loader, "COPY other.copy FROM STDIN (FORMAT binary)", broken(frames()))

        assert loader.execute("SELECT count(*) FROM other.copy").fetchall() == [(0,)]


def test_an_error_in_the_middle_of_a_copy_is_ours(source_database: Database) -> None:
    source_database.execute(MANY)

    with started(source_database) as (opened, snapshot):
        (table,) = opened.tables()
        (chunk, *_) = snapshot.chunks(table, None)
        selected = snapshot._selected[table.id, chunk.name]
        broken = f"{selected.rows} AND 1 / (id - 100) < 5"
        snapshot._selected[table.id, chunk.name] = replace(selected, rows=broken)

        for read in snapshot.read(chunk).values():
            with pytest.raises(DataError, match=r"^copying public\.t: "):
                list(read())


def test_closing_makes_a_running_read_end(source_database: Database) -> None:
    source_database.execute(WIDE + "INSERT INTO t SELECT g, 0 FROM generate_series(1, 20000) AS g")

    with source(source_database) as opened:
        opened.set_up()
        snapshot = opened.start()
        (table,) = opened.tables()
        (chunk,) = snapshot.chunks(table, None)
        reading = iter(snapshot.read(chunk)["pgcopy-text"]())
        next(reading)
        snapshot.close()

        with pytest.raises(TransientError):
            list(reading)


def test_a_lock_on_the_table_is_waited_for_only_so_long(source_database: Database) -> None:
    source_database.execute(MANY)

    with source(source_database, lock_timeout=0.05) as opened, source_database.connect() as locker:
        opened.set_up()
        snapshot = opened.start()
        (table,) = opened.tables()
        (chunk, *_) = snapshot.chunks(table, None)
        locker.execute("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        for read in snapshot.read(chunk).values():
            with pytest.raises(TransientError, match="lock timeout"):
                list(read())
        locker.execute("ROLLBACK")


def test_a_vanished_server_is_a_passing_failure(source_database: Database) -> None:
    source_database.execute(MANY)

    with started(source_database) as (opened, snapshot):
        (table,) = opened.tables()
        with source_database.server.connect() as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [source_database.name]
            )
        with pytest.raises(TransientError):
            snapshot.chunks(table, None)


def test_the_session_that_keeps_the_snapshot_is_idle_without_limit(source_database: Database) -> None:
    source_database.execute(MANY)
    source_database.execute(f"ALTER DATABASE {source_database.name} SET idle_in_transaction_session_timeout = '50ms'")

    with started(source_database) as (opened, snapshot):
        (table,) = opened.tables()
        other = source_database.connect()
        other.execute("BEGIN")
        # The setting works: the session of somebody else is ended.
        wait_until(lambda: not is_alive(source_database, other), what="ended")
        other.close()

        assert len(all_rows(snapshot, table)) == 3000
