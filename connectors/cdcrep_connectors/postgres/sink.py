"""PostgreSQL as a target: rows, bookkeeping and position in its own transactions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psycopg

from cdcrep.changes import Batch
from cdcrep.connector import Answer, Checkpoint, Copied, Obstacle, Pipeline
from cdcrep.errors import CdcrepError, SetupError
from cdcrep.position import Position
from cdcrep.table import Table, TableId
from cdcrep_connectors.postgres import checkpoint, predecessors, user_types
from cdcrep_connectors.postgres.apply import Applier
from cdcrep_connectors.postgres.checkpoint import Fence
from cdcrep_connectors.postgres.collisions import explain
from cdcrep_connectors.postgres.failures import translate
from cdcrep_connectors.postgres.load import PostgresLoader
from cdcrep_connectors.postgres.options import ServerOptions
from cdcrep_connectors.postgres.session import Session
from cdcrep_connectors.postgres.target_obstacles import find_obstacles
from cdcrep_connectors.postgres.target_reading import answer, read_status
from cdcrep_connectors.postgres.target_tables import create, empty, find, grow, shape
from cdcrep_connectors.relational.claim import Claim
from cdcrep_connectors.relational.names import qualify


class PostgresSink:
    """A PostgreSQL database that follows a source; see `cdcrep.connector.Sink` for the contract."""

    Options = ServerOptions

    def __init__(self, pipeline: Pipeline, options: ServerOptions) -> None:
        self._pipeline = pipeline
        self._options = options
        self._session: Session | None = None
        self._applier: Applier | None = None
        self._fence = Fence(pipeline.name, 0, None)

    def obstacles(self, tables: Sequence[Table]) -> list[Obstacle]:
        """Find everything that stands in the way of these tables, changing nothing."""
        with self._own_session("checking the target") as session:
            return find_obstacles(session, self._pipeline, tables)

    def open(self, owner: str = "", replacing: int | None = None) -> Checkpoint:
        """Connect, create the bookkeeping, take the checkpoint row by raising its epoch, and return it."""
        self.close()
        try:
            with _translated("opening the target"):
                self._session = self._connect()
                checkpoint.install(self._session)
                self._fence = predecessors.take_over(
                    self._session, Claim(self._pipeline.name, self._pipeline.source, owner, replacing)
                )
                self._applier = Applier(self._session, self._fence)
                checkpoint.forget_lost(self._session, self._fence)
                # Beginning again would empty a table whose other rows are to be kept.
                restart = self._pipeline.on_existing != "keep"
                return checkpoint.read(self._session, self._fence, restart=restart)
        except CdcrepError:
            self.close()
            raise

    def prepare(self, tables: Sequence[Table]) -> list[str]:
        """Create the tables of a first copy with the user types they need; say what was done."""
        session, pipeline = self._opened(), self._pipeline.name
        done: list[str] = []
        with _translated("creating the target's tables"):
            done += user_types.create_missing(session, tables)
            for table in tables:
                with session.transaction(), _translated(f"creating {table.id}"):
                    self._fence.hold(session)
                    done += self._prepare(session, table)
                    checkpoint.remember_shape(session, pipeline, table.id, shape(table), table.key)
        return done

    def _prepare(self, session: Session, table: Table) -> list[str]:
        target = find(session, table)
        if target is None:
            create(session, table)
            return [f"created table {table.id}"]
        grow(session, target)
        registered = session.fetch(
            f"SELECT 1 FROM cdcrep.tables WHERE {checkpoint.PLACE} AND copy_position IS NOT NULL",
            self._pipeline.name,
            table.schema,
            table.name,
        )
        if registered or not session.fetch(f"SELECT 1 FROM {target.name} LIMIT 1"):
            return []
        match self._pipeline.on_existing:
            case "keep":
                return [f"kept the rows of {table.id}"]
            case "replace":
                empty(session, [target.name])
                return [f"emptied table {table.id}"]
            case "refuse":
                raise SetupError(
                    f"{table.id}: the target's table already holds rows",
                    hint='empty it, or set on_existing = "replace" (empty it then) or "keep" (add to its rows)',
                )

    def register(self, tables: Mapping[TableId, Copied], position: Position | None = None) -> None:
        """Remember copies that begin, or begin again, with the pipeline's first position if given."""
        session, fence = self._opened(), self._fence
        with _translated("registering copies"), session.transaction():
            fence.hold(session)
            for table, copied in tables.items():
                if checkpoint.register_copy(session, fence.pipeline, table, copied):
                    empty(session, [qualify(table.schema, table.name)])
            if position is not None:
                checkpoint.move(session, fence, Batch(position))
        if position is not None:
            fence.position = position

    def release(self, tables: Sequence[TableId]) -> None:
        """Forget the copies of tables that are no longer replicated; the target's tables stay as they are."""
        session = self._opened()
        with _translated("releasing tables"), session.transaction():
            self._fence.hold(session)
            checkpoint.release(session, self._fence, tables)

    def loader(self) -> PostgresLoader:
        """Open a connection for one thread of the first copy."""
        with _translated("connecting to the target"):
            # A chunk takes as long as the source takes to send it: only waiting for locks is limited.
            session = self._connect(statement_timeout=0)
            predecessors.mark(session, self._fence)
            return PostgresLoader(session, self._fence, upsert=self._pipeline.on_existing == "keep")

    def finish(self, tables: Sequence[TableId]) -> None:
        """Remember that these tables' copies are complete, and let the planner see their size."""
        session, fence = self._opened(), self._fence
        with _translated("finishing copies"), session.transaction():
            fence.hold(session)
            session.execute("SET LOCAL statement_timeout = 0")
            for table in tables:
                session.execute(f"ANALYZE {qualify(table.schema, table.name)}")
                session.execute(
                    f"UPDATE cdcrep.tables SET copy_done = true WHERE {checkpoint.PLACE}",
                    fence.pipeline,
                    table.schema,
                    table.name,
                )

    def apply(self, batch: Batch) -> None:
        """Apply a batch's net effect and its position in one transaction, durable on return."""
        session = self._opened()
        assert self._applier is not None
        try:
            self._applier.apply(batch)
        except psycopg.Error as error:
            raise explain(session, self._pipeline.name, error, "applying changes") from error

    def cancel(self) -> None:
        """Make a running `apply` roll back and raise TransientError soon; thread-safe."""
        if (session := self._session) is not None:
            session.cancel()

    def status(self) -> Mapping[str, Any]:
        """Read the checkpoint row and the tables' copies, on a connection of its own."""
        with self._own_session("reading the target's status") as session:
            return read_status(session, self._pipeline.name) if checkpoint.installed(session) else {}

    def query(self, sql: str) -> Answer:
        """Run one read-only statement at one exact commit; thread-safe, beside a running `apply`."""
        with self._own_session("querying the target", statement_timeout=0) as session:
            return answer(session, self._pipeline.name, sql)

    def detach(self) -> None:
        """Forget the position and call every copy interrupted again."""
        session = self._opened()
        with _translated("detaching the target"), session.transaction():
            self._fence.hold(session)
            checkpoint.detach(session, self._fence.pipeline)
        self._fence.position = None

    def forget(self) -> list[str]:
        """Remove the pipeline's rows from the bookkeeping, not the tables; say what was done."""
        with self._own_session("forgetting the pipeline") as session:
            return checkpoint.forget(session, self._pipeline.name) if checkpoint.installed(session) else []

    def close(self) -> None:
        """Roll back what is open and end the connection; idempotent."""
        if self._session is not None:
            self._session.close()
        self._session = self._applier = None

    def _opened(self) -> Session:
        if self._session is None:
            raise SetupError("the sink is not open")
        return self._session

    def _connect(self, statement_timeout: float | None = None) -> Session:
        timeout = self._pipeline.transaction_timeout if statement_timeout is None else statement_timeout
        return Session(self._options, self._pipeline, statement_timeout=timeout)

    @contextlib.contextmanager
    def _own_session(self, doing: str, statement_timeout: float | None = None) -> Iterator[Session]:
        with _translated(doing):
            session = self._connect(statement_timeout)
            try:
                yield session
            finally:
                session.close()


@contextlib.contextmanager
def _translated(doing: str) -> Iterator[None]:
    try:
        yield
    except CdcrepError:
        raise
    except psycopg.Error as error:
        raise translate(error, doing) from error
