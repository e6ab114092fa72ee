"""The first copy of tables: under one snapshot, in parallel chunks, continued after a crash at any moment.

A table that the checkpoint does not know is copied whole. A copy that was interrupted goes on under another snapshot:
chunks that are durable stay, what is missing or has changed comes from the new snapshot, and rows that are gone by then
are pruned, after which the table shows exactly the new snapshot. A table without a key cannot be completed so and is
copied again from zero. Tables that are whole when another one fails are done: else a table without a key would begin
again for as long as any other fails. Either way the stream leaves out a table's changes up to the snapshot that its
copy shows.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from cdcrep import preflight
from cdcrep.connector import Checkpoint, Chunk, Copied, Loader, Pipeline, Sink, Snapshot, Source
from cdcrep.errors import CdcrepError, SetupError
from cdcrep.events import Events
from cdcrep.table import Table, TableId
from cdcrep.tidying import Tidying


@dataclass(frozen=True)
class Plan:
    """What is to be copied, and from what."""

    copied: Mapping[TableId, Copied]
    chunks: Sequence[Chunk]
    completed: Sequence[Table]
    """Tables whose interrupted copy goes on: they are pruned after their last chunk."""

    def whole(self, loaded: Collection[tuple[TableId, str]]) -> list[TableId]:
        """Return the tables that lack nothing once these chunks are loaded, not even to be pruned."""
        lacking = {table.id for table in self.completed}
        lacking |= {chunk.table.id for chunk in self.chunks if (chunk.table.id, chunk.name) not in loaded}
        return [table for table in self.copied if table not in lacking]

    def names(self, table: TableId) -> frozenset[str]:
        """Return the names of a table's chunks."""
        return frozenset(chunk.name for chunk in self.chunks if chunk.table.id == table)


