# SPDX-License-Identifier: Apache-2.0
"""
A real Airflow, with its scheduler, triggerer and workers as processes of their own, against the sandbox.

One Airflow serves all tests of this file, any that is supported. Its database is in PostgreSQL, without which Airflow
2 would run one task at a time. It logs at DEBUG, so that the last test, which searches everything it wrote for keys and
signed URLs, has everything to search.
"""

from __future__ import annotations

import base64
import csv
import gzip
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook
from airflow_provider_chartmogul.sandbox import Sandbox
from airflow_provider_chartmogul.sandbox.company.activities import COLUMNS
from dev.real_airflow import FINISHED_RUN_STATES, RealAirflow
from tests.postgres import postgres_server
from tests.system.crashes import wait_for
from tests.system.example_runs import rows_of
from tests.tables import difference, duckdb_rows

pytestmark = pytest.mark.system

EXAMPLES = Path(__file__).parents[2] / "example_dags"
API_KEY = "the-secret-api-key-of-the-system-test"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(api_key=API_KEY, export_seconds=5) as running:
        yield running


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lake")


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgres_server() as uri:
        yield uri


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


def all_values(database: str) -> Iterator[tuple[str, bytes]]:
    """Every value of every row of a database, with the name of its table."""
    with psycopg.connect(database) as connection:
        names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (name,) in names:
            for row in connection.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(name))):
                yield from ((name, value if isinstance(value, bytes) else str(value).encode()) for value in row)


def test_the_example_moves_one_day(
    airflow: RealAirflow, sandbox: Sandbox, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC)
    airflow.wait_for_dag("example_activities_export")
    before = len(sandbox.exports)
    # However long a busy machine takes to start the next task: the export is done once the wait is seen.
    monkeypatch.setattr(sandbox, "export_seconds", 3600)
    run_id = airflow.trigger("example_activities_export", logical_date=day[1], data_interval=day)
    airflow.unpause("example_activities_export")
    deferred: set[str] = set()

    def notice(instance: dict[str, Any]) -> None:
        if instance["state"] == "deferred":
            deferred.add(instance["task_id"])
            sandbox.export_seconds = 1

    run = airflow.wait_for_run("example_activities_export", run_id, timeout=500, on_change=notice)

    assert run["state"] == "success", states(airflow, "example_activities_export", run_id)
    assert deferred == {"wait_for_export"}, "the wait is the triggerer's, and nothing else is"
    archive = lake / "example" / "activities" / "2026-03-01.zip"
    assert rows_of(archive) == sandbox.expected_rows(*day)
    mine = [made for made in sandbox.exports[before:] if "2026-03-01" in str(made.params)]
    assert len(mine) == 1, "one run, one POST"
    uri = airflow.xcom("example_activities_export", run_id, "move_to_storage")
    facts = airflow.xcom("example_activities_export", run_id, "move_to_storage", "object")
    assert uri == facts["uri"] == f"file://{archive}"
    assert facts["bytes"] == archive.stat().st_size
    # Who looks at a sensor that waits wants to see what it waits for.
    assert airflow.rendered_fields("example_activities_export", run_id, "wait_for_export")["export_id"] == mine[0].id


def test_every_mode_and_mapped_tasks(airflow: RealAirflow, sandbox: Sandbox, lake: Path) -> None:
    airflow.wait_for_dag("modes")
    airflow.unpause("modes")
    run_id = airflow.trigger("modes")
    run = airflow.wait_for_run("modes", run_id, timeout=400)

    assert run["state"] == "success", states(airflow, "modes", run_id)
    week = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 8, tzinfo=UTC)
    for mode in ("deferrable", "poke", "reschedule"):
        for activity_type in ("churn", "expansion"):
            archive = lake / mode / f"{activity_type}-2024-01-01.zip"
            assert rows_of(archive) == sandbox.expected_rows(*week, activity_type)


