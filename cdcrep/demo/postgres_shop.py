"""The shop in PostgreSQL."""

from __future__ import annotations

import contextlib
import secrets
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from string import Template
from typing import Any, Final

import psycopg
from psycopg import sql

from cdcrep.demo.postgres_server import PostgresServer, find_binaries
from cdcrep.demo.postgres_statements import (
    CHANGES,
    COLUMNS,
    CONSTRAINTS,
    FIRST_ROWS,
    KEY,
    MANY_ORDERS,
    PRIVILEGES,
    PUBLICATION,
    RECORD,
    SCHEMA,
)
from cdcrep.demo.shop import OWNER, REPLICATOR, Connection, Shop
from cdcrep.errors import TransientError

DATABASE_NAME: Final = "PostgreSQL"
REMARK: Final = ", fsync on"
DATABASE: Final = "demo"
SETTINGS: Final = {"max_wal_size": "4GB", "shared_buffers": "128MB", "deadlock_timeout": "100ms"}
OPTIONS: Final = f"""\
publication = "{PUBLICATION}"     # given: the role may read and replicate, not create
create_publication = false
"""

# What another writer did meanwhile can make any of these fail.
LOST_RACES: Final = (
    psycopg.errors.DeadlockDetected,
    psycopg.errors.ForeignKeyViolation,
    psycopg.errors.UniqueViolation,
)

# How values are written such that equal ones, and only those, give the text that DuckDB gives its copy. Instants are
# microseconds since 1970; arrays are JSON; everything else is its own text.
TEXT: Final = {
    "timestamp with time zone": "(extract(epoch FROM {})::numeric * 1000000)::bigint::text",
    "ARRAY": "to_json({})::text",
}
FRAMED: Final = "coalesce(length({0}) || ':' || {0}, 'NULL')"


class PostgresShop(Shop):
    """The shop's database on a running server, with one role that owns it and one that may only replicate it."""

    def __init__(self, server: PostgresServer) -> None:
        address = f"postgresql://{{role}}@127.0.0.1:{server.port}/{DATABASE}"
        super().__init__(address, CHANGES, columns=COLUMNS, key=KEY, options=OPTIONS)
        self._server = server

    def connect(self) -> psycopg.Connection[Any]:
        """Connect as the owner, in autocommit mode."""
        return psycopg.connect(self.url(OWNER), password=self.password(OWNER), autocommit=True)

    def create(self, orders: int, tell: Callable[[str, int], None]) -> None:
        """Create roles, database and tables, and fill them with about four rows per order; tell table and row count."""
        sizes = self._sizes(orders)
        with psycopg.connect(self._server.url, autocommit=True) as connection:
            for role, attributes in ((OWNER, "LOGIN"), (REPLICATOR, "LOGIN REPLICATION")):
                statement = f"CREATE ROLE {role} {attributes} PASSWORD {{}}"
                connection.execute(sql.SQL(statement).format(self.password(role)))
            connection.execute(f"CREATE DATABASE {DATABASE} OWNER {OWNER}")
        with self.connect() as connection:
            connection.execute(SCHEMA)
            for table, statement in FIRST_ROWS.items():
                count = connection.execute(Template(statement).substitute(sizes).encode()).rowcount
                self.rows += count
                tell(table, count)
            connection.execute(CONSTRAINTS)
            connection.execute(PRIVILEGES)

    def is_lost_race(self, error: Exception) -> bool:
        """Tell whether another writer made a transaction fail, which then never happened."""
        return isinstance(error, LOST_RACES)

    def count_transaction(self, connection: Connection, writer: int) -> None:
        """Raise a writer's counter in the transaction that is open, and note its number among the events."""
        connection.execute(RECORD.encode(), (writer,))

    def place_orders(self, connection: Connection, orders: int, lines: int) -> int:
        """Place orders of that customer with some lines each; return the number of new rows."""
        row = connection.execute(MANY_ORDERS.encode(), {"orders": orders, "lines": lines}).fetchone()
        return int(row[0]) if row else 0

    def text(self, columns: Mapping[str, str]) -> str:
        """Return the SQL that makes one text of these columns of a row, each value preceded by its length."""
        values = (TEXT.get(type_, "{}::varchar").format(f'"{name}"') for name, type_ in columns.items())
        return " || ".join(FRAMED.format(value) for value in values)

    def client(self, credentials: str) -> tuple[str, str]:
        """Return what to write into the file `credentials`, and the command that opens a prompt with it."""
        psql = shutil.which("psql") or str(self._server.binaries / "psql")
        command = f"PGPASSFILE={shlex.quote(credentials)} {shlex.quote(psql)} {self.url(OWNER)}"
        return f"127.0.0.1:{self._server.port}:*:{OWNER}:{self.password(OWNER)}\n", command


open_shop: Final = PostgresShop
"""Returns the shop on a server, which is still to be created."""


def start_server() -> PostgresServer:
    """Return a server to enter, of whatever programs are at hand."""
    return PostgresServer(find_binaries(), settings=SETTINGS, password=secrets.token_urlsafe(24))


@contextlib.contextmanager
def drivers_translated() -> Iterator[None]:
    """Turn the driver's exceptions into TransientErrors without the values that they may quote."""
    try:
        yield
    except psycopg.Error as error:
        raise TransientError(f"the demonstration met an unexpected {type(error).__name__}") from error
