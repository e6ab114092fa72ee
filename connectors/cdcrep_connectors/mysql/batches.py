"""Makes batches of whole transactions out of events; leaves out what the target holds already. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np

from cdcrep.changes import Batch, Changes, merge
from cdcrep.columns import Positions, integers
from cdcrep.connector import Copied
from cdcrep.errors import DataError
from cdcrep.table import Table, TableId
from cdcrep_connectors.mysql import event_types
from cdcrep_connectors.mysql.binlog import Decoder
from cdcrep_connectors.mysql.continuity import check_file
from cdcrep_connectors.mysql.control_events import read_heartbeat, read_heartbeat_v2, read_rotate, read_xa_prepare
from cdcrep_connectors.mysql.dates import Tally
from cdcrep_connectors.mysql.event_types import EventType
from cdcrep_connectors.mysql.expansion import expand
from cdcrep_connectors.mysql.framing import Events, Framing
from cdcrep_connectors.mysql.held import Held
from cdcrep_connectors.mysql.open_transaction import LARGER_BATCHES, OpenTransaction, goes_back, names_savepoint
from cdcrep_connectors.mysql.packets import Packets
from cdcrep_connectors.mysql.position import Place, parse_position
from cdcrep_connectors.mysql.prepared import Prepared, PreparedTransactions, ends_prepared
from cdcrep_connectors.mysql.progress import advance, is_behind
from cdcrep_connectors.mysql.statements import StatementReader, find_statements, read_statement
from cdcrep_connectors.mysql.table_map import TableMap
from cdcrep_connectors.mysql.transactions import (
    Ending,
    Transactions,
    commit_times,
    find_endings,
    find_transactions,
)
from cdcrep_connectors.mysql.types import ImpossibleDates

_ROWS: Final = np.zeros(256, np.bool_)
_ROWS[[int(kind) for kind in event_types.ROWS]] = True


@dataclass(frozen=True)
class Bounds:
    """How large a batch may become."""

    rows: int
    """Nearly: how many rows an event has is known when it has been decoded."""
    size: int
    """Bytes as received."""
    held: int
    """Bytes of an unfinished transaction from which its rows are decoded and no longer kept as received."""


@dataclass(frozen=True)
class _Part:
    """Events of one file, and the offsets behind them."""

    events: Events
    after: Positions

    def slice(self, first: int, stop: int) -> _Part:
        return _Part(self.events.slice(first, stop), self.after[first:stop])

    @property
    def size(self) -> int:
        return int(self.events.end[-1] - self.events.start[0]) if len(self.events) else 0


class BatchAssembler:
    """Takes packets in order and returns the batches that are complete.

    `shape` makes the table of a TABLE_MAP, `present` that of a table as it is now, for TRUNCATE; `ways` names what else
    a statement may change the tables through. Dates that become NULL are counted in `tally`.
    """

    def __init__(
        self,
        shape: Callable[[TableMap], Table],
        present: Callable[[TableId], Table | None],
        framing: Framing,
        after: Place,
        copied: Mapping[TableId, Copied],
        bounds: Bounds,
        *,
        ways: Callable[[], Collection[TableId]] = tuple,
        dates: ImpossibleDates = ImpossibleDates.REFUSE,
        tally: Tally | None = None,
    ) -> None:
        self._place = after
        self._created_file, self._created = after.begin.file, after.created
        self._progress = after.begin
        self._after = after.reached
        self._replaying = after.begin != after.reached
        self._framing = framing
        self._bounds = bounds
        self._followed = frozenset(copied)
        self._shapes: dict[TableId, Table] = {}
        self._present = present
        self._statements = StatementReader(self._followed, ways)
        self._decoder = Decoder(lambda seen: self._shape(shape, seen), mariadb=after.mariadb, dates=dates)
        self._tally = tally or Tally()
        self._impossible_dates: Counter[tuple[TableId, str]] = Counter()
        self.consumed = 0
        """How many of the packets that were last taken need not be kept."""
        copies = {table: parse_position(copy.position).reached for table, copy in copied.items()}
        self._settled = {table: at for table, at in copies.items() if not after.reached.contains(at)}
        self._prepared = PreparedTransactions(bounds.size)
        self._open: OpenTransaction | None = None
        self._row_bytes = float("inf")
        self._skipped = 0

    @property
    def reached(self) -> Place:
        """Every transaction up to here was received whole and returned; later than the last batch when idle."""
        if self._replaying:
            return replace(self._place, created=self._created)
        return self._place.at(self._progress, self._prepared.begin(self._progress))

    @property
    def in_pieces(self) -> bool:
        """Tell whether the last piece of a transaction is still to come: until then no other batch may follow."""
        return self._open is not None and self._open.in_pieces

    def take(self, packets: Packets) -> Iterator[Batch]:
        """Yield the batches that the packets complete; `consumed` then tells how many packets need not be kept.

        Raises:
            DataError: the events are not what the format says, or a row cannot be carried.
            DivergedError: a followed table was changed in a way that is not carried out.
        """
        self.consumed = 0
        if not len(packets):
            return
        events = self._framing.verify(packets.buffer, packets.start, packets.end)
        plain, origin = expand(events)
        after = integers(events.buffer, "<u4")[events.start[origin] + 13].astype(np.int64)
        everything = _Part(plain, after)
        turns = np.flatnonzero(np.isin(plain.types, (EventType.ROTATE, EventType.FORMAT_DESCRIPTION))).tolist()
        first = 0
        for turn in [*turns, len(plain)]:
            taken = first + (yield from self._take_part(everything.slice(first, turn)))
            if taken < turn:
                if turn < len(plain):
                    raise DataError("a file of the source's binary log ends in the middle of a transaction")
                self.consumed = int(origin[taken])
                return
            if turn < len(plain):
                self._turn(plain, turn)
            first = turn + 1
        self.consumed = len(packets)

    def close(self) -> None:
        """Let go of what is held."""
        if self._open is not None:
            self._open.held.close()
        self._prepared.close()

    def _turn(self, events: Events, index: int) -> None:
        """Go on in another file."""
        if self._open is not None:
            raise DataError("a file of the source's binary log ends in the middle of a transaction")
        self._decoder.forget()
        if events.types[index] == EventType.ROTATE:
            rotate = read_rotate(events.content(index))
            moved = rotate.file != self._progress.file
            self._progress = replace(self._progress, file=rotate.file, offset=rotate.position)
            if moved:
                self._note_created(0)
            return
        created = int(integers(events.buffer, "<u4")[events.start[index]])
        if self._progress.file == self._created_file:
            check_file(self._place, created)
        self._created_file = self._progress.file
        self._note_created(created)

    def _note_created(self, created: int) -> None:
        """Note when the file that is read was begun, if reading would begin in it again; 0: not known yet."""
        if self._prepared.begin(self._progress).file == self._progress.file:
            self._place = replace(self._place, created=created)

    def _take_part(self, part: _Part) -> Generator[Batch, None, int]:
        """Take events of one file; return how many need not be kept."""
        at = 0
        if self._open is not None:
            ends = np.flatnonzero(find_endings(part.events))
            at = int(ends[0]) + 1 if len(ends) else len(part.events)
            yield from self._go_on(self._open, part.slice(0, at), finished=len(ends) > 0)
            if self._open is not None:
                return at
        waiting = part.slice(at, len(part.events))
        found = find_transactions(waiting.events, mariadb=self._place.mariadb)
        yield from self._finished(waiting, found)
        rest = waiting.slice(found.rest, len(waiting.events))
        if rest.size >= self._bounds.held:
            self._open = self._begin(rest)
            yield from self._go_on(self._open, rest, finished=False)
            return len(part.events)
        if not len(rest.events):
            self._note_rest(waiting.slice(int(found.last[-1]) + 1 if len(found) else 0, len(waiting.events)))
        return at + found.rest

    def _note_rest(self, part: _Part) -> None:
        """Move over events outside of transactions, and as far as heartbeats say."""
        events = part.events
        is_beat = np.isin(events.types, (EventType.HEARTBEAT, EventType.HEARTBEAT_V2))
        beats = np.flatnonzero(is_beat)
        if not is_beat.all():
            offset = int(part.after[~is_beat].max())
            self._progress = replace(self._progress, offset=max(offset, self._progress.offset))
        if not len(beats):
            return
        index = int(beats[-1])
        next_position = int(integers(events.buffer, "<u4")[events.start[index] + 13])
        content = events.content(index)
        plain = events.types[index] == EventType.HEARTBEAT
        beat = read_heartbeat(content, next_position) if plain else read_heartbeat_v2(content)
        if beat.file == self._progress.file and beat.position > self._progress.offset:
            self._progress = replace(self._progress, offset=beat.position)

    def _finished(self, part: _Part, found: Transactions) -> Iterator[Batch]:
        """Return the batches of finished transactions, as few as the bounds allow."""
        if not len(found):
            return
        statements = find_statements(part.events)
        alone = (found.endings == Ending.PREPARED) | (found.endings == Ending.ROLLBACK)
        alone[np.searchsorted(found.last, statements[statements <= found.last[-1]])] = True
        rows = np.concatenate([[0], np.cumsum(self._estimated_rows(part.events))])
        rows_before, rows_after = rows[found.first], rows[found.last + 1]
        starts, ends = part.events.start[found.first], part.events.end[found.last]
        at = 0
        while at < len(found):
            fits = (rows_after - rows_before[at] <= self._bounds.rows) & (ends - starts[at] <= self._bounds.size)
            until = at + int(np.argmax(np.append((~fits | alone)[at:], True)))
            if until <= at or self._settled or self._replaying:
                yield from self._alone(part, found, at)
                at += 1
            else:
                yield from self._together(part, found, at, until)
                at = until

    def _together(self, part: _Part, found: Transactions, at: int, until: int) -> Iterator[Batch]:
        """Return one batch of several transactions; none where they changed nothing of ours."""
        some = part.slice(int(found.first[at]), int(found.last[until - 1]) + 1)
        batch = self._decode(some, frozenset(), self._impossible_dates)
        self._count()
        self._progress = advance(self._progress, some.events, found.first[at:until] - found.first[at], some.after[-1])
        if batch.changes:
            time = float(commit_times(part.events, found)[until - 1])
            yield self._positioned(replace(batch, transactions=until - at, commit_time=time))

    def _alone(self, part: _Part, found: Transactions, at: int) -> Iterator[Batch]:
        """Return one transaction that is large, ends or begins a prepared one, or holds statements."""
        some = part.slice(int(found.first[at]), int(found.last[at]) + 1)
        self._open = self._begin(some)
        yield from self._go_on(self._open, some, finished=True, ending=Ending(int(found.endings[at])))

    def _begin(self, part: _Part) -> OpenTransaction:
        """Note a transaction whose first event is the part's first."""
        naming = part.events.one(0)
        skipped = self._replaying and is_behind(self._after, self._progress, naming)
        queries = np.flatnonzero(part.events.types[:3] == EventType.QUERY).tolist()
        prepares = any(read_statement(part.events, i)[1][:8].upper() == "XA START" for i in queries)
        prepares |= bool((part.events.types == EventType.XA_PREPARE).any())
        held = self._prepared.hold() if prepares else Held()
        return OpenTransaction(self._progress, naming, held, skipped, prepares)

    def _go_on(
        self, open_: OpenTransaction, part: _Part, *, finished: bool, ending: Ending | None = None
    ) -> Iterator[Batch]:
        """Take a part of one transaction, in pieces where it is large."""
        if finished and ending is None:
            ending = Ending(int(find_endings(part.events)[-1]))
        for some in self._split(part):
            contents = self._contents(open_, some, ending)
            if open_.prepares:
                for batch in contents:
                    open_.held.append(batch)
            else:
                yield from self._pieces(open_, contents)
        if finished:
            assert ending is not None
            yield from self._end(open_, part, ending)

    def _pieces(self, open_: OpenTransaction, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Hold what a transaction did, and return it in pieces where it is large."""
        for batch in batches:
            rows, size = open_.held.rows + batch.rows, open_.held.size + batch.size
            if len(open_.held) and (rows > self._bounds.rows or size > self._bounds.size):
                piece = merge(list(open_.held.drain()))
                open_.take_pieces()
                if piece.changes:
                    yield piece
            open_.held.append(batch)

    def _contents(self, open_: OpenTransaction, part: _Part, ending: Ending | None) -> Iterator[Batch]:
        """Return what a part of a transaction did, in order."""
        settled = self._settled_tables(open_)
        without = frozenset() if open_.prepares else settled
        taken = not open_.skipped or open_.prepares
        statements = [(index, *read_statement(part.events, index)) for index in find_statements(part.events).tolist()]
        # Rows between savepoints are few: only those that something is undone of are decoded by themselves.
        undone = ending is not Ending.ROLLBACK and any(goes_back(text) for _, _, text in statements)
        first = 0
        for index, query, text in statements:
            if ends_prepared(text):
                yield from self._finish_prepared(open_, text, settled)
            elif text[:3].upper() == "XA " or not taken:
                continue
            elif names_savepoint(text):
                if undone:
                    yield self._decode(part.slice(first, index), without, open_.impossible_dates)
                    first = index + 1
                if ending is not Ending.ROLLBACK:
                    open_.take_savepoint(text, is_held=undone)
            elif (table := self._statements.truncated_table(query, text, settled)) is not None:
                yield self._decode(part.slice(first, index), without, open_.impossible_dates)
                yield Batch(None, (Changes.truncate(self._truncated_shape(table)),))
                first = index + 1
        if taken:
            yield self._decode(part.slice(first, len(part.events)), without, open_.impossible_dates)

    def _finish_prepared(self, open_: OpenTransaction, statement: str, settled: frozenset[TableId]) -> Iterator[Batch]:
        """Return what a prepared transaction did that is committed now; nothing of one that is rolled back."""
        prepared = self._prepared.finish(statement)
        if prepared is None or open_.skipped:
            return
        open_.impossible_dates.update(prepared.impossible_dates)
        yield from (_without(batch, settled) for batch in prepared.held.drain())

    def _end(self, open_: OpenTransaction, part: _Part, ending: Ending) -> Iterator[Batch]:
        """Return the last piece of a transaction, or what it did altogether."""
        if ending is Ending.ROLLBACK:
            if open_.in_pieces:
                raise DataError("the source rolled a large transaction back that is in its log", hint=LARGER_BATCHES)
            open_.held.close()
            open_.impossible_dates.clear()
        elif ending is Ending.PREPARED:
            yield from self._end_prepared(open_, part)
        self._open = None
        if self._replaying and not open_.skipped:
            # After a failover the log may have in front what the other server had behind.
            self._after = advance(self._after, open_.naming, np.zeros(1, np.int64), self._after.offset)
            self._place = self._place.at(self._after, self._place.begin)
        self._progress = advance(self._progress, open_.naming, np.zeros(1, np.int64), part.after[-1])
        self._note_arrival()
        if open_.skipped:
            self._skipped += 1
            open_.held.close()
            return
        self._impossible_dates.update(open_.impossible_dates)
        self._count()
        time = float(integers(part.events.buffer, "<u4")[part.events.start[-1]])
        held = list(open_.held.drain())
        final = replace(merge(held), commit_time=time) if held else Batch(None, commit_time=time)
        if final.changes or open_.in_pieces:
            yield self._positioned(replace(final, transactions=1))

    def _end_prepared(self, open_: OpenTransaction, part: _Part) -> Iterator[Batch]:
        """Keep a transaction that waits for its XA COMMIT; return most of one that was committed at once."""
        prepare = read_xa_prepare(part.events.content(len(part.events) - 1))
        held, open_.held = open_.held, Held()
        if not prepare.one_phase:
            # The transaction is behind, but reading begins before it as long as it is open.
            self._prepared.add(prepare.xid, Prepared(open_.before, held, open_.impossible_dates))
            open_.impossible_dates = Counter()
        elif open_.skipped:
            held.close()
        else:
            settled = self._settled_tables(open_)
            yield from self._pieces(open_, (_without(batch, settled) for batch in held.drain()))

    def _note_arrival(self) -> None:
        """Find out what is no longer ahead: the end of a replay, copies that the stream has reached."""
        if self._replaying and self._progress.contains(self._after):
            self._replaying = False
        if self._settled:
            self._settled = {table: at for table, at in self._settled.items() if not self._progress.contains(at)}

    def _count(self) -> None:
        """Take the dates that became NULL into the position and the tally."""
        if self._impossible_dates:
            self._tally.add(self._impossible_dates)
            self._place = replace(self._place, nulled=self._place.nulled + self._impossible_dates.total())
            self._impossible_dates = Counter()

    def _settled_tables(self, open_: OpenTransaction) -> frozenset[TableId]:
        """Return the tables whose copies show this transaction."""
        return frozenset(t for t, at in self._settled.items() if is_behind(at, open_.before, open_.naming))

    def _decode(self, part: _Part, without: frozenset[TableId], counts: Counter[tuple[TableId, str]]) -> Batch:
        if not len(part.events):
            return Batch(None)
        decoded = self._decoder.decode(part.events, without)
        changes = decoded.changes
        counts.update(decoded.impossible_dates)
        if count := sum(map(len, changes)):
            rows = _ROWS[part.events.types]
            size = int((part.events.end - part.events.start)[rows].sum())
            # Events of other tables count as well: then rows seem larger and batches stay within the bytes' bound.
            self._row_bytes = min(self._row_bytes, max(size / count, 1.0))
        return Batch(None, changes, size=part.size)

    def _positioned(self, batch: Batch) -> Batch:
        skipped, self._skipped = self._skipped, 0
        return replace(batch, position=self.reached.position(), skipped=skipped)

    def _estimated_rows(self, events: Events) -> Positions:
        sizes = (events.end - events.start) * _ROWS[events.types]
        least = np.minimum(sizes, 1)
        estimated: Positions = np.maximum(least, (sizes / self._row_bytes).astype(np.int64))
        return estimated

    def _split(self, part: _Part) -> Iterator[_Part]:
        """Cut events so that each part is within the bounds, or is one event."""
        rows = np.cumsum(self._estimated_rows(part.events)) - 1
        size = part.events.end - part.events.start[0]
        bucket = np.maximum(rows, 0) // self._bounds.rows + size // self._bounds.size
        edges = [0, *(np.flatnonzero(np.diff(bucket)) + 1).tolist(), len(bucket)]
        for first, stop in pairwise(edges):
            yield part.slice(first, stop)

    def _shape(self, shape: Callable[[TableMap], Table], seen: TableMap) -> Table | None:
        id_ = TableId(seen.schema, seen.name)
        if id_ not in self._followed:
            return None
        self._shapes[id_] = shape(seen)
        return self._shapes[id_]

    def _truncated_shape(self, id_: TableId) -> Table:
        """Return the shape that a table had last, or has now."""
        table = self._shapes.get(id_) or self._present(id_)
        if table is None:
            raise DataError(f"{id_}: the table that was emptied does not exist any more")
        return table


def _without(batch: Batch, tables: frozenset[TableId]) -> Batch:
    """Leave tables out."""
    if not tables:
        return batch
    return replace(batch, changes=tuple(changes for changes in batch.changes if changes.table.id not in tables))
