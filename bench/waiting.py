"""Waiting for something to become true, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")


class BenchError(Exception):
    """A measurement that cannot be trusted or did not happen; the message takes the figure's place in the report."""


def wait_for(
    condition: Callable[[], Answer], what: str, *, seconds: float = 60.0, pause_seconds: float = 0.02
) -> Answer:
    """Call `condition` until its answer is truthy and return that answer.

    Raises:
        BenchError: not within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise BenchError(f"not within {seconds:.0f} s: {what}")
        time.sleep(pause_seconds)
    return answer
