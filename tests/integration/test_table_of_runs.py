# SPDX-License-Identifier: Apache-2.0
"""
The documentation's table of the kinds of run, cell by cell against what Airflow and the package make of them.

Each row's schedule and operator's arguments are read from the table as Python and tried, so that no row can say
what is not so; the rows of other versions of Airflow are tried on those, by the test matrix.
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
from airflow.timetables import interval as of_interval
from airflow.timetables import trigger as of_trigger
from airflow.timetables.base import DataInterval, TimeRestriction

from airflow_provider_chartmogul.exceptions import IntervalError
from airflow_provider_chartmogul.intervals.interval import DATA_INTERVAL, resolve_interval
from tests.integration.test_windows_of_runs import AIRFLOW_3, HAS_PARTITIONS, NO_INTERVAL, NO_WIDTH, context_of
from tests.pages import DOCS, tables

PAGE = DOCS / "windows.md"

START = pendulum.datetime(2024, 5, 1)
SCHEDULED = pendulum.naive(2024, 5, 10)  # of the schedule's own time zone
BY_HAND = pendulum.datetime(2024, 5, 10, 5)
BACKFILL = pendulum.datetime(2024, 5, 9), pendulum.datetime(2024, 5, 9, 23, 59)
#: What a run makes that has started another by an asset.
SOURCE = DataInterval(pendulum.datetime(2024, 5, 9), pendulum.datetime(2024, 5, 10))

ERRORS = {NO_INTERVAL: "no interval", NO_WIDTH: "no width"}


def is_of_this_airflow(versions: str) -> bool:
    """Tell whether a row with these words in its column 'Airflow' is of the Airflow that is here."""
    first, later = re.fullmatch(r"(\d+\.\d+)( and later)?", versions).groups()  # type: ignore[union-attr]
    here, there = ([int(part) for part in text.split(".")[:2]] for text in (airflow_version, first))
    return here >= there if later else here == there


def evaluated(code: str) -> Any:
    """Evaluate a cell that is code, as a DAG file that imports the names from where this Airflow has them would."""
    names = {
        "CronDataIntervalTimetable": of_interval.CronDataIntervalTimetable,
        "DeltaDataIntervalTimetable": of_interval.DeltaDataIntervalTimetable,
        "CronTriggerTimetable": of_trigger.CronTriggerTimetable,
        "Asset": Asset,
        "timedelta": timedelta,
        "dict": dict,
    }
    if HAS_PARTITIONS:
        names["CronPartitionTimetable"] = import_module("airflow.sdk").CronPartitionTimetable
    return eval(code.strip("`"), {"__builtins__": {}}, names)


def in_words(start: datetime, end: datetime) -> str:
    """Write a window as the tables do."""
    if (start.hour, end.hour) != (0, 0):
        return f"{(end - start) // timedelta(hours=1)} h from {start.day} {start:%b %H:%M}"
    if end - start == timedelta(days=1):
        return f"{start.day} {start:%b}"
    return f"{start.day} {start:%b} to {end.day} {end:%b}{f' {end.year}' if end.year != start.year else ''}"


def window(context: dict[str, Any], given: dict[str, Any]) -> str:
    try:
        given = {name.removeprefix("interval_"): value for name, value in given.items()}
        found = resolve_interval(context, **{"start": DATA_INTERVAL, "end": DATA_INTERVAL, **given})
    except IntervalError as error:
        return next(word for text, word in ERRORS.items() if text in str(error))
    assert found.start is not None
    assert found.end is not None
    return in_words(found.start, found.end)


class Kind:
    """A schedule as a task sees it, and as Airflow's scheduler does."""

    def __init__(self, schedule: Any, given: dict[str, Any]) -> None:
        dag = DAG("windows", schedule=schedule, start_date=START, catchup=True)
        self.seen: Any = dag.timetable
        serialized = import_module("airflow.serialization.serialized_objects")
        kind = getattr(serialized, "DagSerialization", serialized.SerializedDAG)
        self.dag: Any = kind.from_dict(kind.to_dict(dag)) if AIRFLOW_3 else dag
        self.timetable: Any = self.dag.timetable
        self.given = given

    def window(self, interval: DataInterval | None, info: Any = None) -> str:
        return window(context_of(self.seen, interval, info), self.given)

    def scheduled(self) -> str:
        """Give the window of the run that starts at SCHEDULED, or that an asset starts."""
        if hasattr(self.timetable, "data_interval_for_events"):  # Airflow 2, for a run that an asset starts
            source = type("Run", (), {"data_interval_start": SOURCE.start, "data_interval_end": SOURCE.end})
            event = type("Event", (), {"source_dag_run": source})
            return self.window(self.timetable.data_interval_for_events(SOURCE.end, [event]))
        if type(self.timetable).__name__ == "AssetTriggeredTimetable":
            return self.window(None)
        due = SCHEDULED.in_timezone(getattr(self.timetable, "_timezone", UTC))
        for info in self._runs():
            if info.run_after >= due:
                assert info.run_after == due
                return self.window(info.data_interval, info)
        return "no run"

    def _runs(self) -> Iterator[Any]:
        """Give what the scheduler is told of one run after the other."""
        restriction = TimeRestriction(earliest=START, latest=None, catchup=True)
        with_keys = getattr(self.timetable, "next_dagrun_info_v2", None)
        last: Any = None
        while True:
            if with_keys is not None:
                info = with_keys(last_dagrun_info=last, restriction=restriction)
            else:
                info = self.timetable.next_dagrun_info(
                    last_automated_data_interval=last and last.data_interval, restriction=restriction
                )
            if info is None:
                return
            yield info
            last = info

    def by_hand(self) -> str:
        return self.window(self.timetable.infer_manual_data_interval(run_after=BY_HAND))

    def without_a_date(self) -> str:
        """Give the window of what the Airflow page and its API start without a logical date."""
        body = import_module("airflow.api_fastapi.core_api.datamodels.dag_run").TriggerDAGRunPostBody(logical_date=None)
        return self.window(body.validate_context(self.dag)["data_interval"])

    def backfill(self) -> str:
        infos = self.dag.iter_dagrun_infos_between(*BACKFILL)
        return ", ".join(self.window(info.data_interval, info) for info in infos) or "no run"


