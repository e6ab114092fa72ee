"""Writes conditions that two keys are the same, in which the index of the target's key can be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cdcrep_connectors.postgres.session import Session
from cdcrep_connectors.postgres.target_tables import TargetTable
from cdcrep_connectors.relational.names import quote

READ: Final = """
    WITH RECURSIVE key_index AS (
        SELECT i.indkey, i.indclass, i.indnkeyatts FROM pg_index i
        WHERE i.indrelid = $1 AND i.indisunique AND i.indimmediate AND i.indisvalid
            AND i.indpred IS NULL AND i.indexprs IS NULL AND i.indnkeyatts = cardinality($2::text[])
            AND $2::text[] <@ array(SELECT a.attname::text FROM unnest(i.indkey[0:i.indnkeyatts - 1]) k
                                    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k)
        ORDER BY i.indisprimary DESC, i.indexrelid LIMIT 1
    ), part (attnum, class, type) AS (
        SELECT k.attnum, k.class, a.atttypid
        FROM key_index i, unnest(i.indkey[0:i.indnkeyatts - 1], i.indclass[0:i.indnkeyatts - 1]) k (attnum, class)
        JOIN pg_attribute a ON a.attrelid = $1 AND a.attnum = k.attnum
        UNION ALL
        SELECT p.attnum, p.class, t.typbasetype FROM part p JOIN pg_type t ON t.oid = p.type AND t.typtype = 'd'
    )
    SELECT a.attname::text, format_type(t.oid, -1), n.nspname::text, o.oprname::text,
        t.oid = a.atttypid AND t.typnamespace = 'pg_catalog'::regnamespace AND t.typname !~ '^reg'
    FROM part p
    JOIN pg_attribute a ON a.attrelid = $1 AND a.attnum = p.attnum
    JOIN pg_type t ON t.oid = p.type AND t.typtype <> 'd'
    JOIN pg_opclass c ON c.oid = p.class
    JOIN pg_amop m ON m.amopfamily = c.opcfamily AND m.amopstrategy = 3
        AND m.amoplefttype = c.opcintype AND m.amoprighttype = c.opcintype
    JOIN pg_operator o ON o.oid = m.amopopr JOIN pg_namespace n ON n.oid = o.oprnamespace"""
"""Strategy 3 of a B-tree is equality (manual, "Index Methods and Operator Classes"); unique indexes are B-trees."""


@dataclass(frozen=True)
class ColumnMatch:
    """How values of one column of the key are compared."""

    type: str | None = None
    """What both sides are cast to: domains, row types and names of objects find no operator, or another's, without."""
    operator: str | None = None
    """The equality of a type that came with an extension, which our search path does not show."""

    def same(self, left: str, right: str) -> str:
        """Return the condition that two expressions are the same value."""
        if self.type is None:
            return f"{left} = {right}"
        left, right = f"{left}::{self.type}", f"{right}::{self.type}"
        if self.operator is None:
            return f"{left} = {right}"
        # Such an equality may be wider than that of the source's changes: citext ignores case.
        return f"{left} {self.operator} {right} AND {left}::text = {right}::text"


@dataclass(frozen=True)
class KeyMatch:
    """How keys of one target table are compared."""

    columns: tuple[ColumnMatch, ...]
    """In the order of the key's columns."""

    def same(self, left: Sequence[str], right: Sequence[str]) -> str:
        """Return the condition that two keys, given as an expression for each column, are the same."""
        return " AND ".join(one.same(a, b) for one, a, b in zip(self.columns, left, right, strict=True))


def read_key_match(session: Session, target: TargetTable) -> KeyMatch:
    """Read from the catalogue how the unique index of the source's key compares."""
    key = target.table.key
    found = {
        name: ColumnMatch(
            None if plain else type_,
            None if schema == "pg_catalog" else f"OPERATOR({quote(schema)}.{operator})",
        )
        for name, type_, schema, operator, plain in (session.fetch(READ, target.oid, list(key)) if key else ())
    }
    return KeyMatch(tuple(found.get(name, ColumnMatch()) for name in key))
