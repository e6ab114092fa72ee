"""The shop of the demonstration: what every database that holds one has to offer the scenes."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol, Self

OWNER: Final = "shopkeeper"
REPLICATOR: Final = "replicator"
HISTORY: Final = 0
"""The writer to whom the first events are attributed."""

OWN_CUSTOMER: Final = "INSERT INTO shop.customers (id, name) VALUES (0, 'Wholesale')"
"""A customer whom the writers never choose keeps a backlog out of their way."""

TABLES: Final = ("customers", "products", "orders", "order_lines", "counters", "events")


class Connection(Protocol):
    """A connection to the shop in autocommit mode."""

    def execute(self, query: bytes, params: Any = None, /) -> Any:
        """Run a statement; return a cursor."""

    def transaction(self, *, force_rollback: bool = False) -> AbstractContextManager[Any]:
        """Run the block as one transaction."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *failure: Any) -> None: ...


class Server(Protocol):
    """A throw-away server."""

    port: int
    end_signal: str
    """Name of the signal that ends it at once."""

    @property
    def home(self) -> Any:
        """The temporary directory of everything that belongs to it."""

    @property
    def pid(self) -> int | None:
        """The process id of the running server."""


class Shop(ABC):
    """A shop on a running server, with one user who owns it and one who may only replicate it."""

    def __init__(self, address: str, changes: Sequence[str], *, columns: str, key: str, options: str = "") -> None:
        """Describe a shop that is still to be created.

        `address` is the URL with `{role}` for the user; `columns` and `key` are queries with a table's name as their
        parameter, for names and types of its columns in order, and for the columns of its primary key.
        """
        self.changes = changes
        """What writers do at random: statements separated by `;`, with parameters in the drivers' named form."""
        self.options = options
        """Lines of the configuration's source section."""
        self.rows = 0
        self.history = 0
        """Events that were there from the beginning."""
        self._address, self._columns, self._key = address, columns, key
        self._passwords = {role: secrets.token_urlsafe(24) for role in (OWNER, REPLICATOR)}

    def url(self, role: str) -> str:
        """Return a role's URL, without its password."""
        return self._address.format(role=role)

    def password(self, role: str) -> str:
        """Return a role's password."""
        return self._passwords[role]

    def columns(self, connection: Connection, table: str) -> Mapping[str, str]:
        """Return names and types of a table's columns in order."""
        return dict(connection.execute(self._columns.encode(), (table,)).fetchall())

    def key(self, connection: Connection, table: str) -> list[str]:
        """Return the columns of a table's primary key."""
        return [name for (name,) in connection.execute(self._key.encode(), (table,)).fetchall()]

    def begin_backlog(self, connection: Connection) -> None:
        """Add the customer of the backlog."""
        connection.execute(OWN_CUSTOMER.encode())

    @abstractmethod
    def connect(self) -> Connection:
        """Connect as the owner, in autocommit mode."""

    @abstractmethod
    def create(self, orders: int, tell: Callable[[str, int], None]) -> None:
        """Create roles and tables, and fill them with about four rows per order; tell table and row count."""

    @abstractmethod
    def is_lost_race(self, error: Exception) -> bool:
        """Tell whether another writer made a transaction fail, which then never happened."""

    @abstractmethod
    def count_transaction(self, connection: Connection, writer: int) -> None:
        """Raise a writer's counter in the transaction that is open, and note its number among the events."""

    @abstractmethod
    def place_orders(self, connection: Connection, orders: int, lines: int) -> int:
        """Place orders of that customer with some lines each; return the number of new rows."""

    @abstractmethod
    def text(self, columns: Mapping[str, str]) -> str:
        """Return the SQL that makes one text of these columns of a row, each value preceded by its length."""

    @abstractmethod
    def client(self, credentials: str) -> tuple[str, str]:
        """Return what to write into the file `credentials`, and the command that opens a prompt with it."""

    def _sizes(self, orders: int) -> Mapping[str, int]:
        """Return how many rows the tables begin with."""
        self.history = orders // 4
        return {"orders": orders, "customers": orders // 4, "events": orders // 4, "products": max(orders // 40, 1)}
