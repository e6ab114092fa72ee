"""Settles what holds for the whole process that replicates: where its memory comes from, how its threads take turns."""

from __future__ import annotations

import os
import sys
from typing import Final

import pyarrow as pa

CHOSEN_BY_USER: Final = "ARROW_DEFAULT_MEMORY_POOL"
"""Arrow's own environment variable: what it says stays."""


TURN_SECONDS: Final = 0.0005
"""How long a thread may keep the interpreter while another waits for it. Python's own 5 ms would be added to each of
the ten or so moments of a small transaction at which a driver gives the interpreter back and wants it again."""


def settle() -> None:
    """Set up the process; once, before its threads start."""
    sys.setswitchinterval(TURN_SECONDS)
    _prefer_frugal_pool()


def _prefer_frugal_pool() -> None:
    """Let Arrow allocate from jemalloc, or from the system where its build has none.

    Arrow's default, mimalloc, keeps what one thread allocated and another freed, which is what batches do all day:
    measured 50 MiB more of resident memory at the same speed. What is freed goes back to the system at once: kept for
    later, as is jemalloc's way, it was 20 MiB more.
    """
    if not os.environ.get(CHOSEN_BY_USER):
        frugal = "jemalloc" in pa.supported_memory_backends()
        pa.set_memory_pool(pa.jemalloc_memory_pool() if frugal else pa.system_memory_pool())
        if frugal:
            pa.jemalloc_set_decay_ms(0)
