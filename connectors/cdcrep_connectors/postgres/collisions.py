"""Says what to do about rows that collide in the target: in the key, or in an index that only the target has."""

from __future__ import annotations

from typing import Final

from cdcrep.errors import CdcrepError, DataError
from cdcrep.table import TableId
from cdcrep_connectors.postgres.failures import translate
from cdcrep_connectors.postgres.session import CONFLICTS, Session
from cdcrep_connectors.relational.names import qualify, quote
from cdcrep_connectors.relational.recovery import copy_again

INDEX: Final = """
    SELECT
        EXISTS (SELECT FROM pg_constraint WHERE conindid = i.indexrelid AND contype IN ('p', 'u', 'x')),
        coalesce((
            SELECT i.indisunique AND t.key <@ array(
                SELECT attname::text FROM pg_attribute
                WHERE attrelid = i.indrelid AND attnum = ANY (i.indkey[0:i.indnkeyatts - 1])
            ) FROM cdcrep.tables t WHERE t.pipeline = $1 AND t.table_schema = $2 AND t.table_name = $3
        ), i.indisprimary)
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $2 AND c.relname = $4"""
"""Whether an index belongs to a constraint, and whether it is that of the source's key; a partition has no key here."""


def explain(session: Session, pipeline: str, error: Exception, doing: str) -> CdcrepError:
    """Turn the driver's exception into ours; one about a collision says what to type. Rolls back to find that out."""
    if not isinstance(error, CONFLICTS) or session.connection.closed:
        return translate(error, doing)
    schema, table, name = error.diag.schema_name, error.diag.table_name, error.diag.constraint_name
    message = translate(error, doing).message
    if not (schema and table and name):
        return DataError(message)
    session.connection.rollback()
    found = session.fetch(INDEX, pipeline, schema, table, name)
    return DataError(message, hint=_hint(TableId(schema, table), name, *found[0]) if found else None)


def _hint(table: TableId, name: str, is_constraint: bool, is_key: bool) -> str:
    if is_key:
        return f"others have written rows with the same keys into the target's table; {copy_again(table)}"
    if is_constraint:
        drop = f"ALTER TABLE {qualify(table.schema, table.name)} DROP CONSTRAINT {quote(name)};"
    else:
        drop = f"DROP INDEX {qualify(table.schema, name)};"
    return f"{drop}  -- in the target, whose rows may not be subject to more than the source's"
