"""The net effect of a batch's changes: last image per key, column by column, or net counts per distinct row.

Folding is a correctness rule first: PostgreSQL refuses the same key twice in one upsert, DuckDB silently keeps the
first. It is also what makes hot rows cheap. Everything here works on integer codes of keys; there is no Python per row.

How keyed changes fold. Every change *touches* one key, a change that moves a row's key touches two:

    change              touches
    INSERT w            w written
    UPDATE w            w written
    UPDATE o -> w       o vacated, then w written
    DELETE o            o vacated

A key whose last touch wrote it is a row of the result, with the image of that change; a key whose last touch vacated
it is deleted. A cell that a change left unchanged takes its value from the change that wrote the same row before
(its *parent*), found by following the keys backwards, also through moves; where no change of the batch knows the
value, the cell is `unknown` and the row must be found in the target under the key it had before the batch (`match`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cdcrep.changes import DELETE, INSERT, UPDATE, Changes, Mask
from cdcrep.errors import DataError
from cdcrep.table import Table

Codes = NDArray[np.int64]


@dataclass(frozen=True)
class Net:
    """What a run of changes did to a table with a key: apply as empty, look up unknown cells, delete, write rows.

    No key stands twice in `rows`, none stands in both `rows` and `deletes`.
    """

    table: Table
    truncated: bool
    deletes: pa.Table
    """Key columns of the rows that are gone."""
    rows: pa.Table
    """m final images, all columns; null in unknown cells."""
    fresh: Mask
    """(m,) rows whose key was not in use before these changes."""
    unknown: Mapping[int, Mask] = field(default_factory=dict)
    """Column ordinal -> (m,) cells that keep the value which the target holds under `match`."""
    match: pa.Table | None = None
    """Key columns of m rows: the key before these changes; None: no row has moved from another key.
    Null in rows that came into being in these changes."""
    moved: Mask | None = None
    """(m,) rows whose `match` is another key than their own. Those other keys stand in `deletes`, or in `rows` where
    another row has taken them."""


@dataclass(frozen=True)
class NetRows:
    """What a run of changes did to a table without a key, a multiset of rows."""

    table: Table
    truncated: bool
    added: pa.Table
    """Rows to insert, repeated as often as they are to be inserted."""
    removed: pa.Table
    """Distinct rows to remove ..."""
    counts: Codes
    """... and how many copies of each: (len(removed),), at least 1."""


def fold(changes: Changes) -> Net:
    """Fold the changes of a table with a key."""
    table, operations = changes.table, changes.operations
    new = changes.new.combine_chunks()
    if not changes.unchanged and bool((operations == INSERT).all()):
        return Net(table, changes.truncated, _keys(table, new).slice(0, 0), new, np.ones(len(changes), np.bool_))
    written, vacated, keys = _key_codes(changes, new)
    touched, row, writes, first_use = _touches(operations, written, vacated)
    last = np.full(len(keys), -1, np.int64)
    last[touched] = np.arange(len(touched))
    first = np.full(len(keys), -1, np.int64)
    first[touched[::-1]] = np.arange(len(touched))[::-1]
    alive = last >= 0
    alive[alive] = writes[last[alive]]
    was_there = (first >= 0) & ~first_use[np.maximum(first, 0)]
    gone = (last >= 0) & ~alive & was_there
    final = np.sort(row[last[alive]])
    fresh = ~was_there[written[final]]
    rows = new if len(final) == len(new) else new.take(pa.array(final))
    net = Net(table, changes.truncated, keys.take(pa.array(np.flatnonzero(gone))), rows, fresh)
    moved_any = bool(((written != vacated) & (operations == UPDATE)).any())
    if not changes.unchanged and not moved_any:
        return net
    return _resolve(net, changes, new, keys, (written, vacated), (touched, row, writes), final)


def _touches(operations: NDArray[np.uint8], written: Codes, vacated: Codes) -> tuple[Codes, Codes, Mask, Mask]:
    """List the touches in order: key code, row of the change, whether it writes, whether it presumes the key unused."""
    n = len(operations)
    moves = (operations == UPDATE) & (written != vacated)
    single = np.where(operations == DELETE, vacated, written)
    if not moves.any():
        return single, np.arange(n), operations != DELETE, operations == INSERT
    slot = np.arange(n) + np.cumsum(moves)  # where the change's last touch goes; a move has one more before it
    total = n + int(moves.sum())
    touched, row = np.empty(total, np.int64), np.empty(total, np.int64)
    writes, first_use = np.zeros(total, np.bool_), np.zeros(total, np.bool_)
    touched[slot], row[slot] = single, np.arange(n)
    writes[slot], first_use[slot] = operations != DELETE, (operations == INSERT) | moves
    touched[slot[moves] - 1], row[slot[moves] - 1] = vacated[moves], np.flatnonzero(moves)
    return touched, row, writes, first_use


def _resolve(
    net: Net,
    changes: Changes,
    new: pa.Table,
    keys: pa.Table,
    codes: tuple[Codes, Codes],
    touches: tuple[Codes, Codes, Mask],
    final: Codes,
) -> Net:
    """Fill unchanged cells from earlier changes of the row; say which stay unknown and where the row was before."""
    written, vacated = codes
    parent = _parents(changes.operations, vacated, *touches)
    root = _roots(parent)[final]
    came_to_be = changes.operations[root] == INSERT
    before = np.where(came_to_be, -1, vacated[root])
    columns, unknown = list(net.rows.columns), {}
    for ordinal, unchanged in changes.unchanged.items():
        source = _last_known(unchanged, parent)[final]
        still = unchanged[source]
        if (still & came_to_be).any():
            raise DataError(
                f"{changes.table.id}: column {changes.table.columns[ordinal].name!r}: an inserted row lacks a value"
            )
        columns[ordinal] = new.column(ordinal).take(pa.array(source))
        if still.any():
            unknown[ordinal] = still
    moved = (before >= 0) & (before != written[final])
    match = keys.take(pa.array(before, mask=before < 0)) if moved.any() else None
    rows = pa.table(columns, schema=net.rows.schema)
    return Net(
        net.table, net.truncated, net.deletes, rows, net.fresh, unknown, match, moved if match is not None else None
    )


def _parents(operations: NDArray[np.uint8], vacated: Codes, touched: Codes, row: Codes, writes: Mask) -> Codes:
    """Find, for each UPDATE, the change that wrote its row before it within the batch; -1: none did."""
    parent = np.full(len(operations), -1, np.int64)
    order = np.argsort(touched, kind="stable")
    before, after = order[:-1], order[1:]
    # A touch uses the row under its key if it vacates it or is an UPDATE in place.
    uses = (operations[row[after]] == UPDATE) & (vacated[row[after]] == touched[after])
    found = uses & (touched[before] == touched[after]) & writes[before]
    parent[row[after[found]]] = row[before[found]]
    return parent


def _roots(parent: Codes) -> Codes:
    """Follow parents to the first change of the row in the batch, doubling the stride each time."""
    here = np.where(parent < 0, np.arange(len(parent)), parent)
    while True:
        further = here[here]
        if np.array_equal(further, here):
            return here
        here = further


def _last_known(unchanged: Mask, parent: Codes) -> Codes:
    """Follow parents from unchanged cells to a change that carries the value, or else to the row's first change."""
    here = np.where(unchanged & (parent >= 0), parent, np.arange(len(parent)))
    while True:
        further = here[here]
        if np.array_equal(further, here):
            return here
        here = further


