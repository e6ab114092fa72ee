"""A DuckDB file as the target of a pipeline: `cdcrep.connector.Sink`."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import duckdb

from cdcrep import crashpoint
from cdcrep.changes import Batch, Changes
from cdcrep.connector import Answer, Checkpoint, Chunk, Copied, Obstacle, Pipeline
from cdcrep.errors import CdcrepError, SetupError, TransientError
from cdcrep.fold import fold, fold_rows
from cdcrep.position import Position
from cdcrep.table import Table, TableId
from cdcrep_connectors.duckdb import obstacles, query, shape
from cdcrep_connectors.duckdb.apply import apply_net, apply_rows
from cdcrep_connectors.duckdb.bookkeeping import Bookkeeping
from cdcrep_connectors.duckdb.database import Database
from cdcrep_connectors.duckdb.failures import VALUE_ERRORS, ran_out_of_memory, translated
from cdcrep_connectors.duckdb.load import DuckDBLoader
from cdcrep_connectors.duckdb.options import DuckDBOptions
from cdcrep_connectors.duckdb.rows import wide_values
from cdcrep_connectors.duckdb.shape import Target
from cdcrep_connectors.duckdb.statements import first_row
from cdcrep_connectors.duckdb.unfit import unfit
from cdcrep_connectors.relational.claim import Claim

MEASURE_EVERY: Final = 1_000_000
"""Changes of a small table between two looks at its size."""


class DuckDBSink:
    """One pipeline's side of a DuckDB file."""

    Options = DuckDBOptions

    def __init__(self, pipeline: Pipeline, options: DuckDBOptions) -> None:
        self._pipeline = pipeline
        self._options = options
        self._database = Database(options)
        self._seen: Checkpoint | None = None
        self._generation = 0
        self._book: Bookkeeping | None = None
        self._applied: dict[str, int] = {}
        self._targets: dict[TableId, Target] = {}
        self._transaction: _Transaction | None = None
        self._until_measured: dict[TableId, int] = {}
        self._cancelled = threading.Event()

    def obstacles(self, tables: Sequence[Table]) -> list[Obstacle]:
        """Find everything that stands in the way of these tables, changing nothing."""
        found = obstacles.of_path(self._options) + obstacles.of_names(tables)
        for table in tables:
            found += obstacles.of_types(table, self._pipeline, self._options)
        if not self._options.path.exists() or any(obstacle.fatal for obstacle in obstacles.of_path(self._options)):
            return found
        try:
            with self._looking() as (connection, book):
                for table in tables:
                    found += obstacles.of_existing(connection, book, table, self._pipeline, self._options)
        except CdcrepError as error:
            found.append(Obstacle(error.message, error.hint or ""))
        return found

    def open(self, owner: str = "", replacing: int | None = None) -> Checkpoint:
        """Take the pipeline's checkpoint row by raising its epoch."""
        for obstacle in obstacles.of_path(self._options):
            if obstacle.fatal:
                raise SetupError(obstacle.what, hint=obstacle.hint)
        self._cancelled.clear()
        with translated(f"opening {self._options.path}"), self._database.use() as connection:
            connection.begin()
            book = self._book_of(connection)
            seen = book.take(connection, Claim(self._pipeline.name, self._pipeline.source, owner, replacing))
            lost = [table for table in seen.tables if not shape.existing_columns(connection, table)]
            book.release(connection, lost)
            self._seen = replace(seen, tables={id_: copied for id_, copied in seen.tables.items() if id_ not in lost})
            self._applied = book.applied(connection)
            connection.commit()
            self._generation = self._database.generation
            self._targets.clear()
            self._until_measured.clear()
        return self._seen

    def prepare(self, tables: Sequence[Table]) -> list[str]:
        """Create the tables of a first copy; existing rows are refused, emptied or kept."""
        said = []
        with self._writing("preparing tables") as (connection, book):
            for table in tables:
                for obstacle in [
                    *obstacles.of_names([table]),
                    *obstacles.of_types(table, self._pipeline, self._options),
                ]:
                    raise SetupError(obstacle.what, hint=obstacle.hint)
                if not shape.existing_columns(connection, table.id):
                    shape.create(connection, book, table, self._options.as_text)
                    said.append(f"created table {table.id}")
                    continue
                ours = obstacles.is_ours(connection, book, table)
                if not ours and shape.has_rows(connection, book.catalog, table.id):
                    said += self._meet_rows(connection, book, table)
                self._targets[table.id] = shape.fit(connection, book, table, self._options.as_text)
        return said

    def register(self, tables: Mapping[TableId, Copied], position: Position | None = None) -> None:
        """Remember copies that begin, or begin again, with the pipeline's first position if given."""
        with self._writing("registering tables") as (connection, book):
            for table, copied in tables.items():
                if book.register(connection, table, copied):
                    connection.execute(f"TRUNCATE {shape.qualified(book.catalog, table)}")
            if position is not None:
                book.move(connection, self._checkpoint, position)
        if position is not None:
            self._seen = replace(self._checkpoint, position=position)

    def release(self, tables: Sequence[TableId]) -> None:
        """Forget the copies of tables that are no longer replicated; the target's tables stay as they are."""
        with self._writing("releasing tables") as (connection, book):
            book.release(connection, tables)
        for table in tables:
            self._targets.pop(table, None)

    def loader(self) -> DuckDBLoader:
        """Open a connection for one thread of the first copy."""
        with self._database.use() as connection:
            self._verify_unchanged(connection)
            book = self._book_of(connection)

        def fit(connection: duckdb.DuckDBPyConnection, chunk: Chunk) -> Target:
            return shape.fit(connection, book, chunk.table, self._options.as_text)

        return DuckDBLoader(self._database, book, fit, self._check_epoch)

    def finish(self, tables: Sequence[TableId]) -> None:
        """Remember that these tables' copies are complete."""
        with self._writing("finishing the first copy") as (connection, book):
            book.finish(connection, tables)

    def apply(self, batch: Batch) -> None:
        """Apply a batch's net effect and its position in one transaction, durable on return."""
        if self._transaction is None and batch.changes and batch.position == self._checkpoint.position:
            return  # the target holds it: that is what its position says
        whole = self._transaction is None
        try:
            with translated("applying changes"):
                self._apply(batch)
        except BaseException as error:
            self._abandon()
            # If what failed was all of the transaction so far, it can be done again; else it begins again with more.
            if ran_out_of_memory(error.__cause__) and self._database.grow() and whole:
                self.apply(batch)
                return
            raise

    def cancel(self) -> None:
        """Make a running `apply` roll back and raise TransientError soon; thread-safe."""
        self._cancelled.set()
        transaction = self._transaction
        if transaction is not None:
            transaction.connection.interrupt()

    def status(self) -> Mapping[str, Any]:
        """Read the checkpoint row and the tables' copies without taking the row."""
        if not self._options.path.exists():
            return {}
        with self._looking() as (connection, book), translated("reading the status"):
            return book.status(connection) if book.exists(connection) else {}

    def query(self, sql: str) -> Answer:
        """Run one read-only statement at one exact commit; thread-safe, beside a running `apply`."""
        if not self._options.path.exists():
            raise SetupError(f"{self._options.path} does not exist", hint="start the replication first: cdcrep run")
        with self._looking() as (connection, book), translated("the query"):
            return query.run(connection, book, sql, has_book=self._seen is not None)

    def detach(self) -> None:
        """Forget the position and call every copy interrupted again."""
        with self._writing("detaching the target") as (connection, book):
            book.detach(connection)
        self._seen = replace(self._checkpoint, position=None)

    def forget(self) -> list[str]:
        """Remove the pipeline's rows from the bookkeeping, not the tables."""
        if not self._options.path.exists():
            return []
        self._abandon()
        with translated("forgetting the pipeline"), self._database.use() as connection:
            book = self._book_of(connection)
            connection.begin()
            said = book.forget(connection) if book.exists(connection) else []
            connection.commit()
        self._seen = None
        return said

    def close(self) -> None:
        """Roll back what is open and let go of the file; idempotent."""
        self._abandon()
        self._database.close()
        self._seen = None

    @property
    def _checkpoint(self) -> Checkpoint:
        if self._seen is None:
            raise SetupError("the target is not open")
        return self._seen

    def _apply(self, batch: Batch) -> None:
        if self._transaction is None:
            self._transaction = self._begin()
        transaction = self._transaction
        connection = transaction.connection
        crashpoint.reached("sink.before_rows")
        for changes in batch.changes:
            self._apply_changes(transaction, changes, batch)
        self._stop_if_cancelled()
        crashpoint.reached("sink.after_rows")
        transaction.rows += batch.rows
        transaction.transactions += batch.transactions
        if batch.position is None:
            return
        transaction.book.move(
            connection,
            self._checkpoint,
            batch.position,
            transactions=transaction.transactions,
            rows=transaction.rows,
            applied=transaction.applied if transaction.rows else None,
            commit_time=batch.commit_time,
        )
        crashpoint.reached("sink.before_commit")
        connection.commit()
        crashpoint.reached("sink.after_commit")
        self._seen = replace(self._checkpoint, position=batch.position)
        self._applied = transaction.applied
        self._targets.update(transaction.targets)
        self._transaction = None
        self._database.release(connection)

    def _apply_changes(self, transaction: _Transaction, changes: Changes, batch: Batch) -> None:
        self._stop_if_cancelled()
        connection, table = transaction.connection, changes.table
        target = transaction.targets.get(table.id) or self._targets.get(table.id)
        if target is None or not (target.table is table or target.table.same_shape(table)):
            target = shape.fit(connection, transaction.book, table, self._options.as_text)
            transaction.targets[table.id] = target
        widest, together = wide_values(changes.new)
        if widest:
            self._database.provide_for_values(connection, widest, together)
        try:
            if table.key:
                net = fold(changes)
                if len(net.deletes) or not net.fresh.all():
                    self._provide_memory(connection, target, len(changes))
                apply_net(connection, target, net)
            else:
                apply_rows(connection, target, fold_rows(changes))
        except VALUE_ERRORS:
            connection.rollback()
            identity = table.key_positions if table.key else range(len(table.columns))
            parts = [(range(len(table.columns)), changes.new), (identity, changes.old)]
            until = f" (changes up to position {batch.position})" if batch.position else ""
            raise unfit(connection, target, parts, until) from None
        transaction.applied[str(table.id)] = transaction.applied.get(str(table.id), 0) + len(changes)

    def _provide_memory(self, connection: duckdb.DuckDBPyConnection, target: Target, changes: int) -> None:
        """Look at the table's size when it may have grown by a quarter since the last look."""
        left = self._until_measured.get(target.table.id, 0) - changes
        if left < 0:
            rows = shape.estimated_rows(connection, target.table.id)
            self._database.provide(connection, rows)
            left = max(rows // 4, MEASURE_EVERY)
        self._until_measured[target.table.id] = left

    def _begin(self) -> _Transaction:
        connection = self._database.acquire()
        try:
            self._verify_unchanged(connection)
            connection.begin()
            return _Transaction(connection, self._book_of(connection), dict(self._applied))
        except BaseException:
            self._database.release(connection)
            raise

    def _abandon(self) -> None:
        """Roll back the transaction that is open, if any."""
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            self._database.release(transaction.connection)

    def _verify_unchanged(self, connection: duckdb.DuckDBPyConnection) -> None:
        """After the file was let go of and opened again: see that nobody took or moved the checkpoint in between."""
        seen = self._checkpoint
        if self._generation == self._database.generation:
            return
        book = self._book_of(connection)
        now = book.read(connection) if book.exists(connection) else Checkpoint()
        if (now.position, now.epoch) != (seen.position, seen.epoch):
            raise book.overtaken()
        self._targets.clear()  # other programs may have changed the tables
        self._until_measured.clear()
        self._generation = self._database.generation

    def _check_epoch(self) -> None:
        """See on a fresh snapshot that nobody has taken the checkpoint row."""
        with self._database.use() as connection:
            book = self._book_of(connection)
            if book.read(connection).epoch != self._checkpoint.epoch:
                raise book.overtaken()

    def _stop_if_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise TransientError("applying changes: cancelled")

    def _meet_rows(self, connection: duckdb.DuckDBPyConnection, book: Bookkeeping, table: Table) -> list[str]:
        if self._pipeline.on_existing == "refuse":
            raise SetupError(
                f"{table.id}: the target table exists and holds rows",
                hint='set on_existing = "replace" to empty it or "keep" to copy into it',
            )
        if self._pipeline.on_existing == "keep":
            return [f"kept the rows of table {table.id}"]
        connection.execute(f"TRUNCATE {shape.qualified(book.catalog, table.id)}")
        return [f"emptied table {table.id}"]

    @contextmanager
    def _writing(self, doing: str) -> Iterator[tuple[duckdb.DuckDBPyConnection, Bookkeeping]]:
        """Run a block in a transaction of its own that commits only while the checkpoint row is ours."""
        with translated(doing), self._database.use() as connection:
            self._verify_unchanged(connection)
            book = self._book_of(connection)
            connection.begin()
            yield connection, book
            if book.read(connection).epoch != self._checkpoint.epoch:
                raise book.overtaken()
            connection.commit()

    @contextmanager
    def _looking(self) -> Iterator[tuple[duckdb.DuckDBPyConnection, Bookkeeping]]:
        """Lend a connection for reading; closes the file afterwards if it was not open before."""
        held = self._seen is not None
        try:
            with self._database.use() as connection, translated(f"reading {self._options.path}"):
                yield connection, self._book_of(connection)
        finally:
            if not held:
                self._database.close()

    def _book_of(self, connection: duckdb.DuckDBPyConnection) -> Bookkeeping:
        if self._book is None:
            row = first_row(connection, "SELECT current_database()")
            assert row
            self._book = Bookkeeping(shape.quote(row[0]), self._pipeline.name)
        return self._book


class _Transaction:
    """An open target transaction and what was done in it."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, book: Bookkeeping, applied: dict[str, int]) -> None:
        self.connection = connection
        self.book = book
        self.applied = applied
        self.targets: dict[TableId, Target] = {}
        self.rows = 0
        self.transactions = 0
