"""What the demonstration writes into its directory, and the care it takes of files that are not its own."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cdcrep.demo.shop import REPLICATOR, Server, Shop
from cdcrep.errors import ConfigError

MARK: Final = "# Written by cdcrep demo, which will overwrite it."
CHUNK_BYTES: Final = 4 << 20

CONFIG: Final = """{mark}
name = "demo"

[source]
url = {source}
password_file = {password_file}
{options}chunk_bytes = {chunk_bytes}            # small, so that a killed first copy has much to keep

[target]
url = {target}

[tables]
include = ["shop.*"]
"""

STOP: Final = """#!/bin/sh
{mark}
# Stops what `cdcrep demo --keep` left running: the replicator and the server, whose data it deletes.
if grep -q demo.toml /proc/{replicator}/cmdline 2> /dev/null; then kill {replicator}; fi
server={server}
if grep -q {home} "/proc/$server/cmdline" 2> /dev/null; then kill -{signal} "$server"; fi
while kill -0 "${{server:-none}}" 2> /dev/null; do sleep 0.1; done
rm -rf {home}
rm -f {leftovers}
"""


class Files:
    """The demonstration's files in one directory; `claimed` comes first."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self.config = self.directory / "demo.toml"
        self.copy = self.directory / "demo.duckdb"
        self.log = self.directory / "demo.log"
        self.password = self.directory / "demo.password"
        self.credentials = self.directory / "demo.credentials"
        self.stop_script = self.directory / "demo-stop.sh"

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Make the directory ours: refuse strangers' files and other runs, delete what an earlier run left.

        Raises:
            ConfigError: something is in the way; nothing was touched.
        """
        mine = self.config.exists() and MARK in self.config.read_text(errors="replace")
        strangers = [file.name for file in self._all() if file.exists() and not mine]
        if strangers:
            raise ConfigError(
                f"{self.directory} holds {', '.join(strangers)}, which no demonstration has written",
                hint="cdcrep demo --directory SOMEWHERE-ELSE",
            )
        if self.stop_script.exists():
            raise ConfigError(
                f"an earlier demonstration was left running in {self.directory}",
                hint=f"sh {shlex.quote(str(self.stop_script))}",
            )
        with self._locked():
            self.config.write_text(f"{MARK}\n")
            self.log.write_bytes(b"")
            for file in (self.copy, self.copy.with_name("demo.duckdb.wal"), self.password, self.credentials):
                file.unlink(missing_ok=True)
            try:
                yield
            finally:
                if not self.stop_script.exists():
                    self.password.unlink(missing_ok=True)
                    self.credentials.unlink(missing_ok=True)

    def write_config(self, shop: Shop) -> None:
        """Write the configuration, and the replicator's password into a file of its own."""
        _write_secret(self.password, shop.password(REPLICATOR))
        self.config.write_text(
            CONFIG.format(
                mark=MARK,
                source=json.dumps(shop.url(REPLICATOR)),
                password_file=json.dumps(str(self.password)),
                options=shop.options,
                chunk_bytes=CHUNK_BYTES,
                target=json.dumps(f"duckdb:///{self.copy}"),
            )
        )

    def write_stop_script(self, shop: Shop, server: Server, replicator: int) -> str:
        """Write what stops everything that is left running; return the command that opens a prompt as the owner."""
        credentials, prompt = shop.client(str(self.credentials))
        _write_secret(self.credentials, credentials)
        leftovers = (self.password, self.credentials, self.stop_script)
        self.stop_script.write_text(
            STOP.format(
                mark=MARK,
                replicator=replicator,
                server=server.pid,
                signal=server.end_signal,
                home=shlex.quote(str(server.home)),
                leftovers=" ".join(shlex.quote(str(file)) for file in leftovers),
            )
        )
        return prompt

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise ConfigError(f"cannot use the directory {self.directory}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            raise ConfigError(f"another demonstration runs in {self.directory} at this moment") from error
        finally:
            os.close(descriptor)

    def _all(self) -> tuple[Path, ...]:
        return self.config, self.copy, self.log, self.password, self.credentials, self.stop_script


def _write_secret(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
