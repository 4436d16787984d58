# SPDX-License-Identifier: Apache-2.0
"""Cut a date range into windows, for mapped tasks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from itertools import count, pairwise

from airflow_provider_chartmogul.exceptions import IntervalError
from airflow_provider_chartmogul.intervals.times import (
    PERIODS,
    Length,
    after,
    aware,
    length_of,
    parse_duration,
    plain_utc,
    read_zone,
)


def split_interval(
    start: object,
    end: object,
    every: str | timedelta,
    *,
    timezone: str | tzinfo | None = None,
    activity_types: Sequence[str] | None = None,
    max_windows: int | None = 1024,
) -> list[dict[str, str]]:
    """
    Cut a range of time into windows, for ``expand_kwargs``.

    The windows are half-open, touch, and cover the range exactly. A DAG file may call it, and a task.

    :param start: start of the range: ISO 8601 text, ``date`` or ``datetime``
    :param end: its end, in the same forms, which the last window leaves out
    :param every: ``day``, ``week`` (from Monday), ``month``, ``quarter`` or ``year`` cut at the calendar's
        borders, so that the first and the last window may be shorter. A ``timedelta``, a pendulum ``Duration`` or
        ISO 8601 text such as ``P10D`` counts from ``start``, and only the last window may be shorter: whole days,
        also of a plain ``timedelta``, weeks, months and years are the calendar's, months after a 31st ending on
        their last days; a length with hours in it and no months is elapsed time
    :param timezone: the time zone that days begin in and that times without one are of; a day has 23 or 25 hours
        where its clocks change. Left out, it is that of ``start``, and where that has none UTC
    :param activity_types: gives each window once for each of these types
    :param max_windows: how many there may be; None: any number. A task may hand on no more than Airflow's
        ``[core] max_map_length``, 1024 unless it is set
    :returns: ``interval_start`` and ``interval_end``, as ISO 8601 texts in UTC, and ``activity_type`` where
        types are given; the earliest window first
    :raises IntervalError: for a range that is empty or reversed, too many windows, and what cannot be read
    """
    types = _types(activity_types)
    zone = None if timezone is None else read_zone(timezone, "timezone")
    begin = aware(start, "start", zone or UTC)
    zone = zone or read_zone(begin.tzinfo, "the time zone of start")
    borders, last = [plain_utc(begin, "start")], plain_utc(aware(end, "end", zone), "end")
    if borders[0] >= last:
        raise IntervalError(
            f"the range to split is {'empty' if borders[0] == last else 'reversed'}: it starts at "
            f"{borders[0].isoformat()} and ends at {last.isoformat()}"
        )
    anchor, length = _grid(borders[0].astimezone(zone), every)
    for number in count(1):
        try:
            border = after(anchor, length, number)
        except (ValueError, OverflowError):  # the calendar ends, and so does the range before it
            break
        if border >= last:
            break
        if border > borders[-1]:  # a day may be left out altogether, as in Samoa in 2011
            borders.append(border)
        if max_windows is not None and len(borders) * len(types) > max_windows:
            raise IntervalError(
                f"{borders[0].isoformat()} to {last.isoformat()} makes more than max_windows={max_windows} windows. "
                "A task may hand on no more than Airflow's [core] max_map_length, 1024 unless it is set: cut the "
                "range into longer windows or into several ranges, or raise max_map_length and max_windows"
            )
    return [
        {"interval_start": window_start.isoformat(), "interval_end": window_end.isoformat(), **activity_type}
        for window_start, window_end in pairwise([*borders, last])
        for activity_type in types
    ]


def _types(activity_types: Sequence[str] | None) -> list[dict[str, str]]:
    if activity_types is None:
        return [{}]
    # Not above: it would be half of what a DAG file pays for this module.
    from airflow_provider_chartmogul.api.exports import validate_activity_type

    try:
        types = [] if isinstance(activity_types, str) else [str(validate_activity_type(t)) for t in activity_types]
    except (TypeError, ValueError) as error:
        raise IntervalError(str(error)) from error
    if not types or len({*types}) < len(types) or "None" in types:
        raise IntervalError(
            f"activity_types cannot be {activity_types!r}: it is None, or a list of different types, such as "
            "['new_biz', 'churn']"
        )
    return [{"activity_type": activity_type} for activity_type in types]


def _grid(start: datetime, every: object) -> tuple[datetime, Length]:
    """Tell from where the windows' borders are counted, and how far they are apart."""
    period = PERIODS.get(every) if isinstance(every, str) else None
    if period is None:
        try:
            duration = parse_duration(every, "every")
        except IntervalError as error:
            raise IntervalError(f"{error}, or one of {', '.join(PERIODS)}") from error
        return start, length_of(duration, "every")
    day = start.toordinal() - (start.weekday() if every == "week" else 0)
    if period.months:
        day = date(start.year, start.month - (start.month - 1) % period.months, 1).toordinal()
    return datetime.combine(date.fromordinal(day), datetime.min.time(), start.tzinfo), period
