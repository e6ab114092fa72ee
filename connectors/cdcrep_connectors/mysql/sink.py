"""MySQL or MariaDB as a target: rows, bookkeeping and position in its own transactions."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cdcrep.changes import Batch
from cdcrep.connector import Answer, Checkpoint, Copied, Obstacle, Pipeline
from cdcrep.crashpoint import reached
from cdcrep.errors import SetupError
from cdcrep.position import Position
from cdcrep.table import Table, TableId
from cdcrep_connectors.mysql import checkpoint, predecessors
from cdcrep_connectors.mysql.apply import Applier
from cdcrep_connectors.mysql.checkpoint import Fence
from cdcrep_connectors.mysql.fencing import Guard, guard_for, translated
from cdcrep_connectors.mysql.load import MySQLLoader
from cdcrep_connectors.mysql.options import ServerOptions
from cdcrep_connectors.mysql.session import Session
from cdcrep_connectors.mysql.target_names import qualify
from cdcrep_connectors.mysql.target_obstacles import find_obstacles
from cdcrep_connectors.mysql.target_reading import answer, read_status
from cdcrep_connectors.mysql.target_tables import check_change, create, differences, empty, find, grow, refusals
from cdcrep_connectors.relational.claim import Claim


class MySQLSink:
    """A MySQL or MariaDB server that follows a source; see `cdcrep.connector.Sink` for the contract."""

    Options = ServerOptions

    def __init__(self, pipeline: Pipeline, options: ServerOptions) -> None:
        self._pipeline = pipeline
        self._options = options
        self._session: Session | None = None
        self._applier: Applier | None = None
        self._fence = Fence(pipeline.name, 0, None)
        self._guard: Guard = translated
        self._loaders = itertools.count(1)

    def obstacles(self, tables: Sequence[Table]) -> list[Obstacle]:
        """Find everything that stands in the way of these tables, changing nothing."""
        with self._own_session("checking the target") as session:
            return find_obstacles(session, self._pipeline, tables)

    def open(self, owner: str = "", replacing: int | None = None) -> Checkpoint:
        """Connect, create the bookkeeping, take the checkpoint row by raising its epoch, and return it."""
        self.close()
        try:
            with translated("opening the target"):
                session = self._session = self._connect()
                checkpoint.install(session)
                self._fence = predecessors.take_over(
                    session, Claim(self._pipeline.name, self._pipeline.source, owner, replacing)
                )
                self._guard = guard_for(self._options, self._pipeline, self._fence)
                self._applier = Applier(session, self._fence)
                checkpoint.forget_lost(session, self._fence)
                # Beginning again would empty a table whose other rows are to be kept.
                return checkpoint.read(session, self._fence, restart=self._pipeline.on_existing != "keep")
        except BaseException:
            self.close()
            raise

    def prepare(self, tables: Sequence[Table]) -> list[str]:
        """Create the tables of a first copy; existing rows are refused, emptied or kept."""
        session, done = self._opened(), []
        for what, hint in refusals(tables, session.dialect):
            raise SetupError(what, hint=hint)
        for table in tables:
            with self._guard(f"creating {table.id}"):
                if not self._fence.is_ours(session):
                    raise self._fence.lost()
                done += self._prepare(session, table)
        return done

    def _prepare(self, session: Session, table: Table) -> list[str]:
        pipeline, said = self._pipeline.name, []
        target = find(session, table)
        if target is None:
            checkpoint.announce_shape(session, pipeline, table)
            reached("sink.before_creation")
            create(session, table)
            reached("sink.after_creation")
            said.append(f"created table {table.id}")
        else:
            ours = checkpoint.is_registered(session, pipeline, table.id)
            if ours:
                check_change(table, checkpoint.read_shapes(session, pipeline, table.id)[0])
            for what, hint in differences(session, target):
                raise SetupError(what, hint=hint)
            if not ours and session.fetch(f"SELECT 1 FROM {target.name} LIMIT 1"):
                said += self._meet_rows(session, table)
            checkpoint.announce_shape(session, pipeline, table)
            grow(session, target)
        checkpoint.remember_shape(session, pipeline, table)
        return said

    def _meet_rows(self, session: Session, table: Table) -> list[str]:
        match self._pipeline.on_existing:
            case "keep":
                return [f"kept the rows of {table.id}"]
            case "replace":
                empty(session, table.id)
                return [f"emptied table {table.id}"]
            case "refuse":
                raise SetupError(
                    f"{table.id}: the target's table already holds rows",
                    hint='empty it, or set on_existing = "replace" (empty it then) or "keep" (add to its rows)',
                )

    def register(self, tables: Mapping[TableId, Copied], position: Position | None = None) -> None:
        """Remember copies that begin, or begin again, with the pipeline's first position if given."""
        session, fence = self._opened(), self._fence
        with self._guard("registering copies"), session.transaction():
            fence.hold(session)
            for table, copied in tables.items():
                if checkpoint.register_copy(session, fence.pipeline, table, copied):
                    # TRUNCATE would end the transaction.
                    session.execute(f"DELETE FROM {qualify(table)}")
            if position is not None:
                checkpoint.move(session, fence, Batch(position), 0, 0)
        if position is not None:
            fence.position = position

    def release(self, tables: Sequence[TableId]) -> None:
        """Forget the copies of tables that are no longer replicated; the target's tables stay as they are."""
        session = self._opened()
        with self._guard("releasing tables"), session.transaction():
            self._fence.hold(session)
            checkpoint.release(session, self._fence, tables)

    def loader(self) -> MySQLLoader:
        """Open a connection for one thread of the first copy."""
        self._opened()
        with self._guard("connecting to the target"):
            # A chunk takes as long as the source takes to send it: only waiting for locks is limited.
            session = self._connect(statement_timeout=0)
            predecessors.mark(session, self._fence.pipeline, self._fence.epoch, next(self._loaders))
        return MySQLLoader(session, self._fence, self._guard, upsert=self._pipeline.on_existing == "keep")

    def finish(self, tables: Sequence[TableId]) -> None:
        """Remember that these tables' copies are complete, and let the optimiser see their size."""
        session = self._opened()
        with self._guard("finishing copies"):
            for table in tables:
                session.fetch(f"ANALYZE TABLE {qualify(table)}")
            with session.transaction():
                self._fence.hold(session)
                for table in tables:
                    checkpoint.finish_copy(session, self._fence.pipeline, table)

    def apply(self, batch: Batch) -> None:
        """Apply a batch's net effect and its position in one transaction, durable on return."""
        self._opened()
        assert self._applier is not None
        with self._guard("applying changes"):
            self._applier.apply(batch)

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
        with self._guard("detaching the target"), session.transaction():
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
        with translated(doing):
            session = self._connect(statement_timeout)
            try:
                yield session
            finally:
                session.close()