class Backfill:
    """Brings the target to a state from which the stream makes it equal to the source."""

    def __init__(
        self,
        source: Source,
        sink: Sink,
        pipeline: Pipeline,
        events: Events,
        *,
        examined: Collection[TableId] = (),
        on_start: Callable[[], None],
        on_progress: Callable[[], None],
        tidying: Tidying,
    ) -> None:
        """Prepare a copy; `examined` are tables that the target was found able to take."""
        self._source, self._sink, self._pipeline, self._events = source, sink, pipeline, events
        self._examined = examined
        self._on_start, self._on_progress = on_start, on_progress
        self._tidying = tidying
        self._stopping = threading.Event()
        self._loaders: list[Loader] = []
        self._loaded: set[tuple[TableId, str]] = set()
        self._lock = threading.Lock()

    def run(self, checkpoint: Checkpoint) -> Checkpoint:
        """Copy what the checkpoint lacks; return the checkpoint to stream from. After `stop` it may be incomplete."""
        self._refuse_obstacles(checkpoint)
        self._say(self._source.set_up(checkpoint.tables.keys(), checkpoint.position))
        tables = {table.id: table for table in self._source.tables()}
        preflight.refuse_none(tables)
        self._release(checkpoint, tables)
        todo = [table for table in tables.values() if not _done(checkpoint, table)]
        if not todo:
            return checkpoint
        self._say(self._sink.prepare([table for table in todo if table.id not in checkpoint.tables]))
        interrupted = {
            table.id: copied for table in todo if (copied := checkpoint.tables.get(table.id)) and copied.chunks
        }
        take = self._source.start if checkpoint.position is None else self._source.snapshot
        snapshot = take(interrupted)
        with self._tidying.finally_do(snapshot.close):
            plan = self._plan(snapshot, todo, interrupted)
            position = checkpoint.position or snapshot.position
            self._sink.register(plan.copied, None if checkpoint.position else position)
            try:
                self._copy(snapshot, plan)
                self._prune(snapshot, plan)
            except CdcrepError:
                self._finish_whole(plan)
                raise
        if self._stopping.is_set():
            self._finish_whole(plan)
            return checkpoint
        self._sink.finish([table.id for table in todo])
        self._events.copy_finished()
        known = {table: copied for table, copied in checkpoint.tables.items() if table in tables}
        finished = {
            table: replace(copied, done=True, chunks=copied.chunks | plan.names(table))
            for table, copied in plan.copied.items()
        }
        return Checkpoint(position, checkpoint.epoch, {**known, **finished})

    def stop(self) -> None:
        """End soon; chunks that are not durable yet are rolled back. Thread-safe."""
        self._stopping.set()
        # It may be looking up what changed since an interrupted copy began.
        self._source.stop()
        with self._lock:
            for loader in self._loaders:
                loader.cancel()

    def _refuse_obstacles(self, checkpoint: Checkpoint) -> None:
        """Refuse what `prepare` would refuse, before anything is created at the source."""
        tables = [table for table in self._source.tables() if table.id not in checkpoint.tables]
        unexamined = [table for table in tables if table.id not in self._examined]
        if unexamined:
            preflight.refuse_fatal("target", self._sink.obstacles(unexamined))

    def _release(self, checkpoint: Checkpoint, tables: Mapping[TableId, Table]) -> None:
        gone = [table for table in checkpoint.tables if table not in tables]
        if gone:
            self._sink.release(gone)
            self._say([f"no longer replicated: {', '.join(map(str, gone))}; the target's tables stay as they are"])

    def _plan(self, snapshot: Snapshot, tables: Sequence[Table], interrupted: Mapping[TableId, Copied]) -> Plan:
        copied: dict[TableId, Copied] = {}
        chunks: list[Chunk] = []
        completed: list[Table] = []
        for table in tables:
            before = interrupted.get(table.id)
            remaining = list(snapshot.chunks(table, before))
            afresh = Copied(snapshot.position, snapshot=snapshot.note(table))
            if before is None:
                copied[table.id] = afresh
                if self._pipeline.on_existing == "keep":
                    remaining = [replace(chunk, overlapping=True) for chunk in remaining]
            elif not remaining:
                copied[table.id] = before
            elif self._pipeline.on_existing == "keep":
                raise SetupError(
                    f"{table.id}: the first copy was interrupted; it cannot be completed beside other rows",
                    hint='set on_existing = "replace", or empty the target table and run cdcrep teardown first',
                )
            elif all(chunk.overlapping for chunk in remaining):
                copied[table.id] = replace(before, position=snapshot.position)
                completed.append(table)
            else:
                copied[table.id] = afresh
            chunks += remaining
        return Plan(copied, sorted(chunks, key=lambda chunk: chunk.size, reverse=True), completed)

    def _copy(self, snapshot: Snapshot, plan: Plan) -> None:
        sizes = dict.fromkeys(plan.copied, (0, 0))
        for chunk in plan.chunks:
            rows, size = sizes[chunk.table.id]
            sizes[chunk.table.id] = (rows + chunk.rows, size + chunk.size)
        self._on_start()
        self._events.copy_started(sizes)
        waiting = deque(plan.chunks)
        failures: list[BaseException] = []

        def work() -> None:
            try:
                self._load_chunks(snapshot, waiting, failures)
            except BaseException as failure:
                failures.append(failure)

        workers = min(self._pipeline.copy_workers, len(plan.chunks))
        threads = [threading.Thread(target=work, name=f"cdcrep-copy-{i}", daemon=True) for i in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures and not self._stopping.is_set():
            raise failures[0]

    def _finish_whole(self, plan: Plan) -> None:
        """Finish what is whole though other tables are not; where the target fails now, it is copied again."""
        if whole := plan.whole(self._loaded):
            with suppress(CdcrepError):
                self._sink.finish(whole)

    def _prune(self, snapshot: Snapshot, plan: Plan) -> None:
        if not plan.completed or self._stopping.is_set():
            return
        with self._loader() as loader:
            for table in plan.completed:
                loader.prune(table, snapshot.keys(table))

    def _load_chunks(self, snapshot: Snapshot, waiting: deque[Chunk], failures: Sequence[BaseException]) -> None:
        with self._loader() as loader:
            while waiting and not failures and not self._stopping.is_set():
                try:
                    chunk = waiting.popleft()
                except IndexError:
                    return
                rows, size = loader.load(chunk, snapshot.read(chunk))
                self._loaded.add((chunk.table.id, chunk.name))
                self._on_progress()
                self._events.copy_progress(chunk.table.id, rows, size)

    @contextmanager
    def _loader(self) -> Iterator[Loader]:
        loader = self._sink.loader()
        with self._lock:
            self._loaders.append(loader)
        with self._tidying.finally_do(lambda: self._close(loader)):
            yield loader

    def _close(self, loader: Loader) -> None:
        with self._lock:
            self._loaders.remove(loader)
        loader.close()

    def _say(self, messages: Sequence[str]) -> None:
        for message in messages:
            self._events.note(message)


def _done(checkpoint: Checkpoint, table: Table) -> bool:
    copied = checkpoint.tables.get(table.id)
    return copied is not None and copied.done
