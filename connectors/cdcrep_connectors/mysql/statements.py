"""Finds the statements among events that are not plain BEGIN, COMMIT or ROLLBACK, and reads them."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np

from cdcrep.columns import Positions
from cdcrep.errors import DataError
from cdcrep.table import TableId
from cdcrep_connectors.mysql.charsets import SUPPORTED, decode_value
from cdcrep_connectors.mysql.collations import charset_of
from cdcrep_connectors.mysql.ddl import Statement, truncated_table
from cdcrep_connectors.mysql.event_types import EventType
from cdcrep_connectors.mysql.framing import Events
from cdcrep_connectors.mysql.query_event import Query, read_query
from cdcrep_connectors.mysql.transactions import QUERY_FIXED, statement_is, statement_start

NO_BACKSLASH_ESCAPES = 1 << 20
"""The bit of `sql_mode`."""
LOAD_FIXED = 13
"""What an EXECUTE_LOAD_QUERY event has besides: number of its file, where its name stands, how duplicates are met."""
_PLAIN = (b"BEGIN", b"COMMIT", b"ROLLBACK")


class StatementReader:
    """Reads the statements of one stream for what they do to the followed tables.

    `ways` asks the catalogue what else a statement may change them through (`indirect`): once, and again after each
    statement that could change the answer.
    """

    def __init__(self, followed: Collection[TableId], ways: Callable[[], Collection[TableId]]) -> None:
        self._followed = frozenset(followed)
        self._ask = ways
        self._known: Collection[TableId] | None = None

    def truncated_table(self, query: Query, text: str, without: frozenset[TableId]) -> TableId | None:
        """Return the table that a statement empties; None: it changes none but those in `without`.

        Raises:
            DivergedError: it changes a table in a way that is not carried out.
            DataError: it is a change of rows logged as text.
        """
        statement = Statement(text, query.schema, backslashes=not (query.sql_mode or 0) & NO_BACKSLASH_ESCAPES)
        if statement.changes_objects:
            self._known = None
        return truncated_table(statement, self._followed - without, self._ways)

    def _ways(self) -> Collection[TableId]:
        if self._known is None:
            self._known = self._ask()
        return self._known


def find_statements(events: Events) -> Positions:
    """Return the indexes of the events that hold statements, but for BEGIN, COMMIT and ROLLBACK."""
    queries = np.flatnonzero(events.types == EventType.QUERY)
    start, end = statement_start(events, queries), events.end[queries]
    plain = np.zeros(len(queries), np.bool_)
    for word in _PLAIN:
        plain |= statement_is(events.buffer, start, end, word)
    loads = np.flatnonzero(events.types == EventType.EXECUTE_LOAD_QUERY)
    return np.sort(np.concatenate([queries[~plain], loads]))


def read_statement(events: Events, index: int) -> tuple[Query, str]:
    """Return a statement with what surrounds it, and its text."""
    content = events.content(index)
    if events.types[index] == EventType.EXECUTE_LOAD_QUERY:
        content = content[:QUERY_FIXED] + content[QUERY_FIXED + LOAD_FIXED :]
    query = read_query(content)
    charset = charset_of(query.charset[0]) if query.charset else "utf8mb4"
    if charset in SUPPORTED and charset != "binary":
        try:
            return query, decode_value(query.statement, charset)
        except DataError:
            pass
    # A value in it may be anything; names are ASCII more often than not, and those in UTF-8 stay what they are.
    return query, query.statement.decode(errors="surrogateescape")
