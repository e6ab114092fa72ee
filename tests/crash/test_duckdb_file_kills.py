"""A DuckDB file survives the death of its writer at any moment: rows and position are of one commit."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.pipeline import NO_COVERAGE, environment_with
from tests.integration.duckdb_target import keyed, make_sink, open_sink, rows_of

KILLS = 25
KEYS = 500

WRITER = """
import sys
from pathlib import Path
from tests.integration.duckdb_target import batch, inserts, keyed, make_sink, updates, deletes
table = keyed()
sink = make_sink(Path(sys.argv[1]), checkpoint_threshold="256KB")
number = int(sink.open().position)
print("open", flush=True)
while True:
    number += 1
    rows = [(str(key), f"{number} " + "x" * 300) for key in range(number % 7, 500, 1 + number % 3)]
    changes = [updates(table, *rows), inserts(table, (str(1000 + number), str(number)))]
    if number % 5 == 0:
        changes.append(deletes(table, (str(1000 + number - 1),)))
    if number % 4 == 0:
        sink.apply(batch(None, changes.pop(0)))
    sink.apply(batch(str(number), *changes))
    print(number, flush=True)
"""


def expected(position: int) -> dict[int, str]:
    """Replay what the writer does, in Python."""
    rows = dict.fromkeys(range(KEYS), "0")
    for number in range(1, position + 1):
        rows |= dict.fromkeys(range(number % 7, KEYS, 1 + number % 3), f"{number} " + "x" * 300)
        rows[1000 + number] = str(number)
        if number % 5 == 0:
            del rows[1000 + number - 1]
    return rows


@pytest.mark.crash
def test_kills_at_random_moments_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    choose = random.Random(seed)
    file = tmp_path / "target.duckdb"
    sink = open_sink(file, keyed())
    with sink._database.use() as connection:  # the rows that the writer's updates find
        connection.execute("INSERT INTO public.items SELECT range, '0' FROM range(500)").fetchall()
    sink.close()
    acknowledged = 0

    for kill in range(KILLS):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(file)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment_with(**NO_COVERAGE),
        ) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "open\n", f"kill {kill} of seed {seed}"
            for _ in range(choose.randrange(30)):
                acknowledged = int(writer.stdout.readline())
            for _ in range(choose.randrange(200_000)):
                pass  # a moment that no line marks
            writer.send_signal(signal.SIGKILL)
            acknowledged = max([acknowledged, *map(int, writer.stdout.read().split())])

        sink = make_sink(file)
        position = int(sink.open().position or 0)
        held = dict(rows_of(sink, "FROM public.items"))
        sink.close()

        assert position >= acknowledged, f"kill {kill} of seed {seed}"
        assert held == expected(position), f"kill {kill} of seed {seed}"
    assert acknowledged > KILLS
