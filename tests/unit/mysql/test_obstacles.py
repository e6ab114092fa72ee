"""What a source finds in the way of the configured names; other obstacles need a server."""

from __future__ import annotations

from cdcrep.selection import Selection
from cdcrep.table import TableId
from cdcrep_connectors.mysql.obstacles import name_obstacles

TABLES = [TableId("shop", "orders"), TableId("shop", "Lines"), TableId("Old", "lines")]


def test_names_that_are_written_otherwise_in_the_log_are_refused() -> None:
    # Servers of Linux never have 2, those of macOS do.
    found = list(name_obstacles(Selection(("*",)), TABLES, "2"))

    assert [(obstacle.what.split()[0], obstacle.fatal) for obstacle in found] == [
        ("shop.Lines", True),
        ("Old.lines", True),
    ]


def test_names_of_a_server_that_tells_cases_apart_are_left_alone() -> None:
    selection = Selection(("shop.Lines", "Old.*"), ("Other.*",))

    assert list(name_obstacles(selection, TABLES, "0")) == []
