"""A source and a sink in this process's memory, real enough to run the engine against.

    source = SourceDatabase.at("memory:shop")
    source.create(ORDERS)
    source.commit(Insert("public.orders", {"id": "1", "note": "first"}))
    MemorySource(pipeline, MemorySource.Options(url="memory:shop"))
    MemorySink(pipeline, MemorySink.Options(url="memory:warehouse"))
    assert TargetDatabase.at("memory:warehouse").rows("public.orders") == source.rows("public.orders")

Databases live as long as the process, whoever connects. The sink applies row by row and does not fold, so it can
be the oracle of sinks that do.
"""

from cdcrep.testing.memory_sink import MemorySink
from cdcrep.testing.memory_source import MemorySource
from cdcrep.testing.memory_tables import (
    AddColumn,
    Delete,
    Insert,
    SourceDatabase,
    Truncate,
    Update,
)
from cdcrep.testing.memory_target import TargetDatabase

__all__ = [
    "AddColumn",
    "Delete",
    "Insert",
    "MemorySink",
    "MemorySource",
    "SourceDatabase",
    "TargetDatabase",
    "Truncate",
    "Update",
]
