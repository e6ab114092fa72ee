"""The PostgreSQL source keeps the contract."""

from __future__ import annotations

import pytest

from cdcrep.testing.contract import SourceContract
from tests.contract.postgres import PostgresOrigin
from tests.servers.database import Database


class TestPostgresSource(SourceContract):
    @pytest.fixture
    def origin(self, source_database: Database) -> PostgresOrigin:
        return PostgresOrigin(source_database)
