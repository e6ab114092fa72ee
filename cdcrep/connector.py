"""The contract between the engine and the databases: what a source and a sink promise, and how they are found.

    for batch in source.stream(sink.open().position):
        sink.apply(batch)                    # changes and position become durable together, or neither does
        source.confirm(batch.position)       # only now may the source forget them

Every exactly-once argument reduces to two rules: **apply is atomic with the position**, and **never confirm what the
target does not hold**. After any failure the engine closes both sides, opens them again, reads the position back from
the target and goes on from there. There is no other recovery code.

Methods raise the errors of `cdcrep.errors` only: a connector turns its driver's exceptions into them. Unless a method
says otherwise it is called from one thread at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, Protocol, runtime_checkable

from pydantic import BaseModel

from cdcrep.changes import Batch
from cdcrep.errors import ConfigError
from cdcrep.position import Position
from cdcrep.selection import Selection
from cdcrep.table import Table, TableId

OnExisting = Literal["refuse", "replace", "keep"]


@dataclass(frozen=True)
class Pipeline:
    """What both sides of one pipeline need to know of its configuration."""

    name: str
    """Key of the checkpoint row; default of slot and publication names."""
    tables: Selection
    source: str = ""
    """The source's URL without user, password and options: what the checkpoint row calls the source."""
    on_existing: OnExisting = "refuse"
    """What to do about target tables that exist and hold rows before the first copy."""
    allow_lossy: bool = False
    """The user's consent to column types that the target can only hold with loss."""
    transaction_timeout: float = 30.0
    """Seconds; becomes the statement and lock limits of the target's transactions."""
    heartbeat_seconds: float = 5.0
    """Longest time for which an idle source's progress stays unconfirmed."""
    checkpoint_rows: int = 200_000
    """Most rows between two commits of the position, but for one larger transaction."""
    max_batch_rows: int = 100_000
    max_batch_bytes: int = 32 << 20
    copy_workers: int = 2
    """Threads, each with a connection to either side, of the first copy."""


@dataclass(frozen=True)
class Obstacle:
    """Something that stands between a database and replication."""

    what: str
    """What is wrong, on what; lower case."""
    hint: str = ""
    """What to type: the exact statement, or the option to set."""
    fatal: bool = True
    """False: worth knowing, but replication can start."""


@dataclass(frozen=True)
class Copied:
    """How far the first copy of one table is, as the target remembers it."""

    position: Position
    """The source's position that the copy's rows show: changes at or before it must not be applied again."""
    done: bool = False
    snapshot: str = ""
    """The source's own note on the first snapshot, to complete an interrupted copy from another one."""
    chunks: frozenset[str] = frozenset()
    """Names of the chunks that are durable in the target."""


@dataclass(frozen=True)
class Checkpoint:
    """What a target remembers of one pipeline."""

    position: Position | None = None
    """None: the pipeline is registered but the source's first position is not known yet."""
    epoch: int = 0
    tables: Mapping[TableId, Copied] = field(default_factory=dict)


@dataclass(frozen=True)
class Chunk:
    """A part of a table that is copied in one target transaction."""

    table: Table
    name: str
    """Unique within the table and stable: progress is remembered under it."""
    rows: int = 0
    """Estimate, for the progress bar."""
    size: int = 0
    """Estimate in bytes, for the progress bar."""
    overlapping: bool = False
    """Some of these rows may be in the target already: they must be upserted by key, not inserted."""


Stream = Callable[[], Iterable[Any]]
"""Starts reading a chunk: byte strings for text-like formats, `pyarrow.RecordBatch` for `arrow`."""


