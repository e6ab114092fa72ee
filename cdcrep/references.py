"""What a configuration file takes from elsewhere: `${VAR}` from the environment, passwords from files of their own."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

from cdcrep.errors import ConfigError
from cdcrep.redaction import conceal

# `$${` stands for a literal `${`.
_REFERENCE: Final = re.compile(r"\$\$\{|\$\{([^}]*)\}")
LONGEST_PASSWORD: Final = 65_536

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def substitute(value: Any, environment: Mapping[str, str], where: str = "") -> Any:
    """Replace `${VAR}` in every string of a parsed TOML value.

    A reference in the place of a URL's password (`postgresql://cdc:${PW}@host/shop`) is percent-encoded, so that the
    variable holds the password as it is; everywhere else the variable's text is put in as it stands.

    Raises:
        ConfigError: a variable is not set, or what stands between the braces is no variable's name.
    """
    if isinstance(value, dict):
        return {key: substitute(item, environment, f"{where}.{key}" if where else key) for key, item in value.items()}
    if isinstance(value, list):
        return [substitute(item, environment, where) for item in value]
    if not isinstance(value, str) or "${" not in value:
        return value

    scheme_end = value.find("://")
    first_colon = value.find(":", scheme_end + 3) if scheme_end >= 0 else -1
    password = range(first_colon, value.rfind("@")) if first_colon >= 0 else range(0)

    def replacement(match: re.Match[str]) -> str:
        name = match.group(1)
        if name is None:
            return "${"
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{where}: ${{…}} does not hold the name of an environment variable")
        if name not in environment:
            raise ConfigError(
                f"{where}: the environment variable {name} is not set", hint=f"export {name}=… before starting cdcrep"
            )
        text = environment[name]
        if match.start() not in password:
            return text
        conceal(text)
        return quote(text, safe="")

    return _REFERENCE.sub(replacement, value)


def read_password(path: Path) -> str:
    """Read a password file: its text without the line end.

    Raises:
        ConfigError: it cannot be read, is a symbolic link, belongs to another user, or may be read by others.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(f"password_file {path} cannot be read: {error.strerror}") from error
    try:
        _check_private(path, os.fstat(descriptor))
        password = os.read(descriptor, LONGEST_PASSWORD).decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ConfigError(f"password_file {path} is not UTF-8 text") from error
    finally:
        os.close(descriptor)
    if not password:
        raise ConfigError(f"password_file {path} is empty")
    conceal(password)
    return password


def _check_private(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(f"password_file {path} is not a regular file")
    if found.st_uid not in {os.geteuid(), 0}:
        raise ConfigError(f"password_file {path} belongs to another user", hint=f"chown {os.geteuid()} {path}")
    if found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        raise ConfigError(
            f"password_file {path} may be read by other users (mode {mode:04o})", hint=f"chmod 600 {path}"
        )


def with_password(url: str, password: str) -> str:
    """Put a password into a URL that has none.

    Raises:
        ConfigError: the URL names no server, or has a password already.
    """
    parts = urlsplit(url)
    user, _, server = parts.netloc.rpartition("@")
    if not parts.netloc:
        raise ConfigError("password_file stands beside a url that names no user or host")
    if ":" in user:
        raise ConfigError("password_file stands beside a url that has a password", hint="remove one of the two")
    return parts._replace(netloc=f"{user}:{quote(password, safe='')}@{server}").geturl()
