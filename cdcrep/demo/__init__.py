"""The demonstration: a real database server replicated through kill after kill."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cdcrep.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console


def run(
    directory: Path, keep: bool, kills: int, seed: int | None, console: Console, database: str = "postgresql"
) -> int:
    """Play the demonstration with its files in `directory`; return 0 if the copy equals the source, else 1.

    Raises:
        ConfigError: a package is missing, or files that are not the demonstration's stand in its way.
        CdcrepError: a server or the replicator failed.
    """
    try:
        # Only these modules use drivers, which an installation without the extra lacks.
        from cdcrep.demo.play import play

        return play(directory, console, kills=kills, seed=seed, keep=keep, database=database)
    except ImportError as error:
        raise ConfigError(
            f"the demonstration needs a package that is not installed: {error.name}", hint="pip install 'cdcrep[demo]'"
        ) from error
