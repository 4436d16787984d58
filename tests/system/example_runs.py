# SPDX-License-Identifier: Apache-2.0
"""Many runs of an example DAG in a real Airflow, whose objects are compared with the sandbox's expected rows."""

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

#: The day that the first triggered run exports. Each further run exports the next day.
FIRST_DAY = datetime(2026, 2, 1, tzinfo=UTC)


def copy_example(dags: Path, *, max_active_runs: int) -> None:
    """Copy the example into a DAGs folder, with another number of active runs."""
    text = EXAMPLE.read_text()
    assert text.count("max_active_runs=4") == 1
    (dags / EXAMPLE.name).write_text(text.replace("max_active_runs=4", f"max_active_runs={max_active_runs}"))


def read_rows(archive: Path) -> list[dict[str, str]]:
    """Return the rows of an archive's CSV, which is read to its end so that the CRC is checked."""
    with zipfile.ZipFile(archive) as opened:
        (name,) = opened.namelist()
        return list(csv.DictReader(io.StringIO(opened.read(name).decode(), newline="")))


class ExampleRuns:
    """
    The runs of the example in one Airflow: one triggered run per day, and the scheduled one.

    :param lake: the folder in the Airflow variable ``chartmogul_destination``
    """

    def __init__(self, airflow: RealAirflow, sandbox: ObservedSandbox, lake: Path) -> None:
        self.airflow, self.sandbox, self.lake = airflow, sandbox, lake
        self._triggered = 0
        airflow.wait_for_dag(DAG_ID)
        airflow.unpause(DAG_ID)

    def trigger(self, count: int) -> None:
        """Trigger runs for the next ``count`` days."""
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

    def ids_by_day(self) -> dict[datetime, str]:
        """Return the runs' IDs by the day that they export."""
        return {self.window(run)[0]: run["dag_run_id"] for run in self.all()}

    def tasks(self, *states: str) -> list[dict[str, Any]]:
        """Return the task instances of all runs as the API's objects, optionally only those in some states."""
        instances: list[dict[str, Any]] = []
        while True:
            query = urlencode({"limit": 100, "offset": len(instances), "state": states}, doseq=True)
            page = self.airflow.request("GET", f"/api/v2/dags/{DAG_ID}/dagRuns/~/taskInstances?{query}")
            instances += page["task_instances"]
            if not page["task_instances"] or len(instances) >= page["total_entries"]:
                return instances

    def wait_until_finished(self, timeout: float) -> list[dict[str, Any]]:
        """Wait until all runs have finished, the scheduled one included, and return them."""
        deadline = time.monotonic() + timeout
        while True:
            runs = self.all()
            states = Counter(run["state"] for run in runs)
            run_types = {run["run_type"] for run in runs}
            if run_types == {"manual", "scheduled"} and states.keys() <= FINISHED_RUN_STATES:
                return runs
            assert time.monotonic() < deadline, f"runs not finished after {timeout:.0f} s: {states}"
            for component in ("scheduler", "triggerer"):
                assert self.airflow.is_running(component), f"{component} ended by itself"
            time.sleep(2)

    def check(self, runs: list[dict[str, Any]]) -> None:
        """
        Check the finished runs and their objects.

        Every triggered run is there, every run has succeeded, and the objects hold exactly the expected rows of each
        day. The schedule has created one run, or two if midnight has passed since.
        """
        run_types = Counter(run["run_type"] for run in runs)
        assert run_types["manual"] == self._triggered
        assert 1 <= run_types["scheduled"] <= 2
        assert {run["dag_run_id"]: run["state"] for run in runs if run["state"] != "success"} == {}
        objects = {path.name: path for path in (self.lake / "activities").iterdir()}
        assert sorted(objects) == sorted(f"{self.window(run)[0]:%Y-%m-%d}.zip" for run in runs)
        for run in runs:
            start, end = self.window(run)
            rows = read_rows(objects[f"{start:%Y-%m-%d}.zip"])
            assert rows == self.sandbox.expected_rows(start, end), run["dag_run_id"]
