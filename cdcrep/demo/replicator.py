"""The replicator of the demonstration: `cdcrep run` as a process that is watched, asked, killed and restarted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from cdcrep.config import load
from cdcrep.errors import TransientError
from cdcrep.service.client import ask_query
from cdcrep.service.places import socket_name
from cdcrep.supervise import State

LOOK_SECONDS: Final = 0.01
STOP_SECONDS: Final = 10.0
LAST_LINES: Final = 10


class Replicator:
    """One process at a time that runs a configuration file, logging into a file."""

    def __init__(self, config: Path, log: Path) -> None:
        self._config, self._log = config, log
        loaded = load(config)
        self._socket = socket_name(loaded.name, loaded.target_identity)
        self._process: subprocess.Popen[bytes] | None = None
        self._read = 0
        self._events: list[dict[str, Any]] = []

    @property
    def pid(self) -> int:
        """The process id of the running process."""
        return self._running().pid

    def start(self, *arguments: str) -> None:
        """Start `cdcrep run`."""
        self.kill()
        self._events, self._read = [], self._log.stat().st_size
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cdcrep", "-v", "--log-format", "json", "run", str(self._config), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                # Ctrl-C is for the demonstration, which then stops the replicator itself.
                start_new_session=True,
            )

    def kill(self) -> None:
        """End the process by SIGKILL, if one runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Ask the process to end, and see that it does."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def leave(self) -> None:
        """Forget the process: it goes on without us."""
        # Keeps subprocess from warning of a child that nobody waits for.
        self._running().returncode = 0
        self._process = None

    def wait_for(self, *events: str, deadline_seconds: float = 30.0) -> None:
        """Wait until the log shows one of these events of this process.

        Raises:
            TransientError: the process ended, or none came in time.
        """
        deadline = time.monotonic() + deadline_seconds
        while True:
            ended = self._running().poll() is not None
            if any(self.find(event) for event in events):
                return
            if ended or time.monotonic() > deadline:
                awaited = " or ".join(events)
                why = "ended by itself" if ended else f"was not {awaited} within {deadline_seconds:.0f} s"
                raise TransientError(f"the replicator {why}; its log says\n{self.last_words()}")
            time.sleep(LOOK_SECONDS)

    def find(self, event: str) -> dict[str, Any] | None:
        """Return the last event of this name that the process has logged."""
        return next((found for found in reversed(self.events()) if found.get("event") == event), None)

    def state(self) -> str:
        """Return the state that the process entered last."""
        states = [found["event"] for found in self.events() if found.get("event") in set(State)]
        return states[-1] if states else State.STARTING

    def pause(self, seconds: float) -> None:
        """Let the process work for a while.

        Raises:
            TransientError: it ended by itself.
        """
        try:
            self._running().wait(seconds)
        except subprocess.TimeoutExpired:
            return
        raise TransientError(f"the replicator ended by itself; its log says\n{self.last_words()}")

    def finish(self, deadline_seconds: float = 60.0) -> None:
        """Run until everything that is committed now is in the copy.

        Raises:
            TransientError: it failed, or took too long.
        """
        self.start("--until-current")
        try:
            status = self._running().wait(deadline_seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TransientError(
                f"not current within {deadline_seconds:.0f} s; the log says\n{self.last_words()}"
            ) from None
        self._process = None
        if status != 0:
            raise TransientError(f"the replicator ended with exit code {status}; its log says\n{self.last_words()}")

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Ask the running process, the way `cdcrep query` does; no rows while none answers."""
        answer = ask_query(self._socket, sql)
        return [] if answer is None else list(answer.data.to_pylist())

    def events(self) -> list[dict[str, Any]]:
        """Return what the process has logged so far."""
        with self._log.open("rb") as log:
            log.seek(self._read)
            # A last line without an end is still being written.
            text, end, _ = log.read().rpartition(b"\n")
        self._read += len(text) + len(end)
        for line in text.splitlines():
            try:
                self._events.append(json.loads(line))
            except ValueError:
                continue
        return self._events

    def last_words(self) -> str:
        """Return the errors and warnings that the process has logged; without any, its last lines."""
        grave = [found for found in self.events() if found.get("level") in ("warning", "error")]
        lines = [f"{found.get('event')}  {found.get('hint') or ''}".rstrip() for found in grave[-LAST_LINES:]]
        return "\n".join(lines or self._log.read_text(errors="replace").splitlines()[-LAST_LINES:])

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise TransientError("the replicator does not run")
        return self._process
