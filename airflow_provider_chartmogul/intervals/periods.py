# SPDX-License-Identifier: Apache-2.0
"""Whole days, weeks, months, quarters and years, as ChartMogul's metrics count them."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta, tzinfo

from airflow_provider_chartmogul.exceptions import IntervalError
from airflow_provider_chartmogul.intervals.interval import Interval

#: The periods that metrics are given for.
PERIODS = ("day", "week", "month", "quarter", "year")


#: Days of the week by their name, as ``date.weekday`` counts them.
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def whole_periods(
    interval: Interval, period: str, timezone: tzinfo, *, week_start_on: str = "monday"
) -> tuple[date, date]:
    """
    Return the first and the last day of a window that consists of whole periods.

    :param interval: the window; both ends must be given
    :param period: one of ``PERIODS``
    :param timezone: the time zone whose days they are
    :param week_start_on: the first day of a week, as the account says it
    :raises IntervalError: if an end is open, or does not lie between two periods
    """
    if period not in PERIODS:
        raise IntervalError(f"interval cannot be {period!r}: it is one of {', '.join(PERIODS)}")
    if interval.start is None or interval.end is None:
        raise IntervalError("metrics need both ends of their window: give interval_start and interval_end")
    first = _midnight(interval.start, timezone, "interval_start")
    end = _midnight(interval.end, timezone, "interval_end")
    for day, name in ((first, "interval_start"), (end, "interval_end")):
        if not _begins_period(day, period, week_start_on):
            weekday = f", and the account's weeks start on {week_start_on}" if period == "week" else ""
            raise IntervalError(f"interval={period!r} needs whole {period}s, but {name} is {day:%A, %Y-%m-%d}{weekday}")
    return first, end - timedelta(days=1)


def _midnight(moment: datetime, timezone: tzinfo, name: str) -> date:
    local = moment.astimezone(timezone)
    # The first moment of a day is not always midnight: clocks may change then.
    start_of_day = datetime.combine(local.date(), time(), timezone).astimezone(moment.tzinfo)
    if moment != start_of_day:
        raise IntervalError(
            f"metrics come by the day, but {name} is {local.isoformat()}, which is not the start of a day in "
            f"{timezone}: change it, or give the time zone of its days as metrics_timezone"
        )
    return local.date()


def _begins_period(day: date, period: str, week_start_on: str) -> bool:
    return (
        period == "day"
        or (period == "week" and _WEEKDAYS[day.weekday()] == week_start_on)
        or (period == "month" and day.day == 1)
        or (period == "quarter" and day.day == 1 and day.month in (1, 4, 7, 10))
        or (period == "year" and day.day == 1 and day.month == 1)
    )
