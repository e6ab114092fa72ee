"""Applies batches: rows of all tables and the position in one transaction of the target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import count
from typing import Final

import structlog

from cdcrep.changes import Batch, Changes
from cdcrep.crashpoint import reached
from cdcrep.errors import SetupError
from cdcrep.fold import Net, NetRows, fold, fold_rows
from cdcrep.table import Table, TableId
from cdcrep_connectors.postgres import apply_direct, checkpoint
from cdcrep_connectors.postgres.apply_direct import DirectStatements
from cdcrep_connectors.postgres.apply_keyed import delete_keys, write_rows
from cdcrep_connectors.postgres.apply_rows import add_rows, remove_rows
from cdcrep_connectors.postgres.checkpoint import Fence
from cdcrep_connectors.postgres.key_match import KeyMatch, read_key_match
from cdcrep_connectors.postgres.round_trip import Statement
from cdcrep_connectors.postgres.session import Session
from cdcrep_connectors.postgres.stage import Stage
from cdcrep_connectors.postgres.target_tables import TargetTable, check_change, empty, find, grow, shape
from cdcrep_connectors.relational.names import listed

log = structlog.get_logger(__name__)

MOST_STAGES: Final = 64
"""Every commit that used a stage empties all of them: beyond this number they are dropped and made anew when needed."""

FOREIGN_KEYS: Final = "SELECT conrelid, confrelid FROM pg_constraint WHERE contype = 'f' AND conrelid <> confrelid"

Work = list[tuple[TargetTable, Net | NetRows]]


class Applier:
    """The one session that applies batches; any exception but those of `apply_direct` makes it unusable."""

    def __init__(self, session: Session, fence: Fence) -> None:
        self._session = session
        self._fence = fence
        self._targets: dict[TableId, TargetTable] = {}
        self._matches: dict[TableId, KeyMatch] = {}
        self._stages: dict[TableId, Stage] = {}
        self._direct: dict[TableId, DirectStatements] = {}
        self._numbers = count()
        self._foreign_keys: list[tuple[int, int]] | None = None
        self._in_transaction = False
        self._counts: dict[TableId, tuple[int, int]] = {}

    def apply(self, batch: Batch) -> None:
        """Apply a batch as `Sink.apply` promises; raises the driver's exceptions."""
        reached("sink.before_rows")
        waves = list(_waves(batch.changes))
        whole = batch.position is not None and not self._in_transaction
        if whole and len(waves) <= 1 and self._apply_directly(batch, waves[0] if waves else []):
            return
        if not self._in_transaction:
            self._begin()
        for wave in waves:
            self._apply_wave(wave)
        reached("sink.after_rows")
        if batch.position is not None:
            self._commit(batch)

    def _apply_directly(self, batch: Batch, wave: list[Changes]) -> bool:
        if batch.rows > apply_direct.MOST_ROWS or any(self._known(changes.table) is None for changes in wave):
            return False
        work = self._ordered([(self._targets[changes.table.id], _fold(changes)) for changes in wave])
        if not apply_direct.suits([net for _, net in work]):
            return False
        statements: list[Statement] = []
        for target, net in reversed(work):
            if isinstance(net, Net):
                statements += self._direct_statements(target).deletes(net)
        for target, net in work:
            direct = self._direct_statements(target)
            statements += direct.writes(net) if isinstance(net, Net) else direct.additions(net)
        statements += [self._fence.count(changes.table.id, len(changes), 0) for changes in wave]
        statements.append(self._fence.move(batch))
        reached("sink.after_rows")
        reached("sink.before_commit")
        if not apply_direct.run(self._session, statements):
            return False
        self._fence.position = batch.position
        reached("sink.after_commit")
        return True

    def _begin(self) -> None:
        self._session.execute("BEGIN")
        if not self._session.replica:
            self._session.execute("SET CONSTRAINTS ALL DEFERRED")
        self._in_transaction = True
        self._counts = {}
        if len(self._stages) > MOST_STAGES:
            for stage in self._stages.values():
                stage.drop(self._session)
            self._stages = {}
        for stage in self._stages.values():
            stage.filled.clear()

    def _apply_wave(self, wave: list[Changes]) -> None:
        for changes in wave:
            if self._known(changes.table) is None:
                self._targets[changes.table.id] = self._learn(changes.table)
        work = self._ordered([(self._targets[changes.table.id], _fold(changes)) for changes in wave])
        empty(self._session, [target.name for target, net in work if net.truncated])
        missing = dict.fromkeys((target.table.id for target, _ in work), 0)
        for target, net in reversed(work):
            stage = self._stage(target)
            if isinstance(net, Net):
                missing[target.table.id] += delete_keys(self._session, stage, net)
            else:
                remove_rows(self._session, stage, net)
        for target, net in work:
            stage = self._stage(target)
            if isinstance(net, Net):
                missing[target.table.id] += write_rows(self._session, stage, net)
            else:
                add_rows(self._session, stage, net)
        for changes in wave:
            table = changes.table.id
            if absent := missing[table]:
                log.warning("rows to change were missing in the target", table=str(table), rows=absent)
            applied, before = self._counts.get(table, (0, 0))
            self._counts[table] = applied + len(changes), before + absent

    def _commit(self, batch: Batch) -> None:
        session, fence = self._session, self._fence
        checkpoint.move(session, fence, batch, self._counts)
        reached("sink.before_commit")
        session.execute("COMMIT")
        self._in_transaction = False
        fence.position = batch.position
        reached("sink.after_commit")

    def _known(self, table: Table) -> TargetTable | None:
        """Return what is known of a table whose shape has not changed since."""
        target = self._targets.get(table.id)
        if target is not None and (target.table is table or target.table == table or target.table.same_shape(table)):
            return target
        return None

    def _learn(self, table: Table) -> TargetTable:
        """Read a table from the catalogue and let it grow to the source's shape, inside the open transaction."""
        session, pipeline = self._session, self._fence.pipeline
        columns, key = checkpoint.read_shape(session, pipeline, table.id)
        check_change(table, columns, key)
        target = find(session, table)
        if target is None:
            raise SetupError(
                f"{table.id}: the table is missing in the target",
                hint="start again: a table that is gone is copied anew",
            )
        target = grow(session, target)
        if table.key and not target.key_indexed:
            raise SetupError(
                f"{table.id}: the target's table has no unique index on its key",
                hint=f"CREATE UNIQUE INDEX ON {target.name} ({listed(table.key)});",
            )
        if columns != shape(table) or tuple(key) != table.key:
            checkpoint.remember_shape(session, pipeline, table.id, shape(table), table.key)
        self._matches[table.id] = read_key_match(session, target)
        self._direct.pop(table.id, None)
        if (stage := self._stages.pop(table.id, None)) is not None:
            stage.drop(session)
        return target

    def _direct_statements(self, target: TargetTable) -> DirectStatements:
        direct = self._direct.get(target.table.id)
        if direct is None:
            direct = self._direct[target.table.id] = DirectStatements(target, self._matches[target.table.id])
        return direct

    def _stage(self, target: TargetTable) -> Stage:
        stage = self._stages.get(target.table.id)
        if stage is None:
            match = self._matches[target.table.id]
            stage = self._stages[target.table.id] = Stage(target, match, next(self._numbers))
        return stage

    def _ordered(self, work: Work) -> Work:
        """Put tables that foreign keys of the target refer to before those that refer, where such keys are checked."""
        if self._session.replica or len(work) < 2:
            return work
        if self._foreign_keys is None:
            self._foreign_keys = [(child, parent) for child, parent in self._session.fetch(FOREIGN_KEYS)]
        by_oid = {target.oid: (target, net) for target, net in work}
        graph: dict[int, set[int]] = {oid: set() for oid in by_oid}
        for child, parent in self._foreign_keys:
            if child in by_oid and parent in by_oid:
                graph[child].add(parent)
        try:
            return [by_oid[oid] for oid in TopologicalSorter(graph).static_order()]
        except CycleError:
            # Only deferrable constraints let a cycle be written at all, and those are deferred.
            return work


def _fold(changes: Changes) -> Net | NetRows:
    return fold(changes) if changes.table.key else fold_rows(changes)


def _waves(changes: Sequence[Changes]) -> Iterator[list[Changes]]:
    """Split changes so that no table stands twice in a wave; it does so only where its shape changed in between."""
    waves: list[list[Changes]] = []
    seen: dict[TableId, int] = {}
    for one in changes:
        number = seen.get(one.table.id, -1) + 1
        seen[one.table.id] = number
        if number == len(waves):
            waves.append([])
        waves[number].append(one)
    yield from waves
