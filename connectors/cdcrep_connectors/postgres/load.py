"""Loads chunks of the first copy: COPY bytes of a PostgreSQL source untouched, Arrow from any other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

import psycopg

from cdcrep.connector import Chunk, Stream
from cdcrep.crashpoint import reached
from cdcrep.errors import CdcrepError, DataError, SetupError
from cdcrep.table import Table
from cdcrep_connectors.postgres import checkpoint
from cdcrep_connectors.postgres.apply_keyed import on_key, upsert_staged
from cdcrep_connectors.postgres.checkpoint import Fence
from cdcrep_connectors.postgres.collisions import explain
from cdcrep_connectors.postgres.column_types import DIALECT
from cdcrep_connectors.postgres.copy_in import can_copy_frames, copy_frames
from cdcrep_connectors.postgres.copy_text import copy_text
from cdcrep_connectors.postgres.failures import translate
from cdcrep_connectors.postgres.key_match import read_key_match
from cdcrep_connectors.postgres.session import Session
from cdcrep_connectors.postgres.stage import Stage
from cdcrep_connectors.postgres.target_tables import TargetTable, find

BINARY, FRAMES, TEXT, ARROW = "pgcopy-binary", "pgcopy-binary-frames", "pgcopy-text", "arrow"

PIECE_BYTES: Final = 1 << 18

SAME_IN_BINARY: Final = """
    SELECT bool_and(coalesce(
        to_regtype(n.native) = t.oid
        AND (t.oid < 16384 OR t.typtype = 'e' OR (t.typtype = 'd' AND t.typbasetype < 16384))
        AND t.typnamespace = CASE WHEN t.oid < 16384 THEN 'pg_catalog'::regnamespace ELSE t.typnamespace END
        AND t.typname !~ '^_?reg', false))
    FROM unnest($1::bigint[], $2::text[]) AS n (oid, native) LEFT JOIN pg_type t ON t.oid = n.oid::oid"""
"""Whether binary values of a source's types mean the same here: arrays and composites of user types carry the source's
OIDs, and so do the `reg…` types."""


class PostgresLoader:
    """One session of the first copy."""

    def __init__(self, session: Session, fence: Fence, *, upsert: bool) -> None:
        self._session = session
        self._fence = fence
        self._upsert = upsert
        self._stages: dict[Table, Stage] = {}
        self._binary: dict[Table, bool] = {}

    def load(self, chunk: Chunk, formats: Mapping[str, Stream]) -> tuple[int, int]:
        """Write a chunk's rows and its name in one transaction; return rows and bytes."""
        try:
            # Before the transaction: a rollback would take the temporary tables with it.
            stage = self._stage(chunk.table)
            with self._session.transaction():
                rows, size = self._write(stage, chunk, formats)
                self._fence.hold(self._session)
                checkpoint.remember_chunk(self._session, self._fence.pipeline, chunk.table.id, chunk.name, rows, size)
                reached("load.before_commit")
        except (psycopg.Error, CdcrepError) as error:
            raise explain(self._session, self._fence.pipeline, error, f"loading {chunk.table.id}") from error
        reached("load.after_commit")
        return rows, size

    def prune(self, table: Table, keys: Mapping[str, Stream]) -> int:
        """Delete the rows whose key is not among `keys`, in one transaction; return how many."""
        try:
            stage = self._stage(table)
            keys_only = replace(stage.target, table=replace(table, columns=table.identity))
            with self._session.transaction():
                stage.filled.clear()
                self._copy(stage.keys, [f"c{i}" for i in table.key_positions], keys_only, keys)
                self._session.execute(f"ANALYZE {stage.keys}")
                # Every row is looked at: here a hash join is right.
                self._session.execute("SET LOCAL enable_hashjoin = on")
                kept = f"SELECT FROM {stage.keys} s WHERE {on_key(stage)}"
                self._session.execute(f"DELETE FROM {stage.target.name} t WHERE NOT EXISTS ({kept})")
                removed = self._session.cursor.rowcount
                self._fence.hold(self._session)
        except (psycopg.Error, CdcrepError) as error:
            raise translate(error, f"completing the copy of {table.id}") from error
        return removed

    def _write(self, stage: Stage, chunk: Chunk, formats: Mapping[str, Stream]) -> tuple[int, int]:
        target = stage.target
        if not (chunk.table.key and (chunk.overlapping or self._upsert)):
            return self._copy(target.name, [target.column(i) for i in target.written], target, formats)
        stage.filled.clear()
        rows, size = self._copy(stage.rows, [f"c{i}" for i in target.written], target, formats)
        upsert_staged(self._session, stage, rows)
        return rows, size

    def _copy(
        self, into: str, columns: list[str], target: TargetTable, formats: Mapping[str, Stream]
    ) -> tuple[int, int]:
        format_ = self._choose(target, formats)
        names = f" ({', '.join(columns)})" if columns else ""
        option = " (FORMAT binary)" if format_ in (BINARY, FRAMES) else ""
        statement = f"COPY {into}{names} FROM STDIN{option}"
        session, size = self._session, 0
        if format_ == FRAMES:
            return copy_frames(session.connection, statement, self._until_cancelled(formats[FRAMES]()))
        pieces = _arrow_pieces(formats[ARROW](), target) if format_ == ARROW else _pieces(formats[format_]())
        with session.cursor.copy(statement.encode()) as copy:
            for piece in self._until_cancelled(pieces):
                copy.write(piece)
                size += len(piece)
        return session.cursor.rowcount, size

    def _until_cancelled(self, pieces: Iterable[Any]) -> Iterator[Any]:
        for piece in pieces:
            self._session.check()
            yield piece

    def _choose(self, target: TargetTable, formats: Mapping[str, Stream]) -> str:
        table = target.table
        # Where the target computes columns itself, whole rows cannot pass through.
        if table.dialect == DIALECT and len(target.written) == len(table.columns):
            if BINARY in formats and self._same_in_binary(target):
                as_they_are = FRAMES in formats and can_copy_frames(self._session.connection)
                return FRAMES if as_they_are else BINARY
            if TEXT in formats:
                return TEXT
        if ARROW not in formats:
            raise DataError(f"{table.id}: the source offers no format that the target reads: {sorted(formats)}")
        return ARROW

    def _same_in_binary(self, target: TargetTable) -> bool:
        table = target.table
        if table not in self._binary:
            oids = [target.columns[column.name].type_oid for column in table.columns]
            natives = [column.type.native for column in table.columns]
            ((same,),) = self._session.fetch(SAME_IN_BINARY, oids, natives)
            self._binary[table] = bool(same)
        return self._binary[table]

    def _stage(self, table: Table) -> Stage:
        if table not in self._stages:
            target = find(self._session, table)
            if target is None:
                raise SetupError(f"{table.id}: the table is missing in the target")
            stage = Stage(target, read_key_match(self._session, target), len(self._stages))
            if table.key:
                stage.create(self._session)
            self._stages[table] = stage
        return self._stages[table]

    def cancel(self) -> None:
        """Make a running `load` roll back and raise TransientError soon."""
        self._session.cancel()

    def close(self) -> None:
        """End the session."""
        self._session.close()


def _pieces(stream: Iterable[Any]) -> Iterator[bytes]:
    """Join small byte strings: handing each row to the driver costs more than the row."""
    waiting: list[bytes] = []
    size = 0
    for data in stream:
        waiting.append(data)
        size += len(data)
        if size >= PIECE_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    yield b"".join(waiting)


def _arrow_pieces(stream: Iterable[Any], target: TargetTable) -> Iterator[memoryview]:
    for batch in stream:
        yield from copy_text([batch.column(i) for i in target.written], batch.num_rows)
