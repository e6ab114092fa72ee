"""Copies tables from one database into another and keeps them equal, exactly once, through any crash."""

from __future__ import annotations

from typing import Final

__version__: Final = "0.1.0"
