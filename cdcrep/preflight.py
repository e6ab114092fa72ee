"""Refuses a start that cannot succeed before anything is changed at either side."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from cdcrep.connector import Obstacle, Sink, Source
from cdcrep.errors import ConfigError, SetupError
from cdcrep.table import Table, TableId


def examine(source: Source, sink: Sink) -> frozenset[TableId]:
    """Look for what stands in the way of a start, and change nothing; return the tables that the target can take.

    Of a pipeline that is followed already only the tables that are new to the target are looked at. What the source
    says comes after its position was compared, and that needs the checkpoint row: see `Source.set_up`.

    Raises:
        SetupError: a fatal obstacle is met.
        ConfigError: no table is selected.
    """
    status = sink.status()
    if status.get("position") is None:
        refuse_fatal("source", source.obstacles())
    tables = source.tables()
    if status.get("position") is None:
        refuse_none(tables)
    new = [table for table in tables if str(table.id) not in status.get("tables", {})]
    if new:
        refuse_fatal("target", sink.obstacles(new))
    return frozenset(table.id for table in new)


def refuse_fatal(role: str, obstacles: Sequence[Obstacle]) -> None:
    """Raise the fatal ones of a side's obstacles, together, as SetupError."""
    fatal = [obstacle for obstacle in obstacles if obstacle.fatal]
    if fatal:
        raise SetupError(
            f"the {role} is not ready: " + "; ".join(obstacle.what for obstacle in fatal),
            hint="\n".join(dict.fromkeys(obstacle.hint for obstacle in fatal if obstacle.hint)) or None,
        )


def refuse_none(tables: Collection[Table | TableId]) -> None:
    """Raise ConfigError if no table is selected."""
    if not tables:
        raise ConfigError("no table is selected", hint="name tables that exist under [tables] include = [...]")
