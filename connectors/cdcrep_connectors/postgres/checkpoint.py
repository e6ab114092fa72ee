"""The sink's bookkeeping in the schema `cdcrep` of the target: checkpoints, copies and the fence between processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg.types.numeric import Int8

from cdcrep.changes import Batch
from cdcrep.connector import Checkpoint, Copied
from cdcrep.errors import DivergedError, SetupError
from cdcrep.position import Position
from cdcrep.table import TableId
from cdcrep_connectors.postgres.round_trip import Statement
from cdcrep_connectors.postgres.session import Session
from cdcrep_connectors.relational.claim import Claim, fenced

VERSION: Final = 1

DEFINITIONS: Final = (
    "CREATE SCHEMA IF NOT EXISTS cdcrep",
    "CREATE TABLE cdcrep.version (version integer NOT NULL)",
    f"INSERT INTO cdcrep.version VALUES ({VERSION})",
    # Half of every page stays free for new versions of the row, which then need no index entry and no vacuum.
    """CREATE TABLE cdcrep.checkpoints (
        pipeline text PRIMARY KEY,
        source text NOT NULL,
        position text,
        epoch bigint NOT NULL,
        owner text NOT NULL,
        commit_time timestamptz,
        transactions bigint NOT NULL DEFAULT 0,
        rows bigint NOT NULL DEFAULT 0,
        updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
    ) WITH (fillfactor = 50)""",
    """CREATE TABLE cdcrep.tables (
        pipeline text,
        table_schema text,
        table_name text,
        columns text[] NOT NULL DEFAULT '{}',
        key text[] NOT NULL DEFAULT '{}',
        copy_position text,
        copy_done boolean NOT NULL DEFAULT false,
        copy_snapshot text NOT NULL DEFAULT '',
        changes bigint NOT NULL DEFAULT 0,
        missing bigint NOT NULL DEFAULT 0,
        PRIMARY KEY (pipeline, table_schema, table_name)
    ) WITH (fillfactor = 50)""",
    """CREATE TABLE cdcrep.chunks (
        pipeline text,
        table_schema text,
        table_name text,
        chunk text,
        rows bigint NOT NULL,
        bytes bigint NOT NULL,
        loaded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (pipeline, table_schema, table_name, chunk)
    )""",
    """CREATE VIEW cdcrep.checkpoint AS
        SELECT pipeline, source, position, epoch, owner, commit_time, transactions, rows, updated_at
        FROM cdcrep.checkpoints""",
    """CREATE VIEW cdcrep.backfill AS
        SELECT t.pipeline, t.table_schema, t.table_name, count(c.chunk) AS chunks,
            coalesce(sum(c.rows), 0)::bigint AS rows, coalesce(sum(c.bytes), 0)::bigint AS bytes,
            t.copy_done AS done, t.copy_position AS position,
            t.changes, t.missing, max(c.loaded_at) AS updated_at
        FROM cdcrep.tables t LEFT JOIN cdcrep.chunks c USING (pipeline, table_schema, table_name)
        WHERE t.copy_position IS NOT NULL
        GROUP BY t.pipeline, t.table_schema, t.table_name""",
)

MOVE: Final = """
    WITH moved AS (
        UPDATE cdcrep.checkpoints SET position = $1, commit_time = coalesce(to_timestamp($2::float8), commit_time),
            transactions = transactions + $3, rows = rows + $4, updated_at = clock_timestamp()
        WHERE pipeline = $5 AND epoch = $6 AND position IS NOT DISTINCT FROM $7 RETURNING 1
    )
    SELECT 1 / count(*) FROM moved"""
"""Fails with a division by zero where no row has moved, so that a COMMIT which was sent along is not executed."""

COUNT: Final = """
    INSERT INTO cdcrep.tables AS t (pipeline, table_schema, table_name, changes, missing)
    VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (pipeline, table_schema, table_name)
    DO UPDATE SET changes = t.changes + excluded.changes, missing = t.missing + excluded.missing"""

TAKE: Final = """
    INSERT INTO cdcrep.checkpoints AS c (pipeline, source, epoch, owner)
    SELECT $1, $2, 1, $3
    WHERE coalesce($4::bigint, 0) = 0 OR EXISTS (SELECT FROM cdcrep.checkpoints WHERE pipeline = $1)
    ON CONFLICT (pipeline) DO UPDATE SET source = excluded.source, epoch = c.epoch + 1, owner = excluded.owner
    WHERE $4::bigint IS NULL OR c.epoch = $4 OR c.owner = excluded.owner
    RETURNING epoch, position"""

LOCK: Final = "SELECT 1 FROM cdcrep.checkpoints WHERE pipeline = $1 AND epoch = $2 FOR SHARE"

LOST: Final = """
    SELECT table_schema, table_name FROM cdcrep.tables
    WHERE pipeline = $1 AND to_regclass(format('%I.%I', table_schema, table_name)) IS NULL"""

RESTARTED: Final = """
    SELECT table_schema, table_name FROM cdcrep.tables t
    WHERE pipeline = $1 AND NOT copy_done AND EXISTS (
        SELECT FROM pg_index i
        WHERE i.indrelid = to_regclass(format('%I.%I', t.table_schema, t.table_name))
            AND (i.indisunique OR i.indisexclusion) AND NOT (i.indisunique AND t.key <@ array(
                SELECT attname::text FROM pg_attribute
                WHERE attrelid = i.indrelid AND attnum = ANY (i.indkey[0:i.indnkeyatts - 1])
            ))
    )"""
"""Tables whose interrupted copy cannot be completed, because rows of it may collide with older images of other rows in
an index beside that of the key."""

PLACE: Final = "pipeline = $1 AND table_schema = $2 AND table_name = $3"


@dataclass
class Fence:
    """Our claim on a pipeline's checkpoint row: it holds while nobody has raised the epoch since."""

    pipeline: str
    epoch: int
    position: Position | None

    def lost(self) -> DivergedError:
        """Say that the row is no longer ours."""
        return fenced(self.pipeline)

    def hold(self, session: Session) -> None:
        """Check inside a transaction that the row is ours, and keep it ours until the transaction ends."""
        if not session.fetch(LOCK, self.pipeline, Int8(self.epoch)):
            raise self.lost()

    def move(self, batch: Batch) -> Statement:
        """Return the statement that moves the position to the batch's by compare-and-set."""
        values = (batch.position, batch.commit_time, batch.transactions, batch.rows)
        return MOVE, _texts(*values, self.pipeline, self.epoch, self.position)

    def count(self, table: TableId, changes: int, missing: int) -> Statement:
        """Return the statement that counts a table's applied changes and the rows found missing."""
        return COUNT, _texts(self.pipeline, table.schema, table.name, changes, missing)


