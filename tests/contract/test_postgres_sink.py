"""The PostgreSQL sink keeps the contract."""

from __future__ import annotations

import pytest

from cdcrep.testing.contract import SinkContract, SinkCopyContract
from tests.contract.postgres import PostgresTarget
from tests.servers.database import Database


class TestPostgresSink(SinkContract):
    @pytest.fixture
    def target(self, target_database: Database) -> PostgresTarget:
        return PostgresTarget(target_database)


class TestPostgresSinkCopies(SinkCopyContract):
    @pytest.fixture
    def target(self, target_database: Database) -> PostgresTarget:
        return PostgresTarget(target_database)