def fold_rows(changes: Changes) -> NetRows:
    """Fold the changes of a table without a key; every UPDATE and DELETE must carry the whole old row."""
    table, new = changes.table, changes.new.combine_chunks()
    none = np.empty(0, np.int64)
    if bool((changes.operations == INSERT).all()):
        added = new if table.columns else _take(new, np.arange(len(changes)))
        return NetRows(table, changes.truncated, added, new.slice(0, 0), none)
    if (
        changes.old is None
        or changes.old_present is None
        or not changes.old_present[changes.operations != INSERT].all()
    ):
        raise DataError(f"{table.id}: a change of a table without a key lacks the old row")
    plus = np.flatnonzero(changes.operations != DELETE)
    minus = np.flatnonzero(changes.operations != INSERT)
    images = pa.concat_tables(
        [new.take(pa.array(plus)), changes.old.combine_chunks().take(pa.array(minus))], promote_options="permissive"
    ).combine_chunks()
    codes, distinct = encode(images, len(plus) + len(minus))
    sign = np.concatenate([np.ones(len(plus), np.int64), np.full(len(minus), -1, np.int64)])
    balance = np.zeros(distinct, np.int64)
    np.add.at(balance, codes, sign)
    example = np.empty(distinct, np.int64)
    example[codes] = np.arange(len(codes))
    more, fewer = np.flatnonzero(balance > 0), np.flatnonzero(balance < 0)
    return NetRows(
        table,
        changes.truncated,
        _take(images, np.repeat(example[more], balance[more])),
        _take(images, example[fewer]),
        -balance[fewer],
    )


