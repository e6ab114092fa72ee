"""Which character set a collation's number belongs to: MySQL 9.7, MariaDB 10.11 and 11.8 together, without conflict."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from cdcrep.errors import DataError

MARIADB_NO_PAD: Final = 1024
"""MariaDB numbers a collation's NO PAD form by adding this."""

_NUMBERS: Final = {
    "armscii8": "32 64",
    "ascii": "11 65",
    "big5": "1 84",
    "binary": "63",
    "cp1250": "26 34 44 66 99",
    "cp1251": "14 23 50-52",
    "cp1256": "57 67",
    "cp1257": "29 58-59",
    "cp850": "4 80",
    "cp852": "40 81",
    "cp866": "36 68",
    "cp932": "95-96",
    "dec8": "3 69",
    "eucjpms": "97-98",
    "euckr": "19 85",
    "gb18030": "248-250",
    "gb2312": "24 86",
    "gbk": "28 87",
    "geostd8": "92-93",
    "greek": "25 70",
    "hebrew": "16 71",
    "hp8": "6 72",
    "keybcs2": "37 73",
    "koi8r": "7 74",
    "koi8u": "22 75",
    "latin1": "5 8 15 31 47-49 94",
    "latin2": "2 9 21 27 77",
    "latin5": "30 78",
    "latin7": "20 41-42 79",
    "macce": "38 43",
    "macroman": "39 53",
    "sjis": "13 88",
    "swe7": "10 82",
    "tis620": "18 89",
    "ucs2": "35 90 128-159 640-642",
    "ujis": "12 91",
    "utf16": "54-55 101-124 672-674",
    "utf16le": "56 62",
    "utf32": "60-61 160-183 736-738",
    "utf8mb3": "33 76 83 192-223 576-579",
    "utf8mb4": "45-46 224-247 255-323 608-611",
}
"""Numbers below 1024."""
_UCA_1400: Final = {"utf8mb3": 2048, "utf8mb4": 2304, "ucs2": 2560, "utf16": 2816, "utf32": 3072}
"""The first of 256 numbers of MariaDB's collations by the Unicode Collation Algorithm 14.0.0."""


def charset_of(collation: int) -> str:
    """Return the character set of a collation.

    Raises:
        DataError: nobody here knows the number.
    """
    found = _by_number().get(collation)
    if found is None:
        raise DataError(f"the source uses a collation with an unknown number ({collation})")
    return found


@lru_cache(maxsize=1)
def _by_number() -> dict[int, str]:
    by_number: dict[int, str] = {}
    for charset, ranges in _NUMBERS.items():
        for part in ranges.split():
            first, _, last = part.partition("-")
            for number in range(int(first), int(last or first) + 1):
                by_number[number] = charset
                by_number.setdefault(number + MARIADB_NO_PAD, charset)
    for charset, first_number in _UCA_1400.items():
        by_number.update(dict.fromkeys(range(first_number, first_number + 256), charset))
    return by_number
