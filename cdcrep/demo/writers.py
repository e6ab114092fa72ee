"""Writers that keep changing the shop, with counters by which nothing lost or doubled can hide.

Every transaction of a writer adds the next number of its sequence to `events`, a table without a key, and one to its
row of `counters`. Applied twice, a transaction stands in `events` twice; lost, it leaves a gap.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator
from typing import Any, Final

import psycopg

from cdcrep.demo.shop import Shop

ROLLED_BACK: Final = 0.1  # part of the transactions
LONGEST_PAUSE_SECONDS: Final = 0.05

# What another writer did meanwhile can make any of these fail: the transaction then never happened.
LOST_RACES: Final = (
    psycopg.errors.DeadlockDetected,
    psycopg.errors.ForeignKeyViolation,
    psycopg.errors.UniqueViolation,
)

ANY_ORDER: Final = "(SELECT id FROM shop.orders WHERE id >= %(order)s ORDER BY id LIMIT 1)"
ANY_CUSTOMER: Final = "(SELECT id FROM shop.customers WHERE id >= %(customer)s ORDER BY id LIMIT 1)"
ANY_PRODUCT: Final = "(SELECT sku FROM shop.products OFFSET %(product)s LIMIT 1)"

CHANGES: Final = (
    # Orders come, grow, move on and are dropped.
    f"""WITH placed AS (INSERT INTO shop.orders (customer_id, note) SELECT {ANY_CUSTOMER}, %(text)s RETURNING id)
        INSERT INTO shop.order_lines
        SELECT id, line, {ANY_PRODUCT}, %(few)s, %(price)s, line = 2 FROM placed, generate_series(1, %(few)s) line""",
    f"UPDATE shop.orders SET state = 'paid', total = total + %(price)s WHERE id = {ANY_ORDER}",
    "UPDATE shop.orders SET state = 'shipped', note = NULL WHERE id BETWEEN %(order)s AND %(order)s + %(few)s * 3",
    f"UPDATE shop.order_lines SET quantity = quantity + 1, gift = NOT gift WHERE order_id = {ANY_ORDER}",
    f"DELETE FROM shop.order_lines WHERE order_id = {ANY_ORDER} AND line = %(few)s",
    f"DELETE FROM shop.orders WHERE id = {ANY_ORDER}",
    # Keys change; lines follow their order, orders their customer; two lines swap places.
    f"UPDATE shop.orders SET id = nextval('shop.orders_id_seq') WHERE id = {ANY_ORDER}",
    f"UPDATE shop.customers SET id = nextval('shop.customers_id_seq') WHERE id = {ANY_CUSTOMER}",
    """UPDATE shop.order_lines SET line = -1 WHERE order_id = %(order)s AND line = 1;
       UPDATE shop.order_lines SET line = 1 WHERE order_id = %(order)s AND line = 2;
       UPDATE shop.order_lines SET line = 2 WHERE order_id = %(order)s AND line = -1""",
    # Customers come and change.
    """INSERT INTO shop.customers (name, subscribed, tags, profile)
       VALUES (%(text)s, NULL, ARRAY[%(text)s, 'new'],
               jsonb_build_object('text', %(text)s::text, 'n', %(price)s::numeric))""",
    f"""UPDATE shop.customers SET profile = profile || jsonb_build_object('level', %(few)s::int),
        tags = tags[2:] || 'seen'::text, subscribed = true WHERE id = {ANY_CUSTOMER}""",
    # A few products are in everybody's way; their long descriptions mostly stay.
    "UPDATE shop.products SET stock = stock - %(few)s WHERE sku < 'P00010'",
    f"UPDATE shop.products SET price = %(price)s, sizes = sizes || %(few)s::int WHERE sku = {ANY_PRODUCT}",
    f"UPDATE shop.products SET description = repeat(%(text)s, 400) WHERE sku = {ANY_PRODUCT}",
    f"UPDATE shop.products SET sku = sku || 'x' WHERE sku = {ANY_PRODUCT} AND length(sku) < 12",
    # Rows that are equal in every column: exactly one of them is changed, exactly one deleted.
    "INSERT INTO shop.events SELECT NULL, NULL, 'click', 'epoch', '{}' FROM generate_series(1, 3)",
    """UPDATE shop.events SET payload = '{"seen": true}'
       WHERE ctid = (SELECT ctid FROM shop.events WHERE writer IS NULL LIMIT 1 FOR UPDATE SKIP LOCKED)""",
    """DELETE FROM shop.events
       WHERE ctid = (SELECT ctid FROM shop.events WHERE writer IS NULL LIMIT 1 FOR UPDATE SKIP LOCKED)""",
)

RECORD: Final = """
WITH counted AS (UPDATE shop.counters SET value = value + 1 WHERE writer = %s RETURNING writer, value)
INSERT INTO shop.events SELECT writer, value, 'transaction', clock_timestamp(), '{}' FROM counted
"""


class Sequence:
    """One writer's gap-free sequence: kept in the shop by its transactions, and counted here."""

    def __init__(self, connection: psycopg.Connection[Any], writer: int) -> None:
        self.writer = writer
        self.committed = 0
        self._connection = connection
        connection.execute("INSERT INTO shop.counters VALUES (%s, 0)", (writer,))

    @contextlib.contextmanager
    def transaction(self, *, rolled_back: bool = False) -> Iterator[None]:
        """Run the block as a transaction that adds the sequence's next number."""
        with self._connection.transaction(force_rollback=rolled_back):
            yield
            self._connection.execute(RECORD, (self.writer,))
        self.committed += not rolled_back


