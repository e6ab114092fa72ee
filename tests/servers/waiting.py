"""Waiting on a condition with a deadline: the only place in the tests that sleeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

Answer = TypeVar("Answer")

PAUSE_SECONDS: Final = 0.01
DEADLINE_SECONDS: Final = 120.0
"""Long enough for a slow machine with other tests beside; only a test that fails waits for it."""


def wait_until(condition: Callable[[], Answer], deadline_seconds: float = DEADLINE_SECONDS, what: str = "") -> Answer:
    """Call `condition` until its answer is truthy, and return that answer.

    Raises:
        AssertionError: not truthy before the deadline; names `what` was awaited and the last answer. An exception
            of the condition itself ends the wait at once.
    """
    deadline = time.monotonic() + deadline_seconds
    while not (answer := condition()):
        if time.monotonic() > deadline:
            awaited = what or getattr(condition, "__qualname__", repr(condition))
            raise AssertionError(f"not within {deadline_seconds} s: {awaited} (last answer: {answer!r})")
        time.sleep(PAUSE_SECONDS)
    return answer
