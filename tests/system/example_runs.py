# SPDX-License-Identifier: Apache-2.0
"""Many runs of the example DAG in a real Airflow: made, followed, and their objects compared with the expected rows."""

from __future__ import annotations

import csv
import io
import time
import zipfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from dev.real_airflow import FINISHED_RUN_STATES, RealAirflow
from tests.system.crashes import ObservedSandbox

DAG_ID = "example_activities_export"
EXAMPLE = Path(__file__).parents[2] / "example_dags" / f"{DAG_ID}.py"

#: The first day that a run exports; the others follow.
FIRST_DAY = datetime(2026, 2, 1, tzinfo=UTC)


def copy_example(dags: Path, *, max_active_runs: int) -> None:
    """The example as users copy it, but for the number of runs at a time."""
    text = EXAMPLE.read_text()
    assert text.count("max_active_runs=4") == 1
    (dags / EXAMPLE.name).write_text(text.replace("max_active_runs=4", f"max_active_runs={max_active_runs}"))


def rows_of(archive: Path) -> list[dict[str, str]]:
    """What is in an archive, of which every byte is checked."""
    with zipfile.ZipFile(archive) as opened:
        (name,) = opened.namelist()
        return list(csv.DictReader(io.StringIO(opened.read(name).decode(), newline="")))


class ExampleRuns:
    """The runs of the example in one Airflow: those that are triggered, a day each, and the schedule's own.

    :param lake: the folder that the Airflow variable ``chartmogul_destination`` names
    """

    def __init__(self, airflow: RealAirflow, sandbox: ObservedSandbox, lake: Path) -> None:
        self.airflow, self.sandbox, self.lake = airflow, sandbox, lake
        self._triggered = 0
        airflow.wait_for_dag(DAG_ID)
        airflow.unpause(DAG_ID)

    def trigger(self, count: int) -> None:
        """Make runs of the days that come next."""
        for _ in range(count):
            day = FIRST_DAY + timedelta(days=self._triggered)
            self._triggered += 1
            end = day + timedelta(days=1)
            self.airflow.trigger(DAG_ID, run_id=f"{day:%Y-%m-%d}", logical_date=end, data_interval=(day, end))

    def all(self) -> list[dict[str, Any]]:
        return self.airflow.runs(DAG_ID)

    def window(self, run: dict[str, Any]) -> tuple[datetime, datetime]:
        start, end = (datetime.fromisoformat(run[f"data_interval_{name}"]) for name in ("start", "end"))
        return start, end

    def by_day(self) -> dict[datetime, str]:
        """The runs' IDs by the day that they export."""
        return {self.window(run)[0]: run["dag_run_id"] for run in self.all()}

    def tasks(self, *states: str) -> list[dict[str, Any]]:
        """The task instances of all runs, or those that are in one of the states, as the API gives them."""
        found: list[dict[str, Any]] = []
        while True:
            query = urlencode({"limit": 100, "offset": len(found), "state": states}, doseq=True)
            page = self.airflow.request("GET", f"/api/v2/dags/{DAG_ID}/dagRuns/~/taskInstances?{query}")
            found += page["task_instances"]
            if not page["task_instances"] or len(found) >= page["total_entries"]:
                return found

    def wait_until_over(self, patience: float) -> list[dict[str, Any]]:
        """Wait for the end of every run, the one included that the schedule makes; give them."""
        deadline = time.monotonic() + patience
        while True:
            runs = self.all()
            states = Counter(run["state"] for run in runs)
            over = {run["run_type"] for run in runs} == {"manual", "scheduled"} and not states.keys() - (
                FINISHED_RUN_STATES
            )
            if over:
                return runs
            assert time.monotonic() < deadline, f"not over after {patience:.0f} s: {states}"
            for component in ("scheduler", "triggerer"):
                assert self.airflow.is_running(component), f"{component} has ended of its own accord"
            time.sleep(2)

    def check(self, runs: list[dict[str, Any]]) -> None:
        """Check that every run succeeded and that the objects hold exactly the expected rows of each day."""
        assert {run["dag_run_id"]: run["state"] for run in runs if run["state"] != "success"} == {}
        objects = {path.name: path for path in (self.lake / "activities").iterdir()}
        assert sorted(objects) == sorted(f"{self.window(run)[0]:%Y-%m-%d}.zip" for run in runs)
        for run in runs:
            start, end = self.window(run)
            assert rows_of(objects[f"{start:%Y-%m-%d}.zip"]) == self.sandbox.expected_rows(start, end), run[
                "dag_run_id"
            ]
