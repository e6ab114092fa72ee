"""Log lines: their two forms, what they never contain, and what happens when nobody reads them."""

from __future__ import annotations

import io
import json
import logging
import os
import threading
from collections.abc import Iterator

import pytest
import structlog

from cdcrep.errors import TransientError
from cdcrep.logs import LogFormat, Surviving, configure, to_stream
from cdcrep.position import Position
from cdcrep.progress import LogLines
from cdcrep.table import TableId

ORDERS = TableId("public", "orders")


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root, hook = logging.getLogger(), threading.excepthook
    handlers, level = root.handlers, root.level
    yield
    root.handlers, threading.excepthook = handlers, hook
    root.setLevel(level)
    structlog.reset_defaults()


def lines_to(log_format: LogFormat, *, verbose: bool = False) -> list[str]:
    lines: list[str] = []
    configure(lines.append, log_format=log_format, verbose=verbose)
    return lines


def test_a_text_line_is_time_level_message_and_pairs() -> None:
    lines = lines_to("text")

    structlog.get_logger().warning("it went wrong", table="public.orders", why="no space left", nothing=None)

    (line,) = lines
    assert line.split(" ", 1)[1] == 'warning it went wrong table=public.orders why="no space left"'
    assert line.split(" ", 1)[0].endswith("Z")


def test_a_message_cannot_forge_another_line() -> None:
    lines = lines_to("text")

    structlog.get_logger().info("a\n2026 error forged", value="b\nforged")

    assert "\n" not in lines[0]


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_secret_reaches_a_line(log_format: LogFormat) -> None:
    lines = lines_to(log_format, verbose=True)
    url = "postgresql://cdc:canary-log@db/shop"

    log = structlog.get_logger()
    log.info(f"at {url}", url=url, deep={"list": [url, {"pair": "password=canary-log"}]}, error=ValueError(url))
    logging.getLogger("driver").warning("lost %s", url)
    try:
        raise ValueError(url)
    except ValueError as error:
        log.error("failed", exc_info=error)

    assert len(lines) == 3
    assert "canary" not in "".join(lines)
    assert "Traceback" in lines[2]


def test_a_json_line_keeps_numbers_and_texts_apart() -> None:
    lines = lines_to("json")

    structlog.get_logger().info("applied", rows=3, lag_seconds=0.5, position="0/1")

    assert {
        "level": "info",
        "event": "applied",
        "rows": 3,
        "lag_seconds": 0.5,
        "position": "0/1",
    }.items() <= json.loads(lines[0]).items()


def test_what_is_only_of_interest_with_v_is_left_out_without_it() -> None:
    quiet = lines_to("text")
    structlog.get_logger().debug("detail")
    verbose = lines_to("text", verbose=True)
    structlog.get_logger().debug("detail")

    assert (len(quiet), len(verbose)) == (0, 1)


def test_a_thread_that_dies_is_logged_without_its_secrets() -> None:
    lines = lines_to("text")

    def die() -> None:
        raise ValueError("postgresql://cdc:canary-log@db/shop")

    thread = threading.Thread(target=die, name="worker")
    thread.start()
    thread.join()

    assert "thread died thread=worker" in lines[0]
    assert "canary" not in lines[0]


def test_a_closed_pipe_is_survived() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w")

    write = to_stream(stream)
    write("nobody reads this")
    Surviving(stream).write("nor this")

    with pytest.raises(BrokenPipeError):
        stream.close()


def test_a_closed_stream_is_survived() -> None:
    stream = io.StringIO()
    stream.close()

    to_stream(stream)("nobody reads this")


def test_progress_is_logged_now_and_then_and_loses_nothing() -> None:
    lines = lines_to("json")
    events = LogLines("shop", seconds_between_lines=0)

    events.applied(2, 1, Position("a"), 1.0, 0.1)
    rare = LogLines("shop", seconds_between_lines=3600)
    for _ in range(100):
        rare.applied(2, 1, Position("b"), 1.0, 0.1)

    (line,) = map(json.loads, lines)
    assert (line["event"], line["rows"], line["transactions"], line["position"]) == ("applied", 2, 1, "a")


def test_heartbeats_are_not_worth_a_line() -> None:
    lines = lines_to("json")

    LogLines("shop", seconds_between_lines=0).applied(0, 0, Position("a"), None, 0.1)

    assert lines == []


def test_a_copy_is_logged_from_its_start_to_its_end() -> None:
    lines = lines_to("json")
    events = LogLines("shop", seconds_between_lines=0)

    events.copy_started({ORDERS: (200, 0)})
    events.copy_progress(ORDERS, 50, 1000)
    events.copy_finished()

    started, halfway, finished = map(json.loads, lines)
    assert (started["tables"], started["estimated_rows"]) == (1, 200)
    assert (halfway["rows"], halfway["bytes"], halfway["percent"], halfway["table"]) == (50, 1000, 25.0, str(ORDERS))
    assert (finished["event"], finished["rows"]) == ("copied", 50)


def test_every_retry_is_logged() -> None:
    lines = lines_to("json")

    LogLines("shop").retry(TransientError("lost postgresql://cdc:canary-log@db/shop"), 2, 0.75)

    line = json.loads(lines[0])
    assert (line["level"], line["attempt"], line["wait_seconds"]) == ("warning", 2, 0.8)
    assert "canary" not in lines[0]
