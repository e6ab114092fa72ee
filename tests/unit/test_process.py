"""What holds for the whole process that replicates."""

from __future__ import annotations

import os
import subprocess
import sys

LOOK = """
import pyarrow as pa
from cdcrep.process import settle
settle()
print(pa.default_memory_pool().backend_name)
"""


def pool(**environment: str) -> str:
    """Return the pool that a new process allocates from: the choice holds for all of a process."""
    inherited = {name: value for name, value in os.environ.items() if name != "ARROW_DEFAULT_MEMORY_POOL"}
    command = [sys.executable, "-c", LOOK]
    return subprocess.run(
        command, env=inherited | environment, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_memory_comes_from_a_pool_that_gives_it_back() -> None:
    assert pool() in {"jemalloc", "system"}


def test_the_users_choice_of_a_pool_stays() -> None:
    assert pool(ARROW_DEFAULT_MEMORY_POOL="mimalloc") == "mimalloc"
