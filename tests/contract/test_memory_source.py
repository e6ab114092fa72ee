"""The memory source keeps the contract, so that the engine can be tested with it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import pytest

from cdcrep.connector import Pipeline, Source
from cdcrep.position import Position
from cdcrep.table import Table
from cdcrep.testing.contract import SourceContract
from cdcrep.testing.memory import MemorySource, SourceDatabase, Truncate
from cdcrep.testing.memory_tables import Row, Statement


class MemoryOrigin:
    """A database in memory with a name of its own."""

    def __init__(self) -> None:
        self.url = f"memory:{uuid.uuid4()}"
        self.database = SourceDatabase.at(self.url)

    def source(self, pipeline: Pipeline) -> Source:
        return MemorySource(pipeline, MemorySource.Options(url=self.url))

    def create(self, table: Table, unsent: Sequence[str] = ()) -> None:
        self.database.create(table, unsent)

    def commit(self, *statements: Statement) -> None:
        self.database.commit(*statements)

    def roll_back(self, *statements: Statement) -> None:
        with pytest.raises(KeyError):
            self.database.commit(*statements, Truncate("no.table"))

    def rows(self, table: Table) -> list[Row]:
        return self.database.rows(str(table.id))

    def foreign_position(self, position: Position) -> Position:
        return Position(f"another{position}")

    def close(self) -> None:
        pass


class TestMemorySource(SourceContract):
    @pytest.fixture
    def origin(self) -> MemoryOrigin:
        return MemoryOrigin()
