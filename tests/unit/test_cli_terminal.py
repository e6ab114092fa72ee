"""What a person sees on a terminal while a pipeline runs."""

from __future__ import annotations

import io

import pytest
from rich.console import Console, Group

from cdcrep.errors import TransientError
from cdcrep.position import Position
from cdcrep.progress import CopyFigures
from cdcrep.table import TableId
from cdcrep.terminal import MOST_TABLE_BARS, TerminalProgress

ORDERS, EVENTS = TableId("public", "orders"), TableId("public", "[red]events")


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)


def seen(console: Console, progress: TerminalProgress) -> str:
    """Return what was printed so far, and then the living part as it is now."""
    console.print(Group(progress._render()))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_copy_shows_rows_bytes_and_time_left_of_every_table(console: Console) -> None:
    progress = TerminalProgress("shop", console)

    progress.state("snapshotting")
    progress.copy_started({ORDERS: (1000, 0), EVENTS: (1000, 0)})
    progress.copy_progress(ORDERS, 500, 12_000)

    text = seen(console, progress)
    for words in ("2 tables", "public.orders", "public.[red]events", "25%", "50%", "500 rows", "12.0 kB", "left"):
        assert words in text


def test_many_tables_share_one_bar(console: Console) -> None:
    progress = TerminalProgress("shop", console)

    progress.state("snapshotting")
    progress.copy_started({TableId("public", f"t{i}"): (10, 0) for i in range(MOST_TABLE_BARS + 1)})
    progress.copy_progress(TableId("public", "t0"), 9, 100)

    text = seen(console, progress)
    assert "10%" in text
    assert "public.t0" not in text


def test_a_copy_of_unknown_size_still_counts(console: Console) -> None:
    progress = TerminalProgress("shop", console)

    progress.state("snapshotting")
    progress.copy_started({ORDERS: (0, 0)})
    progress.copy_progress(ORDERS, 500, 12_000)

    assert "500 rows" in seen(console, progress)


def test_a_finished_copy_is_one_line(console: Console) -> None:
    progress = TerminalProgress("shop", console)

    progress.copy_started({ORDERS: (1000, 0)})
    progress.copy_progress(ORDERS, 1000, 12_000)
    progress.copy_finished()

    assert "shop: copied 1,000 rows, 12.0 kB, of 1 tables" in seen(console, progress)


def test_the_living_line_counts_changes(console: Console) -> None:
    progress = TerminalProgress("shop", console)

    progress.state("streaming")
    progress.applied(1500, 3, Position("a"), 1.0, 0.1)
    progress.applied(0, 0, Position("b"), None, 0.0)

    text = seen(console, progress)
    assert "shop streaming" in text
    assert "3 transactions  1,500 changes" in text
    assert "0.00 s behind" in text


def test_a_failure_is_printed_and_its_next_attempt_announced(console: Console) -> None:
    progress = TerminalProgress("shop", console)

    progress.state("retrying")
    progress.retry(TransientError("lost postgresql://cdc:canary-terminal@db/shop"), 2, 1.5)

    text = seen(console, progress)
    assert "shop: lost postgresql://cdc:***@db/shop" in text
    assert "attempt 2, again in 1.5 s" in text


def test_a_narrow_terminal_gets_one_line_all_the_same() -> None:
    narrow = Console(file=io.StringIO(), force_terminal=True, width=30, color_system=None)
    progress = TerminalProgress("shop", narrow)
    progress.state("streaming")
    progress.applied(1_000_000, 1_000_000, Position("a"), 1.0, 0.1)

    assert seen(narrow, progress).count("\n") == 1


def test_time_left_comes_from_the_pace_so_far() -> None:
    figures = CopyFigures({ORDERS: (100, 0)})
    assert (figures.fraction, figures.seconds_left) == (0.0, None)

    figures.add(200, 5)

    assert figures.fraction == 1.0
    assert figures.seconds_left == 0


def test_bytes_count_where_rows_are_not_known() -> None:
    assert CopyFigures({ORDERS: (0, 200)}, rows=7, bytes=50).fraction == 0.25
    assert CopyFigures({ORDERS: (0, 0)}, rows=7, bytes=50).fraction is None
