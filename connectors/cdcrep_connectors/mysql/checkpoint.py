"""The sink's bookkeeping in the target's database `cdcrep`: checkpoints, copies and the fence between processes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cdcrep.changes import Batch
from cdcrep.connector import Checkpoint, Copied
from cdcrep.errors import DivergedError, SetupError
from cdcrep.position import Position
from cdcrep.table import Table, TableId
from cdcrep_connectors.mysql.session import Session
from cdcrep_connectors.relational.claim import fenced

VERSION: Final = 1

DEFINITIONS: Final = (
    "CREATE DATABASE IF NOT EXISTS cdcrep",
    "CREATE TABLE IF NOT EXISTS cdcrep.checkpoints ("
    "pipeline VARCHAR(190) PRIMARY KEY, source LONGTEXT NOT NULL, position LONGTEXT, epoch BIGINT NOT NULL, "
    "owner VARCHAR(255) NOT NULL, "
    "commit_time DOUBLE, transactions BIGINT NOT NULL DEFAULT 0, `rows` BIGINT NOT NULL DEFAULT 0, "
    # Makes every move a change: the server does not count rows that stay as they are.
    "moves BIGINT NOT NULL DEFAULT 0, updated_at DATETIME(6) NOT NULL)",
    "CREATE TABLE IF NOT EXISTS cdcrep.tables ("
    "pipeline VARCHAR(190), table_schema VARCHAR(64), table_name VARCHAR(64), shape LONGTEXT, pending LONGTEXT, "
    "copy_position LONGTEXT, copy_done BOOLEAN NOT NULL DEFAULT FALSE, copy_snapshot LONGTEXT, "
    "changes BIGINT NOT NULL DEFAULT 0, missing BIGINT NOT NULL DEFAULT 0, "
    "PRIMARY KEY (pipeline, table_schema, table_name))",
    "CREATE TABLE IF NOT EXISTS cdcrep.chunks ("
    "pipeline VARCHAR(190), table_schema VARCHAR(64), table_name VARCHAR(64), chunk_hash BINARY(32), "
    "chunk LONGTEXT NOT NULL, `rows` BIGINT NOT NULL, bytes BIGINT NOT NULL, loaded_at DATETIME(6) NOT NULL, "
    "PRIMARY KEY (pipeline, table_schema, table_name, chunk_hash))",
    "CREATE OR REPLACE SQL SECURITY INVOKER VIEW cdcrep.checkpoint AS SELECT pipeline, source, position, epoch, owner, "
    "FROM_UNIXTIME(commit_time) AS commit_time, transactions, `rows`, updated_at FROM cdcrep.checkpoints",
    "CREATE OR REPLACE SQL SECURITY INVOKER VIEW cdcrep.backfill AS "
    "SELECT t.pipeline, t.table_schema, t.table_name, COUNT(c.chunk) AS chunks, COALESCE(SUM(c.`rows`), 0) AS `rows`, "
    "COALESCE(SUM(c.bytes), 0) AS bytes, t.copy_done AS done, t.copy_position AS position, t.changes, "
    "t.missing, MAX(c.loaded_at) AS updated_at FROM cdcrep.tables t LEFT JOIN cdcrep.chunks c "
    "ON c.pipeline = t.pipeline AND c.table_schema = t.table_schema AND c.table_name = t.table_name "
    "WHERE t.copy_position IS NOT NULL GROUP BY t.pipeline, t.table_schema, t.table_name, t.copy_done, "
    "t.copy_position, t.changes, t.missing",
    "CREATE TABLE IF NOT EXISTS cdcrep.version (version INT NOT NULL PRIMARY KEY)",
    # Last: with it, all of it is there.
    f"INSERT IGNORE INTO cdcrep.version VALUES ({VERSION})",
)

PLACE: Final = "pipeline = %s AND table_schema = %s AND table_name = %s"

UNIQUE: Final = """
    SELECT GROUP_CONCAT(COALESCE(column_name, '') SEPARATOR '\\0') FROM information_schema.statistics
    WHERE table_schema = %s AND table_name = %s AND non_unique = 0 GROUP BY index_name"""


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
        statement = "SELECT 1 FROM cdcrep.checkpoints WHERE pipeline = %s AND epoch = %s LOCK IN SHARE MODE"
        if not session.fetch(statement, self.pipeline, self.epoch):
            raise self.lost()

    def is_ours(self, session: Session) -> bool:
        """Tell whether the row is ours as of the last commit."""
        statement = "SELECT 1 FROM cdcrep.checkpoints WHERE pipeline = %s AND epoch = %s"
        return bool(session.fetch(statement, self.pipeline, self.epoch))


def install(session: Session) -> None:
    """Create the bookkeeping where there is none.

    Raises:
        SetupError: it was made by a newer version of cdcrep.
    """
    if not installed(session):
        # The tables' own clauses would have to repeat it: names and positions are compared byte by byte.
        character_set = session.dialect.character_set
        for definition in DEFINITIONS:
            table = definition.startswith("CREATE TABLE")
            session.execute(f"{definition} ENGINE=InnoDB {character_set}" if table else definition)


def installed(session: Session) -> bool:
    """Tell whether the bookkeeping is there, in a version that we know."""
    there = "SELECT 1 FROM information_schema.tables WHERE table_schema = 'cdcrep' AND table_name = 'version'"
    if not session.fetch(there):
        return False
    ((found,),) = session.fetch("SELECT MAX(version) FROM cdcrep.version")
    if found is not None and found != VERSION:
        raise SetupError(
            f"the target's database cdcrep has version {found}, this program knows version {VERSION}",
            hint="install the version of cdcrep that wrote it, or a newer one",
        )
    return found is not None


def read(session: Session, fence: Fence, *, restart: bool) -> Checkpoint:
    """Read the pipeline's checkpoint with the copies of its tables.

    `restart`: interrupted copies that cannot be completed are shown without chunks, so that they begin again.
    """
    restarted = set(_restarted(session, fence.pipeline)) if restart else set()
    chunks: dict[TableId, set[str]] = {}
    for schema, name, chunk in session.fetch(
        "SELECT table_schema, table_name, chunk FROM cdcrep.chunks WHERE pipeline = %s", fence.pipeline
    ):
        if (table := TableId(schema, name)) not in restarted:
            chunks.setdefault(table, set()).add(chunk)
    copies = session.fetch(
        "SELECT table_schema, table_name, copy_position, copy_done, copy_snapshot FROM cdcrep.tables "
        "WHERE pipeline = %s AND copy_position IS NOT NULL ORDER BY 1, 2",
        fence.pipeline,
    )
    tables = {
        (table := TableId(schema, name)): Copied(
            Position(position), bool(done), snapshot, frozenset(chunks.get(table, ()))
        )
        for schema, name, position, done, snapshot in copies
    }
    return Checkpoint(fence.position, fence.epoch, tables)


def _restarted(session: Session, pipeline: str) -> Iterator[TableId]:
    """Find tables whose interrupted copy cannot be completed.

    Rows of it may collide with older images of other rows, in a unique index beside that of the key.
    """
    unfinished = session.fetch(
        "SELECT table_schema, table_name, shape FROM cdcrep.tables WHERE pipeline = %s AND NOT copy_done", pipeline
    )
    for schema, name, text in unfinished:
        shape = _shape(text)
        unique = session.fetch(UNIQUE, schema, name)
        if shape is not None and not all(set(shape[1]) <= set(columns.split("\0")) for (columns,) in unique):
            yield TableId(schema, name)


def forget_lost(session: Session, fence: Fence) -> None:
    """Forget the copies of tables that the target does not have any more."""
    known = session.fetch("SELECT table_schema, table_name FROM cdcrep.tables WHERE pipeline = %s", fence.pipeline)
    there = set(
        session.fetch(
            "SELECT table_schema, table_name FROM information_schema.tables WHERE table_schema IN "
            "(SELECT CONVERT(table_schema USING utf8mb3) FROM cdcrep.tables WHERE pipeline = %s)",
            fence.pipeline,
        )
    )
    lost = [TableId(*row) for row in known if row not in there]
    if lost:
        with session.transaction():
            fence.hold(session)
            release(session, fence, lost)


def move(session: Session, fence: Fence, batch: Batch, transactions: int, rows: int) -> None:
    """Move the position by compare-and-set; the caller notes it in the fence once it is committed."""
    moved = session.execute(
        "UPDATE cdcrep.checkpoints SET position = %s, commit_time = COALESCE(%s, commit_time), "
        "transactions = transactions + %s, `rows` = `rows` + %s, moves = moves + 1, updated_at = NOW(6) "
        "WHERE pipeline = %s AND epoch = %s AND position <=> %s",
        batch.position,
        batch.commit_time,
        transactions,
        rows,
        fence.pipeline,
        fence.epoch,
        fence.position,
    )
    if moved != 1:
        raise fence.lost()


def count(session: Session, fence: Fence, counts: Mapping[TableId, tuple[int, int]]) -> None:
    """Count changes applied, and rows found missing, by table."""
    for table, (changes, missing) in counts.items():
        session.execute(
            "INSERT INTO cdcrep.tables (pipeline, table_schema, table_name, changes, missing) "
            "VALUES (%s, %s, %s, %s, %s) "
            "ON DUPLICATE KEY UPDATE changes = changes + %s, missing = missing + %s",
            *(fence.pipeline, table.schema, table.name, changes, missing, changes, missing),
        )


def register_copy(session: Session, pipeline: str, table: TableId, copied: Copied) -> bool:
    """Remember a copy that begins; return whether what an earlier copy left must be emptied out of the table."""
    place = (pipeline, table.schema, table.name)
    earlier = session.fetch(
        f"SELECT copy_done OR changes > 0 OR EXISTS (SELECT 1 FROM cdcrep.chunks WHERE {PLACE}) "
        f"FROM cdcrep.tables WHERE {PLACE} AND copy_position IS NOT NULL",
        *place,
        *place,
    )
    session.execute(
        "INSERT INTO cdcrep.tables (pipeline, table_schema, table_name, copy_position, copy_done, copy_snapshot) "
        "VALUES (%s, %s, %s, %s, %s, %s) ON DUPLICATE KEY UPDATE copy_position = VALUES(copy_position), "
        "copy_done = VALUES(copy_done), copy_snapshot = VALUES(copy_snapshot)",
        *place,
        copied.position,
        copied.done,
        copied.snapshot,
    )
    held = {chunk for (chunk,) in session.fetch(f"SELECT chunk FROM cdcrep.chunks WHERE {PLACE}", *place)}
    for chunk in sorted(held - copied.chunks):
        session.execute(f"DELETE FROM cdcrep.chunks WHERE {PLACE} AND chunk_hash = %s", *place, _digest(chunk))
    for chunk in sorted(copied.chunks - held):
        remember_chunk(session, pipeline, table, chunk, 0, 0)
    return not copied.chunks and bool(earlier and earlier[0][0])


def remember_chunk(session: Session, pipeline: str, table: TableId, chunk: str, rows: int, size: int) -> None:
    """Write a chunk's name in the transaction that holds its rows."""
    session.execute(
        "INSERT INTO cdcrep.chunks (pipeline, table_schema, table_name, chunk_hash, chunk, `rows`, bytes, loaded_at) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s, NOW(6)) ON DUPLICATE KEY UPDATE `rows` = VALUES(`rows`), "
        "bytes = VALUES(bytes), loaded_at = VALUES(loaded_at)",
        *(pipeline, table.schema, table.name, _digest(chunk), chunk, rows, size),
    )


