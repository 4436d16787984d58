# SPDX-License-Identifier: Apache-2.0
"""The company's time, in whole seconds or microseconds since 1970, and the formats in which the API shows it."""

from __future__ import annotations

from datetime import UTC, datetime

FOUNDED = datetime(2018, 1, 1, tzinfo=UTC)
"""The company's founding: it has no activities before."""

HORIZON = datetime(2040, 1, 1, tzinfo=UTC)
"""The end of the company's computed history, exclusive."""

DAY = 86_400
"""Seconds of a day."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_seconds(moment: datetime) -> int:
    """Return the first whole second at or after a moment, counted from 1970. One without a time zone is UTC."""
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    elapsed = aware - _EPOCH
    return elapsed.days * DAY + elapsed.seconds + (1 if elapsed.microseconds else 0)


def add_months(seconds: int, months: int) -> int:
    """Return the moment this many months later, on the month's last day where the day does not exist."""
    moment = datetime.fromtimestamp(seconds, UTC)
    month = moment.month - 1 + months
    year, month = moment.year + month // 12, month % 12 + 1
    days = (31, 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28, 31, 30, 31, 30, 31, 31, 30, 31)
    last_day = (*days, 30, 31)[month - 1]
    return int(moment.replace(year=year, month=month, day=min(moment.day, last_day)).timestamp())


def with_offset(seconds: int) -> str:
    """Return `2016-01-01T12:00:00+00:00`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def with_seconds(microseconds: int) -> str:
    """Return `2016-01-01T12:00:00Z`."""
    return f"{datetime.fromtimestamp(microseconds // 1_000_000, UTC):%Y-%m-%dT%H:%M:%SZ}"


def with_milliseconds(microseconds: int) -> str:
    """Return `2016-01-01T12:00:00.123Z`."""
    seconds, fraction = divmod(microseconds, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction // 1000:03}Z"


def with_nanoseconds(microseconds: int) -> str:
    """Return `2016-01-01T12:00:00.123456000Z`."""
    seconds, fraction = divmod(microseconds, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:06}000Z"
