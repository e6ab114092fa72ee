"""Where a command's output goes: data to standard output, everything said to people and logs to standard error."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import click

from cdcrep.errors import CdcrepError
from cdcrep.redaction import redact

if TYPE_CHECKING:
    from rich.console import Console


@dataclass
class Invocation:
    """What the options before and after the command's name ask for."""

    verbose: bool = False
    log_format: str = "auto"
    """auto: rich output on a terminal, text lines elsewhere; text; json."""
    leaves_threads: bool = False
    """Threads may be inside drivers when the command ends: the interpreter must not be taken down around them."""

    @property
    def is_json(self) -> bool:
        """Whether everything said on standard error is one JSON object a line."""
        return self.log_format == "json"


def error_console() -> Console:
    """Make a console on standard error that survives a closed terminal."""
    from typing import TextIO, cast

    from rich.console import Console

    from cdcrep.logs import Surviving

    return Console(file=cast("TextIO", Surviving(sys.stderr)), highlight=False)


def set_up_logs(invocation: Invocation, console: Console | None = None) -> None:
    """Send log lines to standard error, or above the living part of a console."""
    from rich.text import Text

    from cdcrep import logs

    def to_console(line: str) -> None:
        assert console is not None
        console.print(Text(line), soft_wrap=True)

    write = logs.to_stream(sys.stderr) if console is None else to_console
    logs.configure(write, log_format="json" if invocation.is_json else "text", verbose=invocation.verbose)


def say(text: str) -> None:
    """Print a line for people on standard error."""
    with contextlib.suppress(OSError):
        click.echo(redact(text), err=True)


def warn(invocation: Invocation, message: str) -> None:
    """Print a warning."""
    if invocation.is_json:
        import structlog

        structlog.get_logger().warning(message)
    else:
        say(f"warning: {message}")


def report(invocation: Invocation, error: BaseException) -> int:
    """Print an error with its hint, and with `-v` where it came from; return the exit code."""
    if isinstance(error, CdcrepError):
        message, hint, code = error.message, error.hint, error.exit_code
    else:
        message = f"unexpected {type(error).__name__}"
        hint = None if invocation.verbose else "run again with -v to see where it came from, and please report it"
        code = 1
    if invocation.is_json:
        import structlog

        set_up_logs(invocation)
        traceback = error if invocation.verbose else None
        structlog.get_logger().error(message, hint=hint, exit_code=code, exc_info=traceback)
        return code
    if invocation.verbose:
        from traceback import format_exception

        say("".join(format_exception(error)).rstrip())
    say(f"error: {message}")
    if hint:
        say(f"hint: {hint}")
    return code


def leave(code: int) -> NoReturn:
    """End the process at once, without waiting for threads, with everything printed."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def give_up_standard_output() -> None:
    """Make the interpreter's last flush harmless after the reader of standard output has gone."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
