# SPDX-License-Identifier: Apache-2.0
"""The window of a partitioned run, from its partition key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, tzinfo
from typing import Any, Final

from airflow_provider_chartmogul.exceptions import IntervalError
from airflow_provider_chartmogul.intervals.times import (
    PERIODS,
    Length,
    after,
    aware,
    length_of,
    parse_duration,
    parse_time,
    plain_utc,
    read_zone,
)


def run_attribute(context: Mapping[str, Any], name: str) -> Any:
    """Look up what belongs to the run: Airflow 3.3 has it in the context, 3.2 in the ``dag_run`` alone."""
    value = context.get(name)
    return getattr(context.get("dag_run"), name, None) if value is None else value


def partition_interval(
    context: Mapping[str, Any], partition_length: object, partition_timezone: object
) -> tuple[datetime, datetime] | None:
    """Give the window of the run's partition; None when it has none, or a key that says no length."""
    name = "the run's partition key"
    key, partition_date = run_attribute(context, "partition_key"), run_attribute(context, "partition_date")
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
