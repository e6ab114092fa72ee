"""Takes the text of a column's type apart, as `information_schema.columns.column_type` has it with its character set.

`decimal(12,2) unsigned`, `varchar(20) character set gbk`, `enum('a','b''c') character set latin1`, `datetime(6)`,
`varchar(100) /*M!100301 COMPRESSED*/`, `datetime(6) /* mariadb-5.3 */`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from cdcrep.errors import DataError

_LABEL = r"'(?:[^'\\]|''|\\.)*'"
_NATIVE = re.compile(
    rf"(?P<name>[a-z][a-z0-9_]*(?: precision)?) *"
    rf"(?:\((?P<labels>{_LABEL}(?:,{_LABEL})*)\)|\((?P<numbers>\d+(?:,\d+)?)\))?(?P<rest>.*)",
    re.DOTALL | re.IGNORECASE,
)

_WRITTEN = {"'": "''", "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\0": "\\0"}
"""How the catalogue writes characters of a label that are not written as themselves."""
_READ = {written: character for character, written in _WRITTEN.items()}

_BEYOND = re.compile("[^\u0000-\uffff]")


@dataclass(frozen=True, slots=True)
class NativeType:
    """A column type of MySQL or MariaDB."""

    name: str
    """In lower case, without arguments: `int`, `varchar`."""
    numbers: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()
    unsigned: bool = False
    charset: str | None = None
    compressed: bool = False
    oldest_temporal: bool = False
    """MariaDB's own temporal form from before MySQL 5.6."""

    @property
    def digits(self) -> int:
        """Digits of the second's fraction, of temporal types."""
        return self.numbers[0] if self.numbers else 0


@lru_cache(maxsize=4096)
def parse_native(text: str) -> NativeType:
    """Take a column type's text apart.

    Raises:
        DataError: it is no such text.
    """
    match = _NATIVE.fullmatch(text.strip())
    if not match:
        raise DataError(f"not a column type of MySQL or MariaDB: {text!r}")
    rest = match["rest"].lower()
    charset = re.search(r"\bcharacter set (\w+)", rest)
    numbers = tuple(int(number) for number in (match["numbers"] or "").split(",") if number)
    labels = tuple(_unquoted(label) for label in re.findall(_LABEL, match["labels"] or ""))
    name = match["name"].lower()
    return NativeType(
        {
            "double precision": "double",
            "integer": "int",
            "numeric": "decimal",
            "geomcollection": "geometrycollection",
        }.get(name, name),
        numbers,
        labels,
        "unsigned" in rest.split(),
        {"utf8": "utf8mb3"}.get(charset[1], charset[1]) if charset else None,
        "compressed" in rest,
        "mariadb-5.3" in rest,
    )


def shown_label(label: str) -> str:
    """Return a label as the catalogues of both servers show it: in Unicode's first 65,536 characters."""
    return _BEYOND.sub("?", label)


def quote_label(label: str) -> str:
    """Write a label as `column_type` does, which is how SQL has it, too."""
    return "'" + "".join(_WRITTEN.get(character, character) for character in label) + "'"


def _unquoted(label: str) -> str:
    return re.sub(r"\\.|''", lambda found: _READ.get(found[0], found[0][1:]), label[1:-1], flags=re.DOTALL)
