"""Applies batches: rows of all tables and the position in one transaction of the target.

No server of the family has transactional DDL, and every ALTER commits what is open. Tables therefore grow before the
transaction begins, announced by a pending shape; the shape counts as reached only with the position. A process that
ends in between leaves a table with columns that nothing has filled yet, which the next one finds there.
"""

from __future__ import annotations

import structlog

from cdcrep.changes import Batch, Changes
from cdcrep.crashpoint import reached
from cdcrep.errors import SetupError, TransientError
from cdcrep.fold import fold, fold_rows
from cdcrep.position import Position
from cdcrep.table import Table, TableId
from cdcrep_connectors.mysql import checkpoint
from cdcrep_connectors.mysql.apply_keyed import apply_net
from cdcrep_connectors.mysql.apply_rows import apply_rows
from cdcrep_connectors.mysql.checkpoint import Fence
from cdcrep_connectors.mysql.collisions import explain
from cdcrep_connectors.mysql.failures import DRIVER_ERRORS
from cdcrep_connectors.mysql.session import Session
from cdcrep_connectors.mysql.target_tables import TargetTable, check_change, differences, find, grow, lacking

log = structlog.get_logger(__name__)


class Applier:
    """The one session that applies batches; any exception makes it unusable."""

    def __init__(self, session: Session, fence: Fence) -> None:
        session.use_bookkeeping()
        self._session = session
        self._fence = fence
        self._targets: dict[TableId, TargetTable] = {}
        self._counts: dict[TableId, tuple[int, int]] = {}
        self._transactions = 0

    def apply(self, batch: Batch) -> None:
        """Apply a batch as `Sink.apply` promises; raises the driver's exceptions."""
        reached("sink.before_rows")
        self._provide_columns(batch)
        if not self._session.in_transaction:
            self._session.begin()
            self._counts, self._transactions = {}, 0
        for changes in batch.changes:
            self._apply_changes(changes, batch.position)
        self._transactions += batch.transactions
        reached("sink.after_rows")
        if batch.position is not None:
            self._commit(batch)

    def _provide_columns(self, batch: Batch) -> None:
        """Let tables grow that lack columns."""
        session, fence = self._session, self._fence
        for changes in batch.changes:
            if self._known(changes.table) is not None:
                continue
            target = self._find(changes.table)
            if not lacking(target):
                continue
            in_between = session.in_transaction
            session.roll_back()
            if not fence.is_ours(session):
                raise fence.lost()
            checkpoint.announce_shape(session, fence.pipeline, changes.table)
            reached("sink.before_growth")
            grow(session, target)
            reached("sink.after_growth")
            if in_between:
                # What was rolled back comes again, and finds the columns there.
                raise TransientError(f"{changes.table.id} has grown in the middle of a large transaction")

    def _find(self, table: Table) -> TargetTable:
        shape, _ = checkpoint.read_shapes(self._session, self._fence.pipeline, table.id)
        check_change(table, shape)
        target = find(self._session, table)
        if target is None:
            raise SetupError(
                f"{table.id}: the table is missing in the target",
                hint="start again: a table that is gone is copied anew",
            )
        for what, hint in differences(self._session, target):
            raise SetupError(what, hint=hint)
        return target

    def _known(self, table: Table) -> TargetTable | None:
        """Return what is known of a table whose shape has not changed since."""
        target = self._targets.get(table.id)
        if target is not None and (target.table is table or target.table.same_shape(table)):
            return target
        return None

    def _apply_changes(self, changes: Changes, position: Position | None) -> None:
        session, table = self._session, changes.table
        target = self._known(table)
        if target is None:
            target = self._targets[table.id] = self._find(table)
            shape, pending = checkpoint.read_shapes(session, self._fence.pipeline, table.id)
            if shape != checkpoint.shape_of(table) or pending is not None:
                checkpoint.remember_shape(session, self._fence.pipeline, table)
        absent = 0
        try:
            if table.key:
                absent = apply_net(session, target, fold(changes))
            else:
                apply_rows(session, target, fold_rows(changes))
        except DRIVER_ERRORS as error:
            raise explain(target, position, error) from error
        if absent:
            log.warning("rows to change were missing in the target", table=str(table.id), rows=absent)
        applied, before = self._counts.get(table.id, (0, 0))
        self._counts[table.id] = applied + len(changes), before + absent

    def _commit(self, batch: Batch) -> None:
        session, fence = self._session, self._fence
        checkpoint.count(session, fence, self._counts)
        checkpoint.move(session, fence, batch, self._transactions, sum(applied for applied, _ in self._counts.values()))
        reached("sink.before_commit")
        session.commit()
        fence.position = batch.position
        reached("sink.after_commit")