class Writer(threading.Thread):
    """One connection that commits random transactions until it is told to stop."""

    def __init__(self, shop: Shop, number: int, seed: int, orders: int) -> None:
        super().__init__(name=f"writer-{number}", daemon=True)
        self.number = number
        self.sequence: Sequence | None = None
        self.failure: BaseException | None = None
        self._shop, self._orders = shop, orders
        self._random = random.Random(f"{seed} writer {number}")  # noqa: S311 - repeatable on purpose
        self._stopping = threading.Event()

    @property
    def committed(self) -> int:
        """How many transactions were committed so far."""
        return self.sequence.committed if self.sequence else 0

    def stop(self) -> None:
        """End after the transaction in hand; returns at once."""
        self._stopping.set()

    def run(self) -> None:
        """Write until stopped; what ends it early is kept in `failure`."""
        try:
            with self._shop.connect() as connection:
                self.sequence = sequence = Sequence(connection, self.number)
                while not self._stopping.wait(self._random.random() * LONGEST_PAUSE_SECONDS):
                    with contextlib.suppress(*LOST_RACES):
                        self._transaction(connection, sequence)
        except BaseException as failure:
            self.failure = failure

    def _transaction(self, connection: psycopg.Connection[Any], sequence: Sequence) -> None:
        rolled_back = self._random.random() < ROLLED_BACK
        with sequence.transaction(rolled_back=rolled_back):
            for _ in range(self._random.choice((1, 1, 2, 3, 8, 20))):
                self._change(connection)

    def _change(self, connection: psycopg.Connection[Any]) -> None:
        values = {
            "order": self._random.randrange(1, self._orders),
            "customer": self._random.randrange(1, self._orders // 4),
            "product": self._random.randrange(self._orders // 40),
            "few": self._random.randrange(1, 6),
            "price": self._random.randrange(1, 100_000) / 100,
            "text": self._random.choice(("tea", "a\\b", 'say "hi"', "two\nlines", "žluťoučký", "😀", "")),
        }
        for statement in self._random.choice(CHANGES).split(";"):
            connection.execute(statement.encode(), values)


@contextlib.contextmanager
def writing(shop: Shop, *, writers: int, seed: int, orders: int) -> Iterator[list[Writer]]:
    """Keep writers going inside the block; raise what one of them met."""
    threads = [Writer(shop, number, seed, orders) for number in range(1, writers + 1)]
    for thread in threads:
        thread.start()
    try:
        yield threads
    finally:
        for thread in threads:
            thread.stop()
        for thread in threads:
            thread.join(timeout=30)
    for thread in threads:
        if thread.failure is not None:
            raise thread.failure
