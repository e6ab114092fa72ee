"""Finds what a target table does beside holding rows: triggers, and constraints that the source may not have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from cdcrep.connector import Obstacle
from cdcrep_connectors.mysql.session import Session
from cdcrep_connectors.mysql.target_names import qualify, quote
from cdcrep_connectors.mysql.target_tables import TargetTable

TRIGGERS: Final = """
    SELECT trigger_name, action_timing, event_manipulation FROM information_schema.triggers
    WHERE event_object_schema = %s AND event_object_table = %s AND event_manipulation <> 'UPDATE' ORDER BY 1"""
"""The sink inserts and deletes."""

UNIQUE: Final = """
    SELECT index_name FROM information_schema.statistics
    WHERE table_schema = %s AND table_name = %s AND non_unique = 0 GROUP BY index_name ORDER BY 1"""

FOREIGN_KEYS: Final = """
    SELECT constraint_name FROM information_schema.referential_constraints
    WHERE constraint_schema = %s AND table_name = %s ORDER BY 1"""

DEMANDING: Final = """
    SELECT column_name, column_type FROM information_schema.columns WHERE table_schema = %s AND table_name = %s
    AND is_nullable = 'NO' AND column_default IS NULL AND extra NOT LIKE '%%auto_increment%%'
    AND extra NOT LIKE '%%GENERATED%%' ORDER BY ordinal_position"""


def constraints(session: Session, target: TargetTable) -> Iterator[Obstacle]:
    """Say what of a target table stands in the way, with the statement that removes it."""
    table = target.table.id
    place = (table.schema, table.name)
    for name, timing, event in session.fetch(TRIGGERS, *place):
        # What an update does comes as DELETE and INSERT; one that runs before can change what is written.
        yield Obstacle(
            f"{table}: the trigger {name!r} of the target runs {timing} {event} of every row that cdcrep writes",
            f"DROP TRIGGER {quote(table.schema)}.{quote(name)};",
            fatal=timing == "BEFORE",
        )
    for (name,) in session.fetch(UNIQUE, *place):
        if name not in (target.key_index, "PRIMARY"):
            yield Obstacle(
                f"{table}: the unique index {name!r} of the target refuses rows that the source may allow",
                f"DROP INDEX {quote(name)} ON {qualify(table)};  -- unless the source has it, too",
                fatal=False,
            )
    for (name,) in session.fetch(FOREIGN_KEYS, *place):
        yield Obstacle(
            f"{table}: the foreign key {name!r} of the target is not checked for what cdcrep writes",
            f"ALTER TABLE {qualify(table)} DROP FOREIGN KEY {quote(name)};",
            fatal=False,
        )
    optional = {column.name for column in target.table.columns if column.nullable}
    ours = {column.name for column in target.table.columns}
    for name, type_ in session.fetch(DEMANDING, *place):
        written = type_.decode() if isinstance(type_, bytes) else type_
        if name in optional or name not in ours:
            why = "may be null at the source" if name in ours else "is not the source's and has no default"
            yield Obstacle(
                f"{table}: column {name!r} is NOT NULL in the target and {why}",
                f"ALTER TABLE {qualify(table)} MODIFY {quote(name)} {written} NULL;",
            )
