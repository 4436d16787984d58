# SPDX-License-Identifier: Apache-2.0
"""
What Airflow gives each kind of run, and the window it becomes: the table that the documentation's is checked against.

Airflow's own timetables say here what a run gets. Rows of what an Airflow does not have yet are not in its table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from zoneinfo import ZoneInfo

import pendulum
import pytest
from airflow.providers.common.compat.sdk import DAG
from airflow.timetables.base import TimeRestriction
from airflow.timetables.interval import CronDataIntervalTimetable, DeltaDataIntervalTimetable
from airflow.timetables.trigger import CronTriggerTimetable

from airflow_provider_chartmogul.exceptions import IntervalError
from airflow_provider_chartmogul.intervals.interval import DATA_INTERVAL, resolve_interval

AIRFLOW_3 = find_spec("airflow.sdk") is not None
HAS_PARTITIONS = find_spec("airflow.partition_mappers") is not None
#: Airflow 3.3 tells a run its partition's date and writes keys in the timetable's zone; 3.2 writes them in UTC.
TELLS_PARTITION_DATE = HAS_PARTITIONS and find_spec("airflow.partition_mappers.window") is not None

NO_INTERVAL, NO_WIDTH = "no data interval", "no width"
FIRST = pendulum.datetime(2024, 3, 30)  # the clocks of Berlin change in the night after
BY_HAND = pendulum.datetime(2024, 3, 31, 5)

Told = dict[str, Any]
Window = tuple[str, str] | str


@dataclass(frozen=True)
class Row:
    """A kind of schedule; the window of its first run, and of one by hand whose logical date is BY_HAND."""

    schedule: Callable[[], Any]
    scheduled: Window | None
    by_hand: Window
    told: Told = field(default_factory=dict)


BERLIN = "Europe/Berlin"
#: Of the first scheduled run the day that begins then; of the run by hand the last one that is over.
DAY = ("2024-03-30T00:00", "2024-03-31T00:00")
PRESET: Window = NO_WIDTH if AIRFLOW_3 else DAY

ROWS = {
    "@daily": Row(lambda: "@daily", PRESET, PRESET),
    "cron": Row(lambda: "0 0 * * *", PRESET, PRESET),
    "timedelta": Row(
        lambda: timedelta(days=1),
        NO_WIDTH if AIRFLOW_3 else DAY,
        NO_WIDTH if AIRFLOW_3 else ("2024-03-30T05:00", "2024-03-31T05:00"),
    ),
    "@daily, lookback": Row(
        lambda: "@daily",
        ("2024-03-29T00:00", "2024-03-30T00:00") if AIRFLOW_3 else ("2024-03-29T00:00", "2024-03-31T00:00"),
        ("2024-03-30T05:00", "2024-03-31T05:00") if AIRFLOW_3 else ("2024-03-29T00:00", "2024-03-31T00:00"),
        {"lookback": timedelta(days=1)},
    ),
    "CronDataIntervalTimetable": Row(lambda: CronDataIntervalTimetable("0 0 * * *", timezone="UTC"), DAY, DAY),
    "CronDataIntervalTimetable, Berlin": Row(
        lambda: CronDataIntervalTimetable("0 0 * * *", timezone=pendulum.timezone(BERLIN)),
        ("2024-03-30T23:00", "2024-03-31T22:00"),
        ("2024-03-29T23:00", "2024-03-30T23:00"),
    ),
    "CronTriggerTimetable": Row(lambda: CronTriggerTimetable("0 0 * * *", timezone="UTC"), NO_WIDTH, NO_WIDTH),
    "CronTriggerTimetable, interval": Row(
        lambda: CronTriggerTimetable("0 0 * * *", timezone="UTC", interval=timedelta(days=1)),
        ("2024-03-29T00:00", "2024-03-30T00:00"),
        ("2024-03-30T05:00", "2024-03-31T05:00"),
    ),
    "DeltaDataIntervalTimetable": Row(
        lambda: DeltaDataIntervalTimetable(timedelta(days=1)), DAY, ("2024-03-30T05:00", "2024-03-31T05:00")
    ),
    "None": Row(lambda: None, None, NO_WIDTH),
    "@once": Row(lambda: "@once", NO_WIDTH, NO_WIDTH),
}


def of_sdk(name: str, *args: Any, **kwargs: Any) -> Callable[[], Any]:
    return lambda: getattr(import_module("airflow.sdk"), name)(*args, **kwargs)


if HAS_PARTITIONS:
    ROWS |= {
        "CronPartitionTimetable": Row(
            of_sdk("CronPartitionTimetable", "0 0 * * *", timezone="UTC"),
            DAY,
            NO_WIDTH,
            {"partition_length": timedelta(days=1)},
        ),
        "CronPartitionTimetable, no partition_length": Row(
            of_sdk("CronPartitionTimetable", "0 0 * * *", timezone="UTC"), NO_INTERVAL, NO_WIDTH
        ),
        "CronPartitionTimetable, Berlin": Row(
            of_sdk("CronPartitionTimetable", "0 0 * * *", timezone=BERLIN),
            ("2024-03-30T23:00", "2024-03-31T22:00"),
            NO_WIDTH,
            {"partition_length": timedelta(days=1)},
        ),
        "CronPartitionTimetable, months": Row(
            of_sdk("CronPartitionTimetable", "0 0 1 * *", timezone="UTC", key_format="%Y-%m"),
            ("2024-04-01T00:00", "2024-05-01T00:00"),
            NO_WIDTH,
        ),
    }


def timetables(row: Row) -> tuple[Any, Any]:
    """Give a schedule's timetable as a task sees it, and as the scheduler does."""
    seen: Any = DAG("windows", schedule=row.schedule(), start_date=FIRST).timetable
    if find_spec("airflow.serialization.encoders") is None:
        return seen, seen
    encoders = import_module("airflow.serialization.encoders")
    return seen, getattr(encoders, "coerce_to_core_timetable", lambda timetable: timetable)(seen)


