"""Takes a server's URL apart, and decides whether and how the connection to it is encrypted."""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from cdcrep.errors import ConfigError
from cdcrep_connectors.mysql.options import ServerOptions

DEFAULT_PORT: Final = 3306
PARAMETERS: Final = frozenset({"ssl-mode", "ssl-ca", "ssl-cert", "ssl-key", "socket"})
MODES: Final = ("DISABLED", "PREFERRED", "REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY")
"""Of MySQL's own clients (MySQL manual, "Command Options for Encrypted Connections"), weakest first."""

VERIFIED: Final = "VERIFY_IDENTITY"
EXAMPLE: Final = "percent-encode special characters: mysql://user@host:3306/database?ssl-ca=/path/ca.pem"


@dataclass(frozen=True)
class Address:
    """What a URL says."""

    host: str
    port: int
    socket: str | None
    """Path of a Unix socket, which takes the place of host and port."""
    user: str
    database: str | None
    password: str | None
    parameters: Mapping[str, str]

    @property
    def is_local(self) -> bool:
        """Tell whether the server is reached through a Unix socket or the loopback interface."""
        if self.socket is not None or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        """Name the server and the user, for messages."""
        return f"{self.socket or f'{self.host}:{self.port}'} as {self.user}"

    def __repr__(self) -> str:
        """Show no password."""
        return f"Address({self})"


def parse(url: str) -> Address:
    """Take a URL apart.

    Raises:
        ConfigError: not a URL of a server with a user. The message does not repeat it, since it may hold a password.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or DEFAULT_PORT
        given = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        # Without a cause: its message quotes the part that could not be read.
        raise ConfigError("the MySQL URL cannot be read", hint=EXAMPLE) from None
    database = unquote(parts.path.removeprefix("/"))
    if "/" in parts.path.removeprefix("/") or parts.fragment or re.search(r"\s", url):
        raise ConfigError("the MySQL URL cannot be read", hint=EXAMPLE)
    if unknown := sorted(given.keys() - PARAMETERS):
        raise ConfigError(
            f"the MySQL URL has an unknown parameter {unknown[0]}", hint=f"known: {', '.join(sorted(PARAMETERS))}"
        )
    if not parts.username or not (host or given.get("socket")):
        raise ConfigError("the MySQL URL names no user or no host", hint="mysql://user@host:3306/database")
    password = None if parts.password is None else unquote(parts.password)
    user = unquote(parts.username)
    return Address(host or "localhost", port, given.get("socket"), user, database or None, password, given)


def encryption(options: ServerOptions, address: Address) -> str:
    """Return which of `MODES` to use: verified unless the server is on this machine or the user said `insecure`.

    Raises:
        ConfigError: what the URL asks for does not exist, or does not protect the connection.
    """
    mode = address.parameters.get("ssl-mode", "").upper().replace("-", "_") or None
    if mode is not None and mode not in MODES:
        raise ConfigError("the MySQL URL has an unknown ssl-mode", hint=f"ssl-mode is one of {', '.join(MODES)}")
    if address.socket is not None:
        return "DISABLED"
    if address.is_local:
        return mode or (VERIFIED if "ssl-ca" in address.parameters else "DISABLED")
    if options.insecure:
        return mode or "PREFERRED"
    if mode not in (None, VERIFIED):
        raise ConfigError(
            f"ssl-mode={mode} does not protect the connection to {address}",
            hint="remove it from the URL (ssl-mode=VERIFY_IDENTITY is the default), or set insecure = true",
        )
    return VERIFIED


def tls_context(mode: str, address: Address) -> ssl.SSLContext:
    """Make the TLS settings of a connection in one of the modes from REQUIRED on.

    Raises:
        ConfigError: a certificate's file cannot be used.
    """
    given = address.parameters
    try:
        context = ssl.create_default_context(cafile=given.get("ssl-ca"))
        if "ssl-cert" in given:
            # Without a function that gives the pass phrase OpenSSL would ask at the terminal.
            context.load_cert_chain(given["ssl-cert"], given.get("ssl-key"), password=lambda: b"")
    except OSError as error:
        raise ConfigError(
            f"a certificate or key for {address} cannot be used: {error.strerror or error}",
            hint="check ssl-ca, ssl-cert and ssl-key in the URL",
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Certificates that servers make for themselves lack what the strict rules of Python 3.13 ask for.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.check_hostname = mode == VERIFIED
    if mode == "REQUIRED":
        context.verify_mode = ssl.CERT_NONE
    return context
