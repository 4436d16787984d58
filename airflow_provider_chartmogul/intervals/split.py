# SPDX-License-Identifier: Apache-2.0
"""Split a range of dates into windows, for mapped tasks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from itertools import count, pairwise

from airflow_provider_chartmogul.exceptions import IntervalError
from airflow_provider_chartmogul.intervals.durations import PERIODS, CalendarDuration
from airflow_provider_chartmogul.intervals.times import parse_local_time, parse_timezone, to_utc


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
    Split a range of time into windows, for ``expand_kwargs``.

    The windows are half-open, touch, and cover the range exactly. Call it in a DAG file or in a task.

    :param start: start of the range: ISO 8601 text, ``date`` or ``datetime``
    :param end: end of the range, in the same forms; it is not part of the last window
    :param every: the length of a window:

        - ``day``, ``week`` (from Monday), ``month``, ``quarter`` or ``year`` splits at the calendar's borders, so that
          the first and the last window may be shorter
        - a ``timedelta``, a pendulum ``Duration`` or ISO 8601 text such as ``P10D`` counts from ``start``, and only
          the last window may be shorter. Whole days, also those of a plain ``timedelta``, weeks, months and years
          are the calendar's; months after a 31st end on the last day of each month. A duration with hours and
          without months is elapsed time
    :param timezone: the time zone in which days begin, and of times that have none; a day has 23 or 25 hours where
        its clocks change. By default that of ``start``, and UTC where it has none
    :param activity_types: repeats each window for each of these types
    :param max_windows: fails where there would be more; ``None`` allows any number. A task may return no more than
        Airflow's ``[core] max_map_length``, by default 1024
    :returns: ``interval_start`` and ``interval_end``, as ISO 8601 text in UTC, and ``activity_type`` where
        types are given; the earliest window first
    :raises IntervalError: for a range that is empty or reversed, for too many windows, and for a value that cannot be
        parsed
    """
    rows_per_window = _activity_type_columns(activity_types)
    zone = None if timezone is None else parse_timezone(timezone, "timezone")
    local_start = parse_local_time(start, "start", zone or UTC)
    zone = zone or parse_timezone(local_start.tzinfo, "the time zone of start")
    first = to_utc(local_start, "start")
    last = to_utc(parse_local_time(end, "end", zone), "end")
    if first >= last:
        raise IntervalError(
            f"the range to split is {'empty' if first == last else 'reversed'}: it starts at {first.isoformat()} and "
            f"ends at {last.isoformat()}"
        )
    origin, length = _grid(first.astimezone(zone), every)
    borders = [first]
    for number in count(1):
        try:
            border = length.after(origin, number)
        except IntervalError:  # the calendar ends, and so does the range before it
            break
        if border >= last:
            break
        if border > borders[-1]:  # the calendar may leave out a whole day, as in Samoa in 2011
            borders.append(border)
        if max_windows is not None and len(borders) * len(rows_per_window) > max_windows:
            raise IntervalError(
                f"{first.isoformat()} to {last.isoformat()} makes more than max_windows={max_windows} windows. "
                "Split the range into longer windows or call split_interval for parts of it; or raise max_windows, "
                "and for a task that returns the windows also Airflow's [core] max_map_length (by default 1024)"
            )
    return [
        {"interval_start": window_start.isoformat(), "interval_end": window_end.isoformat(), **columns}
        for window_start, window_end in pairwise([*borders, last])
        for columns in rows_per_window
    ]


def _activity_type_columns(activity_types: Sequence[str] | None) -> list[dict[str, str]]:
    """Return what each window's rows have beside the window: one row a type, or one without a type."""
    if activity_types is None:
        return [{}]
    # Imported here, since most DAG files split without types, and it takes half of this module's import time.
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


def _grid(start: datetime, every: object) -> tuple[datetime, CalendarDuration]:
    """Return the time from which the borders are counted, and the duration between them."""
    period = PERIODS.get(every) if isinstance(every, str) else None
    if period is None:
        try:
            return start, CalendarDuration.parse(every, "every")
        except IntervalError as error:
            raise IntervalError(f"{error}, or one of {', '.join(PERIODS)}") from error
    day = start.toordinal() - (start.weekday() if every == "week" else 0)
    if period.months:
        day = date(start.year, start.month - (start.month - 1) % period.months, 1).toordinal()
    return datetime.combine(date.fromordinal(day), datetime.min.time(), start.tzinfo), period
