"""Reads the fields of one event in order; every field that would end behind the event is a DataError."""

from __future__ import annotations

from cdcrep.errors import DataError


class FieldReader:
    """Stands at `at` in `content`; numbers are little-endian."""

    def __init__(self, content: bytes, what: str, at: int = 0) -> None:
        self.at = at
        self._content = content
        self._what = what

    @property
    def left(self) -> int:
        """Count the bytes that follow."""
        return len(self._content) - self.at

    def take(self, length: int) -> bytes:
        """Read bytes."""
        end = self.at + length
        if not self.at <= end <= len(self._content):
            raise self.error("it ends in the middle of a field")
        taken = self._content[self.at : end]
        self.at = end
        return taken

    def integer(self, width: int, *, signed: bool = False) -> int:
        """Read a number of so many bytes."""
        return int.from_bytes(self.take(width), "little", signed=signed)

    def packed(self) -> int:
        """Read a length-encoded integer: below 251 itself, else 252, 253, 254 and 2, 3, 8 bytes."""
        first = self.integer(1)
        if first < 251:
            return first
        if first not in (252, 253, 254):
            raise self.error("a length-encoded integer is none")
        return self.integer({252: 2, 253: 3, 254: 8}[first])

    def packed_bytes(self) -> bytes:
        """Read bytes behind their length-encoded length."""
        return self.take(self.packed())

    def string(self, length: int) -> str:
        """Read UTF-8."""
        return self.decoded(self.take(length))

    def terminated(self) -> bytes:
        """Read bytes up to a zero byte."""
        end = self._content.find(b"\0", self.at)
        if end < 0:
            raise self.error("a string has no end")
        taken = self._content[self.at : end]
        self.at = end + 1
        return taken

    def rest(self) -> bytes:
        """Read all that follows."""
        return self.take(self.left)

    def end(self) -> None:
        """Make sure that nothing follows."""
        if self.left:
            raise self.error("it is longer than its content")

    def decoded(self, text: bytes) -> str:
        """Take bytes for UTF-8."""
        try:
            return text.decode()
        except UnicodeDecodeError:
            raise self.error("a name is not UTF-8") from None

    def error(self, why: str) -> DataError:
        """Make the error that says why the event cannot be read."""
        return DataError(f"the {self._what} of the source cannot be read: {why}")
