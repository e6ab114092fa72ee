"""The schema `cdcrep` in the target file: checkpoints, progress of first copies, shapes of tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from duckdb import DuckDBPyConnection

from cdcrep.connector import Checkpoint, Copied
from cdcrep.errors import DivergedError, SetupError
from cdcrep.position import Position
from cdcrep.table import Table, TableId
from cdcrep_connectors.duckdb.statements import changed, first_row
from cdcrep_connectors.relational.claim import Claim

VERSION: Final = 1

TABLES: Final = """
CREATE SCHEMA IF NOT EXISTS {schema};
CREATE TABLE IF NOT EXISTS {schema}.schema_version (version INTEGER);
INSERT INTO {schema}.schema_version SELECT {version} WHERE NOT EXISTS (FROM {schema}.schema_version);
CREATE TABLE IF NOT EXISTS {schema}.pipeline_state (
    pipeline VARCHAR, position VARCHAR, epoch BIGINT, commit_time DOUBLE, transactions BIGINT, "rows" BIGINT,
    updated_at TIMESTAMP WITH TIME ZONE, applied VARCHAR, source VARCHAR, owner VARCHAR);
CREATE TABLE IF NOT EXISTS {schema}.table_state (
    pipeline VARCHAR, "schema" VARCHAR, name VARCHAR, position VARCHAR, done BOOLEAN, snapshot VARCHAR);
CREATE TABLE IF NOT EXISTS {schema}.chunk_state (
    pipeline VARCHAR, "schema" VARCHAR, name VARCHAR, chunk VARCHAR, "rows" BIGINT, bytes BIGINT);
CREATE TABLE IF NOT EXISTS {schema}.shape_state (
    pipeline VARCHAR, "schema" VARCHAR, name VARCHAR, columns VARCHAR[], types VARCHAR[],
    key VARCHAR[]);
CREATE OR REPLACE VIEW {schema}.checkpoint AS
    SELECT pipeline, source, position, epoch, owner, to_timestamp(commit_time) AS commit_time, transactions, "rows",
        updated_at
    FROM {schema}.pipeline_state;
CREATE OR REPLACE VIEW {schema}.backfill AS
    SELECT pipeline, t."schema" || '.' || t.name AS "table", count(chunk) AS chunks,
        coalesce(sum(c."rows"), 0)::BIGINT AS "rows", coalesce(sum(bytes), 0)::BIGINT AS bytes, done, position
    FROM {schema}.table_state t LEFT JOIN {schema}.chunk_state c USING (pipeline, "schema", name)
    GROUP BY pipeline, t."schema", t.name, done, position;
