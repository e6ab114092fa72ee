"""What to type when a target table can no longer follow its source: the one way back, the same for every sink."""

from __future__ import annotations

from cdcrep.table import TableId
from cdcrep_connectors.relational.names import qualify


def copy_again(table: TableId) -> str:
    """Return the hint for a table that has to be copied anew: sinks forget the copies of tables that are gone."""
    return f"DROP TABLE {qualify(table.schema, table.name)};  -- in the target, then start again: it is copied anew"
