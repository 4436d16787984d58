# SPDX-License-Identifier: Apache-2.0
"""
The window of each kind of run: what Airflow's own timetables give the run, and what the package makes of it.

Rows for features that the installed Airflow does not have are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib import import_module
from importlib.util import find_spec
from runpy import run_path
from typing import Any
from zoneinfo import ZoneInfo

import pendulum
import pytest
from airflow.providers.common.compat.sdk import DAG
from airflow.timetables.base import TimeRestriction
from airflow.timetables.interval import CronDataIntervalTimetable, DeltaDataIntervalTimetable
from airflow.timetables.trigger import CronTriggerTimetable

from airflow_provider_chartmogul.exceptions import IntervalError
from airflow_provider_chartmogul.intervals.interval import DATA_INTERVAL, Interval, resolve_interval
from airflow_provider_chartmogul.sandbox import Sandbox
from tests.conftest import AIRFLOW_HOME

AIRFLOW_3 = find_spec("airflow.sdk") is not None
HAS_PARTITIONS = find_spec("airflow.partition_mappers") is not None
#: Airflow 3.3 passes the partition's date, and writes keys in the timetable's time zone; 3.2 writes them in UTC.
HAS_PARTITION_DATE = HAS_PARTITIONS and find_spec("airflow.partition_mappers.window") is not None

NO_INTERVAL, NO_WIDTH = "no data interval", "no width"
FIRST = pendulum.datetime(2024, 3, 30)  # the clocks in Berlin change in the following night
LOGICAL_DATE = pendulum.datetime(2024, 3, 31, 5)

Parameters = dict[str, Any]
Window = tuple[str, str] | str


@dataclass(frozen=True)
class Row:
    """A schedule, the window of its first run, and that of a run triggered with the logical date ``LOGICAL_DATE``."""

    schedule: Callable[[], Any]
    scheduled: Window | None
    triggered: Window
    parameters: Parameters = field(default_factory=dict)


BERLIN = "Europe/Berlin"
#: For the first scheduled run the day that begins then, for the triggered run the last whole day before it.
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


def from_sdk(name: str, *args: Any, **kwargs: Any) -> Callable[[], Any]:
    return lambda: getattr(import_module("airflow.sdk"), name)(*args, **kwargs)


if HAS_PARTITIONS:
    ROWS |= {
        "CronPartitionTimetable": Row(
            from_sdk("CronPartitionTimetable", "0 0 * * *", timezone="UTC"),
            DAY,
            NO_WIDTH,
            {"partition_length": timedelta(days=1)},
        ),
        "CronPartitionTimetable, no partition_length": Row(
            from_sdk("CronPartitionTimetable", "0 0 * * *", timezone="UTC"), NO_INTERVAL, NO_WIDTH
        ),
        "CronPartitionTimetable, Berlin": Row(
            from_sdk("CronPartitionTimetable", "0 0 * * *", timezone=BERLIN),
            ("2024-03-30T23:00", "2024-03-31T22:00"),
            NO_WIDTH,
            {"partition_length": timedelta(days=1)},
        ),
        "CronPartitionTimetable, months": Row(
            from_sdk("CronPartitionTimetable", "0 0 1 * *", timezone="UTC", key_format="%Y-%m"),
            ("2024-04-01T00:00", "2024-05-01T00:00"),
            NO_WIDTH,
        ),
    }


def timetables(row: Row) -> tuple[Any, Any]:
    """Return a schedule's timetable as a task has it, and as the scheduler has it."""
    of_task: Any = DAG("windows", schedule=row.schedule(), start_date=FIRST).timetable
    if find_spec("airflow.serialization.encoders") is None:
        return of_task, of_task
    encoders = import_module("airflow.serialization.encoders")
    return of_task, getattr(encoders, "coerce_to_core_timetable", lambda timetable: timetable)(of_task)


def context_of(timetable: Any, interval: Any, info: Any = None) -> dict[str, Any]:
    """Return the part of a task's context that its window depends on."""
    context = {
        "dag": type("Dag", (), {"timetable": timetable}),
        "data_interval_start": interval and interval.start,
        "data_interval_end": interval and interval.end,
        "partition_key": getattr(info, "partition_key", None),
    }
    return {**context, "partition_date": info.partition_date} if info and HAS_PARTITION_DATE else context


def window(context: dict[str, Any], parameters: Parameters) -> Window:
    try:
        interval = resolve_interval(context, start=DATA_INTERVAL, end=DATA_INTERVAL, **parameters)
    except IntervalError as error:
        return NO_WIDTH if NO_WIDTH in str(error) else NO_INTERVAL
    assert interval.start is not None
    assert interval.end is not None
    return interval.start.isoformat()[:16], interval.end.isoformat()[:16]


@pytest.mark.parametrize("kind", ROWS)
def test_window_of_scheduled_run(kind: str) -> None:
    row = ROWS[kind]
    of_task, timetable = timetables(row)
    restriction = TimeRestriction(earliest=FIRST, latest=None, catchup=True)
    if hasattr(timetable, "next_dagrun_info_v2"):
        info = timetable.next_dagrun_info_v2(last_dagrun_info=None, restriction=restriction)
    else:
        info = timetable.next_dagrun_info(last_automated_data_interval=None, restriction=restriction)
    if row.scheduled is None:
        assert info is None
    else:
        assert window(context_of(of_task, info.data_interval, info), row.parameters) == row.scheduled


