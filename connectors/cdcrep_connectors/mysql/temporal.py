"""Decodes DATE, TIME, DATETIME and TIMESTAMP, in every form they ever had, without losing what no calendar has.

MySQL 9 source, `mysys/my_time.cc`; big-endian except where said otherwise, fractions in (digits + 1) / 2 bytes behind:

    DATE, NEWDATE   3, little-endian: day 5 bits, month 4, year 15
    DATETIME2       5: 1, year * 13 + month 17 bits, day 5, hour 5, minute 6, second 6
    TIME2           3: 1, 0, hour 10 bits, minute 6, second 6; offset by 0x800000, with its fraction as one number
    TIMESTAMP2      4: seconds since 1970
    TIME, DATETIME, TIMESTAMP of before MySQL 5.6, little-endian: HHMMSS in 3, YYYYMMDDHHMMSS in 8, seconds in 4
    the same of MariaDB with fractions: the parts multiplied up to one number of microseconds, cut to the digits

MySQL keeps dates that are none: 0000-00-00, 2024-02-31, and TIMESTAMP 0. They have a text form and no typed one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cdcrep.columns import Bytes, Mask, Positions, bitmap, integers
from cdcrep.errors import DataError
from cdcrep_connectors.mysql.event_types import ColumnCode
from cdcrep_connectors.mysql.numbers import MINUS, ZERO, array, big_endian, kept_text

Numbers = NDArray[np.int64]

MICROSECONDS: Final = 1_000_000
MONTHS: Final = 16
"""Months of a year in the tables below, 0 and those behind December included."""
DAY_SECONDS: Final = 86_400
LAST_HOUR: Final = 838

_PAIRS: Final = np.array([[ZERO + n // 10, ZERO + n % 10] for n in range(100)], np.uint8)


def _calendar() -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Return, for year * 16 + month, the day since 1970 before the month's first, and the month's length or 0."""
    months = np.arange(np.datetime64("0000-01"), np.datetime64("10000-02"))
    firsts = months.astype("M8[D]").astype(np.int64)
    before = np.zeros((10_000, MONTHS), np.int32)
    before[:, 1:13] = (firsts[:-1] - 1).reshape(10_000, 12)
    lengths = np.zeros((10_000, MONTHS), np.uint8)
    lengths[:, 1:13] = np.diff(firsts).reshape(10_000, 12)
    # There is no year 0 in the targets' calendars.
    lengths[0] = 0
    return before.reshape(-1), lengths.reshape(-1)


_BEFORE_MONTH, _MONTH_LENGTH = _calendar()


