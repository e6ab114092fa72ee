"""Text of every character set becomes what the server converts it to, or is refused; never something else."""

from __future__ import annotations

import numpy as np
import pytest

from cdcrep.columns import padded
from cdcrep.errors import DataError
from cdcrep_connectors.mysql.charsets import MULTI_BYTE, SINGLE_BYTE, SUPPORTED, decode_text, decode_value
from cdcrep_connectors.mysql.collations import charset_of


def decode(values: list[bytes | None], charset: str) -> list[str | None]:
    end = np.cumsum([len(value or b"") for value in values])
    start = end - [len(value or b"") for value in values]
    valid = np.array([value is not None for value in values])
    found: list[str | None] = decode_text(
        padded(b"".join(value or b"" for value in values)), start, end, valid, charset
    ).to_pylist()
    return found


@pytest.mark.parametrize("charset", sorted(SUPPORTED - {"ucs2", "utf16", "utf16le", "utf32"}))
def test_ascii_is_the_same_in_all_but_the_wide_sets(charset: str) -> None:
    assert decode([b"plain", None, b"", b"text ~"], charset) == ["plain", None, "", "text ~"]


@pytest.mark.parametrize(
    ("charset", "value", "text"),
    [
        ("utf8mb4", "ü😀".encode(), "ü😀"),
        ("utf8mb3", "ü€".encode(), "ü€"),
        ("latin1", b"\x80\x81\xe9\xff", "€\x81éÿ"),
        ("gbk", "中文龙a".encode("gbk"), "中文龙a"),
        ("ujis", b"\xa1\xc0\xb0\xa1\x8e\xb1\x8f\xb0\xa1", "\\亜ｱ丂"),
        ("ujis", b"\xf5\xa1\x8f\xf5\xa1", "\ue000\ue3ac"),
        ("sjis", b"\x81\x5f\x95\x5c", "\\表"),
        ("big5", b"\xf9\xd6\xa4\xa4", "碁中"),
        ("euckr", b"\x81\x41\xb0\xa1", "갂가"),
        ("koi8r", "привет".encode("koi8_r"), "привет"),
        ("cp866", b"\xfc\xfd", "ⁿ²"),
        ("ucs2", "ü€".encode("utf_16_be"), "ü€"),
        ("utf16", "😀".encode("utf_16_be"), "😀"),
        ("utf16le", "😀".encode("utf_16_le"), "😀"),
        ("utf32", "😀".encode("utf_32_be"), "😀"),
    ],
)
def test_text_beyond_ascii_is_what_the_server_makes_of_it(charset: str, value: bytes, text: str) -> None:
    assert decode([b"" if charset in ("ucs2", "utf16", "utf16le", "utf32") else b"a", value, None], charset)[1:] == [
        text,
        None,
    ]
    assert decode_value(value, charset) == text


@pytest.mark.parametrize(
    ("charset", "value"),
    [
        ("utf8mb4", b"\xff"),
        ("utf8mb4", b"\xed\xa0\x80"),
        ("ascii", b"\x80"),
        ("gbk", b"\x81"),
        ("gbk", b"\xa2\xa1\x80"),
        ("ujis", b"\xa1"),
        ("ujis", b"\xf5\x20"),
        ("big5", b"\xa1\x5a"),
        ("cp1256", b"\x8a"),
        ("tis620", b"\xdb"),
        ("utf16", b"\xd8\x00\x00a"),
        ("ucs2", b"\x00"),
    ],
)
def test_bytes_that_are_no_text_are_refused_and_never_replaced(charset: str, value: bytes) -> None:
    with pytest.raises(DataError, match="not valid"):
        decode([value, value], charset)
    with pytest.raises(DataError, match="not valid"):
        decode_value(value, charset)


@pytest.mark.parametrize("charset", sorted(SINGLE_BYTE))
def test_columns_and_single_values_agree_on_every_byte(charset: str) -> None:
    for byte in range(256):
        try:
            alone: str | None = decode_value(bytes([byte]), charset)
        except DataError:
            with pytest.raises(DataError):
                decode([bytes([byte])], charset)
        else:
            assert decode([b"a", bytes([byte]) * 2], charset) == ["a", (alone or "") * 2]


def test_a_set_that_is_not_supported_is_named() -> None:
    with pytest.raises(DataError, match="the character set geostd8 is not supported"):
        decode([b"\xc0"], "geostd8")


@pytest.mark.parametrize(
    ("collation", "charset"),
    [(8, "latin1"), (63, "binary"), (255, "utf8mb4"), (1052, "gbk"), (2304, "utf8mb4"), (33, "utf8mb3")],
)
def test_collations_name_their_character_set(collation: int, charset: str) -> None:
    assert charset_of(collation) == charset


def test_an_unknown_collation_is_refused() -> None:
    with pytest.raises(DataError, match="unknown number"):
        charset_of(1023)


def test_every_multi_byte_set_has_a_codec() -> None:
    assert all(decode_value(b"", charset) == "" for charset in MULTI_BYTE)
