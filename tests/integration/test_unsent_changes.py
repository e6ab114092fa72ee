"""What happens to rows without being sent stops the stream, also across restarts; what loses nothing does not."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from cdcrep.changes import Batch
from cdcrep.errors import DivergedError
from cdcrep.position import Position
from cdcrep_connectors.postgres import watch
from cdcrep_connectors.postgres.lsn import parse_position
from tests.integration.end_to_end import Replicated
from tests.integration.unsent_changes import ATTACH, HARMLESS, TABLES, UNSENT, Follower
from tests.servers.database import Database
from tests.servers.fix_postgres import every_major

REMOVED = ["truncate", "truncate and load", "detach", "drop"]


def followed(database: Database, **options: object) -> Follower:
    follower = Follower(database, **options)
    follower.copy()
    return follower


@pytest.fixture
def follower(source_database: Database) -> Follower:
    return followed(source_database)


def with_starts(cases: Iterable[str], also_from_the_copy: Collection[str]) -> pytest.MarkDecorator:
    """Start each case from a position that was streamed, some also from the first copy's."""
    chosen = [
        (case, streamed) for case in cases for streamed in (True, False) if streamed or case in also_from_the_copy
    ]
    ids = [f"{case}-{'streamed' if streamed else 'copied'}" for case, streamed in chosen]
    return pytest.mark.parametrize(("case", "streamed"), chosen, ids=ids)


unsent = pytest.mark.parametrize(("statements", "what"), list(UNSENT.values()), ids=list(UNSENT))
harmless = pytest.mark.parametrize("statements", list(HARMLESS.values()), ids=list(HARMLESS))


def stream_something(follower: Follower) -> None:
    """Move the position, so that the next start compares with it and not with a copy."""
    follower.write()
    follower.catch_up()


def pass_the_present(follower: Follower, stream: Iterator[Batch], times: int = 1) -> Position:
    """Read a stream until it is behind everything that has been written, again and again; return its position."""
    position = follower.position
    for _ in range(times):
        with follower.opened() as opened:
            here = parse_position(opened.current()).lsn
        while parse_position(position).lsn < here:
            position = next(batch.position for batch in stream if batch.position)
    return position


@with_starts(UNSENT, ("truncate and load", "attach", "detach", "drop and create", "convert"))
def test_what_is_not_sent_stops_every_start_until_the_table_is_copied_anew(
    follower: Follower, case: str, streamed: bool
) -> None:
    statements, what = UNSENT[case]
    if streamed:
        stream_something(follower)
    follower.run(statements)

    for _ in range(2):
        with pytest.raises(DivergedError, match=what) as stopped:
            follower.catch_up()
    table = "plain" if "plain" in statements else "events"
    assert f'DROP TABLE "public"."{table}";  -- in the target' in str(stopped.value.hint)
    follower.copy(table)
    follower.catch_up()
    stream_something(follower)


@unsent
def test_what_is_not_sent_stops_a_running_stream(
    follower: Follower, statements: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "SECONDS", 0.0)
    with follower.streaming() as stream:
        follower.write()
        pass_the_present(follower, stream)
        follower.run(statements)

        with pytest.raises(DivergedError, match=what):
            pass_the_present(follower, stream, times=2)


@with_starts(HARMLESS, ("new partition", "empty table attached", "truncate all", "rewritten files"))
def test_what_loses_nothing_does_not_stop(follower: Follower, case: str, streamed: bool) -> None:
    if streamed:
        stream_something(follower)
    follower.run(HARMLESS[case])

    follower.catch_up_in_steps()
    follower.catch_up()
    stream_something(follower)


@harmless
def test_what_loses_nothing_does_not_stop_a_running_stream(
    follower: Follower, statements: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "SECONDS", 0.0)
    with follower.streaming() as stream:
        follower.write()
        pass_the_present(follower, stream)
        follower.run(statements)

        pass_the_present(follower, stream, times=3)


@pytest.mark.parametrize("name", [name for name in HARMLESS if name.startswith("truncate all")])
def test_a_start_behind_a_truncation_that_was_streamed_does_not_stop(follower: Follower, name: str) -> None:
    with follower.streaming() as stream:
        follower.write()
        pass_the_present(follower, stream)
        follower.run(HARMLESS[name])
        follower.position = pass_the_present(follower, stream)

    follower.catch_up()


def test_a_truncation_that_the_stream_is_still_to_bring_does_not_stop(follower: Follower) -> None:
    stream_something(follower)
    follower.write()
    # More than what is read at once.
    follower.run("UPDATE plain SET v = repeat('long', 200000)")
    follower.run(HARMLESS["truncate all"])

    follower.catch_up()