def _texts(*values: str | float | None) -> list[bytes | None]:
    return [None if value is None else str(value).encode() for value in values]


def install(session: Session) -> None:
    """Create the bookkeeping where there is none.

    Raises:
        SetupError: it was made by a newer version of cdcrep.
    """
    if not installed(session):
        with session.transaction():
            # Two processes may get here at once.
            session.execute("SELECT pg_advisory_xact_lock(hashtext('cdcrep.version'))")
            if not installed(session):
                for definition in DEFINITIONS:
                    session.execute(definition)


def installed(session: Session) -> bool:
    """Tell whether the bookkeeping is there, in a version that we know."""
    if session.fetch("SELECT to_regclass('cdcrep.version')") == [(None,)]:
        return False
    found = session.fetch("SELECT max(version) FROM cdcrep.version")[0][0]
    if found != VERSION:
        raise SetupError(
            f"the target's schema cdcrep has version {found}, this program knows version {VERSION}",
            hint="install the version of cdcrep that wrote it, or a newer one",
        )
    return True


def take(session: Session, claim: Claim) -> Fence:
    """Take the pipeline's row by raising its epoch; waits for a session that holds it.

    Raises:
        DivergedError: another process has taken it.
    """
    replacing = None if claim.replacing is None else Int8(claim.replacing)
    taken = session.fetch(TAKE, claim.pipeline, claim.source, claim.owner, replacing)
    if not taken:
        raise fenced(claim.pipeline)
    return Fence(claim.pipeline, *taken[0])


def read(session: Session, fence: Fence, *, restart: bool) -> Checkpoint:
    """Read the pipeline's checkpoint with the copies of its tables.

    `restart`: interrupted copies that cannot be completed are shown without chunks, so that they begin again.
    """
    restarted = {TableId(*row) for row in session.fetch(RESTARTED, fence.pipeline)} if restart else ()
    chunks: dict[TableId, set[str]] = {}
    for schema, name, chunk in session.fetch(
        "SELECT table_schema, table_name, chunk FROM cdcrep.chunks WHERE pipeline = $1", fence.pipeline
    ):
        if (table := TableId(schema, name)) not in restarted:
            chunks.setdefault(table, set()).add(chunk)
    copies = session.fetch(
        "SELECT table_schema, table_name, copy_position, copy_done, copy_snapshot "
        "FROM cdcrep.tables WHERE pipeline = $1 AND copy_position IS NOT NULL ORDER BY 1, 2",
        fence.pipeline,
    )
    tables = {
        (table := TableId(schema, name)): Copied(Position(position), done, snapshot, frozenset(chunks.get(table, ())))
        for schema, name, position, done, snapshot in copies
    }
    return Checkpoint(fence.position, fence.epoch, tables)


