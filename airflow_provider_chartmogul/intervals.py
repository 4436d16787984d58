# SPDX-License-Identifier: Apache-2.0
"""
The window of an export: from what was given, or from the run; and a range of dates cut into windows.

A run's window is worked out when the task runs, never from a template default: in Airflow 3
``schedule="@daily"`` has a data interval of no width, and asset-triggered, partitioned and some manual runs have
none at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from enum import Enum
from itertools import count, pairwise
from typing import Any, Final

from airflow_provider_chartmogul.times import (
    PERIODS,
    Length,
    after,
    aware,
    length_of,
    moved,
    parse_duration,
    parse_time,
    plain_utc,
    read_zone,
)
from airflow_provider_chartmogul.times import (
    IntervalError as IntervalError,
)

WAYS_OUT = (
    "Ways out: schedule the DAG with CronDataIntervalTimetable('0 0 * * *', timezone='UTC') or "
    "CronTriggerTimetable('0 0 * * *', timezone='UTC', interval=timedelta(days=1)); give the operator a "
    "'lookback' (a timedelta); or give it both interval_start and interval_end."
)


class _Default(Enum):
    """
    The type of ``DATA_INTERVAL``.

    A member of an enumeration is one object for good: deepcopy and pickle give it back, and its ``repr`` is the
    same at every parse, so that a DAG does not get a new version each time it is read.
    """

    DATA_INTERVAL = "the run's data interval"

    def __repr__(self) -> str:
        return "DATA_INTERVAL"

    def __str__(self) -> str:
        return self.value


#: What ``interval_start`` and ``interval_end`` are when nobody gives them. None means 'open' instead.
DATA_INTERVAL: Final = _Default.DATA_INTERVAL


@dataclass(frozen=True)
class Interval:
    """A window of time, in UTC; None leaves an end open."""

    start: datetime | None
    end: datetime | None

    def __str__(self) -> str:
        start = self.start.isoformat() if self.start else "the beginning"
        return f"{start} to {self.end.isoformat() if self.end else 'now'}"


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
    from airflow_provider_chartmogul import api

    try:
        types = [] if isinstance(activity_types, str) else [str(api.validate_activity_type(t)) for t in activity_types]
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


def resolve_interval(
    context: Mapping[str, Any],
    *,
    start: object,
    end: object,
    open_ends: frozenset[str] = frozenset(),
    lookback: object = None,
    partition_length: object = None,
    partition_timezone: object = None,
) -> Interval:
    """
    Work out the window of an export.

    :param context: the task's context
    :param start: ``DATA_INTERVAL``, None, or a time as ``parse_time`` takes it
    :param end: the same
    :param open_ends: which of ``interval_start`` and ``interval_end`` the DAG itself leaves open; elsewhere a
        None is a template or an XCom that came out empty
    :param lookback: moves the start earlier, and gives a run of no width its width
    :param partition_length: in a run that has a partition key, and no data interval or one of no width, the key is
        the start of the window and this its length. A key that names a year, a quarter, a month or a week
        (``2024``, ``2024-Q1``, ``2024-03``, ``2024-W11``, ``2024-03-11 (W11)``), and one that is a range
        (``2024-03-01/2024-04-01``), needs none
    :param partition_timezone: the time zone of keys that name none, a name or a ``tzinfo``. None: the timetable's,
        where Airflow 3.3 tells the partition's date; elsewhere UTC, in which Airflow 3.2 writes them
    :raises IntervalError: when there is no window, or it is empty or reversed
    """
    start_default, end_default = _is_default(start), _is_default(end)
    run: tuple[datetime, datetime] | None = None
    if start_default or end_default:
        run = _run_interval(context, partition_length, partition_timezone)
        if run is None:
            key = _of_run(context, "partition_key")
            hint = "" if key is None else f" If its partition key, {key!r}, starts one, give a 'partition_length'."
            raise IntervalError(
                "this run has no data interval, so there is no window to export: it was started without a logical "
                f"date, by an asset, or for a partition.{hint} Start it with a logical date, or see below. {WAYS_OUT}"
            )
    resolved_start = run[0] if run and start_default else _given(start, "interval_start", open_ends)
    resolved_end = run[1] if run and end_default else _given(end, "interval_end", open_ends)
    if lookback is not None and resolved_start is not None:
        resolved_start = moved(resolved_start, parse_duration(lookback, "lookback"), "lookback", back=True)
    if resolved_start is not None and resolved_end is not None:
        if resolved_start == resolved_end:
            whose = "this run's data interval has no width: " if start_default and end_default else ""
            raise IntervalError(
                f"{whose}the window to export would be empty, it starts and ends at "
                f"{resolved_start.isoformat()}. {WAYS_OUT}"
            )
        if resolved_start > resolved_end:
            raise IntervalError(
                f"the window to export is reversed: it starts at {resolved_start.isoformat()} and ends at "
                f"{resolved_end.isoformat()}. Check interval_start and interval_end."
            )
    return Interval(resolved_start, resolved_end)


def _is_default(value: object) -> bool:
    # Airflow's serialisation turns a member of an enumeration into its value.
    return value is DATA_INTERVAL or value == DATA_INTERVAL.value


def _given(value: object, name: str, open_ends: frozenset[str]) -> datetime | None:
    if value is None and name in open_ends:
        return None
    return parse_time("None" if value is None else value, name)


def _run_interval(
    context: Mapping[str, Any], partition_length: object, partition_timezone: object
) -> tuple[datetime, datetime] | None:
    start, end = context.get("data_interval_start"), context.get("data_interval_end")
    run = None
    if start is not None and end is not None:
        run = parse_time(start, "data_interval_start"), parse_time(end, "data_interval_end")
    if run is None or run[0] == run[1]:
        # A partitioned run that is started by hand with a logical date has a data interval of no width beside its
        # key, since that is what partitioned timetables make of any date.
        return _partition_interval(context, partition_length, partition_timezone) or run
    return run


def _of_run(context: Mapping[str, Any], name: str) -> Any:
    """Look up what belongs to the run: Airflow 3.3 has it in the context, 3.2 in the ``dag_run`` alone."""
    value = context.get(name)
    return getattr(context.get("dag_run"), name, None) if value is None else value


def _partition_interval(
    context: Mapping[str, Any], partition_length: object, partition_timezone: object
) -> tuple[datetime, datetime] | None:
    """Give the window of the run's partition; None when it has none, or a key that says no length."""
    name = "the run's partition key"
    key, partition_date = _of_run(context, "partition_key"), _of_run(context, "partition_date")
    if key is None:
        return None
    # 3.2 writes keys in UTC whatever the timetable's zone. 3.3 writes them in that zone, and tells the date.
    timetable_zone = getattr(getattr(context.get("dag"), "timetable", None), "timezone", None)
    told = partition_timezone
    if told is None and partition_date is not None:
        told = timetable_zone
    zone = UTC if told is None else read_zone(told, "partition_timezone")
    ends: datetime | Length | None
    try:
        start, ends = _read_key(key, name, zone)
    except IntervalError:
        if partition_date is None:
            if partition_length is None:
                return None
            raise
        start, ends = parse_time(partition_date, "the run's partition date"), None
    if partition_date is not None and told is None and start != partition_date:
        raise IntervalError(
            f"{name}, {key!r}, begins at {start.isoformat()} in UTC, but the partition at "
            f"{parse_time(partition_date, name).isoformat()}: tell the operator by 'partition_timezone' which time "
            "zone the keys are of"
        )
    try:
        if isinstance(ends, datetime):
            return plain_utc(start, name), plain_utc(ends, name)
        if partition_length is not None:
            ends = length_of(parse_duration(partition_length, "partition_length"), "partition_length")
            start = start.astimezone(read_zone(told or timetable_zone or UTC, "partition_timezone"))
        return None if ends is None else (plain_utc(start, name), after(start, ends))
    except (ValueError, OverflowError) as error:
        if isinstance(error, IntervalError):
            raise
        raise IntervalError(
            f"the partition that begins at {start.isoformat()} ends outside the calendar: check partition_length"
        ) from error