class Snapshot(Protocol):
    """A frozen view of the source that several threads can read tables from."""

    position: Position

    def chunks(self, table: Table, copied: Copied | None) -> Sequence[Chunk]:
        """Cut a table into what is still to be copied, given what `copied` says is there already (None: nothing).

        A table whose interrupted copy cannot be completed (no key) comes back whole, as chunks that are not
        `overlapping`: the engine then has the target start that table over. Chunks that complete a copy hold every row
        that differs from the first snapshot or that no durable chunk covers: with the rows gone whose keys are not
        among `keys`, the target then shows this snapshot. No row is in two of the chunks, which are written at once.
        """
        ...

    def note(self, table: Table) -> str:
        """Return what becomes `Copied.snapshot` of a table that is copied from here on, whose `chunks` were asked for.

        The target keeps it and nobody prints it: it may hold values of keys, which names of chunks must not.
        """
        ...

    def keys(self, table: Table) -> Mapping[str, Stream]:
        """Offer the key columns of all rows of a table with a key, in the formats of `read`; thread-safe."""
        ...

    def read(self, chunk: Chunk) -> Mapping[str, Stream]:
        """Offer a chunk's rows in the formats this source has; thread-safe. `arrow` is always among them.

        Arrow columns are text form or typed, like `Changes`, and become the same values in every sink. A source whose
        `arrow` is text may offer `arrow-typed` beside it, for targets that have the same types: with 2^63-1 (dates:
        2^31-1) for the time infinity and its negative for -infinity, and a DataError where a value has no place in the
        column's Arrow type.
        """
        ...

    def close(self) -> None:
        """Release the view and its connections."""
        ...


@dataclass(frozen=True)
class SourceStatus:
    """How the source sees this pipeline."""

    position: Position
    """The newest position there is."""
    lag_bytes: int
    """Log between the given position and the newest; 0 where a running stream knows that none of it is for us."""
    retained_bytes: int | None = None
    """Log the source keeps for this pipeline."""
    details: Mapping[str, str] = field(default_factory=dict)
    """More for a person to read: slot, publication, their states."""


@runtime_checkable
class Source(Protocol):
    """A database whose committed changes can be followed.

    Constructed with `(pipeline, options)`, where `options` is an instance of its own pydantic model `Options`
    (`Options.url` is always there). Constructing does not connect.
    """

    @property
    def Options(self) -> type[BaseModel]:  # noqa: N802 - a class attribute in every implementation
        """The model of this source's section in the configuration."""
        ...

    def obstacles(self) -> list[Obstacle]:
        """Find everything that stands in the way, all at once, changing nothing."""
        ...

    def tables(self) -> list[Table]:
        """Return the configured tables in their present shape, those that can be replicated."""
        ...

    def set_up(self, replicated: Collection[TableId] = (), after: Position | None = None) -> list[str]:
        """Create what replication needs except the stream's start (`start`), or bring it up to date; say what was done.

        `replicated` are the tables that the target relies on having been followed so far, `after` is where it stands.
        Idempotent. Raises SetupError where a fatal obstacle is met, DivergedError where changes of a replicated table
        may be missing or `stream` would refuse `after`; then nothing was changed.
        """
        ...

    def start(self, interrupted: Mapping[TableId, Copied] | None = None) -> Snapshot:
        """Create the place from which changes are kept for us (a slot) and a snapshot that shows exactly that place.

        `interrupted` are the copies that will be completed from it, as in `snapshot`. Called only while the target
        holds no position; what a crash between an earlier `start` and the first position left behind is replaced, since
        nothing was copied under it.
        """
        ...

    def snapshot(self, interrupted: Mapping[TableId, Copied] | None = None) -> Snapshot:
        """Take a snapshot with its exact position, for tables that are added later or whose copy was interrupted.

        `interrupted` are all copies that will be completed from it: what they need may be looked up once for all. Long
        work of that kind ends soon, with a TransientError, after `stop`.
        """
        ...

    def stream(
        self, after: Position, copied: Mapping[TableId, Copied], until: Position | None = None
    ) -> Iterator[Batch]:
        """Yield what was committed after `after`, in commit order.

        - Raises DivergedError before the first batch if `after` cannot be continued: another server, a position the
          server does not have, a gap between `after` and what the server still keeps for us.
        - Skips transactions at or before `after`, and a table's changes at or before its `copied` position.
        - A transaction larger than the batch bounds comes as pieces (`Batch.position is None`) that end with one
          that has a position. A piece never contains changes of two transactions.
        - When nothing arrives but the source's log grows, yields an empty batch with the newest position every
          `heartbeat_seconds`, or sooner when much log would be retained.
        - Ends when everything up to `until` was yielded (the last batch's position then is at or after it), or after
          `stop`.
        - Meanwhile keeps the connection alive on its own clock, also while the consumer takes its time with a batch.
        """
        ...

    def confirm(self, durable: Position) -> None:
        """Allow the source to forget what is at or before `durable`; thread-safe, returns at once."""
        ...

    def stop(self) -> None:
        """Make a running `stream` end soon; thread-safe, from any thread, also before it started."""
        ...

    def current(self) -> Position:
        """Return a position at or after every transaction that has committed by now."""
        ...

    def status(self, position: Position | None) -> SourceStatus:
        """Look at the source as it is now, on a connection of its own; works beside a running stream."""
        ...

    def tear_down(self) -> list[str]:
        """Drop what `set_up` and `start` created; say what was done. Idempotent."""
        ...

    def close(self) -> None:
        """End every connection; idempotent."""
        ...


