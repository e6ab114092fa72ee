"""Decodes numbers of fixed width: integers, FLOAT, DOUBLE, YEAR, BIT and DECIMAL.

Integers and floats are little-endian, BIT is big-endian. MySQL 9 source, `strings/decimal.cc`, on DECIMAL: groups of
nine digits in four bytes each, big-endian, the incomplete group of either side in one to four; the first bit is
inverted, and in negative numbers all the others.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cdcrep.columns import Bytes, Mask, Positions, bitmap, integers
from cdcrep.errors import DataError

DIGITS_TO_BYTES: Final = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)
MOST_DIGITS: Final = 38
"""What Arrow's decimal128 and the targets hold; longer ones stay text."""
ZERO, MINUS, POINT = ord("0"), ord("-"), ord(".")


def array(type_: pa.DataType, values: NDArray[Any], valid: Mask | None) -> pa.Array:
    """Make an Arrow array of values of fixed width."""
    return pa.Array.from_buffers(type_, len(values), [bitmap(valid), pa.py_buffer(np.ascontiguousarray(values))])


def decode_integers(buffer: Bytes, start: Positions, width: int, *, unsigned: bool) -> NDArray[Any]:
    """Read n integers of 1, 2, 3, 4 or 8 bytes; those of three become 32-bit ones."""
    if width == 3:
        values = integers(buffer, "<u4")[start] << np.uint32(0 if unsigned else 8)
        return values & np.uint32(0xFFFFFF) if unsigned else values.view(np.int32) >> 8
    return integers(buffer, f"<{'u' if unsigned else 'i'}{width}")[start]


def decode_years(buffer: Bytes, start: Positions) -> NDArray[np.uint16]:
    """Read n YEARs: 0, or 1901 to 2155."""
    years = buffer[start].astype(np.uint16)
    years[years != 0] += 1900
    return years


def decode_bits(buffer: Bytes, start: Positions, width: int) -> NDArray[np.uint64]:
    """Read n big-endian numbers of one to eight bytes."""
    return big_endian(buffer, start, width)


def big_endian(buffer: Bytes, start: Positions, width: int) -> NDArray[np.uint64]:
    """Read n big-endian numbers of one to eight bytes."""
    whole = integers(buffer, "<u8")[start].byteswap()
    return whole >> np.uint64(64 - 8 * width)


def decode_decimals(buffer: Bytes, start: Positions, valid: Mask | None, precision: int, scale: int) -> pa.Array:
    """Decode n DECIMALs: to decimal128 up to 38 digits, to text with all of the scale's digits beyond.

    Raises:
        DataError: a group of digits is none.
    """
    groups, negative = _groups(buffer, start, precision, scale)
    if valid is not None:
        groups = [(values * valid, digits) for values, digits in groups]
    if any(len(values) and int(values.max()) >= 10**digits for values, digits in groups):
        raise DataError("a DECIMAL value is none")
    if precision > MOST_DIGITS:
        return _decimal_text(groups, negative, valid, precision, scale)
    if precision <= 18:
        total = np.zeros(len(start), np.int64)
        for values, digits in groups:
            total = total * 10**digits + values
        low = np.where(negative, -total, total)
        pairs = np.stack([low, low >> 63], axis=1)
    else:
        pairs = _wide(groups, negative)
    return array(pa.decimal128(precision, scale), pairs, valid)


def _groups(
    buffer: Bytes, start: Positions, precision: int, scale: int
) -> tuple[list[tuple[NDArray[np.int64], int]], NDArray[np.bool_]]:
    """Read the groups of digits, most significant first, with how many digits each has; and the sign."""
    whole = precision - scale
    digits = [whole % 9] * (whole % 9 > 0) + [9] * (whole // 9) + [9] * (scale // 9) + [scale % 9] * (scale % 9 > 0)
    width = sum(DIGITS_TO_BYTES[count] for count in digits)
    # Rows without a value may begin where less than the width is left.
    start = np.minimum(start, max(len(buffer) - 8 - width, 0))
    negative = buffer[start] < 0x80
    flip = np.where(negative, np.int64(0xFFFFFFFF), np.int64(0))
    groups = []
    at = 0
    for count in digits:
        size = DIGITS_TO_BYTES[count]
        values = big_endian(buffer, start + at, size).view(np.int64) ^ (flip & ((1 << 8 * size) - 1))
        if at == 0:
            values ^= 1 << (8 * size - 1)
        groups.append((values, count))
        at += size
    return groups, negative


def _wide(groups: list[tuple[NDArray[np.int64], int]], negative: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Add groups up to 128-bit numbers in two's complement, as (n, 2) words, low one first."""
    count = len(negative)
    limbs = [np.zeros(count, np.uint64) for _ in range(4)]
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    for values, digits in groups:
        factor, carry = np.uint64(10**digits), values.view(np.uint64)
        for i, limb in enumerate(limbs):
            product = limb * factor + carry
            limbs[i], carry = product & mask, product >> half
    low, high = limbs[0] | limbs[1] << half, limbs[2] | limbs[3] << half
    flipped_low = ~low + np.uint64(1)
    flipped_high = ~high + (low == 0).astype(np.uint64)
    return np.stack([np.where(negative, flipped_low, low), np.where(negative, flipped_high, high)], axis=1)


def _decimal_text(
    groups: list[tuple[NDArray[np.int64], int]],
    negative: NDArray[np.bool_],
    valid: Mask | None,
    precision: int,
    scale: int,
) -> pa.Array:
    """Write all digits side by side, then leave out leading zeros."""
    count, whole = len(negative), precision - scale
    digits = np.empty((count, precision), np.uint8)
    at = 0
    for values, size in groups:
        for i in range(size):
            digits[:, at + i] = values // 10 ** (size - 1 - i) % 10
        at += size
    lead = max(whole, 1)
    text = np.full((count, 1 + lead + (1 + scale if scale else 0)), ZERO, np.uint8)
    text[:, 0] = MINUS
    text[:, 1 + lead - whole : 1 + lead] += digits[:, :whole]
    if scale:
        text[:, 1 + lead] = POINT
        text[:, 2 + lead :] += digits[:, whole:]
    keep = np.ones(text.shape, np.bool_)
    keep[:, 0] = negative & digits.any(axis=1)
    # The last digit in front of the point stays.
    keep[:, 1:lead] = np.logical_or.accumulate(text[:, 1:lead] != ZERO, axis=1)
    return kept_text(text, keep, valid)


def kept_text(text: NDArray[np.uint8], keep: NDArray[np.bool_], valid: Mask | None) -> pa.Array:
    """Make an Arrow string array of the rows of (n, width) characters, without those that are not kept."""
    offsets = np.zeros(len(text) + 1, np.int32)
    np.cumsum(keep.sum(axis=1), out=offsets[1:])
    return pa.Array.from_buffers(
        pa.string(), len(text), [bitmap(valid), pa.py_buffer(offsets), pa.py_buffer(text[keep])]
    )
