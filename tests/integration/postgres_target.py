"""Making PostgreSQL sinks on test databases."""

from __future__ import annotations

from typing import Any

from cdcrep.connector import Copied, Pipeline
from cdcrep.position import Position
from cdcrep.selection import Selection
from cdcrep.table import Table
from cdcrep_connectors.postgres.sink import PostgresSink


def make_sink(url: str, name: str = "shop", **settings: Any) -> PostgresSink:
    pipeline = Pipeline(name, Selection(("*",)), "acme://db/shop", **settings)
    return PostgresSink(pipeline, PostgresSink.Options.model_validate({"url": url}))


def follow(sink: PostgresSink, *tables: Table) -> PostgresSink:
    """Open a sink that follows tables without rows from position 0 on."""
    sink.open()
    sink.prepare(tables)
    sink.register({table.id: Copied(Position("0")) for table in tables}, Position("0"))
    return sink
