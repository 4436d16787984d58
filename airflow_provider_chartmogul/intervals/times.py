# SPDX-License-Identifier: Apache-2.0
"""Parse the times and time zones that users write."""

from __future__ import annotations

from datetime import UTC, date, datetime, tzinfo
from typing import Any

import pendulum

from airflow_provider_chartmogul.exceptions import IntervalError


def parse_time(value: object, name: str) -> datetime:
    """
    Parse a time, and return it in UTC.

    :param value: a ``datetime``, a ``date`` (its midnight), or either as ISO 8601 text; UTC where it has no time zone
    :param name: what an error calls the value
    :raises IntervalError: for anything else, and for a time outside the calendar
    """
    return to_utc(parse_local_time(value, name, UTC), name)


def parse_local_time(value: object, name: str, timezone: tzinfo) -> datetime:
    """
    Parse a time as ``parse_time`` does, and return it in its own time zone.

    :param timezone: the time zone of a value that has none
    :raises IntervalError: when the value is not a time
    """
    parsed = _parse_iso_8601(value.strip(), timezone) if isinstance(value, str) else value
    if isinstance(parsed, datetime):
        return parsed if parsed.tzinfo else parsed.replace(tzinfo=timezone)
    if isinstance(parsed, date):
        return datetime(parsed.year, parsed.month, parsed.day, tzinfo=timezone)
    raise IntervalError(
        f"{name} cannot be {value!r:.60}: it is a date, a datetime, or ISO 8601 text such as "
        "2024-01-31 or 2024-01-31T00:00:00+01:00"
    )


def _parse_iso_8601(text: str, timezone: tzinfo) -> object:
    # pendulum also parses 'now', which would be another time in each try, and ranges.
    if not text[:1].isdecimal() or "/" in text:
        return None
    try:
        parsed: Any = pendulum.parse(text, exact=True, tz=timezone)
    except (ValueError, TypeError, OverflowError):  # pendulum raises all of these
        return None
    # Where clocks are set back an hour comes twice. pendulum means the second one, Python the first.
    return parsed.replace(fold=0) if isinstance(parsed, datetime) else parsed


def to_utc(value: datetime, name: str) -> datetime:
    """
    Convert a time with a time zone to a plain ``datetime`` in UTC.

    :raises IntervalError: when that is outside the calendar
    """
    try:
        utc = value.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise IntervalError(f"{name}, {value.isoformat()}, is outside the calendar in UTC") from error
    # A pendulum datetime with a time zone of the standard library loses it in arithmetic.
    return datetime(utc.year, utc.month, utc.day, utc.hour, utc.minute, utc.second, utc.microsecond, tzinfo=UTC)


def parse_timezone(value: object, name: str) -> tzinfo:
    """
    Parse a time zone: a name such as ``Europe/Berlin``, or a ``tzinfo``.

    :raises IntervalError: for anything else
    """
    # pytz keeps the name in 'zone'. Its objects cannot be passed to a datetime as other time zones can.
    key = value if isinstance(value, str) else getattr(value, "key", None) or getattr(value, "zone", None)
    if isinstance(key, str):
        try:
            return pendulum.timezone(key.strip())
        except (ValueError, OSError):
            pass
    elif isinstance(value, tzinfo):
        return value
    raise IntervalError(f"{name} cannot be {value!r:.60}: it is the name of a time zone, such as Europe/Berlin")
