"""Every supported source into every supported target: the same rows after a copy, a stream and restarts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.integration.pairs import SOURCES, TARGETS, MySQLSide, Pair, opened
from tests.servers.database import RunningServer
from tests.servers.fix_mysql import StartMySQL
from tests.servers.mysql_binaries import RELEASES
from tests.servers.mysql_database import RunningMySQL

ORDERS: Final = ("id", "code", "amount", "note", "placed", "at", "paid", "ratio", "body")
LINES: Final = ("order_id", "line", "quantity")
EVENTS: Final = ("worker", "what")

CREATE: Final = (
    "CREATE SCHEMA {s}",
    "CREATE TABLE {s}.orders (id int PRIMARY KEY, code varchar(40) NOT NULL UNIQUE, amount numeric(14,2), note text, "
    "placed date, at timestamp(6), paid boolean, ratio double precision, body bytea)",
    "CREATE TABLE {s}.lines (order_id int, line int, quantity bigint, PRIMARY KEY (order_id, line))",
    "CREATE TABLE {s}.events (worker int, what text)",
)
IN_POSTGRES: Final = "ALTER TABLE {s}.events REPLICA IDENTITY FULL"
IN_MYSQL: Final = {
    "CREATE SCHEMA {s}": "CREATE SCHEMA {s} CHARACTER SET utf8mb4",
    "timestamp(6)": "datetime(6)",
    "bytea": "blob",
    "'\\x": "x'",
    "ctid = (SELECT min(ctid) FROM {s}.events WHERE worker = 1)": "worker = 1 LIMIT 1",
}
NOTES: Final = ("NULL", "''", "'it''s'", "'ž ☃ 😀 \"q\" '", "'two\nlines\ttab'", "repeat('long ', 2000)")


def orders(first: int, count: int) -> str:
    """Insert orders with as many values as columns, nulls among them."""

    def row(number: int) -> str:
        paid = ("NULL", "true", "false")[number % 3]
        return (
            f"({number}, 'code {number}', {number}.5{number % 10}, {NOTES[number % 6]}, "
            f"'2024-02-{number % 28 + 1:02}', '2024-01-01 23:59:59.{number % 1000:03}001', {paid}, "
            f"{number}.1e-{number % 9}, '\\x00{number:08}')"
        )

    return f"INSERT INTO {{s}}.orders ({', '.join(ORDERS)}) VALUES {', '.join(row(first + i) for i in range(count))}"


@pytest.fixture
def pair(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    postgres_server: Callable[[int], RunningServer],
    mysql_server: Callable[[str], RunningMySQL],
    own_mysql_server: StartMySQL,
) -> Iterator[Pair]:
    origin, destination = request.param

    def another(name: str) -> RunningMySQL:
        # One server cannot be both sides: the database has the same name on either.
        return RunningMySQL(RELEASES[name], own_mysql_server(name).url) if name == origin else mysql_server(name)

    with ExitStack() as stack:
        source = stack.enter_context(opened(origin, tmp_path, postgres_server, mysql_server))
        target = stack.enter_context(opened(destination, tmp_path, postgres_server, another))
        pair = Pair(source, target, tmp_path)
        stack.callback(source.drop, pair.schema)
        stack.callback(target.drop, pair.schema)
        yield pair


def write(pair: Pair, *statements: str) -> None:
    """Run statements, which are PostgreSQL's, in one transaction of the source."""
    changed = []
    for statement in statements:
        for ours, theirs in IN_MYSQL.items() if isinstance(pair.source, MySQLSide) else ():
            statement = statement.replace(ours, theirs)  # noqa: PLW2901 - one replacement after the other
        changed.append(statement)
    pair.write(*changed)


def count_equal(pair: Pair, of_orders: Sequence[str] = ORDERS) -> tuple[int, ...]:
    """Compare all tables; return how many rows they have."""
    tables = {"orders": of_orders, "lines": LINES, "events": EVENTS}
    return tuple(len(pair.assert_equal(table, columns)) for table, columns in tables.items())


@pytest.mark.parametrize(
    "pair", [(source, target) for source in SOURCES for target in TARGETS], indirect=True, ids="-to-".join
)
def test_a_target_equals_its_source(pair: Pair) -> None:
    write(pair, *CREATE, *([] if isinstance(pair.source, MySQLSide) else [IN_POSTGRES]))
    write(pair, orders(1, 300), "INSERT INTO {s}.events VALUES (1, 'same'), (1, 'same'), (1, 'same'), (2, NULL)")
    write(pair, "INSERT INTO {s}.lines SELECT id, 1, CAST(id AS decimal(20)) * 1000000000 FROM {s}.orders")
    pair.catch_up()
    copied = count_equal(pair)

    write(pair, orders(1000, 50), "INSERT INTO {s}.lines VALUES (1, 2, NULL), (1, 3, -9223372036854775808)")
    write(pair, "UPDATE {s}.orders SET amount = amount + 1, note = NULL WHERE id % 3 = 0")
    write(pair, "UPDATE {s}.orders SET paid = true", "UPDATE {s}.orders SET ratio = -0.1, body = '\\xff' WHERE id = 2")
    write(pair, "DELETE FROM {s}.orders WHERE id BETWEEN 20 AND 40", orders(25, 3))
    # Keys that move and swap places; unique values that change hands.
    write(pair, "UPDATE {s}.orders SET id = id + 5000 WHERE id < 10", "UPDATE {s}.orders SET id = 1 WHERE id = 5002")
    write(
        pair,
        "UPDATE {s}.orders SET id = -1 WHERE id = 50",
        "UPDATE {s}.orders SET id = 50 WHERE id = 51",
        "UPDATE {s}.orders SET id = 51 WHERE id = -1",
        "UPDATE {s}.orders SET code = 'x' WHERE id = 60",
        "UPDATE {s}.orders SET code = 'code 60' WHERE id = 61",
        "UPDATE {s}.orders SET code = 'code 61' WHERE id = 60",
    )
    write(pair, "DELETE FROM {s}.events WHERE worker = 2", "INSERT INTO {s}.events VALUES (3, 'same'), (3, 'same')")
    write(pair, "DELETE FROM {s}.events WHERE ctid = (SELECT min(ctid) FROM {s}.events WHERE worker = 1)")
    write(pair, "TRUNCATE TABLE {s}.lines")
    write(pair, "INSERT INTO {s}.lines VALUES (7, 7, 7), (8, 8, 8)", "UPDATE {s}.lines SET line = 9 WHERE line = 8")
    write(pair, "ALTER TABLE {s}.orders ADD COLUMN extra varchar(20)")
    write(pair, orders(2000, 5), "UPDATE {s}.orders SET extra = 'of an old row' WHERE id = 100 OR id = 2003")
    pair.catch_up()
    streamed = count_equal(pair, (*ORDERS, "extra"))

    pair.catch_up()
    write(pair, "UPDATE {s}.orders SET extra = NULL WHERE id = 100", "DELETE FROM {s}.orders WHERE id = 2001")
    pair.catch_up()
    restarted = count_equal(pair, (*ORDERS, "extra"))

    assert (copied, streamed, restarted) == ((300, 300, 4), (337, 2, 4), (336, 2, 4))
