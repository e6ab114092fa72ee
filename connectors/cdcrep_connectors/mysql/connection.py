"""Connects to MySQL and MariaDB: verified TLS, passwords from files, sessions whose behaviour only we decide about."""

from __future__ import annotations

import math
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import pymysql
import structlog
from pymysql.constants import CLIENT, CR

from cdcrep.errors import ConfigError, SetupError
from cdcrep.references import read_password
from cdcrep_connectors.mysql.address import VERIFIED, Address, encryption, parse, tls_context
from cdcrep_connectors.mysql.failures import DRIVER_ERRORS, translate
from cdcrep_connectors.mysql.options import ServerOptions

if TYPE_CHECKING:
    Connection = pymysql.Connection[Any]
else:
    Connection = pymysql.Connection

log = structlog.get_logger(__name__)

LENIENT_MODE: Final = "NO_ENGINE_SUBSTITUTION,NO_AUTO_VALUE_ON_ZERO,ERROR_FOR_DIVISION_BY_ZERO"
"""A 0 stays a 0. Zero dates are values. What does not fit is changed with a warning."""
STRICT_MODE: Final = f"STRICT_ALL_TABLES,{LENIENT_MODE}"
"""Values that do not fit are errors."""

SESSION_SETTINGS: Final[Mapping[str, str]] = {
    "sql_mode": f"'{STRICT_MODE}'",
    "time_zone": "'+00:00'",
    "sql_select_limit": "18446744073709551615",  # a lower one would silently cut results
    "sql_safe_updates": "0",
    "sql_big_selects": "1",
    "sql_auto_is_null": "0",
    "sql_quote_show_create": "1",
    "completion_type": "0",
    "default_storage_engine": "InnoDB",
    "group_concat_max_len": "1073741824",
    "net_write_timeout": "600",
    "net_read_timeout": "600",
    "wait_timeout": "28800",
}
"""What decides about values and results, whatever the server's own settings are; as SQL."""

ISOLATION: Final = "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ WRITE"
READ_MARGIN_SECONDS: Final = 10.0
"""How much later than the server we give up a statement."""

# A dead peer is found within a minute, also while a statement has no time limit.
KEEPALIVE: Final = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 60_000}


def connect(
    options: ServerOptions,
    *,
    program_name: str = "cdcrep",
    autocommit: bool = True,
    statement_timeout: float = 30.0,
    lock_timeout: float = 5.0,
    settings: Mapping[str, str] | None = None,
    local_data: bool = False,
) -> Connection:
    """Open a session with pinned settings, in utf8mb4 and UTC.

    Timeouts are in seconds, 0 means none: the server ends reading statements that take longer than
    `statement_timeout`, and of any other we give up waiting for the answer, which ends the session. `settings` are
    further session variables as SQL (`{"sql_mode": "''"}`), which win over the pinned ones. With `local_data` the
    server accepts LOAD DATA LOCAL, which `load_local` alone can answer. The password is read anew by every call.

    Raises:
        ConfigError: the URL, the password file or the TLS parameters are not acceptable.
        SetupError, TransientError: the server cannot be reached or refuses us.
    """
    address = parse(options.url)
    mode = encryption(options, address)
    if not address.is_local and mode != VERIFIED:
        log.warning("connection is not verified", server=str(address), ssl_mode=mode)
    try:
        connection = pymysql.connect(
            **_credentials(options, address),
            **_tls(mode, address),
            unix_socket=address.socket,
            charset="utf8mb4",
            collation="utf8mb4_bin",
            autocommit=autocommit,
            # The flag alone: whatever the server asks for then, the driver itself opens no file.
            client_flag=CLIENT.LOCAL_FILES if local_data else 0,
            local_infile=False,
            connect_timeout=options.connect_timeout,
            # Also bounds the exchange of passwords, which the connection's own timeout does not.
            read_timeout=statement_timeout + READ_MARGIN_SECONDS if statement_timeout else None,
            write_timeout=60.0,
            program_name=program_name,
            auth_plugin_map=None if mode == VERIFIED else dict(REFUSED_PLUGINS),
            defer_connect=True,
        )
        connection.connect(None if address.socket else _tcp_socket(address, options.connect_timeout))
        try:
            _pin(connection, statement_timeout, lock_timeout, settings or {})
        except BaseException:
            connection.close()
            raise
    except DRIVER_ERRORS as error:
        raise translate(error, f"connecting to {address}") from error
    return connection


def is_mariadb(connection: Connection) -> bool:
    """Tell MariaDB from MySQL by the version that the server announced."""
    driver: Any = connection
    return "mariadb" in str(driver.get_server_info()).lower()


def describe(options: ServerOptions) -> str:
    """Name the server, database and user for messages: `shop on db.example.com:3306 as cdc`."""
    address = parse(options.url)
    return f"{f'database {address.database} on ' if address.database else ''}{address}"


class RefusedPlugin:
    """Stands in for a way to log in that would show the password itself to whoever answers."""

    def __init__(self, connection: Connection) -> None:
        self._host = connection.host

    def authenticate(self, packet: object) -> object:
        """Refuse."""
        del packet
        raise SetupError(
            f"{self._host} asks for the password in clear text, over a connection that is not verified",
            hint="connect with TLS: ?ssl-mode=VERIFY_IDENTITY&ssl-ca=/path/ca.pem",
        )


REFUSED_PLUGINS: Final[Mapping[str, Callable[[Connection], Any]]] = {
    "mysql_clear_password": RefusedPlugin,
    "dialog": RefusedPlugin,
}


def _credentials(options: ServerOptions, address: Address) -> dict[str, Any]:
    password = address.password
    if options.password_file is not None:
        if password is not None:
            raise ConfigError("both the URL and password_file give a password", hint="remove the one in the URL")
        password = read_password(options.password_file)
    return {
        "host": address.host,
        "port": address.port,
        "user": address.user,
        # As bytes: text would be sent in latin1.
        "password": (password or "").encode(),
        "database": address.database,
    }


def _tls(mode: str, address: Address) -> dict[str, Any]:
    if mode == "DISABLED":
        return {"ssl_disabled": True}
    if mode == "PREFERRED":
        return {}
    return {"ssl": tls_context(mode, address)}


def _tcp_socket(address: Address, timeout: float) -> socket.socket:
    try:
        connected = socket.create_connection((address.host, address.port), timeout)
    except OSError as error:
        raise pymysql.OperationalError(CR.CR_CONN_HOST_ERROR, f"cannot connect: {error}") from error
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if (option := getattr(socket, name, None)) is not None:
            connected.setsockopt(socket.IPPROTO_TCP, option, value)
    return connected


def _pin(connection: Connection, statement_timeout: float, lock_timeout: float, settings: Mapping[str, str]) -> None:
    lock_seconds = str(max(1, math.ceil(lock_timeout)) if lock_timeout else 31_536_000)
    limit = (
        {"max_statement_time": str(statement_timeout)}
        if is_mariadb(connection)
        else {"max_execution_time": str(round(statement_timeout * 1000))}
    )
    locks = {"lock_wait_timeout": lock_seconds, "innodb_lock_wait_timeout": lock_seconds}
    pinned = {**SESSION_SETTINGS, **limit, **locks, **settings}
    with connection.cursor() as cursor:
        cursor.execute("SET " + ", ".join(f"SESSION {name} = {value}" for name, value in pinned.items()))
        cursor.execute(ISOLATION)
