"""The course of the demonstration: a shop that keeps selling, a replicator that keeps being killed, a comparison."""

from __future__ import annotations

import contextlib
import importlib
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import FrameType, ModuleType
from typing import Final

import duckdb
from rich.console import Console

from cdcrep.demo.display import Display
from cdcrep.demo.files import Files
from cdcrep.demo.replicator import Replicator
from cdcrep.demo.report import report, report_kept
from cdcrep.demo.scenes import Scenes
from cdcrep.demo.shop import Server, Shop
from cdcrep.demo.writers import writing
from cdcrep.errors import TransientError

WRITERS: Final = 4
SHOPS: Final = {"postgresql": "cdcrep.demo.postgres_shop", "mysql": "cdcrep.demo.mysql_shop"}
"""Database -> the module of its shop: the only one that uses its driver."""


def play(
    directory: Path,
    console: Console,
    *,
    kills: int,
    seed: int | None,
    keep: bool = False,
    database: str = "postgresql",
    orders: int = 100_000,
    backlog_transactions: int = 150,
    latency_seconds: float = 6.0,
    before_comparison: Callable[[Path], None] = lambda _copy: None,
) -> int:
    """Play it all; the last four parameters make it smaller, and let a test spoil the copy."""
    seed = random.SystemRandom().randrange(1_000_000) if seed is None else seed
    module = importlib.import_module(SHOPS[database])
    display, files = Display(console), Files(directory)
    with _termination_as_interrupt(), _drivers_translated(), ExitStack() as stack:
        stack.enter_context(files.claimed())
        display.line(f"cdcrep demo, seed {seed}, in {files.directory}", style="bold")
        display.line(
            f"A shop in {module.DATABASE_NAME}, {WRITERS} writers, and a replicator that is killed (SIGKILL) again and "
            "again."
        )
        display.line()
        server, shop = _open(stack, display, module)
        _fill(display, shop, orders)
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
            report_kept(display, files, files.write_stop_script(shop, server, replicator.pid))
            replicator.leave()
            stack.pop_all()
    return 1 if verdict.complaints else 0


def _open(stack: ExitStack, display: Display, module: ModuleType) -> tuple[Server, Shop]:
    stack.enter_context(module.drivers_translated())
    with display.step(f"a {module.DATABASE_NAME} server") as step:
        server: Server = stack.enter_context(module.start_server())
        step.outcome = f"listens on 127.0.0.1:{server.port}{module.REMARK}"
    shop: Shop = module.open_shop(server)
    return server, shop


def _fill(display: Display, shop: Shop, orders: int) -> None:
    with display.step("a shop to replicate") as step:
        shop.create(orders, lambda table, rows: step.tell(f"{rows:,} {table}"))
        step.outcome = f"{shop.rows:,} rows; {WRITERS} writers begin"


@contextlib.contextmanager
def _drivers_translated() -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
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
