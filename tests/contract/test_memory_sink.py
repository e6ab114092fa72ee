"""The memory sink keeps the contract that it is the oracle of."""

from __future__ import annotations

import uuid

import pytest

from cdcrep.connector import Pipeline, Sink
from cdcrep.table import Table
from cdcrep.testing.contract import SinkContract, SinkCopyContract
from cdcrep.testing.memory import MemorySink, TargetDatabase
from cdcrep.testing.memory_tables import Row


class MemoryTarget:
    """A database in memory with a name of its own."""

    def __init__(self) -> None:
        self.url = f"memory:{uuid.uuid4()}"

    def sink(self, pipeline: Pipeline) -> Sink:
        return MemorySink(pipeline, MemorySink.Options(url=self.url))

    def rows(self, table: Table) -> list[Row]:
        return TargetDatabase.at(self.url).rows(str(table.id))

    def execute(self, statement: str) -> None:
        raise NotImplementedError

    def drop(self, table: Table) -> None:
        TargetDatabase.at(self.url).drop(str(table.id))

    def close(self) -> None:
        pass


class TestMemorySink(SinkContract):
    @pytest.fixture
    def target(self) -> MemoryTarget:
        return MemoryTarget()


class TestMemorySinkCopies(SinkCopyContract):
    @pytest.fixture
    def target(self) -> MemoryTarget:
        return MemoryTarget()
