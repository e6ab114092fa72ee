"""Maps the values of a key's column to whole numbers and back, so that a range of them can be halved.

Only where to cut depends on it, never which rows are read: text is compared by the server, in its own collation.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass, replace
from typing import Final, Protocol

from cdcrep.table import INTEGERS, Column
from cdcrep_connectors.mysql.charsets import WIDE
from cdcrep_connectors.mysql.native import parse_native
from cdcrep_connectors.mysql.sql_text import text_literal

DIGITS: Final = 8
"""Bytes or characters behind those that all values begin with that are told apart."""

_PLAIN: Final = re.compile(rb"[ -~]*")


class Scale(Protocol):
    """Numbers for the values between two."""

    @property
    def first(self) -> int:
        """The number of one end."""
        ...

    @property
    def last(self) -> int:
        """The number of the other end, not below `first`."""
        ...

    def literal(self, number: int) -> str:
        """Return SQL for the value with this number."""
        ...


@dataclass(frozen=True)
class IntegerScale:
    """Integers are their own numbers."""

    first: int
    last: int

    def literal(self, number: int) -> str:
        """Return SQL for the value with this number."""
        return str(number)


@dataclass(frozen=True)
class StringScale:
    """Strings are numbers whose digits are their bytes behind `prefix`, as ranks in an alphabet."""

    prefix: bytes
    alphabet: bytes
    is_text: bool
    first: int
    last: int

    @staticmethod
    def between(low: bytes, high: bytes, *, is_text: bool) -> StringScale:
        """Make the scale of the values from `low` to `high`."""
        same = next((i for i, (one, other) in enumerate(zip(low, high, strict=False)) if one != other), len(low))
        # Collations agree about the order of digits and of letters, if about nothing else.
        letters = b"abcdefghijklmnopqrstuvwxyz"
        letters = letters if re.search(rb"[a-z]", low + high) else letters.upper()
        scale = StringScale(low[:same], b"0123456789" + letters if is_text else bytes(range(256)), is_text, 0, 0)
        first, last = sorted((scale.number(low), scale.number(high)))
        return replace(scale, first=first, last=last)

    def number(self, value: bytes) -> int:
        """Return a value's number."""
        total = 0
        for digit in value[len(self.prefix) : len(self.prefix) + DIGITS].ljust(DIGITS, self.alphabet[:1]):
            rank = bisect_left(self.alphabet, digit)
            total = total * len(self.alphabet) + min(rank, len(self.alphabet) - 1)
        return total

    def literal(self, number: int) -> str:
        """Return SQL for the value with this number."""
        digits = bytearray()
        for _ in range(DIGITS):
            number, digit = divmod(number, len(self.alphabet))
            digits.append(self.alphabet[digit])
        value = self.prefix + digits[::-1]
        if not self.is_text:
            return f"x'{value.hex()}'"
        return text_literal(value.decode("ascii"))


def scale_of(column: Column, low: str | bytes, high: str | bytes) -> Scale | None:
    """Make the scale of a column's values between the lowest and the highest, as the server sent them.

    None: of a type, or with text, whose values are not told apart here.
    """
    if column.type.kind in INTEGERS and parse_native(column.type.native).name != "bit":
        return IntegerScale(int(low), int(high))
    native = parse_native(column.type.native)
    first, last = (value.encode() if isinstance(value, str) else value for value in (low, high))
    if native.name in ("binary", "varbinary"):
        return StringScale.between(first, last, is_text=False)
    if native.name in ("char", "varchar") and native.charset not in {None, *WIDE}:
        plain = _PLAIN.fullmatch(first) and _PLAIN.fullmatch(last)
        return StringScale.between(first, last, is_text=True) if plain else None
    return None
