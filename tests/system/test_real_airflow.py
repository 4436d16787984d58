# SPDX-License-Identifier: Apache-2.0
"""
Tests in a real Airflow, with scheduler, triggerer and workers as processes, against the sandbox.

All tests of this file share one Airflow, of any supported version. Its database is PostgreSQL, since Airflow 2 would
run one task at a time on SQLite. It logs at DEBUG, so that the last test finds any leaked key or signed URL.
"""

from __future__ import annotations

import csv
import gzip
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook
from airflow_provider_chartmogul.sandbox import Sandbox
from airflow_provider_chartmogul.sandbox.company.activities import COLUMNS
from dev.real_airflow import FINISHED_RUN_STATES, RealAirflow
from tests.system.crashes import wait_for
from tests.system.example_runs import read_rows
from tests.system.secret_search import find_secrets, table_content
from tests.tables import difference, duckdb_rows

pytestmark = pytest.mark.system

EXAMPLES = Path(__file__).parents[2] / "example_dags"
API_KEY = "the-secret-api-key-of-the-system-test"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(api_key=API_KEY, export_seconds=5) as running:
        yield running


@pytest.fixture(scope="module")
def airflow(
    sandbox: Sandbox, lake: Path, database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RealAirflow]:
    dags = tmp_path_factory.mktemp("dags")
    for folder in (EXAMPLES, Path(__file__).parent / "dags"):
        for file in folder.glob("*.py"):
            shutil.copy(file, dags)
    environment = {
        "AIRFLOW_CONN_CHARTMOGUL_DEFAULT": sandbox.connection_uri,
        "AIRFLOW_VAR_CHARTMOGUL_DESTINATION": f"file://{lake}/example",
        "AIRFLOW_VAR_LAKE": f"file://{lake}",
        "AIRFLOW_VAR_CHARTMOGUL_DUCKDB": str(lake / "activities.duckdb"),
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG",
    }
    url = database.replace("postgresql://", "postgresql+psycopg2://")
    with RealAirflow(tmp_path_factory.mktemp("airflow"), dags, environment=environment, database=url) as running:
        yield running


def states(airflow: RealAirflow, dag_id: str, run_id: str) -> dict[str, Any]:
    return {ti["task_id"]: ti["state"] for ti in airflow.task_instances(dag_id, run_id)}


def test_example_exports_one_day(
    airflow: RealAirflow, sandbox: Sandbox, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC)
    airflow.wait_for_dag("example_activities_export")
    exports_before = len(sandbox.exports)
    # The export finishes once the wait is deferred, however long a busy machine takes to start the task.
    monkeypatch.setattr(sandbox, "export_seconds", 3600)
    run_id = airflow.trigger("example_activities_export", logical_date=day[1], data_interval=day)
    airflow.unpause("example_activities_export")
    deferred: set[str] = set()

    def on_change(instance: dict[str, Any]) -> None:
        if instance["state"] == "deferred":
            deferred.add(instance["task_id"])
            sandbox.export_seconds = 1

    run = airflow.wait_for_run("example_activities_export", run_id, timeout=500, on_change=on_change)

    assert run["state"] == "success", states(airflow, "example_activities_export", run_id)
    assert deferred == {"wait_for_export"}
    archive = lake / "example" / "activities" / "2026-03-01.zip"
    assert read_rows(archive) == sandbox.expected_rows(*day)
    exports = [export for export in sandbox.exports[exports_before:] if "2026-03-01" in str(export.params)]
    assert len(exports) == 1
    uri = airflow.xcom("example_activities_export", run_id, "transfer")
    metadata = airflow.xcom("example_activities_export", run_id, "transfer", "object")
    assert uri == metadata["uri"] == f"file://{archive}"
    assert metadata["bytes"] == archive.stat().st_size
    # The UI shows which export a sensor is waiting for.
    rendered = airflow.rendered_fields("example_activities_export", run_id, "wait_for_export")
    assert rendered["export_id"] == exports[0].id


def test_mapped_tasks_succeed_in_every_mode(airflow: RealAirflow, sandbox: Sandbox, lake: Path) -> None:
    airflow.wait_for_dag("modes")
    airflow.unpause("modes")
    run_id = airflow.trigger("modes")
    run = airflow.wait_for_run("modes", run_id, timeout=400)

    assert run["state"] == "success", states(airflow, "modes", run_id)
    week = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 8, tzinfo=UTC)
    for mode in ("deferrable", "poke", "reschedule"):
        for activity_type in ("churn", "expansion"):
            archive = lake / mode / f"{activity_type}-2024-01-01.zip"
            assert read_rows(archive) == sandbox.expected_rows(*week, activity_type)


