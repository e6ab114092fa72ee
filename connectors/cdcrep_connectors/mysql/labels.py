"""Decodes ENUM and SET to the text of their labels.

MySQL 9 manual, "The ENUM Type", "The SET Type": an ENUM is a number from 1, with 0 for the empty string that stands for
a value that was none; a SET has a bit for each label.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdcrep.columns import Bytes, Mask, Positions
from cdcrep.errors import DataError
from cdcrep_connectors.mysql.numbers import decode_integers


def decode_enum(buffer: Bytes, start: Positions, valid: Mask | None, width: int, labels: Sequence[str]) -> pa.Array:
    """Decode n ENUMs of one or two bytes.

    Raises:
        DataError: a number without a label.
    """
    numbers = decode_integers(buffer, start, width, unsigned=True)
    if valid is not None:
        numbers = numbers * valid
    if len(numbers) and int(numbers.max()) > len(labels):
        raise DataError("an ENUM value has no label")
    return _masked(pa.array(["", *labels], pa.string()).take(pa.array(numbers)), valid)


def decode_set(buffer: Bytes, start: Positions, valid: Mask | None, width: int, labels: Sequence[str]) -> pa.Array:
    """Decode n SETs of one to eight bytes: labels in their order, with commas between them.

    Raises:
        DataError: a bit without a label.
    """
    words = np.zeros(len(start), np.uint64)
    for i in range(width):
        words |= buffer[start + i].astype(np.uint64) << np.uint64(8 * i)
    if valid is not None:
        words *= valid
    if len(words) and int(words.max()) >= 1 << len(labels):
        raise DataError("a SET value has a bit without a label")
    if not labels:
        return _masked(pa.array([""] * len(start), pa.string()), valid)
    # Commas in front of each: Arrow's join drops rows without any part where it passes over nulls.
    parts = [
        pc.if_else(pa.array((words >> np.uint64(i)) & np.uint64(1) != 0), f",{label}", "")
        for i, label in enumerate(labels)
    ]
    return _masked(pc.utf8_slice_codeunits(pc.binary_join_element_wise(*parts, ""), 1), valid)


def _masked(text: pa.Array, valid: Mask | None) -> pa.Array:
    return text if valid is None else pc.if_else(pa.array(valid), text, pa.scalar(None, pa.string()))
