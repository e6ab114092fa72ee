"""Whatever happened to a table, in whatever batches it comes, the folded changes leave the source's rows behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdcrep.changes import Batch
from cdcrep.fold import fold, fold_rows
from cdcrep.testing.memory_tables import ordered
from tests.properties.fold_history import (
    KEYED,
    KEYLESS,
    History,
    cut,
    run,
    small,
    transactions,
    with_every_old_key,
    with_typed_keys,
)
from tests.properties.model import Keyed, apply_net, apply_rows

pytestmark = pytest.mark.unmeasured

Script = Sequence[Sequence[tuple[str, int, int, int]]]
starts = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2)), max_size=6)
cuts = st.lists(st.booleans(), max_size=8)


@settings(max_examples=300)
@given(starts, transactions, cuts)
def test_folding_a_table_with_a_key_gives_the_rows_of_the_source(
    start: Sequence[tuple[int, int]], script: Script, where: Sequence[bool]
) -> None:
    history = run(KEYED, start, script)

    target = keyed(history)
    for batch in cut(history, where):
        for changes in batch.changes:
            target = apply_net(target, fold(changes))

    assert ordered(target.values()) == history.after


@settings(max_examples=40)
@given(starts, transactions, cuts)
def test_an_old_key_that_is_sent_without_a_move_changes_nothing(
    start: Sequence[tuple[int, int]], script: Script, where: Sequence[bool]
) -> None:
    history = run(KEYED, start, script)

    target = keyed(history)
    for batch in cut(history, where):
        for changes in batch.changes:
            target = apply_net(target, fold(with_every_old_key(changes)))

    assert ordered(target.values()) == history.after


@settings(max_examples=40)
@given(starts, transactions, cuts)
def test_typed_keys_fold_like_text(start: Sequence[tuple[int, int]], script: Script, where: Sequence[bool]) -> None:
    history = run(KEYED, start, script)

    target = {tuple(int(key or 0) for key in keys): row for keys, row in keyed(history).items()}
    for batch in cut(history, where):
        for changes in batch.changes:
            target = apply_net(target, fold(with_typed_keys(changes)))

    assert ordered([(str(a), kept, str(b), *rest) for a, kept, b, *rest in target.values()]) == history.after


@settings(max_examples=60)
@given(st.lists(st.tuples(small, small), max_size=4), transactions, cuts)
def test_folding_a_table_without_a_key_gives_the_copies_of_the_source(
    start: Sequence[tuple[int, int]], script: Script, where: Sequence[bool]
) -> None:
    history = run(KEYLESS, start, script)

    target = Counter(history.before)
    for batch in cut(history, where):
        for changes in batch.changes:
            target = apply_rows(target, fold_rows(changes))

    assert ordered(target.elements()) == history.after


@settings(max_examples=60)
@given(starts, transactions, st.lists(cuts, min_size=2, max_size=3))
def test_merging_merged_batches_is_merging_them_at_once(
    start: Sequence[tuple[int, int]], script: Script, where: Sequence[Sequence[bool]]
) -> None:
    history = run(KEYED, start, script)

    results = [final(history, cut(history, cuts_of_one)) for cuts_of_one in where]

    assert all(result == results[0] for result in results)


def keyed(history: History) -> Keyed:
    return {tuple(row[i] for i in history.table.key_positions): row for row in history.before}


def final(history: History, batches: Sequence[Batch]) -> Keyed:
    target = keyed(history)
    for batch in batches:
        for changes in batch.changes:
            target = apply_net(target, fold(changes))
    return target