"""


@dataclass(frozen=True)
class Bookkeeping:
    """The rows of one pipeline in the schema `cdcrep`; methods run in the transaction of the given connection."""

    catalog: str
    """DuckDB's name for the file, quoted: a schema without it is ambiguous where the file is called alike."""
    pipeline: str

    @property
    def schema(self) -> str:
        """The schema of the bookkeeping, qualified and quoted."""
        return f"{self.catalog}.cdcrep"

    def exists(self, connection: DuckDBPyConnection) -> bool:
        """Tell whether the file has the bookkeeping; refuse one that a newer version of cdcrep wrote."""
        found = first_row(
            connection,
            "SELECT 1 FROM duckdb_tables() WHERE database_name = current_database() AND schema_name = 'cdcrep' "
            "AND table_name = 'schema_version'",
        )
        if not found:
            return False
        version = first_row(connection, f"SELECT max(version) FROM {self.schema}.schema_version")
        if version and version[0] is not None and version[0] > VERSION:
            raise SetupError(
                f"schema cdcrep in the file has version {version[0]}, this program knows {VERSION}",
                hint="run the newer cdcrep that wrote it: pip install --upgrade cdcrep",
            )
        return True

    def take(self, connection: DuckDBPyConnection, claim: Claim) -> Checkpoint:
        """Create what is missing, raise the pipeline's epoch, name source and owner and return the checkpoint.

        Raises:
            DivergedError: another process has taken it.
        """
        self.exists(connection)
        connection.execute(TABLES.format(schema=self.schema, version=VERSION))
        found = first_row(
            connection, f"SELECT epoch, owner FROM {self.schema}.pipeline_state WHERE pipeline = $1", [self.pipeline]
        )
        epoch, earlier = found or (0, None)
        if not claim.allows(epoch, earlier):
            raise self.overtaken()
        if found is None:
            connection.execute(
                f"INSERT INTO {self.schema}.pipeline_state VALUES ($1, NULL, 1, NULL, 0, 0, now(), $2, $3, $4)",
                [self.pipeline, "{}", claim.source, claim.owner],
            )
        else:
            connection.execute(
                f"UPDATE {self.schema}.pipeline_state SET epoch = epoch + 1, source = $2, owner = $3 "
                "WHERE pipeline = $1",
                [self.pipeline, claim.source, claim.owner],
            )
        return self.read(connection)

    def read(self, connection: DuckDBPyConnection) -> Checkpoint:
        """Return the pipeline's checkpoint; an empty one where the pipeline is unknown."""
        row = first_row(
            connection, f"SELECT position, epoch FROM {self.schema}.pipeline_state WHERE pipeline = $1", [self.pipeline]
        )
        if row is None:
            return Checkpoint()
        chunks: dict[tuple[str, str], set[str]] = {}
        for schema, name, chunk in connection.execute(
            f'SELECT "schema", name, chunk FROM {self.schema}.chunk_state WHERE pipeline = $1', [self.pipeline]
        ).fetchall():
            chunks.setdefault((schema, name), set()).add(chunk)
        tables = {
            TableId(schema, name): Copied(
                position, done=done, snapshot=snapshot, chunks=frozenset(chunks.get((schema, name), ()))
            )
            for schema, name, position, done, snapshot in connection.execute(
                f'SELECT "schema", name, position, done, snapshot FROM {self.schema}.table_state WHERE pipeline = $1',
                [self.pipeline],
            ).fetchall()
        }
        return Checkpoint(row[0], row[1], tables)

    def move(
        self,
        connection: DuckDBPyConnection,
        seen: Checkpoint,
        position: Position,
        *,
        transactions: int = 0,
        rows: int = 0,
        applied: Mapping[str, int] | None = None,
        commit_time: float | None = None,
    ) -> None:
        """Move the position from the one seen last under the epoch taken; DivergedError if either has changed."""
        written = None if applied is None else json.dumps(applied)
        moved = first_row(
            connection,
            f"UPDATE {self.schema}.pipeline_state SET position = $1, commit_time = coalesce($2, commit_time), "
            'transactions = transactions + $3, "rows" = "rows" + $4, updated_at = now(), '
            "applied = coalesce($8, applied) "
            "WHERE pipeline = $5 AND epoch = $6 AND position IS NOT DISTINCT FROM $7::VARCHAR",
            [position, commit_time, transactions, rows, self.pipeline, seen.epoch, seen.position, written],
        )
        if not moved or moved[0] != 1:
            raise self.overtaken()

    def overtaken(self) -> DivergedError:
        """Make the error of a process whose checkpoint row was taken or moved by another."""
        return DivergedError(
            f"pipeline {self.pipeline}: another process has taken its checkpoint in this file since we read it",
            hint="let one process run the pipeline; start it again once the other has ended",
        )

    def register(self, connection: DuckDBPyConnection, table: TableId, copied: Copied) -> bool:
        """Remember a copy that begins; tell whether rows of an earlier one are in the target and must go."""
        where = 'WHERE pipeline = $1 AND "schema" = $2 AND name = $3'
        key = [self.pipeline, table.schema, table.name]
        before = first_row(
            connection,
            f"SELECT done OR EXISTS (FROM {self.schema}.chunk_state {where}) FROM {self.schema}.table_state {where}",
            key,
        )
        kept = list(copied.chunks)
        connection.execute(
            f"DELETE FROM {self.schema}.chunk_state {where} AND NOT list_contains($4::VARCHAR[], chunk)", [*key, kept]
        )
        connection.execute(f"DELETE FROM {self.schema}.table_state {where}", key)
        connection.execute(
            f"INSERT INTO {self.schema}.table_state VALUES ($1, $2, $3, $4, $5, $6)",
            [*key, copied.position, copied.done, copied.snapshot],
        )
        return bool(before and before[0]) and not kept

    def chunk_loaded(self, connection: DuckDBPyConnection, table: TableId, chunk: str, rows: int, size: int) -> None:
        """Remember that a chunk's rows are in the target."""
        connection.execute(
            f"INSERT INTO {self.schema}.chunk_state VALUES ($1, $2, $3, $4, $5, $6)",
            [self.pipeline, table.schema, table.name, chunk, rows, size],
        )

    def finish(self, connection: DuckDBPyConnection, tables: Sequence[TableId]) -> None:
        """Remember that copies are complete."""
        for table in tables:
            connection.execute(
                f'UPDATE {self.schema}.table_state SET done = true WHERE pipeline = $1 AND "schema" = $2 AND name = $3',
                [self.pipeline, table.schema, table.name],
            )

    def applied(self, connection: DuckDBPyConnection) -> dict[str, int]:
        """Return how many changes were applied per table."""
        row = first_row(
            connection, f"SELECT applied FROM {self.schema}.pipeline_state WHERE pipeline = $1", [self.pipeline]
        )
        return dict(json.loads(row[0])) if row else {}

    def shape_of(self, connection: DuckDBPyConnection, table: TableId) -> tuple[dict[str, str], list[str]] | None:
        """Return the source's columns with types, and key, that the target was made or grown for; None: not known."""
        row = first_row(
            connection,
            f"SELECT columns, types, key FROM {self.schema}.shape_state "
            'WHERE pipeline = $1 AND "schema" = $2 AND name = $3',
            [self.pipeline, table.schema, table.name],
        )
        return None if row is None else (dict(zip(row[0], row[1], strict=True)), list(row[2]))

    def remember_shape(self, connection: DuckDBPyConnection, table: Table) -> None:
        """Remember for which source columns and key the target table was made or grown."""
        key = [self.pipeline, table.schema, table.name]
        changed(
            connection,
            f'DELETE FROM {self.schema}.shape_state WHERE pipeline = $1 AND "schema" = $2 AND name = $3',
            key,
        )
        names = [column.name for column in table.columns]
        changed(
            connection,
            f"INSERT INTO {self.schema}.shape_state VALUES ($1, $2, $3, $4, $5, $6)",
            [*key, names, [column.type.native for column in table.columns], list(table.key)],
        )

    def release(self, connection: DuckDBPyConnection, tables: Sequence[TableId]) -> None:
        """Forget tables: their copies, chunks and shapes."""
        for table in tables:
            for state in ("table_state", "chunk_state", "shape_state"):
                changed(
                    connection,
                    f'DELETE FROM {self.schema}.{state} WHERE pipeline = $1 AND "schema" = $2 AND name = $3',
                    [self.pipeline, table.schema, table.name],
                )

    def status(self, connection: DuckDBPyConnection) -> dict[str, Any]:
        """Return what `Sink.status` returns; empty where the pipeline is unknown."""
        row = first_row(
            connection,
            'SELECT position, epoch, owner, source, commit_time, transactions, "rows", epoch_us(updated_at) / 1e6 '
            f"FROM {self.schema}.pipeline_state WHERE pipeline = $1",
            [self.pipeline],
        )
        if row is None:
            return {}
        tables = connection.execute(
            'SELECT t."schema", t.name, coalesce(sum(c."rows"), 0)::BIGINT, any_value(done) '
            f'FROM {self.schema}.table_state t LEFT JOIN {self.schema}.chunk_state c USING (pipeline, "schema", name) '
            'WHERE pipeline = $1 GROUP BY t."schema", t.name ORDER BY ALL',
            [self.pipeline],
        ).fetchall()
        applied = self.applied(connection)
        keys = ("position", "epoch", "owner", "source", "commit_time", "transactions", "rows", "updated_at")
        return {
            **dict(zip(keys, row, strict=True)),
            "tables": {
                f"{schema}.{name}": {
                    "rows_copied": copied,
                    "changes_applied": applied.get(f"{schema}.{name}", 0),
                    "copy_done": done,
                }
                for schema, name, copied, done in tables
            },
        }

    def detach(self, connection: DuckDBPyConnection) -> None:
        """Forget the pipeline's position, and that its copies are complete."""
        for change in ("pipeline_state SET position = NULL", "table_state SET done = false"):
            connection.execute(f"UPDATE {self.schema}.{change} WHERE pipeline = $1", [self.pipeline])

    def forget(self, connection: DuckDBPyConnection) -> list[str]:
        """Remove the pipeline's rows; say from where."""
        said = []
        for table in ("pipeline_state", "table_state", "chunk_state", "shape_state"):
            removed = first_row(connection, f"DELETE FROM {self.schema}.{table} WHERE pipeline = $1", [self.pipeline])
            if removed and removed[0]:
                said.append(f"removed {removed[0]} rows of pipeline {self.pipeline} from {self.schema}.{table}")
        return said
