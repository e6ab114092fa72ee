"""Settles what holds for the whole process that replicates: where its memory comes from, how its threads take turns."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from typing import Final

import pyarrow as pa

CHOSEN_BY_USER: Final = "ARROW_DEFAULT_MEMORY_POOL"
"""Arrow's own environment variable: what it says stays."""

THRESHOLD_CHOSEN_BY_USER: Final = "MALLOC_TRIM_THRESHOLD_"
"""The same of glibc."""
M_TRIM_THRESHOLD: Final = -1
TRIM_THRESHOLD: Final = 1 << 20
"""Bytes. `M_TRIM_THRESHOLD` is its name in malloc.h; once set, it and its companion stay."""

TURN_SECONDS: Final = 0.0005
"""How long a thread may keep the interpreter while another waits for it. Python's own 5 ms would be added to each of
the ten or so moments of a small transaction at which a driver gives the interpreter back and wants it again."""

KEPT_MILLISECONDS: Final = 1000
"""For which jemalloc keeps what was freed, unless told otherwise."""


def settle() -> None:
    """Set up the process; once, before its threads start."""
    sys.setswitchinterval(TURN_SECONDS)
    _prefer_frugal_pool()
    _hold_thresholds()


def _prefer_frugal_pool() -> None:
    """Let Arrow allocate from jemalloc, or from the system where its build has none.

    Arrow's default, mimalloc, keeps what one thread allocated and another freed, which is what batches do all day:
    measured 50 MiB more of resident memory at the same speed. What is freed goes back to the system at once: kept for
    later, as is jemalloc's way, it was 20 MiB more.
    """
    if not os.environ.get(CHOSEN_BY_USER):
        frugal = "jemalloc" in pa.supported_memory_backends()
        pa.set_memory_pool(pa.jemalloc_memory_pool() if frugal else pa.system_memory_pool())
        _keep_freed_memory(0)


def _hold_thresholds() -> None:
    """Keep glibc from raising the size from which it takes blocks from the system and gives them back one by one.

    It does so whenever a large block is freed; NumPy's arrays then stay in its heaps. Measured: 12 MiB.
    """
    if os.environ.get(THRESHOLD_CHOSEN_BY_USER):
        return
    with contextlib.suppress(AttributeError, OSError):  # other C libraries
        ctypes.CDLL(None).mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD)


@contextlib.contextmanager
def copying() -> Iterator[None]:
    """Keep freed memory for a moment in the block, in which piece after piece of the same size comes and goes.

    Measured for a copy into DuckDB: a twelfth of the time, for 6 MiB.
    """
    _keep_freed_memory(KEPT_MILLISECONDS)
    try:
        yield
    finally:
        _keep_freed_memory(0)


def _keep_freed_memory(milliseconds: int) -> None:
    if pa.default_memory_pool().backend_name == "jemalloc" and not os.environ.get(CHOSEN_BY_USER):
        pa.jemalloc_set_decay_ms(milliseconds)