@dataclass(frozen=True)
class Moments:
    """n dates with times, taken apart; zero where there is no value."""

    year: Numbers
    month: Numbers
    day: Numbers
    second: Numbers
    """(n,) of the day."""
    microsecond: Numbers

    def check(self) -> Moments:
        """Refuse what no column can hold.

        Raises:
            DataError: a part is out of its range.
        """
        limits = ((self.year, 9999), (self.month, 12), (self.day, 31), (self.second, DAY_SECONDS - 1))
        for part, last in (*limits, (self.microsecond, MICROSECONDS - 1)):
            if len(part) and (int(part.max()) > last or int(part.min()) < 0):
                raise DataError("a temporal value is out of the range of its type")
        return self

    def impossible(self) -> Mask:
        """Tell which are in no calendar."""
        length = _MONTH_LENGTH[self.year * MONTHS + self.month]
        mask: Mask = (self.day < 1) | (self.day > length)
        return mask

    def days(self) -> NDArray[np.int32]:
        """Count the days since 1970-01-01."""
        days: NDArray[np.int32] = (_BEFORE_MONTH[self.year * MONTHS + self.month] + self.day).astype(np.int32)
        return days

    def microseconds(self) -> Numbers:
        """Count the microseconds since 1970-01-01."""
        return (self.days().astype(np.int64) * DAY_SECONDS + self.second) * MICROSECONDS + self.microsecond

    def text(self, digits: int, valid: Mask | None) -> pa.Array:
        """Write `YYYY-MM-DD HH:MM:SS.ffffff` with so many digits behind the point."""
        text = np.empty((len(self.year), 19 + (digits + 1 if digits else 0)), np.uint8)
        self._write_date(text)
        text[:, 10] = ord(" ")
        _write_time(text[:, 11:], self.second // 3600, self.second % 3600, self.microsecond, digits)
        return _even_text(text, valid)

    def date_text(self, valid: Mask | None) -> pa.Array:
        """Write `YYYY-MM-DD`."""
        text = np.empty((len(self.year), 10), np.uint8)
        self._write_date(text)
        return _even_text(text, valid)

    def _write_date(self, text: NDArray[np.uint8]) -> None:
        text[:, 0:2], text[:, 2:4] = _PAIRS[self.year // 100], _PAIRS[self.year % 100]
        text[:, 5:7], text[:, 8:10] = _PAIRS[self.month], _PAIRS[self.day]
        text[:, 4] = text[:, 7] = MINUS


def read_dates(buffer: Bytes, start: Positions, valid: Mask | None) -> Moments:
    """Read n DATEs."""
    packed = _known((integers(buffer, "<u4")[start] & np.uint32(0xFFFFFF)).astype(np.int64), valid)
    nothing = np.zeros(len(packed), np.int64)
    return Moments(packed >> 9, packed >> 5 & 15, packed & 31, nothing, nothing).check()


def read_datetimes(buffer: Bytes, start: Positions, valid: Mask | None, code: ColumnCode, digits: int) -> Moments:
    """Read n DATETIMEs of the form that the column's code and its digits name."""
    if code is ColumnCode.DATETIME2:
        packed = _known(big_endian(buffer, start, 5).view(np.int64) - 0x8000000000, valid)
        months, clock = packed >> 22, packed & 0x1FFFF
        year = months // 13
        _check_clock(clock >> 12, clock >> 6 & 63, clock & 63)
        second = (clock >> 12) * 3600 + (clock >> 6 & 63) * 60 + (clock & 63)
        fraction = _fraction(buffer, start + 5, digits, valid, _unit(digits))
        return Moments(year, months - year * 13, packed >> 17 & 31, second, fraction).check()
    if digits:
        return _read_hires_datetimes(buffer, start, valid, digits)
    packed = _known(integers(buffer, "<i8")[start], valid)
    date, clock = np.divmod(packed, 1_000_000)
    hour, minute, second = clock // 10_000, clock // 100 % 100, clock % 100
    _check_clock(hour, minute, second)
    nothing = np.zeros(len(packed), np.int64)
    return Moments(date // 10_000, date // 100 % 100, date % 100, hour * 3600 + minute * 60 + second, nothing).check()


def read_timestamps(buffer: Bytes, start: Positions, valid: Mask | None, code: ColumnCode, digits: int) -> Numbers:
    """Read n TIMESTAMPs as microseconds since 1970; 0 stands for 0000-00-00 00:00:00."""
    if code is ColumnCode.TIMESTAMP and not digits:
        return _known(integers(buffer, "<u4")[start].astype(np.int64), valid) * MICROSECONDS
    seconds = _known(big_endian(buffer, start, 4).view(np.int64), valid)
    # MariaDB's older form has the digits of its column, the newer one an even number of them.
    unit = 10 ** (6 - digits) if code is ColumnCode.TIMESTAMP else _unit(digits)
    return seconds * MICROSECONDS + _fraction(buffer, start + 4, digits, valid, unit)


def timestamp_moments(microseconds: Numbers) -> Moments:
    """Take TIMESTAMPs apart, in UTC; 0 becomes 0000-00-00 00:00:00."""
    there = microseconds != 0
    seconds, fraction = np.divmod(microseconds, MICROSECONDS)
    days, second = np.divmod(seconds, DAY_SECONDS)
    months = days.astype("M8[D]").astype("M8[M]")
    day = (days - months.astype("M8[D]").astype(np.int64) + 1) * there
    years, month = np.divmod(months.astype(np.int64), 12)
    return Moments((years + 1970) * there, (month + 1) * there, day, second * there, fraction)


def decode_times(buffer: Bytes, start: Positions, valid: Mask | None, code: ColumnCode, digits: int) -> pa.Array:
    """Decode n TIMEs to text: `-838:59:59.999999`, with as many digits as the column has.

    Raises:
        DataError: a part is out of its range.
    """
    return time_text(*_read_times(buffer, start, valid, code, digits), digits, valid)


def time_text(
    negative: Mask, hour: Numbers, rest: Numbers, fraction: Numbers, digits: int, valid: Mask | None
) -> pa.Array:
    """Write n TIMEs, given sign, hours, seconds of the hour and microseconds, with so many digits behind the point.

    Raises:
        DataError: a part is out of its range.
    """
    if len(hour) and (int(hour.max()) > LAST_HOUR or int(rest.max()) >= 3600 or int(fraction.max()) >= MICROSECONDS):
        raise DataError("a TIME value is out of the range of its type")
    text = np.empty((len(hour), 10 + (digits + 1 if digits else 0)), np.uint8)
    text[:, 0], text[:, 1] = MINUS, ZERO + hour // 100
    _write_time(text[:, 2:], hour % 100, rest, fraction, digits)
    keep = np.ones(text.shape, np.bool_)
    keep[:, 0] = negative & ((hour > 0) | (rest > 0) | (fraction > 0))
    keep[:, 1] = hour > 99
    return kept_text(text, keep, valid)


def _read_times(
    buffer: Bytes, start: Positions, valid: Mask | None, code: ColumnCode, digits: int
) -> tuple[Mask, Numbers, Numbers, Numbers]:
    """Read sign, hours, seconds of the hour and microseconds."""
    if code is ColumnCode.TIME2:
        bits = 8 * ((digits + 1) // 2)
        packed = _known(big_endian(buffer, start, 3 + bits // 8).view(np.int64) - (0x800000 << bits), valid)
        size = np.abs(packed)
        clock, fraction = size >> bits, (size & ((1 << bits) - 1)) * _unit(digits)
        _check_clock(None, clock >> 6 & 63, clock & 63)
        return packed < 0, clock >> 12, (clock >> 6 & 63) * 60 + (clock & 63), fraction
    if digits:
        width = (3, 4, 4, 5, 5, 5, 6)[digits]
        zero = (LAST_HOUR + 1) * 3600 * 10**digits
        units = _known(big_endian(buffer, start, width).view(np.int64) - zero, valid)
        seconds, fraction = np.divmod(np.abs(units) * 10 ** (6 - digits), MICROSECONDS)
        return units < 0, seconds // 3600, seconds % 3600, fraction
    packed = _known((integers(buffer, "<u4")[start] << np.uint32(8)).view(np.int32).astype(np.int64) >> 8, valid)
    size = np.abs(packed)
    minute, second = size // 100 % 100, size % 100
    _check_clock(None, minute, second)
    return packed < 0, size // 10_000, minute * 60 + second, np.zeros(len(size), np.int64)


def _read_hires_datetimes(buffer: Bytes, start: Positions, valid: Mask | None, digits: int) -> Moments:
    width = (8, 6, 6, 7, 7, 7, 8)[digits]
    packed = _known(big_endian(buffer, start, width).view(np.int64), valid) * 10 ** (6 - digits)
    packed, microsecond = np.divmod(packed, MICROSECONDS)
    packed, second = np.divmod(packed, DAY_SECONDS)
    packed, day = np.divmod(packed, 32)
    year, month = np.divmod(packed, 13)
    return Moments(year, month, day, second, microsecond).check()


def temporal_array(type_: pa.DataType, values: NDArray[Any], valid: Mask | None) -> pa.Array:
    """Make an Arrow array of dates or timestamps."""
    return array(type_, values, valid)


def _known(values: Numbers, valid: Mask | None) -> Numbers:
    return values if valid is None else values * valid


def _unit(digits: int) -> int:
    """Return the microseconds of a fraction's last stored place: two digits share a byte."""
    return int(10 ** (6 - 2 * ((digits + 1) // 2)))


def _fraction(buffer: Bytes, start: Positions, digits: int, valid: Mask | None, unit: int) -> Numbers:
    width = (digits + 1) // 2
    if not width:
        return np.zeros(len(start), np.int64)
    # A row without a value may begin at the buffer's last bytes.
    start = np.minimum(start, len(buffer) - 8)
    return _known(big_endian(buffer, start, width).view(np.int64) * unit, valid)


def _check_clock(hour: Numbers | None, minute: Numbers, second: Numbers) -> None:
    for part, last in ((hour, 23), (minute, 59), (second, 59)):
        if part is not None and len(part) and (int(part.max()) > last or int(part.min()) < 0):
            raise DataError("a temporal value is out of the range of its type")


def _write_time(text: NDArray[np.uint8], hour: Numbers, rest: Numbers, fraction: Numbers, digits: int) -> None:
    """Write `HH:MM:SS.ffffff` given hours and the seconds of the hour."""
    text[:, 0:2], text[:, 3:5], text[:, 6:8] = _PAIRS[hour], _PAIRS[rest // 60], _PAIRS[rest % 60]
    text[:, 2] = text[:, 5] = ord(":")
    if digits:
        text[:, 8] = ord(".")
        for i in range(digits):
            text[:, 9 + i] = ZERO + fraction // 10 ** (5 - i) % 10


def _even_text(text: NDArray[np.uint8], valid: Mask | None) -> pa.Array:
    """Make an Arrow string array of rows that all have the same length."""
    offsets = np.arange(len(text) + 1, dtype=np.int32) * text.shape[1]
    return pa.Array.from_buffers(
        pa.string(), len(text), [bitmap(valid), pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(text)]
    )
