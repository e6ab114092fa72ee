"""The running program: its end by signals, its death, its output, and the commands beside it."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.crash.pipeline import NO_COVERAGE, environment_with
from tests.servers.waiting import DEADLINE_SECONDS, wait_until
from tests.unit.memory_program import ROWS

PROGRAM = (sys.executable, "-m", "tests.unit.memory_program")
ROOT = Path(__file__).parents[2]
STOP_SECONDS = 5.0
CONFIG = (
    'name = "shop"\n[source]\nurl = "memory:shop"\n[target]\nurl = "memory:copy"\n[tables]\ninclude = ["public.*"]\n'
)

Start = Callable[..., "subprocess.Popen[str]"]

# Half a second each, but they are many.
pytestmark = pytest.mark.slow


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CDCREP_RUNTIME_DIR", str(tmp_path / "run"))
    path = tmp_path / "shop.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def start(file: Path) -> Iterator[Start]:
    """Start a command on the configuration file as a child; whatever is left of it dies with the test."""
    with contextlib.ExitStack() as children:

        def start(command: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
            child = subprocess.Popen(
                [*PROGRAM, command, str(file), *arguments],
                cwd=ROOT,
                env=environment_with(**environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            children.enter_context(child)
            children.callback(child.kill)
            return child

        yield start


@pytest.fixture
def call(file: Path) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Run a command on the configuration file to its end."""

    def call(command: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*PROGRAM, command, str(file), *arguments],
            cwd=ROOT,
            env=environment_with(**environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=DEADLINE_SECONDS,
        )

    return call


Call = Callable[..., "subprocess.CompletedProcess[bytes]"]


def wait_for_line(child: subprocess.Popen[str], words: str) -> list[str]:
    """Read standard error up to a line that contains the words."""
    assert child.stderr is not None
    seen = []
    for line in child.stderr:
        seen.append(line)
        if words in line:
            return seen
    raise AssertionError(f"the process ended without saying {words!r}: {seen}")


def test_until_current_ends_with_0_and_json_lines_can_be_parsed(call: Call) -> None:
    done = call("run", "--until-current", "--json")

    assert done.returncode == 0
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert [event["event"] for event in events][:2] == ["starting", "created table public.orders"]
    assert next(event for event in events if event["event"] == "copied")["rows"] == ROWS
    assert {"timestamp", "level", "event", "pipeline"} <= events[0].keys()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_ends_the_pipeline_in_order(start: Start, number: signal.Signals) -> None:
    child = start("run", CDCREP_TEST_COMMITS="100", **NO_COVERAGE)
    wait_for_line(child, "streaming")

    child.send_signal(number)

    assert child.wait(timeout=STOP_SECONDS) == 0
    assert "Traceback" not in (child.stderr.read() if child.stderr else "")


def test_a_pipeline_that_hangs_is_left_behind_within_five_seconds(start: Start) -> None:
    child = start("run", CDCREP_TEST_COMMITS="100", CDCREP_TEST_HANG="1", **NO_COVERAGE)
    wait_for_line(child, "hanging")

    child.send_signal(signal.SIGTERM)

    assert child.wait(timeout=STOP_SECONDS) == 0


@pytest.mark.parametrize("place", ["stream", "source", "sink"])
def test_a_failed_process_whose_tidying_up_hangs_ends_with_its_failure(start: Start, call: Call, place: str) -> None:
    trouble = {"CDCREP_TEST_FENCE": "1", "CDCREP_TEST_CLOSE": place, "CDCREP_TEST_TIDYING": "0.5"}
    child = start("run", CDCREP_TEST_COMMITS="100", **trouble, **NO_COVERAGE)

    said = wait_for_line(child, "closing")
    assert child.wait(timeout=DEADLINE_SECONDS) == 6

    said += child.stderr or ()
    ended = [line for line in said if "tidying up did not end in time" in line]
    assert len(ended) == 1
    assert said[-2:] == ["error: another process has taken over\n", "hint: leave it alone\n"]
    assert any("failed" in line for line in said)
    assert json.loads(call("status", "--json").stdout)["last_error"]["message"].startswith("another process has taken")


def test_a_signal_while_tidying_up_hangs_does_not_hide_the_failure(start: Start) -> None:
    child = start("run", CDCREP_TEST_COMMITS="100", CDCREP_TEST_FENCE="1", CDCREP_TEST_CLOSE="sink", **NO_COVERAGE)
    wait_for_line(child, "closing")

    child.send_signal(signal.SIGTERM)

    assert child.wait(timeout=STOP_SECONDS) == 6


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_second_signal_ends_the_process_at_once(start: Start, number: signal.Signals) -> None:
    child = start("run", CDCREP_TEST_COMMITS="100", CDCREP_TEST_HANG="1")
    wait_for_line(child, "hanging")

    child.send_signal(number)
    wait_for_line(child, "a second signal")
    child.send_signal(number)

    # The end that comes by itself some seconds after the first signal has another status.
    assert child.wait(timeout=DEADLINE_SECONDS) == 128 + number


def test_a_pipeline_that_dies_takes_the_process_with_it(start: Start, call: Call) -> None:
    child = start("run", CDCREP_TEST_COMMITS="100", CDCREP_TEST_DEATH="1")

    assert child.wait(timeout=DEADLINE_SECONDS) == 1
    said = child.stderr.read() if child.stderr else ""
    assert "error: unexpected RuntimeError" in said
    assert "canary" not in said
    status = json.loads(call("status", "--json").stdout)
    assert status["state"] == "failed"
    assert status["last_error"]["message"] == "RuntimeError"