def _take(rows: pa.Table, indices: Codes) -> pa.Table:
    """Take rows; where there are no columns, Arrow would forget how many."""
    if rows.column_names:
        return rows.take(pa.array(indices))
    return pa.table({"": pa.nulls(len(indices))}).select([])


def encode(rows: pa.Table, length: int) -> tuple[Codes, int]:
    """Number the distinct rows of a table: (length,) int64 codes from 0, and how many there are. Nulls are equal."""
    codes, distinct = np.zeros(length, np.int64), 1 if length else 0
    for column in rows.columns:
        chunk = column.combine_chunks()
        encoded = pc.dictionary_encode(chunk, null_encoding="encode")
        size = len(encoded.dictionary)
        codes = codes * size + encoded.indices.to_numpy(zero_copy_only=False)
        distinct *= size
        if distinct > max(4 * length, 1024):
            codes, distinct = _compact(codes)
    return (codes, distinct) if distinct <= 1 else _compact(codes)


def _compact(codes: Codes) -> tuple[Codes, int]:
    encoded = pc.dictionary_encode(pa.array(codes))
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), len(encoded.dictionary)


def _key_codes(changes: Changes, new: pa.Table) -> tuple[Codes, Codes, pa.Table]:
    """Number the keys before and after each change; -1 where there is none; the last value lists the keys by number."""
    table, n, operations = changes.table, len(changes), changes.operations
    after = _keys(table, new)
    with_new = operations != DELETE
    if changes.old is None or changes.old_present is None:
        if not with_new.all():
            raise DataError(f"{table.id}: a DELETE lacks the key of the row")
        codes, distinct = encode(after, n)
        return codes, np.where(operations == INSERT, -1, codes), _examples(after, codes, distinct)
    has_old = changes.old_present
    if not (has_old | with_new).all():
        raise DataError(f"{table.id}: a DELETE lacks the key of the row")
    both = pa.concat_tables(
        [after.filter(pa.array(with_new)), changes.old.combine_chunks().filter(pa.array(has_old))],
        promote_options="permissive",
    ).combine_chunks()
    news = int(with_new.sum())
    codes, distinct = encode(both, len(both))
    written, vacated = np.full(n, -1, np.int64), np.full(n, -1, np.int64)
    written[with_new] = codes[:news]
    in_place = (operations == UPDATE) & ~has_old
    vacated[in_place] = written[in_place]
    vacated[has_old] = codes[news:]
    return written, vacated, _examples(both, codes, distinct)


def _examples(rows: pa.Table, codes: Codes, distinct: int) -> pa.Table:
    example = np.empty(distinct, np.int64)
    example[codes] = np.arange(len(codes))
    return rows.take(pa.array(example))


def _keys(table: Table, rows: pa.Table) -> pa.Table:
    return rows.select(list(table.key_positions))
