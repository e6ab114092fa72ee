"""What holds for the whole process that replicates."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

LOOK = """
import pyarrow as pa
from cdcrep.process import settle
settle()
print(pa.default_memory_pool().backend_name)
"""


SET = """
import json
import pyarrow as pa
calls = []
pa.jemalloc_set_decay_ms = calls.append
from cdcrep.process import copying, settle
settle()
with copying():
    calls.append("inside")
try:
    with copying():
        raise RuntimeError
except RuntimeError:
    pass
print(json.dumps([pa.default_memory_pool().backend_name, calls]))
"""


def run(program: str, **environment: str) -> str:
    """Return what a new process prints: what is set holds for all of a process."""
    inherited = {name: value for name, value in os.environ.items() if name != "ARROW_DEFAULT_MEMORY_POOL"}
    command = [sys.executable, "-c", program]
    return subprocess.run(
        command, env=inherited | environment, capture_output=True, text=True, check=True
    ).stdout.strip()


def pool(**environment: str) -> str:
    """Return the pool that a new process allocates from."""
    return run(LOOK, **environment)


def test_memory_comes_from_a_pool_that_gives_it_back() -> None:
    assert pool() in {"jemalloc", "system"}


def test_the_users_choice_of_a_pool_stays() -> None:
    assert pool(ARROW_DEFAULT_MEMORY_POOL="mimalloc") == "mimalloc"


def test_freed_memory_is_kept_while_copying_and_not_afterwards() -> None:
    backend, calls = json.loads(run(SET))

    assert calls == ([0, 1000, "inside", 0, 1000, 0] if backend == "jemalloc" else ["inside"])


@pytest.mark.parametrize("chosen", ["jemalloc", "mimalloc", "system"])
def test_copying_leaves_the_users_choice_alone(chosen: str) -> None:
    assert json.loads(run(SET, ARROW_DEFAULT_MEMORY_POOL=chosen)) == [chosen, ["inside"]]
