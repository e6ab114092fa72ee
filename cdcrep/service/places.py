"""Where the sockets of running pipelines are."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cdcrep.errors import ConfigError

OWN_VARIABLE: Final = "CDCREP_RUNTIME_DIR"
SYSTEM_DIRECTORY: Final = Path("/run/cdcrep")
# Linux: sun_path has 108 bytes with the terminating zero.
LONGEST_ADDRESS: Final = 107

_NAME_PREFIX: Final = 24


def candidates(environment: Mapping[str, str] | None = None) -> list[Path]:
    """Return the runtime directories in the order in which they are considered; a running pipeline uses the first.

    `$CDCREP_RUNTIME_DIR`, systemd's `$RUNTIME_DIRECTORY`, `$XDG_RUNTIME_DIR/cdcrep`, for root `/run/cdcrep`, and a
    directory named by user id under the temporary directory.
    """
    environment = os.environ if environment is None else environment
    found = []
    if own := environment.get(OWN_VARIABLE):
        found.append(Path(own))
    if systemd := environment.get("RUNTIME_DIRECTORY"):
        found.append(Path(systemd.partition(":")[0]))
    if session := environment.get("XDG_RUNTIME_DIR"):
        found.append(Path(session) / "cdcrep")
    if os.geteuid() == 0:
        found.append(SYSTEM_DIRECTORY)
    found.append(Path(tempfile.gettempdir()) / f"cdcrep-{os.geteuid()}")
    return found


def runtime_directory() -> Path:
    """Return the directory for this process's socket, created with mode 0700 if it is missing.

    Raises:
        ConfigError: it cannot be created, belongs to somebody else, or others may write in it.
    """
    directory = candidates()[0]
    hint = f"set {OWN_VARIABLE} to a directory of your own"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.lstat()
    except OSError as error:
        raise ConfigError(f"no runtime directory at {directory}: {error.strerror}", hint=hint) from error
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigError(f"the runtime directory {directory} is a link or a file", hint=hint)
    if found.st_uid != os.geteuid():
        raise ConfigError(f"the runtime directory {directory} belongs to another user", hint=hint)
    if found.st_mode & 0o022:
        raise ConfigError(f"other users may write in the runtime directory {directory}", hint=f"chmod 700 {directory}")
    return directory


def socket_name(pipeline: str, target: str) -> str:
    """Name the socket of a pipeline into one target; the part after the name keeps equal names apart."""
    digest = hashlib.sha256(f"{pipeline}\n{target}".encode()).hexdigest()[:12]
    return f"{pipeline[:_NAME_PREFIX]}-{digest}.sock"


def address(path: Path, directory_descriptor: int) -> str:
    """Return what to bind or connect to: the path, or a short way to it through an open descriptor of its directory."""
    if len(os.fsencode(path)) <= LONGEST_ADDRESS:
        return str(path)
    return f"/proc/self/fd/{directory_descriptor}/{path.name}"
