# SPDX-License-Identifier: Apache-2.0
"""
Times and lengths of time as users write them: read, told apart from nonsense, and reckoned with by the calendar.

Times come out as plain UTC datetimes. Days, weeks and months are those of a time zone, whose days may have 23 or 25
hours.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any, Final, NamedTuple

import pendulum

from airflow_provider_chartmogul.exceptions import IntervalError


def parse_time(value: object, name: str) -> datetime:
    """
    Read a time as UTC.

    :param value: a ``datetime``, a ``date`` (its midnight), or an ISO 8601 text of either; what has no time
        zone is UTC
    :param name: what it is called in an error
    :raises IntervalError: for anything else
    """
    if isinstance(value, str) and value.strip().lower() in ("", "none", "null"):
        raise IntervalError(
            f"{name} came out as {value!r}. If that end is meant to be open, write {name}=None in the DAG; "
            "a template or an XCom that is empty does not mean all of history."
        )
    return plain_utc(aware(value, name, UTC), name)


def aware(value: object, name: str, zone: tzinfo) -> datetime:
    """Read a time as ``parse_time`` does, with the time zone it has, or ``zone`` where it has none."""
    parsed: Any = value
    if isinstance(value, str):
        text = value.strip()
        try:
            # pendulum takes 'now' too, which would be another time at each retry.
            parsed = pendulum.parse(text, exact=True, tz=zone) if text[:1].isdecimal() and "/" not in text else None
            if isinstance(parsed, datetime):
                # Of an hour that comes twice pendulum takes the second; a datetime of Python's means the first.
                parsed = parsed.replace(fold=0)
        except (ValueError, TypeError, OverflowError):  # it raises all of these
            parsed = None
    if isinstance(parsed, datetime):
        return parsed if parsed.tzinfo else parsed.replace(tzinfo=zone)
    if isinstance(parsed, date):
        return datetime(parsed.year, parsed.month, parsed.day, tzinfo=zone)
    raise IntervalError(
        f"{name} cannot be {str(value)[:60]!r}: it is a date, a datetime, or an ISO 8601 text such as "
        "2024-01-31 or 2024-01-31T00:00:00+01:00"
    )


def plain_utc(value: datetime, name: str) -> datetime:
    """Make a plain UTC datetime; pendulum's loses its time zone in arithmetic when that is the standard library's."""
    try:
        utc = value.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise IntervalError(f"{name}, {value.isoformat()}, is outside the calendar in UTC") from error
    return datetime(utc.year, utc.month, utc.day, utc.hour, utc.minute, utc.second, utc.microsecond, tzinfo=UTC)


def moved(start: datetime, duration: timedelta, name: str, *, back: bool = False) -> datetime:
    """Move a time, by pendulum, for which a month is a month."""
    try:
        moved = pendulum.instance(start) - duration if back else pendulum.instance(start) + duration
    except (ValueError, OverflowError) as error:
        raise IntervalError(f"{name}, {duration}, leads outside the calendar from {start.isoformat()}") from error
    return plain_utc(moved, name)


def parse_duration(value: object, name: str) -> timedelta:
    """
    Read a length of time above zero.

    :param value: a ``timedelta`` (a pendulum ``Duration`` is one), or an ISO 8601 text such as ``P7D``
    :raises IntervalError: for anything else
    """
    parsed = value
    if isinstance(value, str) and value.strip()[:1] == "P":
        try:
            parsed = pendulum.parse(value.strip(), exact=True)
        except (ValueError, TypeError, OverflowError):
            parsed = None
    if isinstance(parsed, timedelta) and parsed > timedelta(0):
        return parsed
    raise IntervalError(
        f"{name} cannot be {str(value)[:60]!r}: it is a timedelta above zero, or an ISO 8601 text such as P7D"
    )


def read_zone(value: object, name: str) -> tzinfo:
    """Read a time zone: a name such as ``Europe/Berlin``, or a ``tzinfo``."""
    # pytz's zones, which cannot be put on a datetime as others can, have their name in 'zone'.
    key = value if isinstance(value, str) else getattr(value, "key", None) or getattr(value, "zone", None)
    if isinstance(key, str):
        try:
            return pendulum.timezone(key.strip())
        except (ValueError, OSError):
            pass
    elif isinstance(value, tzinfo):
        return value
    raise IntervalError(f"{name} cannot be {str(value)[:60]!r}: it is the name of a time zone, such as Europe/Berlin")


class Length(NamedTuple):
    """A length of time: months and days of the calendar, and the rest, that is elapsed time."""

    months: int = 0
    days: int = 0
    rest: timedelta = timedelta(0)


#: The periods of the calendar by name. Each begins at midnight, weeks on Monday.
PERIODS: Final = {
    "day": Length(days=1),
    "week": Length(days=7),
    "month": Length(months=1),
    "quarter": Length(months=3),
    "year": Length(months=12),
}


def length_of(duration: timedelta, name: str) -> Length:
    """
    Take a length of time apart.

    Whole days are the calendar's, also those of a plain ``timedelta``, which cannot tell a day from 24 hours. A
    length with hours in it, and no months, is elapsed time altogether.
    """
    if isinstance(duration, pendulum.Duration) and not isinstance(duration, pendulum.Interval):
        months = duration.years * 12 + duration.months
        days = duration.weeks * 7 + duration.remaining_days
        rest = duration.as_timedelta() - timedelta(days=duration.years * 365 + duration.months * 30 + days)
    else:
        months, days, rest = 0, duration.days, timedelta(0, duration.seconds, duration.microseconds)
    if min(months, days) < 0 or rest < timedelta(0):
        raise IntervalError(f"{name} cannot be {duration!r}: it goes forward with one part and back with another")
    if rest and not months:
        return Length(rest=timedelta(days=days) + rest)
    return Length(months, days, rest)


def after(start: datetime, length: Length, times: int = 1) -> datetime:
    """
    Give the time that is so many times a length after another, in UTC.

    Counted at once and not step by step, so that the months after January 31st end on their own last days.

    :param start: with the time zone that days and months are of
    :raises ValueError: outside the calendar
    :raises OverflowError: the same
    """
    if length.months or length.days:
        wall = pendulum.naive(*start.timetuple()[:6], start.microsecond)
        wall = wall.add(months=times * length.months, days=times * length.days)
        # Of an hour that comes twice this is the first. One that does not come is as long after the change, so
        # that a day without a midnight begins with its first moment.
        start = datetime(*wall.timetuple()[:6], wall.microsecond, tzinfo=start.tzinfo)
    return plain_utc(start, "a border") + times * length.rest
