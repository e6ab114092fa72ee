"""Watches that copied tables were in the publication without a break, since nothing in the stream tells of one.

A table that is dropped and created anew, or taken out of the publication and put back, is sent again as if nothing had
happened. But its membership is a new row of `pg_publication_rel` then, written by a transaction that the table's copy
cannot have seen, and a new table has another oid than the one that was copied.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

import psycopg

from cdcrep.connector import Copied
from cdcrep.errors import DivergedError
from cdcrep.table import TableId
from cdcrep_connectors.postgres.connection import Connection
from cdcrep_connectors.postgres.failures import translate

COPY_ANEW: Final = "drop the tables in the target, then start again: they are copied anew"

# Both ages count back from the same transaction. A horizon more than 2^31 transactions ago proves nothing: its age is
# negative then, and no membership is found to be newer.
BROKEN: Final = """
WITH copied AS (
    SELECT * FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::text[]) AS t(schema, name, horizon, oids)
), member AS (
    SELECT n.nspname, c.relname, r.xmin
    FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
    JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE p.pubname = %s
)
SELECT t.schema, t.name FROM copied t
WHERE EXISTS (
    SELECT FROM member m WHERE (m.nspname, m.relname) = (t.schema, t.name)
    AND age(m.xmin) <= age((t.horizon & 4294967295)::text::xid))
OR EXISTS (
    SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE (n.nspname, c.relname) = (t.schema, t.name) AND c.relkind = 'r'
    AND c.oid <> ALL (nullif(t.oids, '{}')::oid[]))
OR NOT EXISTS (SELECT FROM member m WHERE (m.nspname, m.relname) = (t.schema, t.name))
AND NOT EXISTS (
    SELECT FROM pg_publication_tables p WHERE pubname = %s AND (schemaname, tablename) = (t.schema, t.name))
ORDER BY 1, 2
"""

_HORIZON: Final = re.compile(r"xmin ([0-9]+)", re.ASCII)
_OID: Final = re.compile(r"([0-9]+)\.", re.ASCII)


def check_membership(connection: Connection, publication: str, copied: Mapping[TableId, Copied]) -> None:
    """Make sure that the publication has sent every change of some tables since they were copied.

    Raises:
        DivergedError: changes of a table may be missing.
    """
    horizons = {table: match for table, copy in copied.items() if (match := _HORIZON.fullmatch(copy.snapshot))}
    values = [
        [table.schema for table in horizons],
        [table.name for table in horizons],
        [int(match[1]) for match in horizons.values()],
        ["{" + ",".join(sorted(_oids(copied[table].chunks))) + "}" for table in horizons],
    ]
    try:
        broken = connection.execute(BROKEN.encode(), [*values, publication, publication]).fetchall()
    except psycopg.Error as error:
        raise translate(error, f"looking at publication {publication!r}") from error
    if broken:
        tables = ", ".join(str(TableId(*table)) for table in broken)
        raise DivergedError(
            f"publication {publication!r} was without {tables} for a while, or what bears the name was created anew: "
            "changes are missing",
            hint=COPY_ANEW,
        )


def _oids(chunks: Iterable[str]) -> set[str]:
    """Return the oids of the tables that chunks were read from."""
    return {match[1] for chunk in chunks if (match := _OID.match(chunk))}
