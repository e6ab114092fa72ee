"""Decodes text of MySQL's character sets exactly as the server converts it to utf8mb4, and refuses what it cannot.

Python's codecs agree with the servers but for the characters listed here; all single bytes and all sequences of two and
three bytes were compared with MySQL 9.7 and MariaDB 11.8. Sets of which more differs are not supported.
"""

from __future__ import annotations

import codecs
from functools import lru_cache
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cdcrep.columns import Bytes, Mask, Positions, gather, gather_bytes
from cdcrep.errors import DataError
from cdcrep_connectors.mysql.slices import gather_each

UTF8: Final = frozenset({"utf8mb4", "utf8mb3", "ascii"})
SINGLE_BYTE: Final[dict[str, tuple[str, dict[int, int | None]]]] = {
    # MySQL's latin1 is Windows-1252, its five unassigned bytes standing for themselves.
    "latin1": ("cp1252", {byte: byte for byte in (0x81, 0x8D, 0x8F, 0x90, 0x9D)}),
    "latin2": ("iso8859_2", {}),
    "latin5": ("iso8859_9", {}),
    "latin7": ("iso8859_13", {}),
    "cp1250": ("cp1250", {}),
    "cp1251": ("cp1251", {}),
    "cp1256": ("cp1256", dict.fromkeys((0x8A, 0x8F, 0x98, 0x9A, 0x9F, 0xAA, 0xC0, 0xFF))),
    "cp1257": ("cp1257", {}),
    "cp850": ("cp850", {}),
    "cp852": ("cp852", {}),
    "cp866": ("cp866", {0xFC: 0x207F, 0xFD: 0xB2}),
    "koi8r": ("koi8_r", {}),
    "koi8u": ("koi8_u", {0x95: 0x2022}),
    "greek": ("iso8859_7", {0xA1: 0x2BD, 0xA2: 0x2BC, 0xA4: None, 0xA5: None, 0xAA: None}),
    "hebrew": ("iso8859_8", {0xAF: 0x203E}),
    "macroman": ("mac_roman", {}),
    "macce": ("mac_latin2", {}),
    "hp8": ("hp_roman8", {}),
    "tis620": ("tis_620", {}),
}
"""Codec, and what differs: the code point, or None where the server has no character."""
MULTI_BYTE: Final = {
    "gbk": "gbk",
    "gb2312": "gb2312",
    "big5": "big5",
    "sjis": "shift_jis",
    "cp932": "cp932",
    "euckr": "cp949",
    "ujis": "euc_jp",
    "ucs2": "utf_16_be",
    "utf16": "utf_16_be",
    "utf16le": "utf_16_le",
    "utf32": "utf_32_be",
}
SUPPORTED: Final = UTF8 | set(SINGLE_BYTE) | set(MULTI_BYTE)
WIDE: Final = frozenset({"ucs2", "utf16", "utf16le", "utf32"})
"""Sets in which ASCII is not ASCII."""
LONGEST_CHARACTER: Final = {
    **dict.fromkeys(SINGLE_BYTE, 1),
    **dict.fromkeys(MULTI_BYTE, 2),
    **dict.fromkeys(("utf8mb4", "utf16", "utf16le", "utf32"), 4),
    **dict.fromkeys(("utf8mb3", "ujis"), 3),
    "ascii": 1,
    "binary": 1,
}
"""Bytes per character that a column's length is multiplied with."""

_BACKSLASH: Final = {"sjis", "ujis"}
"""Sets whose fullwidth backslash the server makes a plain one."""
_UNSURE: Final = {"big5": "╴￣ˍ／＼十卅"}  # noqa: RUF001 - these characters are meant
"""Characters that Python finds where the server has none."""


def decode_text(buffer: Bytes, start: Positions, end: Positions, valid: Mask | None, charset: str) -> pa.Array:
    """Decode n slices to an Arrow `string` array; Python runs per value only for multi-byte sets beyond ASCII.

    Raises:
        DataError: bytes that are no text in this character set, or a set that is not supported.
    """
    if charset in UTF8:
        text = gather(buffer, start, end, valid)
        if charset == "ascii" and not _is_ascii(text):
            raise DataError("a text value is not valid ascii")
        return text
    if charset not in SUPPORTED:
        raise DataError(f"the character set {charset} is not supported")
    if charset not in WIDE:
        raw = gather_bytes(buffer, start, end, valid)
        if _is_ascii(raw):
            return _as_text(raw)
        if charset in SINGLE_BYTE:
            return _transcode(raw, charset)
    return gather_each(buffer, start, end, valid, lambda value: decode_value(value, charset), pa.string())