@pytest.mark.parametrize("kind", ROWS)
def test_window_of_run_triggered_with_logical_date(kind: str) -> None:
    of_task, timetable = timetables(ROWS[kind])
    interval = timetable.infer_manual_data_interval(run_after=LOGICAL_DATE)
    assert window(context_of(of_task, interval), ROWS[kind].parameters) == ROWS[kind].triggered


@pytest.mark.parametrize("kind", ["DeltaDataIntervalTimetable", "CronTriggerTimetable, interval"])
def test_window_of_run_triggered_within_a_second_has_whole_seconds(kind: str) -> None:
    of_task, timetable = timetables(ROWS[kind])
    interval = timetable.infer_manual_data_interval(run_after=LOGICAL_DATE.add(microseconds=678_901))
    assert interval.start.microsecond == interval.end.microsecond == 678_901
    assert resolve_interval(context_of(of_task, interval), start=DATA_INTERVAL, end=DATA_INTERVAL) == Interval(
        LOGICAL_DATE.subtract(days=1), LOGICAL_DATE
    )


@pytest.mark.parametrize("kind", ROWS)
def test_run_without_logical_date_has_no_window(kind: str) -> None:
    of_task, _ = timetables(ROWS[kind])
    assert window(context_of(of_task, None), ROWS[kind].parameters) == NO_INTERVAL


# The window of a run whose key Airflow's mapper has made of 2024-03-13T10:42:15.
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


def in_zone(utc: Window, zone: str) -> Window:
    """Convert a window to a time zone."""
    if isinstance(utc, str):
        return utc
    start, end = (datetime.fromisoformat(text).replace(tzinfo=UTC).astimezone(ZoneInfo(zone)) for text in utc)
    return start.isoformat()[:16], end.isoformat()[:16]


if HAS_PARTITIONS:

    @pytest.mark.parametrize("name", MAPPERS)
    @pytest.mark.parametrize("zone", ["UTC", BERLIN])
    def test_window_of_run_for_partitioned_asset(name: str, zone: str) -> None:
        module = "identity" if name == "IdentityMapper" else "temporal"
        kind = getattr(import_module(f"airflow.partition_mappers.{module}"), name)
        mapper = kind() if name == "IdentityMapper" else kind(timezone=pendulum.timezone(zone))
        source = "2024-03-13T10:42:15"
        key = mapper.to_downstream(source)
        context: dict[str, Any] = {"partition_key": key}
        if HAS_PARTITION_DATE:
            context["partition_date"] = mapper.to_partition_date(key)
        parameters = {"partition_timezone": zone}
        assert in_zone(window(context, parameters), zone) == MAPPERS[name]
        if name in STARTS:
            length, start, end = STARTS[name]
            assert in_zone(window(context, {**parameters, "partition_length": length}), zone) == (start, end)


if HAS_PARTITION_DATE:

    def test_backfilled_partitions_touch_where_clocks_change() -> None:
        row = ROWS["CronPartitionTimetable, Berlin"]
        of_task, timetable = timetables(row)
        infos = timetable.iter_partition_dagrun_infos(earliest=FIRST, latest=FIRST.add(days=3))
        windows = [window(context_of(of_task, info.data_interval, info), row.parameters) for info in infos]
        assert windows == [
            ("2024-03-29T23:00", "2024-03-30T23:00"),
            ("2024-03-30T23:00", "2024-03-31T22:00"),
            ("2024-03-31T22:00", "2024-04-01T22:00"),
            ("2024-04-01T22:00", "2024-04-02T22:00"),
        ]


NAMES_OF_MAPPED_TASKS = """
from datetime import datetime
from airflow.providers.common.compat.sdk import DAG
from airflow_provider_chartmogul.intervals import split_interval
from airflow_provider_chartmogul.operators.activities_export import CreateActivitiesExportOperator as Create

with DAG("names_of_mapped_tasks", schedule=None, start_date=datetime(2024, 1, 1)) as dag:
    Create.partial(task_id="create").expand_kwargs(
        split_interval("2024-01-01", "2024-01-01T12:00", "PT6H", activity_types=["churn"])
    )
    Create.partial(task_id="fail", interval_start="2024-01-01", interval_end=None).expand(
        chartmogul_conn_id=["nowhere"]
    )
"""


def test_names_of_mapped_tasks(airflow_db: None, sandbox: Sandbox) -> None:
    path = AIRFLOW_HOME / "dags" / "names_of_mapped_tasks.py"
    path.write_text(NAMES_OF_MAPPED_TASKS)
    instances = run_path(str(path))["dag"].test().get_task_instances()
    assert sorted((ti.task_id, ti.map_index, ti.rendered_map_index) for ti in instances) == [
        ("create", 0, "2024-01-01 to 2024-01-01T06:00:00Z, churn"),
        ("create", 1, "2024-01-01T06:00:00Z to 2024-01-01T12:00:00Z, churn"),
        ("fail", 0, "2024-01-01 to now, all types, nowhere"),
    ]
