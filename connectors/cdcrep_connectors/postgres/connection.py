"""Connects to PostgreSQL: verified TLS, passwords from files, sessions whose text forms only we decide about."""

from __future__ import annotations

import functools
import ipaddress
import os
import re
import ssl
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import psycopg
import structlog
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cdcrep.errors import ConfigError
from cdcrep_connectors.postgres.failures import translate
from cdcrep_connectors.postgres.options import ServerOptions

Connection = psycopg.Connection[tuple[Any, ...]]

log = structlog.get_logger(__name__)

SESSION_SETTINGS: Final[Mapping[str, str]] = {
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",  # shortest form that reads back as the same number; any value above 0 means that
    "lc_monetary": "C",
    "xmlbinary": "base64",
    "xmloption": "content",
    "array_nulls": "on",
    "quote_all_identifiers": "off",
    "standard_conforming_strings": "on",
    "search_path": "pg_catalog",
    "row_security": "off",
    "default_transaction_isolation": "read\\ committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "jit": "off",  # compiling costs more than our short statements
}
"""What decides about text forms and name lookup. Sent with the connection's first packet, where it beats the settings
of roles and databases and reaches replication sessions, whose output functions read the same settings."""

SECRET_PARAMETERS: Final = frozenset({"password", "sslpassword", "oauth_client_secret", "passfile"})
VERIFIED: Final = "verify-full"
CERTIFICATE_BUNDLES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Red Hat
    "/etc/ssl/cert.pem",  # BSD, macOS
)


def connect(
    options: ServerOptions,
    *,
    application_name: str,
    replication: bool = False,
    autocommit: bool = True,
    statement_timeout: float = 30.0,
    lock_timeout: float = 5.0,
    idle_in_transaction_timeout: float = 60.0,
    settings: Mapping[str, str] | None = None,
) -> Connection:
    """Open a session with pinned settings; a replication session (`database` mode) speaks simple queries only.

    Timeouts are in seconds, 0 means none; replication commands obey none of them. `settings` are further session
    settings, which win over the pinned ones. Secrets are read anew by every call.

    Raises:
        ConfigError: the URL, the password file or the TLS parameters are not acceptable.
        SetupError, TransientError: the server cannot be reached or refuses us.
    """
    timeouts = {
        "statement_timeout": _milliseconds(statement_timeout),
        "lock_timeout": _milliseconds(lock_timeout),
        "idle_in_transaction_session_timeout": _milliseconds(idle_in_transaction_timeout),
    }
    parameters = connection_parameters(options, application_name, {**timeouts, **(settings or {})})
    if replication:
        parameters["replication"] = "database"
    try:
        return psycopg.connect(**parameters, autocommit=autocommit)  # type: ignore[arg-type]
    except psycopg.Error as error:
        raise translate(error, f"connecting to {describe(options)}") from error


def connection_string(options: ServerOptions, application_name: str, settings: Mapping[str, str] | None = None) -> str:
    """Return libpq's keyword form of what `connect` uses, password included: for drivers, never for people."""
    return make_conninfo(**connection_parameters(options, application_name, settings or {}))


def connection_parameters(options: ServerOptions, application_name: str, settings: Mapping[str, str]) -> dict[str, str]:
    """Return the libpq parameters of a session: the URL's, the password, TLS, keepalives and pinned settings."""
    given = parse(options.url)
    parameters = {
        "keepalives": "1",
        "keepalives_idle": "30",
        "keepalives_interval": "10",
        "keepalives_count": "3",
        "tcp_user_timeout": "60000",
        "connect_timeout": str(options.connect_timeout),
        **given,
        **_tls(options, given),
        "gssencmode": "disable",
        "client_encoding": "UTF8",
        "application_name": application_name[:63],
    }
    if options.password_file is not None:
        if "password" in given:
            raise ConfigError("both the URL and password_file give a password", hint="remove the one in the URL")
        parameters["password"] = read_password(options.password_file)
    pinned = " ".join(f"-c {name}={value}" for name, value in {**SESSION_SETTINGS, **settings}.items())
    # The last one wins: ours come after those of the URL.
    parameters["options"] = f"{given.get('options', '')} {pinned}".strip()
    return parameters


def parse(url: str) -> dict[str, str]:
    """Split a URL into libpq's parameters.

    Raises:
        ConfigError: not a URL that libpq understands. The message does not repeat the URL, which may hold a password.
    """
    try:
        given = {name: str(value) for name, value in conninfo_to_dict(url).items()}
    except psycopg.Error:
        # Without a cause: libpq's message quotes the part that it could not read.
        raise ConfigError(
            "the PostgreSQL URL cannot be read",
            hint="percent-encode special characters: postgresql://user@host:5432/database?sslmode=verify-full",
        ) from None
    if "service" in given:
        raise ConfigError("the URL names a service", hint="write host, port, user and database into the URL")
    return given


