"""Documents decoded together have the same texts as those decoded one by one."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence

import numpy as np
import pytest

from cdcrep.columns import padded
from cdcrep.errors import DataError
from cdcrep_connectors.mysql.binary_json import decode_json, write_double
from cdcrep_connectors.mysql.json_documents import decode_documents
from tests.properties.binary_json_writing import write_document


def laid_out(contents: Sequence[bytes | None]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    lengths = np.array([len(content or b"") for content in contents], np.int64)
    end = np.cumsum(lengths)
    valid = np.array([content is not None for content in contents])
    return padded(b"".join(content or b"" for content in contents)), end - lengths, end, valid


def decode(contents: Sequence[bytes | None]) -> int:
    alone = 0

    def one(content: bytes) -> str:
        nonlocal alone
        alone += 1
        return decode_json(content)

    buffer, start, end, valid = laid_out(contents)
    texts = decode_documents(buffer, start, end, None if valid.all() else valid, one)
    assert texts.to_pylist() == [None if content is None else decode_json(content) for content in contents]
    return alone


def test_documents_of_one_shape_are_decoded_together() -> None:
    rng = random.Random(5)
    documents = [
        write_document(
            {"n": rng.randrange(-30000, 30000), "tags": ["a", f"b{i % 10}"], "x": i / 7, "big": 2**40 + i, "t": True}
        )
        for i in range(50)
    ]

    assert decode(documents) == 0


def test_documents_of_many_shapes_keep_their_order() -> None:
    rng = random.Random(6)
    shapes: list[bytes | None] = [
        None,
        write_document("text"),
        write_document([]),
        write_document(None),
        write_document({"deep": {"er": [{}, [1, 70000, -(2**40), 2**63]]}}),
        write_document({"ü": 'quote " and \\ and \n and 😀'}),
        b"",
    ]
    documents = [rng.choice(shapes) for _ in range(200)]

    assert decode(documents) <= documents.count(b"")


@pytest.mark.parametrize("exponents", [(-3, 9), (-20, 20)])
def test_numbers_are_the_same_together_as_alone(exponents: tuple[int, int]) -> None:
    rng = random.Random(7)
    numbers = [rng.choice([1, -1]) * rng.random() * 10 ** rng.randrange(*exponents) for _ in range(3000)]
    documents = [write_document({"x": number}) for number in numbers]

    assert decode(documents) == 0
    assert decode(documents[:20] + [write_document({"x": number}) for number in (0.0, -0.0, 1.0, 1e20)]) == 0


def test_few_documents_are_decoded_one_by_one() -> None:
    assert decode([write_document({"k": i}) for i in range(3)]) == 3


def test_documents_that_all_differ_are_decoded_one_by_one() -> None:
    documents = [write_document({f"{i:03}": i}) for i in range(100)]

    assert decode(documents) == 100


def test_strings_that_need_escapes_are_escaped() -> None:
    assert decode([write_document({"s": chr(i) + "é"[: i > 40]}) for i in range(1, 127)]) < 40


def test_a_document_whose_parts_overlap_is_not_a_shape() -> None:
    # Both entries of the array point to the same string, whose content is also the second one's length.
    entries = struct.pack("<BHBH", 12, 10, 12, 11)
    content = b"\2" + struct.pack("<HH", 2, 14) + entries + b"\2\1ab"

    assert decode([content] * 20) == 20


def test_a_number_that_is_none_is_refused_together_as_alone() -> None:
    documents = [b"\x0b" + struct.pack("<d", float("nan"))] * 20

    with pytest.raises(DataError, match="binary form"):
        decode_documents(*laid_out(documents), decode_json)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1.0, "1.0"),
        (-0.0, "-0.0"),
        (1e15, "1e15"),
        (123456789012345.0, "123456789012345.0"),
        (1234567890123456.0, "1.234567890123456e15"),
        (1e-14, "0.00000000000001"),
        (1e-15, "0.000000000000001"),
        (1e-16, "1e-16"),
        (-2.5e-300, "-2.5e-300"),
        (1.7976931348623157e308, "1.7976931348623157e308"),
    ],
)
def test_numbers_are_written_as_the_server_does(number: float, text: str) -> None:
    assert write_double(number) == text
