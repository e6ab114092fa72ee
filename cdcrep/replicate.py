"""Replication proper: a thread that reads, a thread that applies, and the hand-over between them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from cdcrep.changes import Batch
from cdcrep.connector import Checkpoint, Pipeline, Sink, Source
from cdcrep.crashpoint import reached
from cdcrep.errors import DivergedError
from cdcrep.handover import Handover
from cdcrep.position import Position
from cdcrep.tidying import Tidying


@dataclass(frozen=True)
class Applied:
    """One batch that is durable in the target."""

    batch: Batch
    seconds: float
    """How long applying took."""


class Replication:
    """Follows a source from a checkpoint on, until it is stopped, fails, or has passed `until`.

    The three lines that everything else serves:

        for batch in source.stream(position):
            sink.apply(batch)
            source.confirm(batch.position)
    """

    def __init__(
        self,
        source: Source,
        sink: Sink,
        pipeline: Pipeline,
        checkpoint: Checkpoint,
        *,
        on_applied: Callable[[Applied], None],
        until: Position | None = None,
        tidying: Tidying,
    ) -> None:
        self._source, self._sink = source, sink
        self._tidying = tidying
        self._checkpoint, self._until = checkpoint, until
        self._on_applied = on_applied
        self._handover = Handover(
            max_rows=min(pipeline.max_batch_rows, pipeline.checkpoint_rows), max_bytes=pipeline.max_batch_bytes
        )

    def run(self) -> None:
        """Replicate; returns after `stop` or once `until` is passed, raises what either thread met."""
        reading = threading.Thread(target=self._read, name="cdcrep-reading", daemon=True)
        reading.start()
        with self._tidying.finally_do(lambda: self._end(reading)):
            while (batch := self._handover.take()) is not None:
                self._apply(batch)

    def stop(self) -> None:
        """End soon, after the batch that is being applied; thread-safe."""
        self._source.stop()
        self._handover.close()

    def _end(self, reading: threading.Thread) -> None:
        self.stop()
        reading.join()

    def _read(self) -> None:
        position = self._checkpoint.position
        try:
            if position is None:
                raise DivergedError("the target has no position to stream from")
            for batch in self._source.stream(position, self._checkpoint.tables, self._until):
                reached("engine.received")
                if not self._handover.put(batch):
                    return
                self._handover.rest(batch)
            self._handover.finish()
        except BaseException as failure:
            self._handover.fail(failure)

    def _apply(self, batch: Batch) -> None:
        started = time.monotonic()
        reached("engine.before_apply")
        self._sink.apply(batch)
        reached("engine.before_confirm")
        if batch.position is not None:
            self._source.confirm(batch.position)
        reached("engine.after_confirm")
        self._on_applied(Applied(batch, time.monotonic() - started))
