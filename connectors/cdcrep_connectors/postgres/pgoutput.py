"""Decodes pgoutput, protocol version 1: messages in one buffer to the changes of each table. No I/O.

PostgreSQL manual, "Logical Replication Message Formats", servers 14 to 18:

    Begin    Byte1('B') Int64 final lsn, where the commit record begins   Int64 commit time   Int32 xid
    Commit   Byte1('C') Int8 flags   Int64 commit lsn   Int64 end lsn   Int64 commit time

Times are microseconds since 2000-01-01 UTC. The rows' messages stand in `tuples`, the rare ones in `relation`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cdcrep.changes import Changes
from cdcrep.columns import Bytes, Positions, integers
from cdcrep.errors import DataError
from cdcrep.table import Table, TableId
from cdcrep_connectors.postgres.relation import Relation, check_ignored, read_relation, read_truncate
from cdcrep_connectors.postgres.tuples import RowShape, decode_rows

UNIX_SECONDS_AT_2000: Final = 946_684_800

RARE, ROW, BEGIN, COMMIT, UNKNOWN = range(5)

_CLASS: Final = np.full(256, UNKNOWN, np.uint8)
_CLASS[[ord(kind) for kind in "RTYOM"]] = RARE
_CLASS[[ord(kind) for kind in "IUD"]] = ROW
_CLASS[ord("B")] = BEGIN
_CLASS[ord("C")] = COMMIT

Lsns = NDArray[np.uint64]


@dataclass(frozen=True)
class Messages:
    """n messages as slices of one buffer, with `columns.SLACK` bytes behind the last."""

    buffer: Bytes
    start: Positions
    end: Positions
    classes: NDArray[np.uint8]
    """(n,) RARE, ROW, BEGIN or COMMIT."""
    final_lsn: Lsns | None = None
    """(n,) of the transactions that the messages belong to; only needed for tables that are settled."""

    @staticmethod
    def classify(buffer: Bytes, start: Positions, end: Positions) -> Messages:
        """Look at the messages' first bytes.

        Raises:
            DataError: an empty message or one of unknown kind; they are never skipped.
        """
        if (start >= end).any():
            raise DataError("the source sent an empty message")
        kinds = buffer[start]
        classes = _CLASS[kinds]
        unknown = np.flatnonzero(classes == UNKNOWN)
        if len(unknown):
            raise DataError(f"the source sent a message of unknown kind 0x{int(kinds[unknown[0]]):02x}")
        return Messages(buffer, start, end, classes)

    def slice(self, first: int, after: int) -> Messages:
        """Return the messages from `first` to before `after`."""
        part = slice(first, after)
        lsn = None if self.final_lsn is None else self.final_lsn[part]
        return Messages(self.buffer, self.start[part], self.end[part], self.classes[part], lsn)


@dataclass(frozen=True)
class Boundaries:
    """Where transactions begin and end among messages, m begins and k commits, in turn."""

    begin: Positions
    """(m,) index of the Begin message."""
    final_lsn: Lsns
    """(m,) where the transaction's commit record begins: known before its end."""
    commit: Positions
    """(k,) index of the Commit message."""
    end_lsn: Lsns
    """(k,) where the commit record ends: the transaction's position."""
    commit_time: NDArray[np.float64]
    """(k,) seconds since 1970."""


def boundaries(messages: Messages, open_final_lsn: int | None) -> Boundaries:
    """Find the transactions; `open_final_lsn` is that of the one which the messages go on with, if they do.

    Raises:
        DataError: begins and commits do not alternate, contradict each other, or rows stand outside.
    """
    begin, commit = np.flatnonzero(messages.classes == BEGIN), np.flatnonzero(messages.classes == COMMIT)
    at_begin, at_commit = messages.start[begin], messages.start[commit]
    if (messages.end[begin] - at_begin != 21).any() or (messages.end[commit] - at_commit != 26).any():
        raise DataError("a Begin or Commit message of the source does not have its length")
    u8 = integers(messages.buffer, ">u8")
    final_lsn = u8[at_begin + 1].astype(np.uint64)
    commit_lsn = u8[at_commit + 2].astype(np.uint64)
    carried = [] if open_final_lsn is None else [open_final_lsn]
    opened = np.concatenate([np.array(carried, np.uint64), final_lsn])
    depth = len(carried) + np.cumsum((messages.classes == BEGIN).astype(np.int64) - (messages.classes == COMMIT))
    if len(depth) and (depth.min() < 0 or depth.max() > 1):
        raise DataError("the source began or committed a transaction out of turn")
    if (commit_lsn != opened[: len(commit_lsn)]).any():
        raise DataError("a Commit message of the source does not belong to its Begin message")
    changes = (messages.classes == ROW) | (messages.buffer[messages.start] == ord("T"))
    if (changes & (depth == 0)).any():
        raise DataError("the source sent a change outside a transaction")
    end_lsn = u8[at_commit + 10].astype(np.uint64)
    microseconds = u8[at_commit + 18].astype(np.int64)
    return Boundaries(begin, final_lsn, commit, end_lsn, microseconds / 1e6 + UNIX_SECONDS_AT_2000)


def read_xid(messages: Messages, begin: int) -> int:
    """Return the transaction's number that a Begin message gives."""
    return int(integers(messages.buffer, ">u4")[messages.start[begin] + 17])


@dataclass
class _Run:
    """Rows of one relation in one shape that become one `Changes`."""

    shape: RowShape
    at: int
    """Index of the first message, which orders the result."""
    truncated: bool = False
    rows: list[Positions] = field(default_factory=list)


