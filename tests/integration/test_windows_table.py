# SPDX-License-Identifier: Apache-2.0
"""
The tables of docs/windows.md: every cell is recomputed with Airflow's timetables and this package.

Schedules and parameters in the tables are evaluated as Python. Rows for other versions of Airflow are tested on those
versions, by the test matrix.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

import pendulum
import pytest
from airflow import __version__ as airflow_version
from airflow.providers.common.compat.sdk import DAG, Asset
from airflow.timetables import interval as interval_timetables
from airflow.timetables import trigger as trigger_timetables
from airflow.timetables.base import DataInterval, TimeRestriction

from airflow_provider_chartmogul.exceptions import IntervalError
from airflow_provider_chartmogul.intervals.interval import DATA_INTERVAL, resolve_interval
from tests.integration.test_windows_of_runs import AIRFLOW_3, HAS_PARTITIONS, NO_INTERVAL, NO_WIDTH, context_of
from tests.pages import DOCS, tables

PAGE = DOCS / "windows.md"

START = pendulum.datetime(2024, 5, 1)
SCHEDULED = pendulum.naive(2024, 5, 10)  # in the schedule's time zone
MANUAL = pendulum.datetime(2024, 5, 10, 5)
BACKFILL = pendulum.datetime(2024, 5, 9), pendulum.datetime(2024, 5, 9, 23, 59)
#: The data interval of the run that updated the asset.
SOURCE_INTERVAL = DataInterval(pendulum.datetime(2024, 5, 9), pendulum.datetime(2024, 5, 10))

ERRORS = {NO_INTERVAL: "no interval", NO_WIDTH: "no width"}


def matches_this_airflow(versions: str) -> bool:
    """Return whether the installed Airflow is one of those in a row's column 'Airflow'."""
    first, later = re.fullmatch(r"(\d+\.\d+)( and later)?", versions).groups()  # type: ignore[union-attr]
    installed, needed = ([int(part) for part in text.split(".")[:2]] for text in (airflow_version, first))
    return installed >= needed if later else installed == needed


def evaluate(code: str) -> Any:
    """Evaluate a cell that is code, with the names that a DAG file imports."""
    names = {
        "CronDataIntervalTimetable": interval_timetables.CronDataIntervalTimetable,
        "DeltaDataIntervalTimetable": interval_timetables.DeltaDataIntervalTimetable,
        "CronTriggerTimetable": trigger_timetables.CronTriggerTimetable,
        "Asset": Asset,
        "timedelta": timedelta,
        "dict": dict,
    }
    if HAS_PARTITIONS:
        names["CronPartitionTimetable"] = import_module("airflow.sdk").CronPartitionTimetable
    return eval(code.strip("`"), {"__builtins__": {}}, names)


def format_window(start: datetime, end: datetime) -> str:
    """Format a window as the tables do."""
    if (start.hour, end.hour) != (0, 0):
        return f"{(end - start) // timedelta(hours=1)} h from {start.day} {start:%b %H:%M}"
    if end - start == timedelta(days=1):
        return f"{start.day} {start:%b}"
    return f"{start.day} {start:%b} to {end.day} {end:%b}{f' {end.year}' if end.year != start.year else ''}"


def window(context: dict[str, Any], parameters: dict[str, Any]) -> str:
    """Return the cell for a run with this context: its window, or its error."""
    parameters = {name.removeprefix("interval_"): value for name, value in parameters.items()}
    try:
        interval = resolve_interval(context, **{"start": DATA_INTERVAL, "end": DATA_INTERVAL, **parameters})
    except IntervalError as error:
        return next(cell for text, cell in ERRORS.items() if text in str(error))
    assert interval.start is not None
    assert interval.end is not None
    return format_window(interval.start, interval.end)


