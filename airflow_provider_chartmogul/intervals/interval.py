# SPDX-License-Identifier: Apache-2.0
"""
Find the window that a task exports, from its parameters or from its run.

The run's data interval is read when the task runs, not by a template default such as ``{{ data_interval_start }}``:
in Airflow 3 that of ``schedule="@daily"`` has no width, and asset-triggered, partitioned and some manual runs have
none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from enum import Enum
from typing import Any, Final

from airflow_provider_chartmogul.exceptions import IntervalError
from airflow_provider_chartmogul.intervals.durations import parse_duration, subtract_duration
from airflow_provider_chartmogul.intervals.partition_keys import partition_interval, run_attribute
from airflow_provider_chartmogul.intervals.times import parse_time


class _Default(Enum):
    """
    The type of ``DATA_INTERVAL``.

    An enumeration's member stays one object through deepcopy and pickle, and its ``repr`` is the same at every parse,
    so that a DAG does not get a new version each time it is parsed.
    """

    DATA_INTERVAL = "the run's data interval"

    def __repr__(self) -> str:
        return "DATA_INTERVAL"

    def __str__(self) -> str:
        return self.value


#: The default of ``interval_start`` and ``interval_end``. (``None`` leaves an end open.)
DATA_INTERVAL: Final = _Default.DATA_INTERVAL


@dataclass(frozen=True)
class Interval:
    """
    A window of time.

    :param start: in UTC; ``None`` begins with the first activity
    :param end: in UTC; ``None`` ends when the export is created
    """

    start: datetime | None
    end: datetime | None

    def __str__(self) -> str:
        start, end = (value and value.isoformat().replace("+00:00", "Z") for value in (self.start, self.end))
        return f"{start or 'the beginning'} to {end or 'now'}".replace("T00:00:00Z", "")


def resolve_interval(
    context: Mapping[str, Any],
    *,
    start: object,
    end: object,
    lookback: object = None,
    lookback_timezone: tzinfo | None = None,
    partition_length: object = None,
    partition_timezone: object = None,
) -> Interval:
    """
    Return the window that a task exports.

    Both ends are rounded down to whole seconds, which is what ChartMogul keeps, so that windows that touch still do.

    :param context: the task's context
    :param start: ``DATA_INTERVAL``, ``None`` (open), or a time as ``parse_time`` takes it
    :param end: the same
    :param lookback: moves the start earlier by this duration, which gives a run without a width its width
    :param lookback_timezone: the time zone whose calendar days the lookback consists of; with ``None``, a day is 24
        hours
    :param partition_length: the duration of the window of a run that has a partition key, and no data interval or one
        without a width; the key is its start. A key that names a year, a quarter, a month or a week (``2024``,
        ``2024-Q1``, ``2024-03``, ``2024-W11``, ``2024-03-11 (W11)``) or a range (``2024-03-01/2024-04-01``) needs none
    :param partition_timezone: the time zone of keys that have none, a name or a ``tzinfo``. By default the
        timetable's on Airflow 3.3, and UTC on 3.2, which writes keys in UTC
    :raises IntervalError: when there is no window, or it is empty or reversed
    """
    is_run_interval = _is_default(start) and _is_default(end)
    if _is_default(start) or _is_default(end):
        run_start, run_end = _run_interval(context, partition_length, partition_timezone)
        start = run_start if _is_default(start) else start
        end = run_end if _is_default(end) else end
    window_start = None if start is None else parse_time(start, "interval_start")
    window_end = None if end is None else parse_time(end, "interval_end")
    if lookback is not None and window_start is not None:
        duration = parse_duration(lookback, "lookback")
        window_start = subtract_duration(window_start, duration, "lookback", lookback_timezone)
    window_start = window_start and window_start.replace(microsecond=0)
    window_end = window_end and window_end.replace(microsecond=0)
    if window_start is not None and window_end is not None:
        if window_start == window_end and is_run_interval:
            raise IntervalError(
                "Give the task a lookback such as timedelta(days=1), or schedule the DAG with "
                "CronDataIntervalTimetable('0 0 * * *', timezone='UTC') or CronTriggerTimetable('0 0 * * *', "
                "timezone='UTC', interval=timedelta(days=1)): this run's data interval has no width, it starts and "
                f"ends at {window_end.isoformat()}"
            )
        if window_start >= window_end:
            raise IntervalError(
                f"Check interval_start and interval_end: the window is "
                f"{'empty' if window_start == window_end else 'reversed'}, it starts at {window_start.isoformat()} "
                f"and ends at {window_end.isoformat()}"
            )
    return Interval(window_start, window_end)


def _is_default(value: object) -> bool:
    # Airflow's serialisation turns an enumeration's member into its value.
    return value is DATA_INTERVAL or value == DATA_INTERVAL.value


def _run_interval(
    context: Mapping[str, Any], partition_length: object, partition_timezone: object
) -> tuple[datetime, datetime]:
    start, end = context.get("data_interval_start"), context.get("data_interval_end")
    run = None
    if start is not None and end is not None:
        run = parse_time(start, "data_interval_start"), parse_time(end, "data_interval_end")
    if run is None or run[0] == run[1]:
        # A partitioned run that is triggered with a logical date has a data interval without a width beside its key.
        run = partition_interval(context, partition_length, partition_timezone) or run
    if run is None:
        raise IntervalError(f"{_remedy(context)}: this run has no data interval, so there is no window to export")
    return run


def _remedy(context: Mapping[str, Any]) -> str:
    """Return what gives a window to a run without a data interval."""
    both_ends = "give the task both interval_start and interval_end"
    key = run_attribute(context, "partition_key")
    if key is not None:
        return f"Give the task a partition_length if the partition key, {key!r}, is the window's start, or {both_ends}"
    if getattr(context.get("dag_run"), "run_type", None) == "asset_triggered":
        return f"A run that an asset triggers needs its window from parameters, so {both_ends}"
    return f"Trigger the run with a logical date (airflow dags trigger --logical-date DATE …), or {both_ends}"
