"""Sends several prepared statements in one message and reads their results: libpq's pipeline mode, PostgreSQL 14+.

The driver's own pipeline talks to the server after every statement, which costs more than the statements do.
"""

from __future__ import annotations

import select
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import pq
from psycopg.errors import error_from_result

Statement = tuple[str, Sequence[bytes | None]]
"""SQL with `$n` parameters, and their values in text form."""

FAILED = (pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.BAD_RESPONSE)


class RoundTrip:
    """Runs lists of statements on a connection, preparing each text once."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._pgconn = connection.pgconn
        self._names: dict[str, bytes] = {}

    def run(self, statements: Sequence[Statement]) -> None:
        """Execute the statements; the first that fails keeps the later ones, a COMMIT among them, from being executed.

        Raises:
            psycopg.Error: what the first failed statement met; a transaction that it was in is left to be rolled back.
        """
        pgconn = self._pgconn
        pgconn.enter_pipeline_mode()
        try:
            awaited = self._send(statements)
            pgconn.pipeline_sync()
            self._read(awaited)
        finally:
            if pgconn.status == pq.ConnStatus.OK and pgconn.transaction_status != pq.TransactionStatus.ACTIVE:
                pgconn.exit_pipeline_mode()

    def _send(self, statements: Sequence[Statement]) -> list[str | None]:
        """Queue the statements; return for each expected result the text that it prepares, if it does."""
        awaited: list[str | None] = []
        names = dict(self._names)
        for text, values in statements:
            if text not in names:
                names[text] = f"cdcrep_{len(names)}".encode()
                self._pgconn.send_prepare(names[text], text.encode())
                awaited.append(text)
            self._pgconn.send_query_prepared(names[text], values)
            awaited.append(None)
        return awaited

    def _read(self, awaited: Sequence[str | None]) -> None:
        failure: psycopg.Error | None = None
        for prepared in awaited:
            result = self._result()
            if result is None:
                raise psycopg.OperationalError("the connection is lost")
            if result.status in FAILED:
                failure = failure or error_from_result(result)
            elif prepared is not None and result.status == pq.ExecStatus.COMMAND_OK:
                self._names[prepared] = f"cdcrep_{len(self._names)}".encode()
            # Every statement's results end with none.
            self._result()
        self._result()
        if failure is not None:
            raise failure

    def _result(self) -> pq.abc.PGresult | None:
        pgconn = self._pgconn
        unsent = pgconn.flush()
        while unsent or pgconn.is_busy():
            # Not select(), which knows the first 1,024 descriptors only.
            ready = select.poll()
            ready.register(pgconn.socket, select.POLLIN | (select.POLLOUT if unsent else 0))
            if any(events & ~select.POLLOUT for _, events in ready.poll()):
                pgconn.consume_input()
            unsent = pgconn.flush()
        return pgconn.get_result()
