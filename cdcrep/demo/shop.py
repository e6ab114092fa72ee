"""The shop of the demonstration: what every database that holds one has to offer the scenes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol, Self

OWNER: Final = "shopkeeper"
REPLICATOR: Final = "replicator"
HISTORY: Final = 0
"""The writer to whom the first events are attributed."""

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


class Shop(Protocol):
    """A shop on a running server, with one user who owns it and one who may only replicate it."""

    rows: int
    history: int
    """Events that were there from the beginning."""
    changes: Sequence[str]
    """What writers do at random: statements separated by `;`, with parameters in the drivers' named form."""
    options: str
    """Lines of the configuration's source section."""

    def url(self, role: str) -> str:
        """Return a role's URL, without its password."""

    def password(self, role: str) -> str:
        """Return a role's password."""

    def connect(self) -> Connection:
        """Connect as the owner."""

    def create(self, orders: int, tell: Callable[[str, int], None]) -> None:
        """Create roles and tables, and fill them with about four rows per order; tell table and row count."""

    def is_lost_race(self, error: Exception) -> bool:
        """Tell whether another writer made a transaction fail, which then never happened."""

    def count_transaction(self, connection: Connection, writer: int) -> None:
        """Raise a writer's counter in the transaction that is open, and note its number among the events."""

    def begin_backlog(self, connection: Connection) -> None:
        """Add a customer whom the writers never choose."""

    def place_orders(self, connection: Connection, orders: int, lines: int) -> int:
        """Place orders of that customer with some lines each; return the number of new rows."""

    def columns(self, connection: Connection, table: str) -> Mapping[str, str]:
        """Return names and types of a table's columns in order."""

    def key(self, connection: Connection, table: str) -> list[str]:
        """Return the columns of a table's primary key."""

    def text(self, columns: Mapping[str, str]) -> str:
        """Return the SQL that makes one text of these columns of a row, each value preceded by its length."""

    def client(self, credentials: str) -> tuple[str, str]:
        """Return what to write into the file `credentials`, and the command that opens a prompt with it."""