def forget_lost(session: Session, fence: Fence) -> None:
    """Forget the copies of tables that the target does not have any more."""
    lost = [TableId(*row) for row in session.fetch(LOST, fence.pipeline)]
    if lost:
        with session.transaction():
            fence.hold(session)
            release(session, fence, lost)


def move(session: Session, fence: Fence, batch: Batch, counts: Mapping[TableId, tuple[int, int]] | None = None) -> None:
    """Move the position inside a transaction; the caller notes it in the fence once it is committed.

    `counts` are changes applied and rows found missing by table.
    """
    counted = [fence.count(table, *numbers) for table, numbers in (counts or {}).items()]
    try:
        session.round_trip.run([*counted, fence.move(batch)])
    except psycopg.errors.DivisionByZero:
        raise fence.lost() from None


def register_copy(session: Session, pipeline: str, table: TableId, copied: Copied) -> bool:
    """Remember a copy that begins; return whether what an earlier copy left must be emptied out of the table."""
    place = [pipeline, table.schema, table.name]
    earlier = session.fetch(
        f"SELECT copy_done OR changes > 0 OR EXISTS (SELECT FROM cdcrep.chunks WHERE {PLACE}) "
        f"FROM cdcrep.tables WHERE {PLACE} AND copy_position IS NOT NULL",
        *place,
    )
    session.execute(
        "INSERT INTO cdcrep.tables (pipeline, table_schema, table_name, copy_position, copy_done, copy_snapshot) "
        "VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (pipeline, table_schema, table_name) DO UPDATE "
        "SET copy_position = $4, copy_done = $5, copy_snapshot = $6",
        *place,
        copied.position,
        copied.done,
        copied.snapshot,
    )
    names = sorted(copied.chunks)
    session.execute(f"DELETE FROM cdcrep.chunks WHERE {PLACE} AND NOT chunk = ANY ($4::text[])", *place, names)
    session.execute(
        "INSERT INTO cdcrep.chunks (pipeline, table_schema, table_name, chunk, rows, bytes) "
        "SELECT $1, $2, $3, chunk, 0, 0 FROM unnest($4::text[]) chunk ON CONFLICT DO NOTHING",
        *place,
        names,
    )
    return not copied.chunks and earlier == [(True,)]


def remember_chunk(session: Session, pipeline: str, table: TableId, chunk: str, rows: int, size: int) -> None:
    """Write a chunk's name in the transaction that holds its rows."""
    session.execute(
        "INSERT INTO cdcrep.chunks (pipeline, table_schema, table_name, chunk, rows, bytes) "
        "VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (pipeline, table_schema, table_name, chunk) "
        "DO UPDATE SET rows = excluded.rows, bytes = excluded.bytes, loaded_at = excluded.loaded_at",
        pipeline,
        table.schema,
        table.name,
        chunk,
        Int8(rows),
        Int8(size),
    )


def remember_shape(session: Session, pipeline: str, table: TableId, columns: Sequence[str], key: Sequence[str]) -> None:
    """Write down the source's shape that the target has caught up with."""
    session.execute(
        "INSERT INTO cdcrep.tables (pipeline, table_schema, table_name, columns, key) VALUES ($1, $2, $3, $4, $5) "
        "ON CONFLICT (pipeline, table_schema, table_name) DO UPDATE SET columns = $4, key = $5",
        pipeline,
        table.schema,
        table.name,
        list(columns),
        list(key),
    )


def read_shape(session: Session, pipeline: str, table: TableId) -> tuple[list[str], list[str]]:
    """Read the source's shape as last written: names and types in turn, and the key; empty where unknown."""
    found = session.fetch(f"SELECT columns, key FROM cdcrep.tables WHERE {PLACE}", pipeline, table.schema, table.name)
    return found[0] if found else ([], [])


def release(session: Session, fence: Fence, tables: Sequence[TableId]) -> None:
    """Forget the copies of tables."""
    for table in tables:
        for rows in ("chunks", "tables"):
            session.execute(f"DELETE FROM cdcrep.{rows} WHERE {PLACE}", fence.pipeline, table.schema, table.name)


def detach(session: Session, pipeline: str) -> None:
    """Forget a pipeline's position, and that its copies are complete."""
    session.execute("UPDATE cdcrep.checkpoints SET position = NULL WHERE pipeline = $1", pipeline)
    session.execute("UPDATE cdcrep.tables SET copy_done = false WHERE pipeline = $1", pipeline)


def forget(session: Session, pipeline: str) -> list[str]:
    """Remove a pipeline's rows; say what was done."""
    done = []
    with session.transaction():
        for table in ("chunks", "tables", "checkpoints"):
            cursor = session.execute(f"DELETE FROM cdcrep.{table} WHERE pipeline = $1", pipeline)
            if cursor.rowcount:
                done.append(f"removed {cursor.rowcount} row(s) from cdcrep.{table}")
    return done
