"""Signals: the first asks the pipeline to end, the second ends the process."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Final

STOP_SECONDS: Final = 4.0
"""An orderly end that takes longer is cut off, so that the process is gone within 5 s: the databases then roll back
what is open, as after any crash."""

_TICK_SECONDS: Final = 0.2
_SHOW_CURSOR: Final = "\x1b[?25h"


def in_foreground(run: Callable[[], None], stop: Callable[[], None], say: Callable[[str], None]) -> None:
    """Call `run` in a thread until it ends; raise what it raised.

    This thread only waits, so that signals are handled at once. When `run` does not end in time after a signal, its
    thread is left behind: the process has to end by `os._exit`.
    """
    done = threading.Event()
    failures: list[BaseException] = []
    asked: list[float] = []

    def work() -> None:
        try:
            run()
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
        threading.Thread(target=stop, name="cdcrep-stop", daemon=True).start()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        threading.Thread(target=work, name="cdcrep-pipeline", daemon=True).start()
        announced = False
        # In slices: a signal that the kernel gave to another thread wakes nobody up.
        while not done.wait(_TICK_SECONDS):
            if asked and not announced:
                say("stopping; a second signal ends the process at once")
                announced = True
            if asked and time.monotonic() - asked[0] > STOP_SECONDS:
                break
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if failures:
        raise failures[0]
