"""The shop in MySQL or MariaDB."""

from __future__ import annotations

import contextlib
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Self

import pymysql
from pymysql.constants import ER

from cdcrep.demo.mysql_programs import find_programs
from cdcrep.demo.mysql_server import MySQLServer
from cdcrep.demo.mysql_statements import (
    CHANGES,
    COLUMNS,
    COUNT,
    DOUBLE,
    FIRST_ROWS,
    KEY,
    MANY_ORDERS,
    NOTE,
    SCHEMA,
    THEIR_LINES,
)
from cdcrep.demo.shop import OWNER, REPLICATOR, Connection, Shop
from cdcrep.errors import TransientError

SETTINGS: Final = {
    "server_id": "1",
    "log_bin": "binlog",
    "binlog_format": "ROW",
    "binlog_row_image": "FULL",
    "binlog_row_metadata": "FULL",
    "innodb_flush_log_at_trx_commit": "1",
    "sync_binlog": "1",
    "innodb_buffer_pool_size": "128M",
    "max_connections": "100",
    "skip_name_resolve": "ON",
}
MYSQL_SETTINGS: Final = {"gtid_mode": "ON", "enforce_gtid_consistency": "ON", "mysqlx": "OFF", "secure_file_priv": ""}

DATABASE_NAME: Final = "MySQL or MariaDB"
REMARK: Final = ", fsync on"
HOST: Final = "127.0.0.1"
PRIVILEGES: Final = (
    f"GRANT ALL ON *.* TO {OWNER}@'{HOST}'",
    f"GRANT REPLICATION SLAVE, REPLICATION CLIENT, RELOAD, SELECT ON *.* TO {REPLICATOR}@'{HOST}'",
)

LOST_RACES: Final = (ER.LOCK_DEADLOCK, ER.LOCK_WAIT_TIMEOUT, ER.DUP_ENTRY)

# How values are written such that equal ones, and only those, give the text that DuckDB gives its copy. Instants are
# microseconds since 1970; everything else is its own text.
TEXT: Final = {"timestamp": "cast(cast(unix_timestamp({0}) * 1000000 AS signed) AS char)"}
FRAMED: Final = "coalesce(concat(char_length({0}), ':', {0}), 'NULL')"


class MySQLConnection:
    """A connection in autocommit mode with the methods that the demonstration calls."""

    def __init__(self, connection: pymysql.Connection[Any]) -> None:
        self._connection = connection

    def execute(self, query: bytes, params: Any = None, /) -> Any:
        """Run a statement; return its cursor."""
        cursor = self._connection.cursor()
        cursor.execute(query.decode(), params)
        return cursor

    @contextlib.contextmanager
    def transaction(self, *, force_rollback: bool = False) -> Iterator[None]:
        """Run the block as one transaction."""
        self._connection.begin()
        try:
            yield
        except BaseException:
            self._connection.rollback()
            raise
        if force_rollback:
            self._connection.rollback()
        else:
            self._connection.commit()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self._connection.close()


class MySQLShop(Shop):
    """The shop's database on a running server, with one user who owns it and one who may only replicate it."""

    def __init__(self, server: MySQLServer) -> None:
        super().__init__(f"mysql://{{role}}@{HOST}:{server.port}/shop", CHANGES, columns=COLUMNS, key=KEY)
        self._server = server

    def connect(self) -> MySQLConnection:
        """Connect as the owner, in autocommit mode and UTC."""
        isolation = "tx_isolation" if self._server.is_mariadb else "transaction_isolation"
        connection = pymysql.connect(
            host=HOST,
            port=self._server.port,
            user=OWNER,
            password=self.password(OWNER),
            charset="utf8mb4",
            autocommit=True,
            init_command=f"SET time_zone = '+00:00', {isolation} = 'READ-COMMITTED', innodb_lock_wait_timeout = 5",
        )
        return MySQLConnection(connection)

    def create(self, orders: int, tell: Callable[[str, int], None]) -> None:
        """Create users, database and tables, and fill them with about four rows per order; tell table and row count."""
        sizes = self._sizes(orders)
        with self._server.connect() as connection, connection.cursor() as cursor:
            for role in (OWNER, REPLICATOR):
                cursor.execute(f"CREATE USER {role}@'{HOST}' IDENTIFIED BY %s", [self.password(role)])
            for statement in PRIVILEGES:
                cursor.execute(statement)
        with self.connect() as shop:
            for statement in SCHEMA.split(";\n"):
                shop.execute(statement.encode())
            numbers = 1
            while numbers < orders:
                numbers += shop.execute(DOUBLE.encode()).rowcount
            for table, statement in FIRST_ROWS.items():
                count = shop.execute(statement.encode(), sizes).rowcount
                self.rows += count
                tell(table, count)

    def is_lost_race(self, error: Exception) -> bool:
        """Tell whether another writer made a transaction fail, which then never happened."""
        return isinstance(error, pymysql.MySQLError) and error.args[0] in LOST_RACES

    def count_transaction(self, connection: Connection, writer: int) -> None:
        """Raise a writer's counter in the transaction that is open, and note its number among the events."""
        for statement in (COUNT, NOTE):
            connection.execute(statement.encode(), (writer,))

    def begin_backlog(self, connection: Connection) -> None:
        """Add the customer of the backlog."""
        # Else the key 0 would stand for the next one.
        connection.execute(b"SET sql_mode = concat(@@sql_mode, ',NO_AUTO_VALUE_ON_ZERO')")
        super().begin_backlog(connection)

    def place_orders(self, connection: Connection, orders: int, lines: int) -> int:
        """Place orders of that customer with some lines each; return the number of new rows."""
        sizes = {"orders": orders, "lines": lines}
        return sum(connection.execute(each.encode(), sizes).rowcount for each in (MANY_ORDERS, THEIR_LINES))

    def text(self, columns: Mapping[str, str]) -> str:
        """Return the SQL that makes one text of these columns of a row, each value preceded by its length."""
        values = (TEXT.get(type_, "cast({0} AS char)").format(f"`{name}`") for name, type_ in columns.items())
        return f"concat({', '.join(FRAMED.format(value) for value in values)})"

    def client(self, credentials: str) -> tuple[str, str]:
        """Return what to write into the file `credentials`, and the command that opens a prompt with it."""
        program = next(filter(None, map(shutil.which, ("mariadb", "mysql"))), "mysql")
        settings = {"host": HOST, "port": self._server.port, "user": OWNER, "password": self.password(OWNER)}
        text = "[client]\n" + "".join(f"{name}={value}\n" for name, value in settings.items())
        return text, f"{program} --defaults-extra-file={shlex.quote(credentials)} shop"


open_shop: Final = MySQLShop
"""Returns the shop on a server, which is still to be created."""


def start_server() -> MySQLServer:
    """Return a server to enter, of whatever programs are at hand."""
    programs = find_programs()
    return MySQLServer(programs, {**SETTINGS, **({} if programs.is_mariadb else MYSQL_SETTINGS)})


@contextlib.contextmanager
def drivers_translated() -> Iterator[None]:
    """Turn the driver's exceptions into TransientErrors without the values that they may quote."""
    try:
        yield
    except pymysql.MySQLError as error:
        raise TransientError(f"the demonstration met an unexpected {type(error).__name__} {error.args[0]}") from error