def test_retries_that_lead_nowhere_end_with_4_and_leave_their_error_to_status(call: Call) -> None:
    done = call("run", "--set", "max_retries=1", CDCREP_TEST_FAILURES="9")

    assert done.returncode == 4
    assert done.stderr.count(b"failed, trying again") == 1
    assert b"hint: wait" in done.stderr
    status = call("status")
    assert status.returncode == 1
    assert b"failed, no process runs it" in status.stdout
    assert b"canary" not in done.stderr + status.stdout


def test_a_start_forgets_the_error_of_the_last_process(call: Call) -> None:
    call("run", "--set", "max_retries=0", CDCREP_TEST_FAILURES="9")
    call("run", "--until-current")

    assert json.loads(call("status", "--json").stdout)["last_error"] is None


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_replication_goes_on_when_nobody_reads_its_output(start: Start, call: Call, stream: str) -> None:
    child = start("run", CDCREP_TEST_COMMITS="100")
    wait_for_line(child, "streaming")

    getattr(child, stream).close()

    def changes() -> Any:
        return json.loads(call("status", "--json").stdout)["rows"]

    before = changes()
    wait_until(lambda: changes() > before + 10)
    child.send_signal(signal.SIGTERM)
    assert child.wait(timeout=DEADLINE_SECONDS) == 0


def test_status_and_query_ask_the_running_process(start: Start, call: Call) -> None:
    child = start("run")
    wait_for_line(child, "streaming")

    status = call("status", "--json")
    rows = call("query", "select * from public.orders", "--format", "csv")

    found = json.loads(status.stdout)
    assert status.returncode == 0
    assert (found["state"], found["pid"]) == ("streaming", child.pid)
    assert found["lag"] == {"bytes": 0, "seconds": 0.0}
    assert found["tables"] == {"public.orders": {"rows_copied": ROWS, "changes_applied": 0, "copy_done": True}}
    assert rows.stdout.splitlines()[:2] == [b"id,note", b"0,copied"]
    assert len(rows.stdout.splitlines()) == ROWS + 1
    assert rows.stderr.startswith(b"as of position ")


def test_a_query_writes_arrow_and_aligned_columns(start: Start, call: Call) -> None:
    child = start("run")
    wait_for_line(child, "streaming")

    arrow = call("query", "select * from public.orders", "--format", "arrow")
    table = call("query", "select * from public.orders")

    with pa.ipc.open_stream(io.BytesIO(arrow.stdout)) as reader:
        assert reader.read_all().num_rows == ROWS
    assert table.stdout.decode().splitlines()[:3] == ["id  note", "--  ------", "0   copied"]


def test_errors_of_a_query_are_those_of_the_running_process(start: Start, call: Call) -> None:
    child = start("run")
    wait_for_line(child, "streaming")

    failed = call("query", "drop everything")

    assert failed.returncode == 2
    assert failed.stderr.startswith(b"error: a memory sink answers only")


@pytest.mark.parametrize("arguments", [["run"], ["backfill"], ["teardown", "--yes"]])
def test_what_changes_a_pipeline_is_refused_while_it_runs(start: Start, call: Call, arguments: list[str]) -> None:
    child = start("run")
    wait_for_line(child, "streaming")

    refused = call(*arguments)

    assert refused.returncode == 3
    assert f"already: process {child.pid}".encode() in refused.stderr
    assert child.poll() is None


def test_check_beside_a_running_process_leaves_the_target_alone(start: Start, call: Call) -> None:
    child = start("run")
    wait_for_line(child, "streaming")

    checked = call("check")

    assert checked.returncode == 0
    assert f"process {child.pid} runs this pipeline".encode() in checked.stdout


def test_check_names_every_obstacle_and_ends_with_3(call: Call) -> None:
    checked = call("check", "--set", 'tables.include=["public.x", "public.y"]')

    assert checked.returncode == 3
    lines = checked.stdout.decode().splitlines()
    assert "obstacle: source: no table is named public.x" in lines
    assert "obstacle: source: no table is named public.y" in lines
    assert lines[-1] == "shop: 2 obstacles"


def test_backfill_ends_with_0_and_leaves_nothing_behind(call: Call) -> None:
    done = call("backfill")

    assert done.returncode == 0
    assert b"removed pipeline shop" in done.stderr


def test_teardown_asks_first(call: Call) -> None:
    asked = call("teardown")

    assert asked.returncode == 2
    assert b"hint: add --yes" in asked.stderr


def test_teardown_says_what_it_did(call: Call) -> None:
    done = call("teardown", "--yes")

    assert done.returncode == 0
    assert b"nothing to remove" in done.stdout


def test_status_without_a_process_and_behind_ends_with_1(call: Call) -> None:
    status = call("status", "--json")

    assert status.returncode == 1
    found = json.loads(status.stdout)
    assert (found["state"], found["pid"], found["last_error"]) == ("stopped", None, None)


def test_a_reader_that_goes_away_is_no_error(file: Path) -> None:
    command = " ".join([*PROGRAM, "init", "--help"])

    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} | true"], cwd=ROOT, capture_output=True, check=False
    )

    assert done.returncode in {0, 141}
    assert done.stderr == b""