def read_password(path: Path) -> str:
    """Read a password file: one line, not readable by others.

    Raises:
        ConfigError: missing, a symbolic link, readable by group or others, or owned by somebody else.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(f"password_file {path} cannot be opened: {error.strerror}") from error
    with os.fdopen(descriptor, encoding="utf-8") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"password_file {path} is not a regular file")
        if status.st_mode & 0o177:
            raise ConfigError(f"password_file {path} is open to others", hint=f"chmod 0600 {path}")
        if status.st_uid not in (os.geteuid(), 0):
            raise ConfigError(f"password_file {path} belongs to somebody else", hint=f"chown {os.geteuid()} {path}")
        return file.readline().rstrip("\r\n")


def redact(url: str) -> str:
    """Return the URL with every password replaced by `***`; works on anything that resembles a URL."""
    url = re.sub(r"(://[^:/@?#]*):.*@", r"\1:***@", url, count=1, flags=re.DOTALL)
    head, mark, query = url.partition("?")
    pairs = [pair.partition("=") for pair in query.split("&")]
    shown = [f"{k}{eq}***" if unquote(k).lower() in SECRET_PARAMETERS else f"{k}{eq}{v}" for k, eq, v in pairs]
    return head + mark + "&".join(shown)


def describe(options: ServerOptions) -> str:
    """Name the server, database and user for messages: `shop on db.example.com:5432 as cdc`."""
    given = parse(options.url)
    host = given.get("host") or given.get("hostaddr") or os.environ.get("PGHOST") or "the local socket"
    user = given.get("user") or os.environ.get("PGUSER") or "the current user"
    port = given.get("port") or os.environ.get("PGPORT") or "5432"
    return f"database {given.get('dbname') or user} on {host}:{port} as {user}"


def _tls(options: ServerOptions, given: Mapping[str, str]) -> dict[str, str]:
    """Decide about encryption: verified unless the server is on this machine or the user said `insecure`."""
    mode = given.get("sslmode") or os.environ.get("PGSSLMODE")
    if _is_local(given):
        return {"sslmode": mode or "prefer"}
    old_protocol = given.get("ssl_min_protocol_version", "TLSv1.2") not in ("TLSv1.2", "TLSv1.3")
    if not options.insecure:
        if mode not in (None, VERIFIED) or old_protocol:
            weakness = f"sslmode={mode}" if mode not in (None, VERIFIED) else "ssl_min_protocol_version"
            raise ConfigError(
                f"{weakness} does not protect the connection to {describe(options)}",
                hint="remove it from the URL (sslmode=verify-full is the default), or set insecure = true",
            )
        return {"sslmode": VERIFIED, "sslrootcert": _root_certificate(given)}
    if mode != VERIFIED:
        _warn_of_unverified(describe(options), mode or "prefer")
        # Whoever answers in the server's place must at least not be given the password itself.
        return {"sslmode": mode or "prefer", "require_auth": given.get("require_auth", "!password")}
    return {"sslmode": VERIFIED, "sslrootcert": _root_certificate(given)}


@functools.cache
def _warn_of_unverified(server: str, mode: str) -> None:
    """Warn once: a pipeline connects again and again."""
    log.warning("connections are not verified", server=server, sslmode=mode)


def _root_certificate(given: Mapping[str, str]) -> str:
    """Return the file of trusted certificates: the user's, else the system's."""
    if named := given.get("sslrootcert") or os.environ.get("PGSSLROOTCERT"):
        return named
    # A libpq that comes in a wheel looks for `system` where its builder kept certificates.
    candidates = (Path.home() / ".postgresql" / "root.crt", ssl.get_default_verify_paths().cafile, *CERTIFICATE_BUNDLES)
    return next((str(path) for path in candidates if path and Path(path).is_file()), "system")


def _is_local(given: Mapping[str, str]) -> bool:
    """Tell whether every address is a Unix socket or on the loopback interface."""
    if not (given.get("host") or given.get("hostaddr")) and os.environ.get("PGSERVICE"):
        return False
    hosts = given.get("hostaddr") or os.environ.get("PGHOSTADDR") or given.get("host") or os.environ.get("PGHOST", "")
    return all(_is_local_address(host) for host in hosts.split(","))


def _is_local_address(host: str) -> bool:
    if host in ("", "localhost") or host.startswith(("/", "@")):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))
