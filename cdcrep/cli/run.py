"""`cdcrep run` and `cdcrep backfill`: the pipeline itself."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from cdcrep.cli.arguments import pipeline_arguments
from cdcrep.cli.output import Invocation, error_console, say, set_up_logs
from cdcrep.errors import TransientError

if TYPE_CHECKING:
    from cdcrep.config import Config
    from cdcrep.connector import Answer
    from cdcrep.events import Events
    from cdcrep.supervise import Supervisor

SECONDS_FOR_SINK: Final = 10.0


@click.command(short_help="Copy the tables, then follow every change.")
@pipeline_arguments(needs_tables=True)
@click.option("--until-current", is_flag=True, help="Stop when everything committed before the start is in the target.")
@click.option("--json", "as_json", is_flag=True, help="Log lines as JSON; the same as --log-format json.")
def run(invocation: Invocation, config: Config, until_current: bool, as_json: bool) -> None:
    """Copy the tables, then follow every change until stopped.

    Sets up what replication needs, copies the tables under one snapshot, then applies the source's transactions.
    After any interruption, a crash included, the same command goes on where the target is.
    """
    _follow(invocation, config, until_current=until_current, then_tear_down=False, as_json=as_json)


@click.command(short_help="Copy the tables once and leave nothing behind at the source.")
@pipeline_arguments(needs_tables=True)
@click.option("--json", "as_json", is_flag=True, help="Log lines as JSON; the same as --log-format json.")
def backfill(invocation: Invocation, config: Config, as_json: bool) -> None:
    """Copy the tables once, up to the moment of the start, and leave nothing behind at the source.

    Goes on where it was when it is interrupted and started again.
    """
    _follow(invocation, config, until_current=True, then_tear_down=True, as_json=as_json)


def _follow(
    invocation: Invocation, config: Config, *, until_current: bool, then_tear_down: bool, as_json: bool
) -> None:
    from cdcrep.process import settle
    from cdcrep.progress import Everyone
    from cdcrep.service.places import runtime_directory, socket_name
    from cdcrep.service.server import Service
    from cdcrep.status import Freshness, examine, remember_failure
    from cdcrep.supervise import Supervisor

    if as_json:
        invocation.log_format = "json"
    invocation.leaves_threads = True
    settle()
    path = runtime_directory() / socket_name(config.name, config.target_identity)
    failure_path = path.with_suffix(".failed")
    freshness = Freshness()
    with contextlib.ExitStack() as stack:
        display = stack.enter_context(_display(invocation, config.name))
        supervisor = Supervisor(
            config,
            events=Everyone([freshness, display]),
            until_current=until_current,
            then_tear_down=then_tear_down,
        )

        def status() -> dict[str, Any]:
            return examine(
                config,
                live=supervisor.live(),
                sink=supervisor.sink(),
                source=supervisor.source(),
                fresh_up_to=freshness.up_to,
            )

        stack.enter_context(Service(path, status=status, query=lambda sql: _query(supervisor, sql)))
        failure_path.unlink(missing_ok=True)
        try:
            _in_foreground(supervisor, invocation)
        except Exception as error:
            remember_failure(failure_path, error)
            raise


def _in_foreground(supervisor: Supervisor, invocation: Invocation) -> None:
    from cdcrep.cli.foreground import in_foreground

    def announce(text: str) -> None:
        if invocation.is_json:
            import structlog

            structlog.get_logger().info(text)
        else:
            say(text)

    in_foreground(supervisor, announce)


@contextlib.contextmanager
def _display(invocation: Invocation, pipeline: str) -> Iterator[Events]:
    from cdcrep.progress import LogLines

    console = error_console()
    if invocation.log_format != "auto" or not console.is_terminal:
        set_up_logs(invocation)
        yield LogLines(pipeline)
        return
    from cdcrep.terminal import TerminalProgress

    set_up_logs(invocation, console)
    with TerminalProgress(pipeline, console) as progress:
        yield progress


def _query(supervisor: Supervisor, sql: str) -> Answer:
    """Query through the open sink; between two attempts there is none for a moment."""
    deadline = time.monotonic() + SECONDS_FOR_SINK
    while (sink := supervisor.sink()) is None:
        if time.monotonic() > deadline:
            raise TransientError(f"the target is not open: the pipeline is {supervisor.state}", hint="ask again later")
        time.sleep(0.05)
    return sink.query(sql)
