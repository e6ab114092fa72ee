"""Labels that an enum gets while it is followed appear in a PostgreSQL target before the rows that use them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cdcrep.config import load
from cdcrep.errors import SetupError
from cdcrep.progress import LogLines
from cdcrep.supervise import State, Supervisor
from tests.integration.end_to_end import Replicated
from tests.servers.database import Database, RunningServer
from tests.servers.waiting import wait_until

LABELS = "SELECT enum_range(NULL::mood)::text"

both_targets = pytest.mark.parametrize("place", ["postgresql-14", "postgresql-18"])


@pytest.fixture
def replicated(
    place: str, source_database: Database, tmp_path: Path, postgres_server: Callable[[int], RunningServer]
) -> Iterator[Replicated]:
    target = Database.create(postgres_server(int(place.rpartition("-")[2])))
    replicated = Replicated(source_database, tmp_path, target)
    source_database.execute(
        "CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE DOMAIN kept AS mood; "
        "CREATE TABLE items (id int PRIMARY KEY, c mood, d mood[], e kept); "
        "INSERT INTO items VALUES (1, 'sad', '{sad}', 'sad')"
    )
    replicated.catch_up()
    yield replicated
    replicated.close()


@contextmanager
def running(replicated: Replicated, options: str = "") -> Iterator[Supervisor]:
    """Run the pipeline with its usual retries in a thread."""
    path = replicated.directory / "pipeline.toml"
    path.write_text(options + path.read_text().replace("max_retries = 0\n", ""))
    supervisor = Supervisor(load(path), events=LogLines("labels"))
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    try:
        wait_until(lambda: supervisor.state == State.STREAMING)
        yield supervisor
    finally:
        supervisor.stop()
        thread.join()


def is_equal(replicated: Replicated) -> bool:
    return not replicated.differences()


@both_targets
def test_a_label_that_is_new_is_added_in_its_place_before_the_rows_that_use_it(replicated: Replicated) -> None:
    source = replicated.source
    with running(replicated):
        source.execute("INSERT INTO items VALUES (2, 'happy', '{}', NULL)")
        wait_until(lambda: is_equal(replicated))
        source.execute("ALTER TYPE mood ADD VALUE 'first' BEFORE 'sad'")
        source.execute("ALTER TYPE mood ADD VALUE 'very first' BEFORE 'first'; INSERT INTO items VALUES (3, 'first')")
        wait_until(lambda: is_equal(replicated))
        source.execute("ALTER TYPE mood ADD VALUE 'last'")
        source.execute("INSERT INTO items VALUES (4, 'sad', '{sad,last}', 'very first')")
        wait_until(lambda: is_equal(replicated))

    assert replicated.run_on_target(LABELS) == source.execute(LABELS)


@both_targets
def test_a_label_that_is_new_in_the_middle_of_a_large_transaction_is_added(replicated: Replicated) -> None:
    source = replicated.source
    with running(replicated, "max_batch_rows = 1000\n"):
        source.execute("INSERT INTO items VALUES (2, 'happy')")
        wait_until(lambda: is_equal(replicated))
        source.execute("ALTER TYPE mood ADD VALUE 'new'")
        source.execute(
            "INSERT INTO items SELECT i, CASE WHEN i < 4000 THEN 'sad' ELSE 'new' END::mood "
            "FROM generate_series(3, 6000) i"
        )
        wait_until(lambda: is_equal(replicated))


@both_targets
def test_a_label_that_was_renamed_stops_until_it_is_renamed_in_the_target(replicated: Replicated) -> None:
    source = replicated.source
    source.execute("ALTER TYPE mood RENAME VALUE 'sad' TO 'it''s \\ok'")
    source.execute("INSERT INTO items VALUES (2, 'it''s \\ok')")

    with pytest.raises(
        SetupError, match=r"type public\.mood of the target lacks the labels .* and has 'sad'"
    ) as stopped:
        replicated.catch_up()
    rename = next(line for line in str(stopped.value.hint).splitlines() if "RENAME" in line)
    replicated.run_on_target(rename)
    replicated.catch_up()

    replicated.assert_equal()
