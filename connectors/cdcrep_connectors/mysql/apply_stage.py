"""Temporary tables of the sink's session, in which the rows of a batch meet those of the target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cdcrep.table import Column, ColumnType, Kind
from cdcrep_connectors.mysql.session import Session
from cdcrep_connectors.mysql.target_names import quote
from cdcrep_connectors.mysql.target_tables import TargetTable

KEYS: Final = "cdcrep.stage_keys"
IMAGES: Final = "cdcrep.stage_images"
REMOVED: Final = "cdcrep.stage_removed"
DOOMED: Final = "cdcrep.stage_doomed"

FLAG: Final = Column("flag", ColumnType(Kind.INT8, "flag"))
NUMBER: Final = Column("number", ColumnType(Kind.INT64, "number"))


def make_stage(session: Session, name: str, definitions: Sequence[str]) -> None:
    """Make an empty temporary table; neither statement ends the transaction that is open."""
    session.execute(f"DROP TEMPORARY TABLE IF EXISTS {name}")
    if not any("PRIMARY KEY" in definition for definition in definitions):
        # Where the server insists on one (sql_require_primary_key).
        definitions = [*definitions, "line BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY"]
    session.execute(f"CREATE TEMPORARY TABLE {name} ({', '.join(definitions)}) ENGINE=InnoDB")


def joined_by_key(target: TargetTable, prefix: str, *, by_position: bool = False) -> str:
    """Return the join of a stage `s` with the target `t` through the key's index.

    The stage's columns are called `prefix` and the column's ordinal, or its place in the key if `by_position`.
    """
    assert target.key_index is not None
    same = " AND ".join(
        f"t.{target.column(ordinal)} = s.{prefix}{place if by_position else ordinal}"
        for place, ordinal in enumerate(target.table.key_positions)
    )
    # Nothing is known of a stage's size: the optimiser might read the whole target instead.
    return f"s STRAIGHT_JOIN {target.name} t FORCE INDEX ({quote(target.key_index)}) ON {same}"


def key_definitions(target: TargetTable, prefix: str) -> list[str]:
    """Return the definitions of a stage's columns for the key, `prefix` and the place in the key."""
    return [
        f"{prefix}{place} {target.column_type(ordinal)}" for place, ordinal in enumerate(target.table.key_positions)
    ]
