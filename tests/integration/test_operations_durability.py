"""Commits in the target are durable whatever the target is set to: the source forgets what they hold."""

from __future__ import annotations

from contextlib import closing

from cdcrep.connector import Pipeline
from cdcrep.selection import Selection
from cdcrep_connectors.postgres.options import ServerOptions
from cdcrep_connectors.postgres.session import Session
from tests.servers.database import Database


def test_a_target_that_commits_carelessly_is_told_to_wait(target_database: Database) -> None:
    target_database.execute(f"ALTER DATABASE {target_database.name} SET synchronous_commit = off")
    assert target_database.execute("SHOW synchronous_commit") == [("off",)]
    pipeline = Pipeline("durable", Selection(("public.*",)))

    with closing(Session(ServerOptions(url=target_database.url), pipeline, statement_timeout=5)) as session:
        assert session.fetch("SHOW synchronous_commit") == [("on",)]
