"""Random histories of a real source, applied by the real engine, leave the target equal to the source."""

from __future__ import annotations

import itertools
import os
import random
from pathlib import Path

import pytest

from tests.integration.end_to_end import Replicated
from tests.properties.histories import SCHEMA, commit_history
from tests.servers.database import Database

HISTORIES = int(os.environ.get("CDCREP_TEST_HISTORIES", "160"))
"""For each of the two targets."""
SIDE_BY_SIDE = 8
"""So many histories, each with tables of its own, are replicated by one start of the engine, which takes longest."""
BATCH_ROWS = (3, 100_000, 1, 20)


@pytest.mark.slow
@pytest.mark.unmeasured
@pytest.mark.parametrize("kind", ["duckdb", "postgresql"])
def test_random_histories_leave_the_target_equal_to_the_source(
    kind: str, tmp_path: Path, source_database: Database, target_database: Database, seed: int
) -> None:
    schemas = [f"history_{number}" for number in range(SIDE_BY_SIDE)]
    rngs = {schema: random.Random(f"{seed} {kind} {schema}") for schema in schemas}
    target = target_database if kind == "postgresql" else None
    replicated = Replicated(source_database, tmp_path, target, ("history_*.*",))
    for schema in schemas:
        source_database.execute(SCHEMA.format(schema))

    with source_database.connect() as connection:
        for first, max_batch_rows in zip(range(0, HISTORIES, SIDE_BY_SIDE), itertools.cycle(BATCH_ROWS), strict=False):
            for schema, rng in rngs.items():
                commit_history(connection, schema, rng)
            replicated.catch_up(max_batch_rows=max_batch_rows)

            wrong = [
                f"seed {seed}, history {first + schemas.index(schema)} in batches of {max_batch_rows}, {table}: {how}"
                for (schema, table), how in replicated.differences().items()
            ]
            assert wrong == []