class Decoder:
    """Decodes the messages of one connection, which names each relation before its first row.

    `shape` makes the table of a relation; it is called once after each Relation message, when the first row of that
    relation is decoded.
    """

    def __init__(self, shape: Callable[[Relation], Table]) -> None:
        self.truncations: dict[TableId, set[int]] = {}
        """Transactions (32-bit) that emptied a table, as far as decoded."""
        self.described = 0
        """Relation messages taken in."""
        self.open_xid = 0
        """The transaction that the messages to come go on with."""
        self._make_table = shape
        self._relations: dict[int, Relation] = {}
        self._shapes: dict[int, RowShape] = {}

    def learn(self, messages: Messages) -> None:
        """Take in the relations that messages name, and nothing else: for transactions that are skipped."""
        for _, event in self._events(messages):
            if isinstance(event, Relation):
                self._know(event)

    def decode(self, messages: Messages, settled: Mapping[TableId, int] | None = None) -> tuple[Changes, ...]:
        """Decode rows and truncations to one `Changes` per table and shape.

        `settled` tables leave out the transactions whose commit record begins before the given LSN; they need
        `messages.final_lsn`. What a TRUNCATE made moot is left out.

        Raises:
            DataError: the bytes are not what the protocol says, or a row cannot be carried.
        """
        events: dict[int, list[tuple[int, Relation | None]]] = {}
        for index, event in self._events(messages):
            for oid in (event.oid,) if isinstance(event, Relation) else event:
                events.setdefault(oid, []).append((index, event if isinstance(event, Relation) else None))
        rows = np.flatnonzero(messages.classes == ROW)
        oids = integers(messages.buffer, ">u4")[messages.start[rows] + 1]
        present = [int(oid) for oid in (oids[:1] if len(oids) and (oids == oids[0]).all() else np.unique(oids))]
        runs: list[_Run] = []
        for oid in dict.fromkeys([*present, *events]):
            mine = rows if len(present) == 1 and oid in present else rows[oids == oid]
            runs += self._runs(oid, messages, mine, events.get(oid, []), settled or {})
        runs.sort(key=lambda run: run.at)
        return tuple(self._changes(messages, run) for run in runs)

    def _events(self, messages: Messages) -> list[tuple[int, Relation | tuple[int, ...]]]:
        """Read the rare messages: relations, and oids of relations that were emptied."""
        found: list[tuple[int, Relation | tuple[int, ...]]] = []
        for index in np.flatnonzero(messages.classes == RARE).tolist():
            message = messages.buffer[messages.start[index] : messages.end[index]].tobytes()
            if message[:1] == b"R":
                found.append((index, read_relation(message)))
            elif message[:1] == b"T":
                found.append((index, read_truncate(message)))
            else:
                check_ignored(message)
        return found

    def _runs(
        self,
        oid: int,
        messages: Messages,
        rows: Positions,
        events: list[tuple[int, Relation | None]],
        settled: Mapping[TableId, int],
    ) -> list[_Run]:
        """Cut one relation's rows where its shape changes or where it was emptied."""
        runs: list[_Run] = []
        done = 0
        for index, relation in [*events, (len(messages.start), None)]:
            until = int(np.searchsorted(rows, index))
            part = self._not_settled(oid, messages, rows[done:until], settled)
            done = until
            if len(part):
                shape = self._shape(oid)
                if not runs or runs[-1].shape != shape:
                    runs.append(_Run(shape, int(part[0])))
                runs[-1].rows.append(part)
            if relation is not None:
                self._know(relation)
            elif index < len(messages.start) and len(self._not_settled(oid, messages, np.array([index]), settled)):
                runs = [_Run(self._shape(oid), index, truncated=True)]
                self.truncations.setdefault(runs[0].shape.table.id, set()).add(self._xid(messages, index))
        return runs

    def _xid(self, messages: Messages, index: int) -> int:
        """Return the number of the transaction that a message belongs to."""
        begin = np.flatnonzero(messages.classes[:index] == BEGIN)
        return read_xid(messages, int(begin[-1])) if len(begin) else self.open_xid

    def _not_settled(self, oid: int, messages: Messages, index: Positions, settled: Mapping[TableId, int]) -> Positions:
        """Leave out messages of transactions that the table's copy contains already."""
        if not settled or not len(index):
            return index
        # Not by its shape, whose types may be gone since.
        relation = self._relations.get(oid)
        lsn = settled.get(TableId(relation.schema, relation.name)) if relation else None
        if lsn is None:
            return index
        assert messages.final_lsn is not None
        return index[messages.final_lsn[index] >= lsn]

    def _know(self, relation: Relation) -> None:
        # Also when it says the same as before: the server repeats it because something in the catalogue has changed.
        self.described += 1
        self._relations[relation.oid] = relation
        self._shapes.pop(relation.oid, None)

    def _shape(self, oid: int) -> RowShape:
        if oid not in self._shapes:
            if oid not in self._relations:
                raise DataError(f"the source sent a change of the relation with oid {oid} before describing it")
            relation = self._relations[oid]
            self._shapes[oid] = RowShape(relation, self._make_table(relation))
        return self._shapes[oid]

    def _changes(self, messages: Messages, run: _Run) -> Changes:
        if not run.rows:
            return Changes.truncate(run.shape.table)
        index = run.rows[0] if len(run.rows) == 1 else np.concatenate(run.rows)
        return decode_rows(
            run.shape, messages.buffer, messages.start[index], messages.end[index], truncated=run.truncated
        )