#: Keys that name a period: what Airflow's StartOf…Mapper make of a year, a quarter, a month and a week, and ISO 8601.
_PERIOD_KEY: Final = re.compile(
    r"(?P<year>\d{4})(?:-?Q(?P<quarter>[1-4])|-(?P<month>\d\d)|-?W(?P<week>\d\d))?"
    r"|(?P<monday>\d{4}-\d\d-\d\d) \(W\d\d\)",
    re.ASCII,
)


def _read_key(key: object, name: str, zone: tzinfo) -> tuple[datetime, datetime | Length | None]:
    """Read a partition key: where its window starts, and, where it says so, where that ends or how long it is."""
    text = key.strip() if isinstance(key, str) else ""
    if text.count("/") == 1:
        start, end = text.split("/")
        return aware(start, name, zone), aware(end, name, zone)
    found = _PERIOD_KEY.fullmatch(text)
    if found is None:
        return aware(key, name, zone), None
    try:
        if found["monday"]:
            day, period = date.fromisoformat(found["monday"]), "week"
        elif found["week"]:
            day, period = date.fromisocalendar(int(found["year"]), int(found["week"]), 1), "week"
        else:
            month = int(found["month"] or 3 * int(found["quarter"] or 1) - 2)
            day = date(int(found["year"]), month, 1)
            period = "month" if found["month"] else "quarter" if found["quarter"] else "year"
    except ValueError as error:
        raise IntervalError(f"{name} cannot be {text!r}: {error}") from error
    return datetime(day.year, day.month, day.day, tzinfo=zone), PERIODS[period]


def written_as_none(
    operator: Any, at_init: frozenset[str], names: tuple[str, ...], none_by_default: tuple[str, ...] = ()
) -> frozenset[str]:
    """
    Tell which parameters of a task, where they are None, are so because the DAG says so.

    A template or an XCom may come out as None too, and must not be taken for 'all of history'. In a task that
    is not mapped a None in the constructor was written by a person; a mapped task's constructor runs on the
    worker with what came out of XCom, so there the DAG's own task is asked.

    :param operator: the operator as it runs
    :param at_init: the names that were None in its constructor
    :param names: the names to tell of
    :param none_by_default: those among them that are None when left out, which in ``expand_kwargs`` of an XCom
        cannot be told from a None that came out of it
    """
    declared = operator.dag.task_dict.get(operator.task_id) if operator.has_dag() else None
    partial = getattr(declared, "partial_kwargs", None)
    if declared is None or partial is None:
        return at_init.intersection(names)
    expanded = declared.expand_input.value

    def is_written(name: str) -> bool:
        if name in partial:
            return partial[name] is None
        if isinstance(expanded, Mapping):  # expand(name=[…]); what is not there has its default
            values = expanded.get(name, [None])
            return isinstance(values, (list, tuple)) and None in values
        if isinstance(expanded, (list, tuple)):  # expand_kwargs([{name: …}, …])
            return any(isinstance(kwargs, Mapping) and kwargs.get(name) is None for kwargs in expanded)
        return name in none_by_default

    return frozenset(name for name in names if is_written(name))
