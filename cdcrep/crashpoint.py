"""Named moments at which a test can make the process die; in production nothing listens."""

from __future__ import annotations

from collections.abc import Callable

_listener: Callable[[str], None] | None = None


def reached(name: str) -> None:
    """Mark that execution is at the named point.

    Does nothing unless `listen` was called, which only `cdcrep.testing` does: no environment variable or option of
    the `cdcrep` program leads here.
    """
    if _listener is not None:
        _listener(name)


def listen(listener: Callable[[str], None] | None) -> None:
    """Have a function told of every point reached; None: nobody."""
    global _listener  # noqa: PLW0603 - one process, one listener: it decides about the life of the process
    _listener = listener
