"""Crash points kill where they are told, and the broken builds really break the two rules."""

from __future__ import annotations

import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from cdcrep import connector, crashpoint
from cdcrep.errors import ConfigError
from cdcrep.testing import crash
from cdcrep.testing.contract_data import FIRST, batch, following, inserted, pipeline, position, table
from cdcrep.testing.memory import Insert, MemorySink, MemorySource, SourceDatabase

EVENTS = table("events", key=())


class Stopped(BaseException):
    """Stands for the death of the process."""


def run(code: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    program = f"from cdcrep.testing import crash\nfrom cdcrep.crashpoint import reached\nimport os\n{code}"
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=False)


def test_the_process_is_killed_at_the_nth_arrival() -> None:
    code = "crash.install(os.environ)\nfor i in range(9):\n    print(i, flush=True)\n    reached('b')\n    reached('a')"

    died = run(code, CDCREP_CRASH_AT="a:3")

    assert died.returncode == -signal.SIGKILL
    assert died.stdout.split() == [b"0", b"1", b"2"]


def test_the_first_arrival_kills_if_no_number_is_given() -> None:
    assert run("crash.install(os.environ)\nreached('a')", CDCREP_CRASH_AT="a").returncode == -signal.SIGKILL


def test_without_installing_no_variable_kills() -> None:
    assert run("reached('a')", CDCREP_CRASH_AT="a").returncode == 0


def test_nothing_asked_nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    find = connector._find
    monkeypatch.setattr(crashpoint, "_listener", None)

    crash.install({})

    assert connector._find is find
    assert crashpoint._listener is None


@pytest.mark.parametrize("variables", [{"CDCREP_CRASH_AT": "a:b"}, {"CDCREP_BROKEN": "nothing"}])
def test_what_is_unknown_is_refused(variables: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        crash.install(variables)


def test_every_crash_point_is_listed() -> None:
    assert {"engine.before_apply", "engine.before_confirm"} <= set(crash.points("cdcrep"))


@pytest.mark.parametrize("defect", sorted(crash.DEFECTS))
def test_a_defect_is_put_into_every_connector(monkeypatch: pytest.MonkeyPatch, defect: str) -> None:
    classes = {"cdcrep.sources": MemorySource, "cdcrep.sinks": MemorySink}
    monkeypatch.setattr(connector, "_find", lambda group, _: classes[group])

    crash.install({"CDCREP_BROKEN": defect})

    broken = "cdcrep.sources" if defect == "confirm-on-receipt" else "cdcrep.sinks"
    found = {"cdcrep.sources": connector.find_source("memory:x"), "cdcrep.sinks": connector.find_sink("memory:x")}
    assert {group for group in classes if found[group] is not classes[group]} == {broken}
    assert issubclass(found[broken], classes[broken])


def test_a_split_position_doubles_rows_when_the_process_dies_between(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = crash.split_position(MemorySink)(pipeline(), MemorySink.Options(url=f"memory:{uuid.uuid4()}"))
    following(sink, {EVENTS: []})
    sink.apply(batch(1, inserted(EVENTS, "1", None, None)))
    assert sink.open().position == position(1)

    def die(name: str) -> None:
        if name == "broken.between_rows_and_position":
            raise Stopped

    monkeypatch.setattr(crashpoint, "_listener", die)
    with pytest.raises(Stopped):
        sink.apply(batch(2, inserted(EVENTS, "2", None, None)))
    monkeypatch.setattr(crashpoint, "_listener", None)

    assert sink.open().position == position(1)
    sink.apply(batch(2, inserted(EVENTS, "2", None, None)))
    assert len(sink.database.rows("shop.events")) == 3
    assert sink.status()["position"] == position(2)


def test_a_position_before_its_rows_loses_them_when_the_process_dies_between(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = crash.position_first(MemorySink)(pipeline(), MemorySink.Options(url=f"memory:{uuid.uuid4()}"))
    following(sink, {EVENTS: []})

    def die(name: str) -> None:
        if name == "broken.between_position_and_rows":
            raise Stopped

    monkeypatch.setattr(crashpoint, "_listener", die)
    with pytest.raises(Stopped):
        sink.apply(batch(1, inserted(EVENTS, "1", None, None)))
    monkeypatch.setattr(crashpoint, "_listener", None)

    assert sink.open().position == position(1)
    sink.apply(batch(2, inserted(EVENTS, "2", None, None)))
    assert len(sink.database.rows("shop.events")) == 1
    assert sink.status()["position"] == position(2)


@pytest.mark.parametrize("broken", [crash.split_position, crash.position_first])
def test_pieces_and_heartbeats_pass_a_broken_sink(broken: Callable[[type[Any]], type[Any]]) -> None:
    sink = broken(MemorySink)(pipeline(), MemorySink.Options(url=f"memory:{uuid.uuid4()}"))
    following(sink, {EVENTS: []})

    sink.apply(batch(1, inserted(EVENTS, "1", None, None), ends=False))
    sink.apply(batch(1, inserted(EVENTS, "2", None, None)))
    sink.apply(batch(2))

    assert sink.open().position == position(2) != FIRST
    assert len(sink.database.rows("shop.events")) == 2


def test_confirming_on_receipt_loses_what_was_not_applied() -> None:
    url = f"memory:{uuid.uuid4()}"
    database = SourceDatabase.at(url)
    database.create(EVENTS)
    source = crash.confirm_on_receipt(MemorySource)(pipeline(), MemorySource.Options(url=url))
    start = source.start().position
    database.commit(Insert("shop.events", {"id": "1"}))

    received = next(source.stream(start, {}, source.current()))

    assert database.slots["contract"].confirmations == [received.position]
