"""Runs the ordinary command line in a process that dies at a named point, or with a defect that tests must notice.

    CDCREP_CRASH_AT=engine.before_confirm:3 python -m cdcrep.testing.crash -- run pipeline.toml

`CDCREP_CRASH_AT=name[:n]` is SIGKILL at the n-th arrival at a point (`cdcrep.crashpoint.reached`), the first if no
number is given. The engine's points are `engine.…`; every sink marks `sink.before_rows`, `sink.after_rows`,
`sink.before_commit`, `sink.after_commit`, `load.before_commit` and `load.after_commit`.

`CDCREP_BROKEN` breaks one of the two rules that exactly-once rests on, for any connector: a crash suite that does not
notice is worthless.

- `split-position`: the position is committed in a transaction of its own, after the rows.
- `position-first`: it is committed in a transaction of its own, before the rows.
- `confirm-on-receipt`: the source is told to forget a batch when it is read instead of when it is durable. Harmless
  where the source is told nothing, because its server forgets by the clock.

SIGUSR1 makes the process print where each of its threads stands, for tests in which it does not end.

`cdcrep` itself reads neither variable and leaves the signal alone: only this module does.
"""

from __future__ import annotations

import faulthandler
import importlib.util
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cdcrep import connector, crashpoint
from cdcrep.changes import Batch
from cdcrep.connector import Checkpoint, Copied
from cdcrep.errors import ConfigError
from cdcrep.position import Position
from cdcrep.table import TableId


def install(environment: Mapping[str, str]) -> None:
    """Arm the crash point and put in the defect that the environment names."""
    if point := environment.get("CDCREP_CRASH_AT"):
        crashpoint.listen(killer(point))
    if defect := environment.get("CDCREP_BROKEN"):
        if defect not in DEFECTS:
            raise ConfigError(f"no such defect: {defect}", hint=f"known: {', '.join(sorted(DEFECTS))}")
        broken_group, defective = DEFECTS[defect]
        # Every connector class comes through this function, whoever asks for it.
        find = connector._find

        def find_defective(group: str, url: str) -> type[Any]:
            found = find(group, url)
            return defective(found) if group == broken_group else found

        connector._find = find_defective


def killer(point: str) -> Callable[[str], None]:
    """Make a listener that kills this process at the n-th arrival at `name[:n]`."""
    name, _, number = point.partition(":")
    if number and not number.isdecimal():
        raise ConfigError(f"not a crash point: {point!r}", hint="name, or name:n with a number n from 1")
    left = int(number or 1)

    def listen(reached: str) -> None:
        nonlocal left
        if reached == name:
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return listen


def points(*packages: str) -> list[str]:
    """List the crash points in the source text of packages, in order of file name."""
    found: dict[str, None] = {}
    for package in packages or ("cdcrep", "cdcrep_connectors"):
        spec = importlib.util.find_spec(package)
        for folder in spec.submodule_search_locations or () if spec else ():
            for path in sorted(Path(folder).rglob("*.py")):
                if "testing" not in path.parts:
                    found.update(dict.fromkeys(re.findall(r'\breached\("([^"]+)"\)', path.read_text())))
    return list(found)


def confirm_on_receipt(source: type[Any]) -> type[Any]:
    """Make a source that forgets a batch as soon as it has handed it over."""

    class ConfirmsOnReceipt(source):  # type: ignore[misc]  # any source
        def stream(
            self, after: Position, copied: Mapping[TableId, Copied], until: Position | None = None
        ) -> Iterator[Batch]:
            for batch in super().stream(after, copied, until):
                if batch.position is not None:
                    self.confirm(batch.position)
                yield batch

    return ConfirmsOnReceipt


def split_position(sink: type[Any]) -> type[Any]:
    """Make a sink that commits rows under a name for the position before them, and then the position."""

    class SplitsPosition(sink):  # type: ignore[misc]  # any sink
        _before: Position | None = None

        def open(self, owner: str = "", replacing: int | None = None) -> Checkpoint:
            checkpoint: Checkpoint = super().open(owner, replacing)
            if checkpoint.position is not None:
                checkpoint = replace(checkpoint, position=Position(checkpoint.position.removesuffix("~")))
            self._before = checkpoint.position
            return checkpoint

        def register(self, tables: Mapping[TableId, Copied], position: Position | None = None) -> None:
            super().register(tables, position)
            self._before = position or self._before

        def apply(self, batch: Batch) -> None:
            if batch.position is not None:
                super().apply(replace(batch, position=Position(f"{self._before}~")))
                crashpoint.reached("broken.between_rows_and_position")
                batch = replace(batch, changes=(), transactions=0, size=0)
                self._before = batch.position
            super().apply(batch)

    return SplitsPosition


def position_first(sink: type[Any]) -> type[Any]:
    """Make a sink that commits the position, and then the rows up to it."""

    class CommitsPositionFirst(sink):  # type: ignore[misc]  # any sink
        def apply(self, batch: Batch) -> None:
            if batch.position is not None:
                super().apply(replace(batch, changes=(), transactions=0, size=0))
                crashpoint.reached("broken.between_position_and_rows")
            super().apply(batch)

    return CommitsPositionFirst


DEFECTS: Mapping[str, tuple[str, Callable[[type[Any]], type[Any]]]] = {
    "split-position": ("cdcrep.sinks", split_position),
    "position-first": ("cdcrep.sinks", position_first),
    "confirm-on-receipt": ("cdcrep.sources", confirm_on_receipt),
}


def main(arguments: Sequence[str]) -> None:
    """Run `cdcrep` with these arguments."""
    from cdcrep.cli import main as command_line

    sys.argv = ["cdcrep", *(arguments[1:] if arguments[:1] == ["--"] else arguments)]
    command_line()


if __name__ == "__main__":
    faulthandler.register(signal.SIGUSR1)
    install(os.environ)
    main(sys.argv[1:])
