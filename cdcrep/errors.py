"""The five ways in which cdcrep fails, and what the operator should type next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar


class CdcrepError(Exception):
    """A failure that names what happened, on what, why, and (`hint`) what to type.

    Messages never carry row values or secrets: they reach logs, `cdcrep status` and terminals.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(CdcrepError):
    """The configuration or the command line is wrong; nothing was touched."""

    exit_code = 2


class SetupError(CdcrepError):
    """A database is not ready for replication; the hint is the statement that makes it so."""

    exit_code = 3


class TransientError(CdcrepError):
    """Something that may be over in a moment: a lost connection, a deadlock, a full disk. Only this is retried."""

    exit_code = 4


class DataError(CdcrepError):
    """A message or a row that cannot be carried: names table, column and position, never the value."""

    exit_code = 5


class DivergedError(CdcrepError):
    """Source, target and checkpoint do not fit together: going on could lose or double rows, so a human must look."""

    exit_code = 6


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those that a traceback shows above it, newest first."""
    shown: BaseException | None = error
    while shown is not None:
        yield shown
        shown = shown.__cause__ or (None if shown.__suppress_context__ else shown.__context__)
