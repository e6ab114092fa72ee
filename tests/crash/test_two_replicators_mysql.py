"""Two processes of one pipeline into MySQL or MariaDB, from a server that serves both: the fence alone stops the first.

No replication slot keeps the second process waiting, as one of PostgreSQL would.
"""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from cdcrep.errors import DivergedError
from tests.crash.children import STUBBORN, Running, running
from tests.crash.conftest import Ends
from tests.crash.observer import connect_mysql, rows_at, select
from tests.crash.test_kills import judge
from tests.crash.workload import writing
from tests.crash.workload_sessions import create_tables, run_script
from tests.servers.waiting import wait_until

TAKEOVERS = 4
WAITING = "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"

pytestmark = pytest.mark.parametrize(
    "ends", ["mysql-9.7-to-mariadb-10.11", "mariadb-10.11-to-mysql-9.7"], indirect=True
)


@pytest.mark.crash
def test_a_process_that_was_stopped_inside_a_transaction_finds_itself_fenced(ends: Ends, tmp_path: Path) -> None:
    run_script(ends.source, "CREATE TABLE ledger (seq bigint)")
    pipeline = ends.pipeline("ledger")

    def write(*seqs: int) -> None:
        run_script(ends.source, ";".join(f"INSERT INTO ledger VALUES ({seq})" for seq in seqs))

    def replicated() -> list[int]:
        return sorted(int(row[0]) for row in rows_at(ends.target_url, ends.schema, "ledger"))

    with running(pipeline) as first:
        first.wait_for("streaming")
        with connect_mysql(ends.target_url) as blocker, blocker.cursor() as cursor:
            blocker.begin()
            cursor.execute(f"SELECT 1 FROM cdcrep.checkpoints WHERE pipeline = '{ends.source.name}' FOR UPDATE")
            write(1)
            wait_until(lambda: select(ends.target_url, WAITING) == [(1,)], what="rows without their position")
            write(2, 3)
            first.process.send_signal(signal.SIGSTOP)

        with running(pipeline, CDCREP_RUNTIME_DIR=str(tmp_path / "elsewhere")) as second:
            write(4)
            second.until(lambda: replicated() == [1, 2, 3, 4], "the second took over")
            first.process.send_signal(signal.SIGCONT)
            code = first.ended()
            write(5)
            second.until(lambda: 5 in replicated(), "the second goes on")
            second.run_on(0)

    assert code == DivergedError.exit_code
    assert "fenced" in first.logged
    assert replicated() == [1, 2, 3, 4, 5]


@pytest.mark.crash
def test_processes_that_replace_each_other_under_load_lose_and_double_nothing(
    ends: Ends, tmp_path: Path, seed: int
) -> None:
    create_tables(ends.source)
    pipeline = ends.pipeline()

    with writing(ends.source, writers=2, seed=seed) as writers, ExitStack() as stack:

        def start(number: int) -> Running:
            # A directory of its own, as on a machine of its own.
            directory = tmp_path / str(number)
            return stack.enter_context(running(pipeline, *STUBBORN, CDCREP_RUNTIME_DIR=str(directory)))

        replaced = start(0)
        replaced.wait_for("streaming")
        for number in range(1, TAKEOVERS):
            successor = start(number)
            successor.wait_for("streaming")
            assert replaced.ended() == DivergedError.exit_code, successor.logged[-4000:]
            successor.wait_for_progress()
            successor.run_on(0)
            replaced = successor

    judge(pipeline, writers)


@pytest.mark.crash
def test_of_two_processes_that_start_at_once_one_copies_and_goes_on(ends: Ends, tmp_path: Path, seed: int) -> None:
    create_tables(ends.source)
    pipeline = ends.pipeline()

    with writing(ends.source, writers=2, seed=seed) as writers, ExitStack() as stack:
        both = [
            stack.enter_context(running(pipeline, CDCREP_RUNTIME_DIR=str(tmp_path / str(number)))) for number in (1, 2)
        ]
        wait_until(lambda: any(run.process.poll() is not None for run in both), what="one of them to end")
        ended = [run for run in both if run.process.poll() is not None]
        going_on = [run for run in both if run not in ended]
        assert [run.process.returncode for run in ended] == [DivergedError.exit_code], both[0].logged[-4000:]
        going_on[0].wait_for("streaming")
        going_on[0].wait_for_progress()
        going_on[0].run_on(0)

    judge(pipeline, writers)
