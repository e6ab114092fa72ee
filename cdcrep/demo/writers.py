"""Writers that keep changing the shop, with counters by which nothing lost or doubled can hide.

Every transaction of a writer adds the next number of its sequence to `events`, a table without a key, and one to its
row of `counters`. Applied twice, a transaction stands in `events` twice; lost, it leaves a gap.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator
from typing import Final

from cdcrep.demo.shop import Connection, Shop

ROLLED_BACK: Final = 0.1  # part of the transactions
LONGEST_PAUSE_SECONDS: Final = 0.05


class Sequence:
    """One writer's gap-free sequence: kept in the shop by its transactions, and counted here."""

    def __init__(self, shop: Shop, connection: Connection, writer: int) -> None:
        self.writer = writer
        self.committed = 0
        self._shop, self._connection = shop, connection
        connection.execute(b"INSERT INTO shop.counters VALUES (%s, 0)", (writer,))

    @contextlib.contextmanager
    def transaction(self, *, rolled_back: bool = False) -> Iterator[None]:
        """Run the block as a transaction that adds the sequence's next number."""
        with self._connection.transaction(force_rollback=rolled_back):
            yield
            self._shop.count_transaction(self._connection, self.writer)
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
                self.sequence = sequence = Sequence(self._shop, connection, self.number)
                while not self._stopping.wait(self._random.random() * LONGEST_PAUSE_SECONDS):
                    try:
                        self._transaction(connection, sequence)
                    except Exception as error:
                        if not self._shop.is_lost_race(error):
                            raise
        except BaseException as failure:
            self.failure = failure

    def _transaction(self, connection: Connection, sequence: Sequence) -> None:
        rolled_back = self._random.random() < ROLLED_BACK
        with sequence.transaction(rolled_back=rolled_back):
            for _ in range(self._random.choice((1, 1, 2, 3, 8, 20))):
                self._change(connection)

    def _change(self, connection: Connection) -> None:
        values = {
            "order": self._random.randrange(1, self._orders),
            "customer": self._random.randrange(1, self._orders // 4),
            "product": self._random.randrange(self._orders // 40),
            "few": self._random.randrange(1, 6),
            "price": self._random.randrange(1, 100_000) / 100,
            "text": self._random.choice(("tea", "a\\b", 'say "hi"', "two\nlines", "žluťoučký", "😀", "")),
        }
        for statement in self._random.choice(self._shop.changes).split(";"):
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
