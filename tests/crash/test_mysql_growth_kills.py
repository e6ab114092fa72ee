"""A process that is killed around DDL, which no MySQL transaction can undo, leaves nothing that its successor minds."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from cdcrep.testing.contract_data import pipeline, position
from cdcrep.testing.memory_tables import ordered
from tests.contract.test_mysql_sink import MySQLTarget
from tests.crash.mysql_sink_program import LAST, WIDEST
from tests.crash.pipeline import NO_COVERAGE, environment_with
from tests.servers.mysql_database import MySQLDatabase
from tests.servers.waiting import DEADLINE_SECONDS

POINTS = (
    *("sink.before_creation", "sink.after_creation", "sink.before_growth", "sink.after_growth", "sink.after_rows"),
    # The first growth and its position are durable now: these are of the next.
    *("sink.after_commit", "sink.before_growth", "sink.after_growth", "sink.before_commit"),
)


@pytest.fixture
def target(mysql_target: MySQLDatabase) -> Iterator[MySQLTarget]:
    target = MySQLTarget(mysql_target)
    yield target
    target.clear()


def run(target: MySQLTarget, point: str = "") -> int:
    """Let a process apply the history; return its exit status."""
    command = [sys.executable, "-m", "tests.crash.mysql_sink_program", target.options.url]
    environment = environment_with(**NO_COVERAGE, CDCREP_CRASH_AT=point)
    return subprocess.run(command, env=environment, timeout=DEADLINE_SECONDS, check=False).returncode


@pytest.mark.crash
@pytest.mark.parametrize("mysql_target_release", ["mysql-9.7", "mariadb-11.8"], indirect=True)
def test_a_kill_between_ddl_and_position_is_harmless(target: MySQLTarget) -> None:
    killed = [run(target, point) for point in POINTS]
    ended = run(target)

    assert killed == [-9] * len(POINTS)
    assert ended == 0
    assert ordered(target.rows(WIDEST)) == ordered(LAST)
    assert target.sink(pipeline("growth")).status()["position"] == position(4)
    pending = target.database.execute("SELECT table_name FROM cdcrep.tables WHERE pending IS NOT NULL")
    assert pending == []
