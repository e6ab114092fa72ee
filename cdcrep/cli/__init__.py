"""The `cdcrep` program."""

from cdcrep.cli.program import main

__all__ = ["main"]
