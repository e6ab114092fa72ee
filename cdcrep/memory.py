"""Chooses Arrow's allocator for a process that runs for months: one that gives memory back to the system."""

from __future__ import annotations

import os

import pyarrow as pa

CHOSEN_BY_USER = "ARROW_DEFAULT_MEMORY_POOL"
"""Arrow's own environment variable: what it says stays."""


def prefer_frugal_pool() -> None:
    """Let Arrow allocate from jemalloc, or from the system where its build has none.

    Arrow's default, mimalloc, keeps what one thread allocated and another freed, which is what batches do all day:
    measured 50 MiB more of resident memory at the same speed.
    """
    if not os.environ.get(CHOSEN_BY_USER):
        frugal = "jemalloc" in pa.supported_memory_backends()
        pa.set_memory_pool(pa.jemalloc_memory_pool() if frugal else pa.system_memory_pool())
