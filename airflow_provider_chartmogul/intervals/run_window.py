# SPDX-License-Identifier: Apache-2.0
"""
The window of an export: from what was given, or from the run; and a range of dates cut into windows.

A run's window is worked out when the task runs, never from a template default: in Airflow 3
``schedule="@daily"`` has a data interval of no width, and asset-triggered, partitioned and some manual runs have
none at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Final

from airflow_provider_chartmogul.exceptions import IntervalError
from airflow_provider_chartmogul.intervals.partitions import partition_interval, run_attribute
from airflow_provider_chartmogul.intervals.times import (
    moved,
    parse_duration,
    parse_time,
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
            key = run_attribute(context, "partition_key")
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
        return partition_interval(context, partition_length, partition_timezone) or run
    return run


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
