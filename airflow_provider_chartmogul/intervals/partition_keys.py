# SPDX-License-Identifier: Apache-2.0
"""Partition keys: the window that a run's key stands for, and the key of a window."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, tzinfo
from typing import Any, Final

from airflow_provider_chartmogul.exceptions import IntervalError
from airflow_provider_chartmogul.intervals.durations import PERIODS, CalendarDuration
from airflow_provider_chartmogul.intervals.times import parse_local_time, parse_time, parse_timezone, to_utc

_KEY: Final = "the run's partition key"

#: Keys that name a year, quarter, month or week, as Airflow's StartOf…Mapper and ISO 8601 write them.
_PERIOD_KEY: Final = re.compile(
    r"(?P<year>\d{4})(?:-?Q(?P<quarter>[1-4])|-(?P<month>\d\d)|-?W(?P<week>\d\d))?"
    r"|(?P<monday>\d{4}-\d\d-\d\d) \(W\d\d\)",
    re.ASCII,
)


def run_attribute(context: Mapping[str, Any], name: str) -> Any:
    """Return an attribute of the run: Airflow 3.3 has it in the context, 3.2 only in ``dag_run``."""
    value = context.get(name)
    return getattr(context.get("dag_run"), name, None) if value is None else value


def partition_interval(
    context: Mapping[str, Any], partition_length: object, partition_timezone: object
) -> tuple[datetime, datetime] | None:
    """
    Return the window of the run's partition, in UTC.

    :param context: the task's context
    :param partition_length: see ``resolve_interval``
    :param partition_timezone: see ``resolve_interval``
    :returns: ``None`` for a run without a partition key, and for a key that has no length where none is given
    :raises IntervalError: when the key or a parameter cannot be parsed, or the key's time zone is not known
    """
    key, partition_date = run_attribute(context, "partition_key"), run_attribute(context, "partition_date")
    if key is None:
        return None
    length = None if partition_length is None else CalendarDuration.parse(partition_length, "partition_length")
    # Airflow 3.2 writes keys in UTC. 3.3 writes them in the timetable's time zone, and passes the partition's date.
    timetable_timezone = _timetable_timezone(context)
    key_timezone = partition_timezone
    if key_timezone is None and partition_date is not None:
        key_timezone = timetable_timezone
    timezone = UTC if key_timezone is None else parse_timezone(key_timezone, "partition_timezone")
    try:
        start, end = _parse_key(key, timezone)
    except IntervalError:
        if partition_date is not None:
            start, end = parse_time(partition_date, "the run's partition date"), None
        elif length is not None:
            raise
        else:
            return None
    if key_timezone is None and partition_date is not None and start != partition_date:
        raise IntervalError(
            f"Give the task the time zone of its partition keys as 'partition_timezone': {_KEY}, {key!r}, would begin "
            f"at {start.isoformat()} in UTC, but its partition begins at "
            f"{parse_time(partition_date, 'the partition date').isoformat()}"
        )
    if length is not None and not isinstance(end, datetime):
        # Days are those of the timetable also where the key is in UTC.
        if key_timezone is None and timetable_timezone is not None:
            timezone = parse_timezone(timetable_timezone, "the timetable's time zone")
        start, end = start.astimezone(timezone), length
    if end is None:
        return None
    return to_utc(start, _KEY), to_utc(end, _KEY) if isinstance(end, datetime) else end.after(start)


def partition_key_of(context: Mapping[str, Any], start: datetime, partition_timezone: object) -> str:
    """
    Return the partition key of a window, as Airflow's timetables write keys and its mappers read them by default.

    :param context: the task's context
    :param start: start of the window
    :param partition_timezone: the time zone of the key, a name or a ``tzinfo``. By default the timetable's, and UTC
        where the timetable has none
    :raises IntervalError: when the time zone is not known
    """
    timezone = parse_timezone(partition_timezone or _timetable_timezone(context) or UTC, "partition_timezone")
    return start.astimezone(timezone).replace(tzinfo=None).isoformat(timespec="seconds")


def _timetable_timezone(context: Mapping[str, Any]) -> Any:
    return getattr(getattr(context.get("dag"), "timetable", None), "timezone", None)


def _parse_key(key: object, timezone: tzinfo) -> tuple[datetime, datetime | CalendarDuration | None]:
    """Return the start of a key's window, and its end or its length if the key has one."""
    text = key.strip() if isinstance(key, str) else ""
    if text.count("/") == 1:
        start, end = text.split("/")
        return parse_local_time(start, _KEY, timezone), parse_local_time(end, _KEY, timezone)
    match = _PERIOD_KEY.fullmatch(text)
    if match is None:
        return parse_local_time(key, _KEY, timezone), None
    try:
        if match["monday"]:
            day, period = date.fromisoformat(match["monday"]), "week"
        elif match["week"]:
            day, period = date.fromisocalendar(int(match["year"]), int(match["week"]), 1), "week"
        else:
            month = int(match["month"] or 3 * int(match["quarter"] or 1) - 2)
            day = date(int(match["year"]), month, 1)
            period = "month" if match["month"] else "quarter" if match["quarter"] else "year"
    except ValueError as error:
        raise IntervalError(f"{_KEY} cannot be {text!r}: {error}") from error
    return datetime(day.year, day.month, day.day, tzinfo=timezone), PERIODS[period]
