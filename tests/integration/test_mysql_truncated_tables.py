"""Tables of MySQL and MariaDB that are truncated before their turn in a first copy comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cdcrep.config import load
from cdcrep.errors import TransientError
from cdcrep.progress import LogLines
from cdcrep.supervise import Supervisor
from cdcrep.table import TableId
from tests.integration.pairs import Pair, opened
from tests.servers.database import RunningServer
from tests.servers.mysql_database import RunningMySQL

ATTEMPTS = 4


@pytest.fixture
def pair(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    postgres_server: Callable[[int], RunningServer],
    mysql_server: Callable[[str], RunningMySQL],
) -> Iterator[Pair]:
    """A keyless table, which is read first, and a small one for staging."""
    origin, destination = request.param
    with (
        opened(origin, tmp_path, postgres_server, mysql_server) as source,
        opened(destination, tmp_path, postgres_server, mysql_server) as target,
    ):
        pair = Pair(source, target, tmp_path, settings="copy_workers = 1")
        pair.write("CREATE DATABASE {s}")
        pair.write("CREATE TABLE {s}.events (what text)", "CREATE TABLE {s}.staging (id int PRIMARY KEY)")
        pair.write("INSERT INTO {s}.events VALUES " + ", ".join(f"('{i} {'x' * 2000}')" for i in range(200)))
        pair.write("INSERT INTO {s}.staging VALUES (0)", "ANALYZE TABLE {s}.events, {s}.staging")
        yield pair
        source.drop(pair.schema)
        target.drop(pair.schema)


class Stager(LogLines):
    """Fills the staging table anew whenever the other one was copied."""

    def __init__(self, pair: Pair) -> None:
        super().__init__("stager")
        self.pair = pair
        self.copies = 0

    def copy_progress(self, table: TableId, rows: int, size: int) -> None:
        super().copy_progress(table, rows, size)
        if table.name == "events":
            self.copies += 1
            self.pair.write("INSERT INTO {s}.events VALUES ('later')", "TRUNCATE TABLE {s}.staging")
            self.pair.write(f"INSERT INTO {{s}}.staging VALUES ({self.copies})")


@pytest.mark.parametrize(
    "pair",
    [("mysql-9.7", "duckdb"), ("mariadb-10.11", "postgresql-18")],
    indirect=True,
    ids="-".join,
)
def test_a_keyless_table_beside_one_that_is_truncated_again_and_again_is_copied_once(pair: Pair) -> None:
    stager = Stager(pair)
    failures = 0
    for _ in range(ATTEMPTS):
        with suppress(TransientError):
            Supervisor(load(pair.config), events=stager, until_current=True).run()
            break
        failures += 1

    assert (stager.copies, failures) == (1, 1)
    assert len(pair.assert_equal("events", ["what"])) == 201
    assert pair.assert_equal("staging", ["id"]) == [("int 1",)]
