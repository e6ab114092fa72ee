"""Signals: the first asks the pipeline to end, the second ends the process."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Final, Protocol

STOP_SECONDS: Final = 4.0
"""An orderly end that takes longer is cut off, so that the process is gone within 5 s: the databases then roll back
what is open, as after any crash."""

_TICK_SECONDS: Final = 0.2
_SHOW_CURSOR: Final = "\x1b[?25h"


class Stoppable(Protocol):
    """What runs in the foreground."""

    def run(self) -> None:
        """Work until it is done, stopped, or fails."""

    def stop(self) -> None:
        """Ask `run` to end."""

    def overdue(self) -> BaseException | None:
        """Return the failure of a `run` that has failed and does not come to its end."""

    def abandon(self, failure: BaseException | None) -> None:
        """Raise the failure, or without one that of a `run` which has failed and does not come to its end."""


def in_foreground(pipeline: Stoppable, say: Callable[[str], None]) -> None:
    """Run a pipeline in a thread until it ends; raise what it raised.

    This thread only waits, so that signals are handled at once. When `run` does not end in time after a signal or a
    failure, its thread is left behind: the process has to end by `os._exit`.
    """
    done = threading.Event()
    failures: list[BaseException] = []
    asked: list[float] = []

    def work() -> None:
        try:
            pipeline.run()
        except BaseException as failure:
            failures.append(failure)
        finally:
            done.set()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if asked:
            if sys.stderr.isatty():
                os.write(2, _SHOW_CURSOR.encode())
            os._exit(128 + number)
        asked.append(time.monotonic())
        # In a thread: whatever `stop` waits for, the second signal does not.
        threading.Thread(target=pipeline.stop, name="cdcrep-stop", daemon=True).start()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        threading.Thread(target=work, name="cdcrep-pipeline", daemon=True).start()
        announced = False
        overdue: BaseException | None = None
        # In slices: a signal that the kernel gave to another thread wakes nobody up.
        while not done.wait(_TICK_SECONDS):
            if asked and not announced:
                say("stopping; a second signal ends the process at once")
                announced = True
            overdue = pipeline.overdue()
            if overdue is not None or (asked and time.monotonic() - asked[0] > STOP_SECONDS):
                break
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if failures:
        raise failures[0]
    if not done.is_set():
        say("tidying up did not end in time; the databases roll back what is open, as after a crash")
        pipeline.abandon(overdue)