def context_of(timetable: Any, interval: Any, info: Any = None) -> dict[str, Any]:
    """Give as much of a task's context as says what the run is of."""
    context = {
        "dag": type("Dag", (), {"timetable": timetable}),
        "data_interval_start": interval and interval.start,
        "data_interval_end": interval and interval.end,
        "partition_key": getattr(info, "partition_key", None),
    }
    return {**context, "partition_date": info.partition_date} if info and TELLS_PARTITION_DATE else context


def window(context: dict[str, Any], told: Told) -> Window:
    try:
        found = resolve_interval(context, start=DATA_INTERVAL, end=DATA_INTERVAL, **told)
    except IntervalError as error:
        return NO_WIDTH if NO_WIDTH in str(error) else NO_INTERVAL
    assert found.start is not None
    assert found.end is not None
    return found.start.isoformat()[:16], found.end.isoformat()[:16]


@pytest.mark.parametrize("kind", ROWS)
def test_a_scheduled_run(kind: str) -> None:
    row = ROWS[kind]
    seen, timetable = timetables(row)
    restriction = TimeRestriction(earliest=FIRST, latest=None, catchup=True)
    if hasattr(timetable, "next_dagrun_info_v2"):
        info = timetable.next_dagrun_info_v2(last_dagrun_info=None, restriction=restriction)
    else:
        info = timetable.next_dagrun_info(last_automated_data_interval=None, restriction=restriction)
    if row.scheduled is None:
        assert info is None
    else:
        assert window(context_of(seen, info.data_interval, info), row.told) == row.scheduled


@pytest.mark.parametrize("kind", ROWS)
def test_a_run_by_hand_with_a_logical_date(kind: str) -> None:
    seen, timetable = timetables(ROWS[kind])
    interval = timetable.infer_manual_data_interval(run_after=BY_HAND)
    assert window(context_of(seen, interval), ROWS[kind].told) == ROWS[kind].by_hand


@pytest.mark.parametrize("kind", ROWS)
def test_a_run_by_hand_without_a_logical_date_or_by_an_asset(kind: str) -> None:
    seen, _ = timetables(ROWS[kind])
    assert window(context_of(seen, None), ROWS[kind].told) == NO_INTERVAL


# What Airflow's mappers make of a key, that is the consuming run's key.
MAPPERS = {
    "StartOfYearMapper": ("2024-01-01T00:00", "2025-01-01T00:00"),
    "StartOfQuarterMapper": ("2024-01-01T00:00", "2024-04-01T00:00"),
    "StartOfMonthMapper": ("2024-03-01T00:00", "2024-04-01T00:00"),
    "StartOfWeekMapper": ("2024-03-11T00:00", "2024-03-18T00:00"),
    "StartOfDayMapper": NO_INTERVAL,
    "StartOfHourMapper": NO_INTERVAL,
    "IdentityMapper": NO_INTERVAL,
}
STARTS = {
    "StartOfDayMapper": ("P1D", "2024-03-13T00:00", "2024-03-14T00:00"),
    "StartOfHourMapper": ("PT1H", "2024-03-13T10:00", "2024-03-13T11:00"),
    "IdentityMapper": ("PT5M", "2024-03-13T10:42", "2024-03-13T10:47"),
}


def in_zone(found: Window, zone: str) -> Window:
    """Give a window in the words of a zone."""
    if isinstance(found, str):
        return found
    start, end = (datetime.fromisoformat(text).replace(tzinfo=UTC).astimezone(ZoneInfo(zone)) for text in found)
    return start.isoformat()[:16], end.isoformat()[:16]


if HAS_PARTITIONS:

    @pytest.mark.parametrize("name", MAPPERS)
    @pytest.mark.parametrize("zone", ["UTC", BERLIN])
    def test_a_run_for_a_partitioned_asset(name: str, zone: str) -> None:
        module = "identity" if name == "IdentityMapper" else "temporal"
        kind = getattr(import_module(f"airflow.partition_mappers.{module}"), name)
        mapper = kind() if name == "IdentityMapper" else kind(timezone=pendulum.timezone(zone))
        source = "2024-03-13T10:42:15"
        key = mapper.to_downstream(source)
        context: dict[str, Any] = {"partition_key": key}
        if TELLS_PARTITION_DATE:
            context["partition_date"] = mapper.to_partition_date(key)
        told = {"partition_timezone": zone}
        assert in_zone(window(context, told), zone) == MAPPERS[name]
        if name in STARTS:
            length, start, end = STARTS[name]
            assert in_zone(window(context, {**told, "partition_length": length}), zone) == (start, end)


if TELLS_PARTITION_DATE:

    def test_a_backfill_of_partitions_leaves_no_hole_where_clocks_change() -> None:
        row = ROWS["CronPartitionTimetable, Berlin"]
        seen, timetable = timetables(row)
        infos = timetable.iter_partition_dagrun_infos(earliest=FIRST, latest=FIRST.add(days=3))
        found = [window(context_of(seen, info.data_interval, info), row.told) for info in infos]
        assert found == [
            ("2024-03-29T23:00", "2024-03-30T23:00"),
            ("2024-03-30T23:00", "2024-03-31T22:00"),
            ("2024-03-31T22:00", "2024-04-01T22:00"),
            ("2024-04-01T22:00", "2024-04-02T22:00"),
        ]