def decode_value(value: bytes, charset: str) -> str:
    """Decode one value: also for labels and names.

    Raises:
        DataError: bytes that are no text in this character set, or a set that is not supported.
    """
    try:
        if charset in UTF8:
            return value.decode()
        if charset in SINGLE_BYTE:
            points = _code_points(charset)[np.frombuffer(value, np.uint8)]
            if (points < 0).any():
                raise DataError(f"a text value is not valid {charset}")
            return "".join(map(chr, points.tolist()))
        if charset not in MULTI_BYTE:
            raise DataError(f"the character set {charset} is not supported")
        text = value.decode(MULTI_BYTE[charset], _ERRORS.get(charset, "strict"))
    except UnicodeDecodeError:
        raise DataError(f"a text value is not valid {charset}") from None
    if charset in _UNSURE and any(character in text for character in _UNSURE[charset]):
        raise DataError(f"a text value is not valid {charset}")
    return text.replace("＼", "\\") if charset in _BACKSLASH else text  # noqa: RUF001 - fullwidth is meant


def _is_ascii(text: pa.Array) -> bool:
    _, _, data = text.buffers()
    return data is None or data.size == 0 or int(np.frombuffer(data, np.uint8).max()) < 0x80


def _as_text(raw: pa.Array) -> pa.Array:
    return pa.Array.from_buffers(pa.string(), len(raw), raw.buffers())


@lru_cache
def _code_points(charset: str) -> NDArray[np.int32]:
    """Return the code point of each byte, or -1."""
    codec, different = SINGLE_BYTE[charset]
    points = np.full(256, -1, np.int32)
    for byte in range(256):
        try:
            points[byte] = ord(bytes([byte]).decode(codec))
        except UnicodeDecodeError:
            continue
    for byte, point in different.items():
        points[byte] = -1 if point is None else point
    return points


@lru_cache
def _utf8(charset: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return each byte's UTF-8 form in (256, 3) bytes and its length, 0 for none."""
    forms, lengths = np.zeros((256, 3), np.uint8), np.zeros(256, np.uint8)
    for byte, point in enumerate(_code_points(charset).tolist()):
        if point >= 0:
            form = chr(point).encode()
            forms[byte, : len(form)] = list(form)
            lengths[byte] = len(form)
    return forms, lengths


def _transcode(raw: pa.Array, charset: str) -> pa.Array:
    """Replace each byte by its UTF-8 form, for all values at once."""
    forms, lengths = _utf8(charset)
    _, offsets, data = raw.buffers()
    edges = np.frombuffer(offsets, np.int32)[: len(raw) + 1]
    content = np.frombuffer(data, np.uint8)[edges[0] : edges[-1]]
    sizes = lengths[content]
    if not sizes.all():
        raise DataError(f"a text value is not valid {charset}")
    ends = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    places = ends[edges - edges[0]]
    if int(places[-1]) >= 2**31:
        raise DataError("text values become more than 2 GiB at once")
    text = forms[content][np.arange(3) < sizes[:, None]]
    valid: pa.Buffer | None = raw.buffers()[0]
    return pa.Array.from_buffers(
        pa.string(), len(raw), [valid, pa.py_buffer(places.astype(np.int32)), pa.py_buffer(text)]
    )


def _user_defined(error: UnicodeError) -> tuple[str, int]:
    """Continue where Python's euc_jp has no character and the server has a private one, in the last rows."""
    assert isinstance(error, UnicodeDecodeError)
    value, at = error.object, error.start
    plane = 0
    if value[at : at + 1] == b"\x8f":
        plane, at = 940, at + 1
    pair = value[at : at + 2]
    if len(pair) < 2 or not (0xF5 <= pair[0] <= 0xFE and 0xA1 <= pair[1] <= 0xFE):
        raise error
    return chr(0xE000 + plane + (pair[0] - 0xF5) * 94 + pair[1] - 0xA1), at + 2


_EXTENSIONS: Final = dict(zip(range(0xF9D6, 0xF9DD), "碁銹裏墻恒粧嫺", strict=True))


def _extended(error: UnicodeError) -> tuple[str, int]:
    """Continue where Python's big5 has no character and the server has one."""
    assert isinstance(error, UnicodeDecodeError)
    pair = error.object[error.start : error.start + 2]
    if int.from_bytes(pair, "big") not in _EXTENSIONS:
        raise error
    return _EXTENSIONS[int.from_bytes(pair, "big")], error.start + 2


_ERRORS: Final = {"ujis": "cdcrep-ujis", "big5": "cdcrep-big5"}
codecs.register_error("cdcrep-ujis", _user_defined)
codecs.register_error("cdcrep-big5", _extended)
