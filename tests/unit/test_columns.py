"""Slices of a buffer become a column of text."""

from __future__ import annotations

import numpy as np
import pytest

from cdcrep.columns import gather, padded
from cdcrep.errors import DataError

BUFFER = padded("one, zwei, trois, čtyři".encode())


def positions(*numbers: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(numbers, np.int64)


def test_slices_are_gathered_in_their_order() -> None:
    valid = np.array([True, True, False, True])

    assert gather(BUFFER, positions(0, 5, 9, 18), positions(3, 9, 9, 25), valid).to_pylist() == [
        "one",
        "zwei",
        None,
        "čtyři",
    ]


def test_no_slices_are_an_empty_column() -> None:
    assert gather(BUFFER, positions(), positions()).to_pylist() == []


def test_half_a_character_is_refused_without_the_value() -> None:
    with pytest.raises(DataError, match="not valid UTF-8") as refused:
        gather(BUFFER, positions(0, 18), positions(3, 19))

    assert "one" not in refused.value.message
    assert refused.value.__cause__ is None
