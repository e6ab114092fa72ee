"""The course of the demonstration: a shop that keeps selling, a replicator that keeps being killed, a comparison."""

from __future__ import annotations

import contextlib
import random
import secrets
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Final

import duckdb
import psycopg
from rich.console import Console

from cdcrep.demo.display import Display
from cdcrep.demo.files import Files
from cdcrep.demo.postgres_server import PostgresServer, find_binaries
from cdcrep.demo.replicator import Replicator
from cdcrep.demo.report import report, report_kept
from cdcrep.demo.scenes import Scenes
from cdcrep.demo.shop import Shop
from cdcrep.demo.writers import writing
from cdcrep.errors import TransientError

WRITERS: Final = 4
SERVER_SETTINGS: Final = {"max_wal_size": "4GB", "shared_buffers": "128MB", "deadlock_timeout": "100ms"}


def play(
    directory: Path,
    console: Console,
    *,
    kills: int,
    seed: int | None,
    keep: bool = False,
    orders: int = 100_000,
    backlog_transactions: int = 150,
    latency_seconds: float = 6.0,
    before_comparison: Callable[[Path], None] = lambda _copy: None,
) -> int:
    """Play it all; the last four parameters make it smaller, and let a test spoil the copy."""
    seed = random.SystemRandom().randrange(1_000_000) if seed is None else seed
    display, files = Display(console), Files(directory)
    with _termination_as_interrupt(), _drivers_translated(), ExitStack() as stack:
        stack.enter_context(files.claimed())
        display.line(f"cdcrep demo, seed {seed}, in {files.directory}", style="bold")
        display.line(
            f"A shop in PostgreSQL, {WRITERS} writers, and a replicator that is killed (SIGKILL) again and again."
        )
        display.line()
        server = _start_server(stack, display)
        shop = _open_shop(display, server, orders)
        files.write_config(shop)
        replicator = Replicator(files.config, files.log)
        stack.callback(replicator.stop)
        scenes = Scenes(display, shop, replicator, seed)
        with writing(shop, writers=WRITERS, seed=seed, orders=orders) as writers:
            kills_left = scenes.copy(kills)
            scenes.follow(kills_left, writers)
            scenes.catch_up(backlog_transactions)
            scenes.watch(latency_seconds, writers)
        scenes.finish(writers)
        before_comparison(files.copy)
        verdict = scenes.compare(files.copy)
        report(display, scenes.figures, verdict, files.copy)
        if keep:
            replicator.start()
            replicator.wait_for("streaming")
            files.write_stop_script(shop, server, replicator.pid)
            report_kept(display, files, shop, server)
            replicator.leave()
            stack.pop_all()
    return 1 if verdict.complaints else 0


def _start_server(stack: ExitStack, display: Display) -> PostgresServer:
    with display.step("a real PostgreSQL server") as step:
        server = PostgresServer(find_binaries(), settings=SERVER_SETTINGS, password=secrets.token_urlsafe(24))
        stack.enter_context(server)
        step.outcome = f"listens on 127.0.0.1:{server.port}, fsync on"
    return server


def _open_shop(display: Display, server: PostgresServer, orders: int) -> Shop:
    shop = Shop(server)
    with display.step("a shop to replicate") as step:
        shop.create(orders, lambda table, rows: step.tell(f"{rows:,} {table}"))
        step.outcome = f"{shop.rows:,} rows; {WRITERS} writers begin"
    return shop


@contextlib.contextmanager
def _drivers_translated() -> Iterator[None]:
    try:
        yield
    except (psycopg.Error, duckdb.Error) as error:
        raise TransientError(f"the demonstration met an unexpected {type(error).__name__}") from error


@contextlib.contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """Make SIGTERM and SIGHUP clean up like Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
