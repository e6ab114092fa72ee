"""Finds the statements among events that are not plain BEGIN, COMMIT or ROLLBACK, and what names a transaction."""

from __future__ import annotations

import numpy as np

from cdcrep.columns import Positions
from cdcrep.errors import DataError
from cdcrep_connectors.mysql.charsets import SUPPORTED, decode_value
from cdcrep_connectors.mysql.collations import charset_of
from cdcrep_connectors.mysql.event_types import EventType
from cdcrep_connectors.mysql.framing import Events
from cdcrep_connectors.mysql.query_event import Query, read_query
from cdcrep_connectors.mysql.transactions import statement_is, statement_start

_PLAIN = (b"BEGIN", b"COMMIT", b"ROLLBACK")


def find_statements(events: Events) -> Positions:
    """Return the indexes of the events that hold statements, but for BEGIN, COMMIT and ROLLBACK.

    Raises:
        DataError: LOAD DATA was logged as a statement, of which nobody here knows what it changes.
    """
    if (events.types == EventType.EXECUTE_LOAD_QUERY).any():
        raise DataError(
            "LOAD DATA was logged as a statement, not as rows",
            hint="SET GLOBAL binlog_format = ROW, end the sessions that began before, and copy the tables anew",
        )
    queries = np.flatnonzero(events.types == EventType.QUERY)
    start, end = statement_start(events, queries), events.end[queries]
    plain = np.zeros(len(queries), np.bool_)
    for word in _PLAIN:
        plain |= statement_is(events.buffer, start, end, word)
    return queries[~plain]


def read_statement(events: Events, index: int) -> tuple[Query, str]:
    """Return a statement with what surrounds it, and its text."""
    query = read_query(events.content(index))
    charset = charset_of(query.charset[0]) if query.charset else "utf8mb4"
    if charset in SUPPORTED and charset != "binary":
        try:
            return query, decode_value(query.statement, charset)
        except DataError:
            pass
    # A value in it may be anything; names are ASCII more often than not, and those in UTF-8 stay what they are.
    return query, query.statement.decode(errors="surrogateescape")
