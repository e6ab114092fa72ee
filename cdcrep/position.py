"""A place in a source's history of commits."""

from __future__ import annotations

from typing import NewType

Position = NewType("Position", str)
"""An opaque string that only the source that wrote it looks inside.

It names the end of a committed transaction and carries the source's identity, so that a position of another
server is refused instead of compared. Everybody else stores it, hands it back and tests it for equality.
"""