def _digest(chunk: str) -> bytes:
    return hashlib.sha256(chunk.encode()).digest()


def finish_copy(session: Session, pipeline: str, table: TableId) -> None:
    """Remember that a copy is complete."""
    session.execute(f"UPDATE cdcrep.tables SET copy_done = TRUE WHERE {PLACE}", pipeline, table.schema, table.name)


def is_registered(session: Session, pipeline: str, table: TableId) -> bool:
    """Tell whether the pipeline has begun to copy a table."""
    statement = f"SELECT 1 FROM cdcrep.tables WHERE {PLACE} AND copy_position IS NOT NULL"
    return bool(session.fetch(statement, pipeline, table.schema, table.name))


Shape = tuple[dict[str, str], list[str]]
"""Native types of the source's columns by name, and the key."""


def shape_of(table: Table) -> Shape:
    """Return what is written down of a table's shape."""
    return {column.name: column.type.native for column in table.columns}, list(table.key)


def remember_shape(session: Session, pipeline: str, table: Table) -> None:
    """Write down the source's shape that the target has caught up with; nothing is pending then."""
    session.execute(
        "INSERT INTO cdcrep.tables (pipeline, table_schema, table_name, shape) VALUES (%s, %s, %s, %s) "
        "ON DUPLICATE KEY UPDATE shape = VALUES(shape), pending = NULL",
        *(pipeline, table.schema, table.name, json.dumps(shape_of(table))),
    )