class Loader(Protocol):
    """One connection of a sink for one thread of the first copy."""

    def load(self, chunk: Chunk, formats: Mapping[str, Stream]) -> tuple[int, int]:
        """Write a chunk's rows and its name in the progress table in one transaction; return rows and bytes.

        Picks the format it likes best. Checks the epoch like `Sink.apply`.
        """
        ...

    def prune(self, table: Table, keys: Mapping[str, Stream]) -> int:
        """Delete the rows whose key is not among `keys`, in one transaction; return how many.

        `keys` offers the key columns only. Checks the epoch like `load`.
        """
        ...

    def cancel(self) -> None:
        """Make a running `load` or `prune` roll back and raise TransientError soon; thread-safe."""
        ...

    def close(self) -> None:
        """End the connection; what was not committed is rolled back."""
        ...


@dataclass(frozen=True)
class Answer:
    """The result of a read-only query and the commit it was true at."""

    data: Any
    """A pyarrow.Table."""
    position: Position | None
    commit_time: float | None


@runtime_checkable
class Sink(Protocol):
    """A database that holds the copy, and with it the only memory of how far replication is.

    Constructed with `(pipeline, options)` like a source. Constructing does not connect.
    """

    @property
    def Options(self) -> type[BaseModel]:  # noqa: N802 - a class attribute in every implementation
        """The model of this sink's section in the configuration."""
        ...

    def obstacles(self, tables: Sequence[Table]) -> list[Obstacle]:
        """Find everything that stands in the way of these tables, changing nothing."""
        ...

    def open(self, owner: str = "", replacing: int | None = None) -> Checkpoint:
        """Connect, create the bookkeeping, take the pipeline's checkpoint row by raising its epoch, and return it.

        `owner` names the process that takes the row, and is written down in it. With `replacing` the row is taken only
        if its epoch is that one (0: there is no row) or its owner is `owner` already, which then had not heard that it
        got it; otherwise DivergedError, and the row stays as it is. All of that is decided where the row is written.

        From then on every process that took the row earlier fails in its next `apply` or `load` (the fence). What such
        a process has left open, because it is stopped or cut off, must not keep this one waiting for long. A new
        pipeline gets a row without a position. `Pipeline.source` is written down in the row, for people to read.
        Copies of tables that the target does not have any more are forgotten, so that they are copied anew: dropping a
        table in the target is how people ask for that.
        """
        ...

    def prepare(self, tables: Sequence[Table]) -> list[str]:
        """Create the tables of a first copy (with the user types they need); say what was done.

        Existing tables that hold rows are refused, emptied or kept as `Pipeline.on_existing` says.
        """
        ...

    def register(self, tables: Mapping[TableId, Copied], position: Position | None = None) -> None:
        """Remember copies that begin, or begin again, in one transaction; with the pipeline's first position if given.

        For a table that was registered before with other chunks, `Copied.chunks` replaces them; where it is empty the
        target table is emptied in the same transaction.
        """
        ...

    def release(self, tables: Sequence[TableId]) -> None:
        """Forget the copies of tables that are no longer replicated; the target's tables stay as they are.

        Without this a table that is taken out of the configuration and put back later would miss what happened between.
        """
        ...

    def loader(self) -> Loader:
        """Open a connection for one thread of the first copy."""
        ...

    def finish(self, tables: Sequence[TableId]) -> None:
        """Remember that these tables' copies are complete; what is better done after loading (indexes) comes first."""
        ...

    def apply(self, batch: Batch) -> None:
        """Apply a batch's net effect and its position in one transaction, durable on return.

        - The position moves by compare-and-set from the one last seen, with our epoch; no row moved: DivergedError.
        - A batch without a position leaves the transaction open; the next `apply` goes on in it.
        - Applying a batch twice leaves the same rows.
        - A row to change that is missing is inserted if all its values are known; otherwise DivergedError, as for a
          copy of a row to remove from a table without a key.
        - A table that is gone raises; the hint is to start again, because `open` has it copied anew.
        - A table's shape that has grown by nullable columns grows in the target first; other differences raise, but for
          whether columns may be null.
        - Any exception means that the transaction was rolled back, or that its outcome is unknown: either way the
          caller closes the sink and opens it anew.
        """
        ...

    def cancel(self) -> None:
        """Make a running `apply` roll back and raise TransientError soon; thread-safe."""
        ...

    def status(self) -> Mapping[str, Any]:
        """Read the checkpoint row and the tables' copies, on a connection of its own, without taking the row.

        Works before `open`, too: a start that is refused shall leave the target as it was.

        Keys: `position`, `epoch`, `owner`, `source`, `commit_time`, `transactions`, `rows`, `updated_at` (seconds since
        1970), `tables` (`schema.table` -> {"rows_copied": int, "changes_applied": int, "copy_done": bool}). Empty where
        the pipeline is unknown.
        """
        ...

    def query(self, sql: str) -> Answer:
        """Run one read-only statement at one exact commit; thread-safe, beside a running `apply`."""
        ...

    def detach(self) -> None:
        """Forget the position and call every copy interrupted again, in one transaction; not before `open`.

        Comes before the source's side is dropped for good. Whatever happens then, copies can be completed from another
        start; a position without a source that keeps the log after it could not be continued.
        """
        ...

    def forget(self) -> list[str]:
        """Remove the pipeline's rows from the bookkeeping, not the tables; say what was done. Idempotent."""
        ...

    def close(self) -> None:
        """Roll back what is open and end every connection; idempotent."""
        ...


