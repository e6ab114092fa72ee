"""Random histories of a real source, applied by the real engine, leave the target equal to the source."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from cdcrep.config import Config, load
from cdcrep.progress import LogLines
from cdcrep.supervise import Supervisor
from tests.crash.pipeline import Pipeline
from tests.properties.histories import SCHEMA, TABLES, commit_history
from tests.servers.database import Database

HISTORIES = int(os.environ.get("CDCREP_TEST_HISTORIES", "160"))
"""For each of the two targets."""
BATCH_ROWS = (1, 3, 20, 100_000)


@dataclass
class Engine:
    """Runs the engine in this process until current, with another batch size each time."""

    pipeline: Pipeline

    def catch_up(self, max_batch_rows: int) -> None:
        """Replicate what was committed so far."""
        Supervisor(self._config(max_batch_rows), events=LogLines("history"), until_current=True).run()

    def _config(self, max_batch_rows: int) -> Config:
        text = self.pipeline.config.read_text()
        path = self.pipeline.config.with_name("bounded.toml")
        path.write_text(f"max_batch_rows = {max_batch_rows}\n{text}")
        return load(path)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["duckdb", "postgresql"])
def test_random_histories_leave_the_target_equal_to_the_source(
    kind: str, tmp_path: Path, source_database: Database, target_database: Database, request: pytest.FixtureRequest
) -> None:
    seed = int(request.config.getoption("randomly_seed", default=0) or 0)
    rng = random.Random(f"{seed} {kind}")
    source_database.execute(SCHEMA)
    target_url = f"duckdb:///{tmp_path / 'target.duckdb'}" if kind == "duckdb" else target_database.url
    pipeline = Pipeline.create(tmp_path, source_database, target_url, TABLES)
    engine = Engine(pipeline)

    with source_database.connect() as connection:
        for number in range(HISTORIES):
            commit_history(connection, rng)
            engine.catch_up(rng.choice(BATCH_ROWS))
            for table in TABLES:
                assert pipeline.target_rows(table) == pipeline.source_rows(table), (
                    f"seed {seed}, history {number}, {table}"
                )