def test_every_ending_in_every_mode(airflow: RealAirflow, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", sandbox.connection_uri)
    # As long as the waits of `dags/endings.py` last, and why, is said there.
    monkeypatch.setattr(sandbox, "export_seconds", 25)
    made = {}
    with ChartMogulHook() as hook:
        for outcome in ("failed", "never"):
            sandbox.outcome = outcome
            made[outcome] = hook.create_activities_export().id
    sandbox.outcome = "succeeded"
    airflow.wait_for_dag("endings")
    airflow.unpause("endings")
    run_id = airflow.trigger("endings", conf=made)
    airflow.wait_for_run("endings", run_id, timeout=500)

    # Airflow 2 keeps to `execution_timeout` itself while a task is deferred: before a resumed task's code runs, and
    # whatever `soft_fail` says. Airflow 3 does not, so there this package does. This can go when 2.11 does.
    airflow_s_own = airflow.version.startswith("2.")
    ended = {ti["task_id"]: ti["state"] for ti in airflow.task_instances("endings", run_id)}
    assert ended == {
        f"{ending}_{mode}{soft}": "skipped" if soft else "failed"
        for ending in ("failed", "late", "unknown", "overtime")
        for mode in ("deferrable", "poke", "reschedule")
        for soft in ("", "_soft")
        if (ending, mode) != ("overtime", "reschedule")
    } | ({"overtime_deferrable_soft": "failed"} if airflow_s_own else {})
    tries = {ti["task_id"]: ti["try_number"] for ti in airflow.task_instances("endings", run_id)}
    assert {
        task_id for task_id, number in tries.items() if task_id.startswith(("failed", "unknown")) and number > 1
    } == set()
    assert tries["overtime_deferrable"] == tries["overtime_poke"] == 3, "an execution_timeout is retried"
    for task_id, words in {
        "failed_deferrable": "clear the task that creates the export",
        "unknown_deferrable": "ChartMogul responded with 404",
        "late_deferrable": "did not finish within the task's timeout",
        "overtime_deferrable": "AirflowTaskTimeout"
        if airflow_s_own
        else "did not finish within the task's execution_timeout",
    }.items():
        assert words in airflow.task_log("endings", run_id, task_id, 1)


def test_of_objects_in_a_burst_the_example_loads_all(airflow: RealAirflow, sandbox: Sandbox, lake: Path) -> None:
    """Airflow gives the first of such events to a run, and others to none; and exports are done in any order."""
    dag_id, first = "example_asset_load", datetime(2025, 6, 1, tzinfo=UTC)
    days = [(first + timedelta(days=number), first + timedelta(days=number + 1)) for number in range(5)]
    told = []
    # The last to come is the oldest: made before all others, of the first day, which was empty then.
    for number, (start, end) in enumerate([*days, days[0]]):
        file = lake / f"burst-{number}.csv.gz"
        with gzip.open(file, "wt", newline="") as opened:
            writer = csv.DictWriter(opened, COLUMNS)
            writer.writeheader()
            writer.writerows(sandbox.expected_rows(start, end) if number < len(days) else [])
        window = {"interval_start": start.isoformat(), "interval_end": end.isoformat(), "activity_type": None}
        made = datetime.now(UTC) - timedelta(hours=1 if number < len(days) else 2)
        told.append({"uri": f"file://{file}", **window, "exported_at": made.isoformat()})
    airflow.wait_for_dag(dag_id)
    airflow.unpause(dag_id)
    # Airflow 2 calls them datasets.
    assets, named = ("datasets", "dataset_uri") if airflow.version.startswith("2.") else ("assets", "asset_id")
    (found,) = wait_for(
        "the asset", lambda: airflow.request("GET", f"{airflow.rest.root}/{assets}?uri_pattern=chartmogul")[assets]
    )
    asset = {named: found["uri" if named == "dataset_uri" else "id"]}
    for extra in told:
        airflow.request("POST", f"{airflow.rest.root}/{assets}/events", {**asset, "extra": extra})

    def loaded() -> set[str] | None:
        runs = airflow.runs(dag_id)
        if not {run["state"] for run in runs} <= FINISHED_RUN_STATES:
            return None
        assert {run["state"] for run in runs} <= {"success"}
        return {counts["uri"] for run in runs for counts in airflow.xcom(dag_id, run["dag_run_id"], "load")}

    wait_for("all loads", lambda: loaded() == {extra["uri"] for extra in told}, every=0.5, patience=500)
    rows = duckdb_rows(lake / "activities.duckdb", "activities_of_events", COLUMNS)
    assert difference(rows, sandbox.expected_rows(days[0][0], days[-1][1])) == []


def test_no_authorization_reached_the_download_host(airflow: RealAirflow, sandbox: Sandbox) -> None:
    downloads = [seen for seen in sandbox.requests if seen.host == "download"]
    assert len(downloads) >= 7, "the tests above have downloaded"
    assert all("authorization" not in seen.headers for seen in downloads)
    assert {seen.status for seen in downloads} == {200}
    assert all(seen.status not in (429, 503) for seen in sandbox.requests), "never over the account's limits"


def test_neither_key_nor_signed_url_in_anything_that_airflow_wrote(
    airflow: RealAirflow, sandbox: Sandbox, database: str
) -> None:
    """Logs of tasks and components, the database with its XComs, rendered fields, triggers and events: every byte."""
    assert [seen for seen in sandbox.requests if seen.host == "download"], "the tests above have downloaded"
    secrets = [
        API_KEY.encode(),
        base64.b64encode(f"{API_KEY}:".encode()).rstrip(b"="),
        b"X-Amz-Signature",
        b"X-Amz-Credential",
        b"X-Amz-Date",
    ]
    pattern = re.compile(b"|".join(map(re.escape, secrets)))
    files = [path for path in airflow.home.rglob("*") if path.is_file()]
    values = list(all_values(database))
    found = {
        str(path.relative_to(airflow.home)): match[0] for path in files if (match := pattern.search(path.read_bytes()))
    } | {table: match[0] for table, value in values if (match := pattern.search(value))}
    assert found == {}
    # The search would see them: urllib3's own lines about the download are there, without their query, and what the
    # tasks returned is in the database.
    task_logs = b"".join(path.read_bytes() for path in files if "move_to_storage" in str(path))
    assert b"Wrote file://" in task_logs
    # Airflow 3.0 lets urllib3 say nothing, at DEBUG neither. This can go when 3.0 does.
    assert (b"/activities-" in task_logs) is not airflow.version.startswith("3.0.")
    returned = b"".join(value for table, value in values if table == "xcom")
    moved = [made.id.encode() for made in sandbox.exports if "2024-01-01" in str(made.params)]
    assert len(moved) == 2
    assert all(export_id in returned for export_id in moved)