def find_source(url: str) -> type[Any]:
    """Return the source class that an installed connector registered for the URL's scheme."""
    return _find("cdcrep.sources", url)


def find_sink(url: str) -> type[Any]:
    """Return the sink class that an installed connector registered for the URL's scheme."""
    return _find("cdcrep.sinks", url)


def _find(group: str, url: str) -> type[Any]:
    scheme = url.partition(":")[0].lower()
    known = {entry.name: entry for entry in entry_points(group=group)}
    role = group.removeprefix("cdcrep.").rstrip("s")
    if scheme not in known:
        raise ConfigError(
            f"no {role} for the URL scheme {scheme!r}", hint=f"known schemes: {', '.join(sorted(known)) or 'none'}"
        )
    try:
        found: type[Any] = known[scheme].load()
    except ImportError as error:
        if (error.name or "").startswith("cdcrep"):
            raise  # not a package to install, but a defect of ours
        raise ConfigError(
            f"the {role} for {scheme!r} needs a package that is not installed: {error.name}",
            hint=f"pip install '{_extra(known[scheme]) or error.name}'",
        ) from error
    return found


def _extra(connector: EntryPoint) -> str | None:
    """Return the extra that brings a connector's packages: of its distribution's, the one named like its folder."""
    extras = connector.dist.metadata.get_all("Provides-Extra") if connector.dist is not None else None
    named = [extra for extra in extras or () if extra in connector.module.split(".")]
    return f"{connector.dist.name}[{named[0]}]" if connector.dist is not None and named else None
