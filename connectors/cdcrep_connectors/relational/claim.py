"""Who takes a pipeline's checkpoint row in a target, and what whoever has lost it is told."""

from __future__ import annotations

from dataclasses import dataclass

from cdcrep.errors import DivergedError


@dataclass(frozen=True)
class Claim:
    """Who wants to take a pipeline's checkpoint row, and from whom; see `cdcrep.connector.Sink.open`."""

    pipeline: str
    source: str
    owner: str
    replacing: int | None

    def allows(self, epoch: int, owner: str | None) -> bool:
        """Tell whether the row may be taken that has this epoch (0: there is none) and this owner."""
        return self.replacing in (None, epoch) or self.owner == owner


def fenced(pipeline: str) -> DivergedError:
    """Make the error of a process whose checkpoint row is no longer its own."""
    return DivergedError(
        f"fenced: another process took over pipeline {pipeline!r}, or its checkpoint was changed by hand",
        hint="run one cdcrep process per pipeline; `cdcrep status` shows what the target remembers",
    )
