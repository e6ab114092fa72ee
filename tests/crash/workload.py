"""Writers that keep changing a source database, with rows by which nothing lost or doubled can hide.

`ledger` has no key and only grows: a change that is applied twice stands there twice, one that is lost leaves a gap.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator

from tests.crash.workload_sessions import LOST, Session, SourceDatabase, connect
from tests.servers.waiting import DEADLINE_SECONDS


class Writer(threading.Thread):
    """Commits random transactions until it is told to stop; connects again whenever its connection is lost."""

    def __init__(self, database: SourceDatabase, number: int, seed: int) -> None:
        super().__init__(name=f"writer-{number}", daemon=True)
        self._database, self._number = database, number
        self._random = random.Random(seed * 1000 + number)
        self._stopping = threading.Event()
        self.committed = 0
        self.failure: BaseException | None = None

    def stop(self) -> None:
        """End after the transaction in hand, and raise what the writer met; the server must be up."""
        self._stopping.set()
        self.join(timeout=DEADLINE_SECONDS)
        assert not self.is_alive(), f"{self.name} does not end"
        if self.failure is not None:
            raise self.failure

    def run(self) -> None:
        """Write until stopped; what ends it early is kept in `failure`."""
        try:
            while not self._write_until_lost():
                # Also after `stop`: only the server knows the outcome of the last transaction.
                self._stopping.wait(0.05)
        except BaseException as failure:
            self.failure = failure

    def _write_until_lost(self) -> bool:
        """Return True after an orderly end."""
        with contextlib.suppress(*LOST), contextlib.closing(connect(self._database)) as session:
            # The ledger itself tells which transactions have happened.
            self.committed = session.last_seq(self._number)
            session.execute(session.unless_there.format("counters VALUES (%s, 0)"), (self._number,))
            while not self._stopping.wait(self._random.random() * 0.01):
                self._transaction(session)
            return True
        return False

    def _transaction(self, session: Session) -> None:
        truncate = self._random.random() < session.truncates
        if truncate and not session.truncates_in_transactions:
            session.execute("TRUNCATE TABLE scratch")

        def work() -> None:
            for _ in range(self._random.choice((1, 1, 2, 5, 30))):
                self._change(session)
            if truncate and session.truncates_in_transactions:
                session.execute("TRUNCATE TABLE scratch")
            seq = self.committed + 1
            session.execute("INSERT INTO ledger VALUES (%s, %s, %s)", (self._number, seq, None if seq % 7 else "seven"))
            session.execute("UPDATE counters SET value = value + 1 WHERE writer = %s", (self._number,))

        self.committed += session.commit(work, but_roll_back=self._random.random() < 0.1)

    def _change(self, session: Session) -> None:
        number = self._random.randrange(1, 500)
        statement, values = self._random.choice(
            [
                ("UPDATE accounts SET balance = balance + 1 WHERE id = %s", (number,)),
                ("UPDATE accounts SET balance = balance - 1, owner = NULL WHERE id %% 97 = %s", (number % 97,)),
                ("INSERT INTO accounts SELECT max(id) + 1, 1, 'new' FROM accounts", ()),
                ("DELETE FROM accounts WHERE id = %s", (number,)),
                ("UPDATE accounts SET id = id + 1000000 WHERE id = %s", (number,)),
                ("UPDATE documents SET version = version + 1 WHERE id = %s", (number % 60,)),
                ("UPDATE documents SET id = id + 60 WHERE id = %s", (number % 600,)),
                ("UPDATE documents SET body = concat(body, 'x') WHERE id = %s", (number % 60,)),
                (session.unless_there.format("scratch VALUES (%s, 'word')"), (number,)),
                ("DELETE FROM scratch WHERE id %% 10 = %s", (number % 10,)),
            ]
        )
        session.execute(statement, values)


@contextlib.contextmanager
def writing(database: SourceDatabase, *, writers: int, seed: int) -> Iterator[list[Writer]]:
    """Keep writers going inside the block; the server may crash meanwhile, and must be up when it ends."""
    threads = [Writer(database, number, seed) for number in range(1, writers + 1)]
    for thread in threads:
        thread.start()
    try:
        yield threads
    finally:
        for thread in threads:
            thread.stop()


def assert_gapless(rows: list[tuple[object, ...]], writers: list[Writer]) -> None:
    """Judge the ledger as it stands in the target: every committed transaction once, none twice, none missing."""
    for number, writer in enumerate(writers, start=1):
        seqs = sorted(int(str(row[1])) for row in rows if int(str(row[0])) == number)
        assert len(seqs) == len(set(seqs)), f"writer {number}: {len(seqs) - len(set(seqs))} transactions are doubled"
        missing = set(range(1, writer.committed + 1)) - set(seqs)
        assert not missing, f"writer {number}: {len(missing)} transactions are lost, the first is {min(missing)}"
        assert len(seqs) == writer.committed, f"writer {number}: transactions that never happened"
