"""What holds for the whole process that replicates."""

from __future__ import annotations

import ctypes
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


FREE = """
import ctypes
from cdcrep.process import settle
settle()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

class Blocks(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]

libc.mallinfo2.restype = Blocks
# A large block that is freed teaches glibc to take the next one of its size from a heap.
libc.free(libc.malloc(8 << 20))
before = libc.mallinfo2().hblks
block = libc.malloc(8 << 20)
print(libc.mallinfo2().hblks - before)
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


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc 2.33")
def test_large_blocks_go_back_to_the_system_one_by_one() -> None:
    assert run(FREE) == "1"