class ScheduledDag:
    """A DAG with a schedule, and the windows of a task with these parameters in its runs."""

    def __init__(self, schedule: Any, parameters: dict[str, Any]) -> None:
        dag = DAG("windows", schedule=schedule, start_date=START, catchup=True)
        self.timetable_in_task: Any = dag.timetable
        serialized_objects = import_module("airflow.serialization.serialized_objects")
        serialization = getattr(serialized_objects, "DagSerialization", serialized_objects.SerializedDAG)
        #: The DAG as the scheduler sees it.
        self.dag: Any = serialization.from_dict(serialization.to_dict(dag)) if AIRFLOW_3 else dag
        self.timetable: Any = self.dag.timetable
        self.parameters = parameters

    def window(self, interval: DataInterval | None, info: Any = None) -> str:
        return window(context_of(self.timetable_in_task, interval, info), self.parameters)

    def scheduled(self) -> str:
        """Return the window of the run that starts at SCHEDULED, or that an asset triggers."""
        if hasattr(self.timetable, "data_interval_for_events"):  # Airflow 2, for a run that an asset triggers
            source = type(
                "Run", (), {"data_interval_start": SOURCE_INTERVAL.start, "data_interval_end": SOURCE_INTERVAL.end}
            )
            event = type("Event", (), {"source_dag_run": source})
            return self.window(self.timetable.data_interval_for_events(SOURCE_INTERVAL.end, [event]))
        if type(self.timetable).__name__ == "AssetTriggeredTimetable":
            return self.window(None)
        due = SCHEDULED.in_timezone(getattr(self.timetable, "_timezone", UTC))
        for info in self._runs():
            if info.run_after >= due:
                assert info.run_after == due
                return self.window(info.data_interval, info)
        return "no run"

    def _runs(self) -> Iterator[Any]:
        """Yield the scheduled runs, from the first one on."""
        restriction = TimeRestriction(earliest=START, latest=None, catchup=True)
        next_dagrun_info_v2 = getattr(self.timetable, "next_dagrun_info_v2", None)
        last: Any = None
        while True:
            if next_dagrun_info_v2 is not None:
                info = next_dagrun_info_v2(last_dagrun_info=last, restriction=restriction)
            else:
                info = self.timetable.next_dagrun_info(
                    last_automated_data_interval=last and last.data_interval, restriction=restriction
                )
            if info is None:
                return
            yield info
            last = info

    def manual(self) -> str:
        return self.window(self.timetable.infer_manual_data_interval(run_after=MANUAL))

    def without_logical_date(self) -> str:
        """Return the window of a run that the UI or the API triggers without a logical date."""
        body = import_module("airflow.api_fastapi.core_api.datamodels.dag_run").TriggerDAGRunPostBody(logical_date=None)
        return self.window(body.validate_context(self.dag)["data_interval"])

    def backfill(self) -> str:
        infos = self.dag.iter_dagrun_infos_between(*BACKFILL)
        return ", ".join(self.window(info.data_interval, info) for info in infos) or "no run"


PLAIN, WITH_PARAMETERS, KEYS = tables(PAGE)
ROWS = [row for row in [*PLAIN, *WITH_PARAMETERS] if matches_this_airflow(row["Airflow"])]


def dag_of(row: dict[str, str]) -> ScheduledDag:
    parameters = row.get("parameters", "").strip("`")
    return ScheduledDag(evaluate(row["schedule"]), evaluate(f"dict({parameters})"))


def name_of(row: dict[str, str]) -> str:
    return f"{row['schedule']} {row.get('parameters', '')}"


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_row_has_the_windows_of_its_schedule(row: dict[str, str]) -> None:
    dag = dag_of(row)
    windows = {"scheduled": dag.scheduled(), "manual": dag.manual(), "backfill": dag.backfill()}
    assert {name: row[name] for name in windows} == windows


if AIRFLOW_3:

    @pytest.mark.parametrize("row", ROWS, ids=name_of)
    def test_run_without_logical_date_has_no_interval(row: dict[str, str]) -> None:
        dag = dag_of(row)
        assert dag.without_logical_date() == ("1 May" if "interval_start" in dag.parameters else "no interval")


@pytest.mark.parametrize("row", KEYS, ids=lambda row: f"{row['key']} {row['`partition_length`']}")
def test_row_has_the_window_of_its_partition_key(row: dict[str, str]) -> None:
    key, length = (row[name].strip("`") for name in ("key", "`partition_length`"))
    assert window({"partition_key": key}, {"partition_length": length} if length else {}) == row["window"]


def test_tables_cover_every_kind_of_schedule_for_this_airflow() -> None:
    kinds = {re.match(r"`\W*(\w*)", row["schedule"])[1] for row in ROWS if row in PLAIN}  # type: ignore[index]
    expected = {"CronDataIntervalTimetable", "CronTriggerTimetable", "daily", "0", "timedelta", "None", "Asset"}
    assert expected | ({"CronPartitionTimetable"} if HAS_PARTITIONS else set()) <= kinds