@pytest.mark.parametrize("unreadable", ["new partition", "partition made and attached", "load and attach at once"])
def test_a_partition_on_which_nothing_is_granted_is_read_through_its_table(
    source_database: Database, unreadable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = source_database.create_role()
    follower = Follower(
        source_database, publication="given", create_publication=False, url=source_database.url_as(role)
    )
    source_database.execute(
        "CREATE PUBLICATION given FOR TABLE events, plain WITH (publish_via_partition_root); "
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"
    )
    follower.copy()
    monkeypatch.setattr(watch, "SECONDS", 0.0)
    with follower.streaming() as stream:
        follower.write()
        pass_the_present(follower, stream)
        follower.run({**HARMLESS, **{name: statements for name, (statements, _) in UNSENT.items()}}[unreadable])

        with pytest.raises(DivergedError, match="attached") if unreadable in UNSENT else nullcontext():
            pass_the_present(follower, stream, times=2)


def test_a_new_partition_is_known_from_its_first_row_on(follower: Follower, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "SOONER_SECONDS", 0.0)
    with follower.streaming() as stream:
        follower.write()
        pass_the_present(follower, stream)
        follower.run("CREATE TABLE events_3 PARTITION OF events FOR VALUES FROM (20) TO (30)")
        follower.run("INSERT INTO events VALUES (1, 25)")
        pass_the_present(follower, stream)
        follower.run("DROP TABLE events_3")
        monkeypatch.setattr(watch, "SECONDS", 0.0)

        with pytest.raises(DivergedError, match=r"events_3 of public\.events was dropped"):
            pass_the_present(follower, stream, times=3)


def test_a_partition_that_is_locked_is_looked_at_later(source_database: Database) -> None:
    follower = followed(source_database, lock_timeout=0.1)
    stream_something(follower)
    follower.run("TRUNCATE events_2")
    with follower.database.connect() as connection, connection.transaction():
        connection.execute("LOCK TABLE events_2 IN ACCESS EXCLUSIVE MODE")
        follower.catch_up()

    with pytest.raises(DivergedError, match=r"events_2 of public\.events was emptied"):
        follower.catch_up()


@every_major
def test_every_version_of_the_server_shows_what_was_not_sent(source_database: Database) -> None:
    follower = followed(source_database)
    for name in ("rewritten files", "indexes", "default partition", "truncate all", "truncate all in a savepoint"):
        follower.run(HARMLESS[name])
        follower.catch_up()
    for name in ("convert", "truncate and load", "attach", "convert a partition", "detach"):
        statements, what = UNSENT[name]
        follower.run(statements)
        with pytest.raises(DivergedError, match=what):
            follower.catch_up()
        follower.copy("events", "plain")
        follower.catch_up()


@pytest.mark.parametrize("name", REMOVED)
def test_rows_of_removed_partitions_may_be_kept(source_database: Database, name: str) -> None:
    follower = followed(source_database, removed_partitions="keep")
    stream_something(follower)
    follower.run(UNSENT[name][0])

    follower.catch_up()
    del follower.options["removed_partitions"]
    follower.catch_up()
    follower.run(UNSENT["attach"][0])
    with pytest.raises(DivergedError, match="was attached"):
        follower.catch_up()


def test_what_is_written_to_removed_partitions_that_are_kept_still_stops(source_database: Database) -> None:
    follower = followed(source_database, removed_partitions="keep")
    follower.run("INSERT INTO staged VALUES (1, 25); TRUNCATE events_1; " + ATTACH)

    with pytest.raises(DivergedError, match="staged was attached"):
        follower.catch_up()


def test_a_partition_that_cannot_be_followed_stops_the_stream(
    follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "SECONDS", 0.0)
    with follower.streaming() as stream:
        follower.write()
        pass_the_present(follower, stream)
        follower.run("CREATE UNLOGGED TABLE events_3 PARTITION OF events FOR VALUES FROM (20) TO (30)")

        with pytest.raises(DivergedError, match=r"partition public\.events_3 of public\.events is unlogged"):
            pass_the_present(follower, stream)


def test_a_table_that_is_copied_anew_has_the_rows_that_were_not_sent(source_database: Database, tmp_path: Path) -> None:
    source_database.execute(TABLES)
    replicated = Replicated(source_database, tmp_path, None, ("public.events", "public.plain"))
    replicated.catch_up()
    source_database.execute("TRUNCATE events_2; INSERT INTO events VALUES (1000, 5); UPDATE plain SET w = 0")
    with pytest.raises(DivergedError, match=r"events_2 of public\.events was emptied"):
        replicated.catch_up()

    replicated.run_on_target("DROP TABLE public.events")
    replicated.catch_up()
    replicated.catch_up()

    replicated.assert_equal()
