"""Turns a failure of the sink into what it means: another process has taken the pipeline over, or itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol

from cdcrep.connector import Pipeline
from cdcrep.errors import CdcrepError, TransientError
from cdcrep_connectors.mysql.checkpoint import Fence
from cdcrep_connectors.mysql.failures import DRIVER_ERRORS, translate
from cdcrep_connectors.mysql.options import ServerOptions
from cdcrep_connectors.mysql.session import Session


class Guard(Protocol):
    """Makes a context that translates what goes wrong while `doing` something."""

    def __call__(self, doing: str) -> contextlib.AbstractContextManager[None]:
        """Return the context."""
        ...


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raise the driver's exceptions as cdcrep's."""
    try:
        yield
    except CdcrepError:
        raise
    except DRIVER_ERRORS as error:
        raise translate(error, doing) from error


def guard_for(options: ServerOptions, pipeline: Pipeline, fence: Fence) -> Guard:
    """Make contexts that raise DivergedError for a lost session if a successor has ended it."""

    @contextlib.contextmanager
    def guard(doing: str) -> Iterator[None]:
        try:
            with translated(doing):
                yield
        except TransientError as error:
            if _is_lost(options, pipeline, fence):
                raise fence.lost() from error
            raise

    return guard


def _is_lost(options: ServerOptions, pipeline: Pipeline, fence: Fence) -> bool:
    with contextlib.suppress(CdcrepError, *DRIVER_ERRORS):
        session = Session(options, pipeline, statement_timeout=5.0)
        try:
            return not fence.is_ours(session)
        finally:
            session.close()
    return False