def test_waits_fail_or_skip_in_every_mode(
    airflow: RealAirflow, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", sandbox.connection_uri)
    # Longer than the timeouts in `dags/endings.py`, which explains them.
    monkeypatch.setattr(sandbox, "export_seconds", 25)
    export_ids = {}
    with ChartMogulHook() as hook:
        for outcome in ("failed", "never"):
            sandbox.outcome = outcome
            export_ids[outcome] = hook.create_activities_export().id
    sandbox.outcome = "succeeded"
    airflow.wait_for_dag("endings")
    airflow.unpause("endings")
    run_id = airflow.trigger("endings", conf=export_ids)
    airflow.wait_for_run("endings", run_id, timeout=500)

    # Airflow 2 enforces `execution_timeout` of a deferred task itself, before the resumed task's code runs and without
    # regard to `soft_fail`. On Airflow 3 this package enforces it. Remove this with the support for Airflow 2.11.
    airflow_enforces_timeout = airflow.version.startswith("2.")
    ended = {ti["task_id"]: ti["state"] for ti in airflow.task_instances("endings", run_id)}
    assert ended == {
        f"{ending}_{mode}{soft}": "skipped" if soft else "failed"
        for ending in ("failed", "late", "unknown", "overtime")
        for mode in ("deferrable", "poke", "reschedule")
        for soft in ("", "_soft")
        if (ending, mode) != ("overtime", "reschedule")
    } | ({"overtime_deferrable_soft": "failed"} if airflow_enforces_timeout else {})
    tries = {ti["task_id"]: ti["try_number"] for ti in airflow.task_instances("endings", run_id)}
    assert {
        task_id for task_id, number in tries.items() if task_id.startswith(("failed", "unknown")) and number > 1
    } == set()
    assert tries["overtime_deferrable"] == tries["overtime_poke"] == 3, "an execution_timeout was not retried"
    for task_id, message in {
        "failed_deferrable": "clear the task that creates the export",
        "unknown_deferrable": "ChartMogul responded with 404",
        "late_deferrable": "did not finish within the task's timeout",
        "overtime_deferrable": "AirflowTaskTimeout"
        if airflow_enforces_timeout
        else "did not finish within the task's execution_timeout",
    }.items():
        assert message in airflow.task_log("endings", run_id, task_id, 1)


def test_example_loads_every_object_of_a_burst_of_events(airflow: RealAirflow, sandbox: Sandbox, lake: Path) -> None:
    """Airflow assigns only some events of a burst to a run, and exports finish in any order."""
    dag_id, first = "example_asset_load", datetime(2025, 6, 1, tzinfo=UTC)
    days = [(first + timedelta(days=number), first + timedelta(days=number + 1)) for number in range(5)]
    extras = []
    # The last event is about the oldest export, of the first day, which had no activities when it was exported.
    for number, (start, end) in enumerate([*days, days[0]]):
        file = lake / f"burst-{number}.csv.gz"
        with gzip.open(file, "wt", newline="") as opened:
            writer = csv.DictWriter(opened, COLUMNS)
            writer.writeheader()
            writer.writerows(sandbox.expected_rows(start, end) if number < len(days) else [])
        exported_at = datetime.now(UTC) - timedelta(hours=1 if number < len(days) else 2)
        extras.append(
            {
                "uri": f"file://{file}",
                "format": "csv.gz",
                "resource": "activities",
                "table": "activities",
                "chartmogul_conn_id": "chartmogul_default",
                "activity_type": None,
                "interval_start": start.isoformat(),
                "interval_end": end.isoformat(),
                "exported_at": exported_at.isoformat(),
            }
        )
    airflow.wait_for_dag(dag_id)
    airflow.unpause(dag_id)
    # Airflow 2 calls assets datasets.
    assets, key = ("datasets", "dataset_uri") if airflow.version.startswith("2.") else ("assets", "asset_id")
    (found,) = wait_for(
        "the asset", lambda: airflow.request("GET", f"{airflow.rest.root}/{assets}?uri_pattern=chartmogul")[assets]
    )
    asset = {key: found["uri" if key == "dataset_uri" else "id"]}
    for extra in extras:
        airflow.request("POST", f"{airflow.rest.root}/{assets}/events", {**asset, "extra": extra})

    def loaded() -> set[str] | None:
        runs = airflow.runs(dag_id)
        if not {run["state"] for run in runs} <= FINISHED_RUN_STATES:
            return None
        assert {run["state"] for run in runs} <= {"success"}
        return {extra["uri"] for run in runs for extra in airflow.xcom(dag_id, run["dag_run_id"], "published")}

    wait_for("all loads", lambda: loaded() == {extra["uri"] for extra in extras}, every=0.5, timeout=500)
    rows = duckdb_rows(lake / "activities.duckdb", "activities_of_events", COLUMNS)
    assert difference(rows, sandbox.expected_rows(days[0][0], days[-1][1])) == []


def test_no_authorization_header_is_sent_to_the_download_host(airflow: RealAirflow, sandbox: Sandbox) -> None:
    downloads = [request for request in sandbox.requests if request.host == "download"]
    assert len(downloads) >= 7, "the tests above download"
    assert all("authorization" not in request.headers for request in downloads)
    assert {request.status for request in downloads} == {200}
    assert all(request.status not in (429, 503) for request in sandbox.requests), "the account's limits were exceeded"


def test_airflow_writes_neither_key_nor_signed_url(airflow: RealAirflow, sandbox: Sandbox, database: str) -> None:
    """Search all logs and the whole database, which has XComs, rendered fields, triggers and events."""
    assert [request for request in sandbox.requests if request.host == "download"], "the tests above download"
    assert find_secrets(airflow.home, database, API_KEY) == {}
    # The search covers the places where they would be: urllib3 has logged the download's path, without its query, and
    # the database has the tasks' results.
    logs = [path for path in airflow.home.rglob("*") if path.is_file() and "task_id=transfer/" in str(path)]
    task_logs = b"".join(path.read_bytes() for path in logs)
    assert b"bytes to file://" in task_logs
    # Airflow 3.0 does not log urllib3's lines, not even at DEBUG. Remove this with the support for Airflow 3.0.
    assert (b"/activities-" in task_logs) is not airflow.version.startswith("3.0.")
    returned = table_content(database, "xcom")
    export_ids = [export.id.encode() for export in sandbox.exports if "2024-01-01" in str(export.params)]
    assert len(export_ids) == 2
    assert all(export_id in returned for export_id in export_ids)
