"""DuckDB's exceptions as the five errors of cdcrep; values that their messages quote are cut out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import duckdb

from cdcrep.errors import CdcrepError, DataError, SetupError, TransientError, chain

VALUE_ERRORS: Final = (
    duckdb.ConversionException,
    duckdb.OutOfRangeException,
    duckdb.InvalidInputException,
    duckdb.ConstraintException,
    duckdb.TypeMismatchException,
)
"""What a value that the target cannot hold raises."""

LOCKED: Final = re.compile(r"Conflicting lock is held in (?P<program>.*?) \(PID (?P<pid>\d+)\)")
NO_SPACE: Final = re.compile(r"No space left|Disk quota|Input/output error|Too many open files", re.IGNORECASE)
QUOTED: Final = re.compile(r"\"[^\"]*\"|'[^']*'|“[^”]*”")


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raise DuckDB's exceptions as cdcrep's; `doing` says on what, in the message's first words."""
    try:
        yield
    except duckdb.Error as error:
        raise translate(error, doing) from error


def ran_out_of_memory(error: BaseException | None) -> bool:
    """Tell whether DuckDB's memory limit was met; a commit reports that as a failed transaction."""
    return isinstance(error, duckdb.OutOfMemoryException) or (
        isinstance(error, duckdb.TransactionException) and "failed to " in str(error) and " used)" in str(error)
    )


def translate(error: duckdb.Error, doing: str) -> CdcrepError:
    """Make the cdcrep error that a DuckDB exception stands for; cuts values out of what a traceback would show."""
    text = str(error)
    for shown in chain(error):
        if isinstance(shown, duckdb.Error):
            shown.args = (_without_values(str(shown)),)
    if held := LOCKED.search(text):
        return TransientError(
            f"{doing}: the file is open in another process (pid {held['pid']})",
            hint="stop that process, or let it write its own file; DuckDB lets one process at a time open a file",
        )
    message = f"{doing}: {_without_values(text)}"
    if isinstance(error, duckdb.InterruptException):
        return TransientError(f"{doing}: cancelled")
    if ran_out_of_memory(error):
        return TransientError(message, hint="raise memory_limit in [target], or free space in the temporary directory")
    if isinstance(error, VALUE_ERRORS):
        return DataError(message)
    if isinstance(error, duckdb.IOException):
        return TransientError(message) if NO_SPACE.search(text) else SetupError(message)
    if isinstance(error, duckdb.TransactionException | duckdb.FatalException | duckdb.InternalException):
        return TransientError(message)
    return SetupError(message)


def _without_values(text: str) -> str:
    first_line = text.partition("\n")[0]
    return QUOTED.sub("…", first_line)
