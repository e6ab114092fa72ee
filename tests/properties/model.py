"""A target that is a dictionary, and what `Net` and `NetRows` mean for it, taken literally."""

from __future__ import annotations

from collections import Counter
from typing import Any

from cdcrep.fold import Net, NetRows

Row = tuple[Any, ...]
Keyed = dict[Row, Row]


def apply_net(target: Keyed, net: Net) -> Keyed:
    """Return the target after a net effect, having checked all that `Net` claims about the target before it."""
    positions = net.table.key_positions
    before: Keyed = {} if net.truncated else target
    rows, deletes = rows_of(net.rows), rows_of(net.deletes)
    matches = rows_of(net.match) if net.match is not None else None
    keys = [tuple(row[i] for i in positions) for row in rows]
    assert len(set(keys)) == len(keys)
    assert len(set(deletes)) == len(deletes)
    assert not set(keys) & set(deletes)
    assert set(deletes) <= before.keys()
    written: Keyed = {}
    for i, (key, row) in enumerate(zip(keys, rows, strict=True)):
        assert bool(net.fresh[i]) == (key not in before)
        match = matches[i] if matches is not None else key
        if matches is not None and net.moved is not None:
            assert bool(net.moved[i]) == (match != key and None not in match)
            assert not net.moved[i] or match in deletes or match in keys
        unknown = {ordinal for ordinal, mask in net.unknown.items() if mask[i]}
        written[key] = tuple(before[match][j] if j in unknown else value for j, value in enumerate(row))
        assert all(row[j] is None for j in unknown)
    return {**{key: row for key, row in before.items() if key not in deletes}, **written}


def apply_rows(target: Counter[Row], net: NetRows) -> Counter[Row]:
    """Return the multiset after a net effect; what is removed must be there, and is not also added."""
    added, removed = Counter(rows_of(net.added)), rows_of(net.removed)
    assert len(set(removed)) == len(removed) == len(net.counts)
    assert not set(removed) & added.keys()
    after = Counter() if net.truncated else Counter(target)
    for row, count in zip(removed, net.counts, strict=True):
        assert 1 <= count <= after[row]
        after[row] -= int(count)
    return +(after + added)


def rows_of(table: Any) -> list[Row]:
    """Read an Arrow table as tuples."""
    columns = [column.to_pylist() for column in table.columns]
    return list(zip(*columns, strict=True))
