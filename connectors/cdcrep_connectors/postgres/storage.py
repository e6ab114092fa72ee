"""Looks at the files that hold tables' rows: the stream does not tell when a partition comes or goes as a whole.

PostgreSQL sends a partitioned table's changes under its own name (publish_via_partition_root), and nothing where a
single partition is truncated, attached, detached or dropped; nor the rows that ALTER TABLE … TYPE … USING rewrites. All
of these leave traces in the catalogues: another set of partitions, another file number, rows of pg_class, pg_inherits
and pg_attribute that a later transaction wrote. Only catalogues are read here, without a lock on any table.

Transactions are told apart by their 64-bit numbers, made from the age of the 32-bit ones that rows carry: what is more
than 2^31 transactions old counts as that old, and a frozen row keeps the number of the transaction that wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import psycopg

from cdcrep.table import TableId
from cdcrep_connectors.postgres.connection import Connection
from cdcrep_connectors.postgres.failures import translate

# Before the catalogues are read: what is older than the horizon is surely among what they show.
NOW: Final = """
SELECT pg_snapshot_xmin(s)::text::bigint, pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint
FROM pg_current_snapshot() s
"""

# A table is as old as its system columns, which nothing ever changes. Of nested partitioned tables the youngest
# attachment counts. Columns are asked for only where the file is no longer the one that the table was created with.
LOOK: Final = """
WITH RECURSIVE watched AS (
    SELECT c.oid AS root, t.schema, t.name, t.horizon, c.relkind
    FROM unnest(%s::text[], %s::text[], %s::bigint[]) AS t(schema, name, horizon)
    JOIN pg_namespace n ON n.nspname = t.schema JOIN pg_class c ON (c.relnamespace, c.relname) = (n.oid, t.name)
), member AS (
    SELECT root, root AS oid, NULL::int AS attached, 0::bigint AS command FROM watched
    UNION ALL
    SELECT m.root, i.inhrelid, least(m.attached, age(i.xmin)),
           CASE WHEN m.attached < age(i.xmin) THEN m.command WHEN m.attached = age(i.xmin)
                THEN greatest(m.command, i.cmin::text::bigint) ELSE i.cmin::text::bigint END
    FROM member m JOIN pg_class p ON p.oid = m.oid AND p.relkind = 'p'
    JOIN pg_inherits i ON i.inhparent = m.oid AND NOT i.inhdetachpending
)
SELECT w.schema, w.name, w.root, l.oid, n.nspname, l.relname, l.relkind::text, l.relpersistence::text, l.relfilenode,
       age(((%s::bigint & 4294967295)::text)::xid), age(l.xmin), m.attached, age(o.xmin), m.command,
       altered.names, altered.ages
FROM member m JOIN watched w ON w.root = m.root JOIN pg_class l ON l.oid = m.oid
JOIN pg_namespace n ON n.oid = l.relnamespace JOIN pg_attribute o ON (o.attrelid, o.attnum) = (l.oid, -1)
LEFT JOIN LATERAL (
    SELECT array_agg(a.attname::text ORDER BY a.attnum) AS names, array_agg(age(a.xmin) ORDER BY a.attnum) AS ages
    FROM pg_attribute a
    WHERE a.attrelid = l.oid AND a.attnum > 0 AND NOT a.attisdropped
    AND (a.attgenerated = '' OR a.attgenerated = 's' AND (
        SELECT to_jsonb(p) ->> 'pubgencols' = 's' FROM pg_publication p WHERE p.pubname = %s))
    AND age(a.xmin) <= age(((w.horizon & 4294967295)::text)::xid)
) AS altered ON l.relfilenode <> l.oid AND l.relkind = 'r'
    AND age(l.xmin) <= age(((w.horizon & 4294967295)::text)::xid)
WHERE (w.relkind = 'p' AND (l.relkind IN ('r', 'f') OR l.oid = w.root)) OR altered.names IS NOT NULL
"""


@dataclass(frozen=True, slots=True)
class Part:
    """A table or partition that holds rows of its own."""

    oid: int
    id: TableId
    kind: str
    """`relkind`: r table, f foreign table."""
    persistence: str
    """`relpersistence`: p permanent, u unlogged."""
    file_number: int
    written: int
    """Transaction that wrote its row of pg_class last: at the latest the one that gave it another file."""
    attached: int
    """Transaction that made it a partition; 0: it is none."""
    created: int
    command: int
    """Number of the attaching command in its transaction, as rows carry it in `cmin`."""
    altered: Mapping[str, int] = field(default_factory=dict)
    """Columns whose definition was written since the table's horizon, by which transaction; only where the file is
    another one, too."""


@dataclass(frozen=True, slots=True)
class Look:
    """What the catalogues showed."""

    horizon: int
    """Every transaction before this one had ended, so that what it did is shown."""
    lsn: int
    """The log ended here or later."""
    roots: Mapping[TableId, int] = field(default_factory=dict)
    """The partitioned tables' oids."""
    partitions: Mapping[TableId, Mapping[int, Part]] = field(default_factory=dict)
    """Of each partitioned table, by oid."""
    altered: Mapping[TableId, tuple[Part, ...]] = field(default_factory=dict)
    """Tables and partitions with columns that were altered while their file became another one."""


def look(connection: Connection, publication: str, horizons: Mapping[TableId, int | None]) -> Look:
    """Look at tables; columns that were written before a table's horizon (None: now) are left out."""
    try:
        row = connection.execute(NOW.encode()).fetchone()
        assert row is not None
        horizon, lsn = row
        since = [horizon if known is None else known for known in horizons.values()]
        names = [table.schema for table in horizons], [table.name for table in horizons]
        rows = connection.execute(LOOK.encode(), [*names, since, horizon, publication]).fetchall()
    except psycopg.Error as error:
        raise translate(error, "looking at the tables' files") from error
    roots: dict[TableId, int] = {}
    partitions: dict[TableId, dict[int, Part]] = {}
    altered: dict[TableId, tuple[Part, ...]] = {}
    for schema, name, root, oid, *rest in rows:
        table, kind = TableId(schema, name), rest[2]
        if kind == "p":
            roots[table] = root
            partitions.setdefault(table, {})
            continue
        part = _part(oid, horizon, *rest)
        if oid != root:
            partitions.setdefault(table, {})[oid] = part
        if part.altered:
            altered[table] = (*altered.get(table, ()), part)
    return Look(horizon, lsn, roots, partitions, altered)


def _part(
    oid: int,
    horizon: int,
    schema: str,
    name: str,
    kind: str,
    persistence: str,
    file_number: int,
    age: int,
    written: int,
    attached: int | None,
    created: int,
    command: int,
    columns: list[str] | None,
    ages: list[int] | None,
) -> Part:
    newest = horizon + age
    return Part(
        oid,
        TableId(schema, name),
        kind,
        persistence,
        file_number,
        newest - written,
        0 if attached is None else newest - attached,
        newest - created,
        command,
        {column: newest - each for column, each in zip(columns or (), ages or (), strict=True)},
    )