def announce_shape(session: Session, pipeline: str, table: Table) -> None:
    """Write down which shape the target's table is about to be given, which no transaction could undo."""
    session.execute(
        "INSERT INTO cdcrep.tables (pipeline, table_schema, table_name, pending) VALUES (%s, %s, %s, %s) "
        "ON DUPLICATE KEY UPDATE pending = VALUES(pending)",
        *(pipeline, table.schema, table.name, json.dumps(shape_of(table))),
    )


def read_shapes(session: Session, pipeline: str, table: TableId) -> tuple[Shape | None, Shape | None]:
    """Read the source's shape as last written, and the one that the target was about to be given; None: unknown."""
    found = session.fetch(f"SELECT shape, pending FROM cdcrep.tables WHERE {PLACE}", pipeline, table.schema, table.name)
    shape, pending = found[0] if found else (None, None)
    return _shape(shape), _shape(pending)


def _shape(text: str | None) -> Shape | None:
    if text is None:
        return None
    columns, key = json.loads(text)
    return columns, key


def release(session: Session, fence: Fence, tables: Sequence[TableId]) -> None:
    """Forget the copies of tables."""
    for table in tables:
        for rows in ("chunks", "tables"):
            session.execute(f"DELETE FROM cdcrep.{rows} WHERE {PLACE}", fence.pipeline, table.schema, table.name)


def detach(session: Session, pipeline: str) -> None:
    """Forget a pipeline's position, and that its copies are complete."""
    session.execute("UPDATE cdcrep.checkpoints SET position = NULL WHERE pipeline = %s", pipeline)
    session.execute("UPDATE cdcrep.tables SET copy_done = FALSE WHERE pipeline = %s", pipeline)


def forget(session: Session, pipeline: str) -> list[str]:
    """Remove a pipeline's rows; say what was done."""
    done = []
    with session.transaction():
        for table in ("chunks", "tables", "checkpoints"):
            if removed := session.execute(f"DELETE FROM cdcrep.{table} WHERE pipeline = %s", pipeline):
                done += [f"removed {removed} row(s) from cdcrep.{table}"]
    return done
