# SPDX-License-Identifier: Apache-2.0
"""Parse the durations that users write, and add them to times by the calendar."""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo
from typing import Any, Final, NamedTuple

import pendulum

from airflow_provider_chartmogul.exceptions import IntervalError
from airflow_provider_chartmogul.intervals.times import to_utc

#: Longer waits do not fit into a date.
_MAX_WAIT: Final = timedelta(days=36500)


def parse_seconds(value: object, name: str) -> float:
    """
    Parse the length of a wait, such as ``timeout``, and return it in seconds.

    :param value: a number of seconds, or a ``timedelta``; from 0 to 100 years
    :param name: what an error calls the value
    :raises ValueError: for anything else
    """
    seconds: Any = value.total_seconds() if isinstance(value, timedelta) else value
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if is_number and 0 <= seconds <= _MAX_WAIT.total_seconds():  # false for NaN
        return float(seconds)
    raise ValueError(f"{name} cannot be {value!r:.60}: it is a number of seconds, or a timedelta, from 0 to 100 years")


def parse_duration(value: object, name: str) -> timedelta:
    """
    Parse a duration above zero.

    :param value: a ``timedelta``, which a pendulum ``Duration`` is too, or ISO 8601 text such as ``P7D``
    :param name: what an error calls the value
    :raises IntervalError: for anything else
    """
    parsed = value
    if isinstance(value, str) and value.strip()[:1] == "P":
        try:
            parsed = pendulum.parse(value.strip(), exact=True)
        except (ValueError, TypeError, OverflowError):  # pendulum raises all of these
            parsed = None
    if isinstance(parsed, timedelta) and parsed > timedelta(0):
        return parsed
    raise IntervalError(f"{name} cannot be {value!r:.60}: it is a timedelta above zero, or ISO 8601 text such as P7D")


def subtract_duration(end: datetime, duration: timedelta, name: str, timezone: tzinfo | None = None) -> datetime:
    """
    Subtract a duration; the months of a pendulum ``Duration`` count as calendar months.

    :param name: what an error calls the duration
    :param timezone: the time zone whose calendar days and months are subtracted; with ``None``, a day is 24 hours
    :raises IntervalError: when that is outside the calendar
    """
    if timezone is not None:
        return CalendarDuration.parse(duration, name).after(end.astimezone(timezone), times=-1)
    try:
        earlier = pendulum.instance(end) - duration
    except (ValueError, OverflowError) as error:
        raise IntervalError(f"{name}, {duration}, before {end.isoformat()} is outside the calendar") from error
    return to_utc(earlier, name)


class CalendarDuration(NamedTuple):
    """A duration in months and days of the calendar, and elapsed time."""

    months: int = 0
    days: int = 0
    elapsed: timedelta = timedelta(0)

    @classmethod
    def parse(cls, value: object, name: str) -> CalendarDuration:
        """
        Parse a duration as ``parse_duration`` does.

        * ``P1M`` is a calendar month.
        * ``P1D`` and ``timedelta(days=1)`` are a calendar day, since a ``timedelta`` cannot tell it from 24 hours.
        * ``P1DT12H`` is 36 hours of elapsed time.
        * ``P1MT12H`` is a calendar month, then 12 hours.

        :raises IntervalError: when the value is not a duration above zero, or one of its parts is below zero
        """
        duration = parse_duration(value, name)
        # An Interval is the time between two moments, so that its days are elapsed ones.
        if isinstance(duration, pendulum.Duration) and not isinstance(duration, pendulum.Interval):
            months = duration.years * 12 + duration.months
            days = duration.weeks * 7 + duration.remaining_days
            # pendulum counts a year as 365 days and a month as 30.
            elapsed = duration.as_timedelta() - timedelta(days=duration.years * 365 + duration.months * 30 + days)
        else:
            months, days, elapsed = 0, duration.days, duration - timedelta(days=duration.days)
        if min(months, days) < 0 or elapsed < timedelta(0):
            raise IntervalError(f"{name} cannot be {duration!r}: one of its parts is below zero")
        if elapsed and not months:
            return cls(elapsed=timedelta(days=days) + elapsed)
        return cls(months, days, elapsed)

    def after(self, start: datetime, times: int = 1) -> datetime:
        """
        Return ``start`` plus ``times`` this duration, in UTC.

        The multiple is added at once: the months after January 31st end on the last day of each month.

        :param start: with the time zone that days and months are counted in
        :raises IntervalError: when that is outside the calendar
        """
        try:
            if self.months or self.days:
                wall = pendulum.naive(*start.timetuple()[:6], start.microsecond)
                wall = wall.add(months=times * self.months, days=times * self.days)
                # When clocks go back, this is the first of the two hours. When they go forward, a skipped time becomes
                # the hour after, so that a day without a midnight begins at its first moment.
                start = datetime(*wall.timetuple()[:6], wall.microsecond, tzinfo=start.tzinfo)
            return to_utc(start, "the time") + times * self.elapsed
        except (ValueError, OverflowError) as error:
            raise IntervalError(f"the window after {start.isoformat()} ends outside the calendar") from error


#: The lengths of the calendar's periods, by name.
PERIODS: Final = {
    "day": CalendarDuration(days=1),
    "week": CalendarDuration(days=7),
    "month": CalendarDuration(months=1),
    "quarter": CalendarDuration(months=3),
    "year": CalendarDuration(months=12),
}