PLAIN, GIVEN, KEYS = tables(PAGE)
ROWS = [row for row in [*PLAIN, *GIVEN] if is_of_this_airflow(row["Airflow"])]


def kind_of(row: dict[str, str]) -> Kind:
    return Kind(evaluated(row["schedule"]), evaluated(f"dict({row.get('parameters', '').strip('`')})"))


def name_of(row: dict[str, str]) -> str:
    return f"{row['schedule']} {row.get('parameters', '')}"


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_a_row_of_the_tables(row: dict[str, str]) -> None:
    kind = kind_of(row)
    made = {"scheduled": kind.scheduled(), "manual": kind.by_hand(), "backfill": kind.backfill()}
    assert {name: row[name] for name in made} == made


if AIRFLOW_3:

    @pytest.mark.parametrize("row", ROWS, ids=name_of)
    def test_a_run_without_a_logical_date_has_no_interval(row: dict[str, str]) -> None:
        kind = kind_of(row)
        assert kind.without_a_date() == ("1 May" if "interval_start" in kind.given else "no interval")


@pytest.mark.parametrize("row", KEYS, ids=lambda row: f"{row['key']} {row['`partition_length`']}")
def test_a_row_of_the_partition_keys(row: dict[str, str]) -> None:
    key, length = (row[name].strip("`") for name in ("key", "`partition_length`"))
    made = window({"partition_key": key}, {"partition_length": length} if length else {})
    assert made == row["window"]


def test_every_version_of_airflow_and_every_kind_of_schedule_has_rows() -> None:
    kinds = {re.match(r"`\W*(\w*)", row["schedule"])[1] for row in ROWS if row in PLAIN}  # type: ignore[index]
    expected = {"CronDataIntervalTimetable", "CronTriggerTimetable", "daily", "0", "timedelta", "None", "Asset"}
    assert expected | ({"CronPartitionTimetable"} if HAS_PARTITIONS else set()) <= kinds
