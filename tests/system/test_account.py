# SPDX-License-Identifier: Apache-2.0
"""
The whole account in a real Airflow: ``example_account``, while processes are killed and ChartMogul is restarted.

A worker is killed in the middle of its walk, then ChartMogul becomes unreachable during other walks, then the triggerer
is killed while it waits for an export. In the long form (``make test-system``), an undisturbed run comes first.

The sandbox enforces the limits of the account, 40 requests a second and 20 connections, and nothing but the example's
pool keeps the tasks within them. Pages are small, so that all four slots send requests as fast as they may.
"""

from __future__ import annotations

import csv
import gzip
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_chartmogul.api.resources import RESOURCES
from airflow_provider_chartmogul.sandbox import Sandbox
from dev.real_airflow import RealAirflow
from tests.resource_rows import csv_text, table_rows, table_values
from tests.system.crashes import Worker, is_alive, wait_for
from tests.system.forms import FORM
from tests.system.secret_search import find_secrets, table_content

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(1800)]

DAG_ID = "example_account"
EXAMPLE = Path(__file__).parents[2] / "example_dags" / f"{DAG_ID}.py"
API_KEY = "the-secret-api-key-of-the-account-test"
POOL, SLOTS = "chartmogul_requests", 4

SNAPSHOTS = [name for name, resource in RESOURCES.items() if not resource.has_window]
TASKS = {"activities", "compare", "later_activities", "metrics", "snapshot"}

#: Time limit for a run in seconds, for machines that are busy with other things.
RUN_SECONDS = 600.0

#: How long ChartMogul is unreachable, in seconds.
OUTAGE_SECONDS = 5.0


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    # The account's present is after the window of the scheduled run, so that the snapshots are later than its end.
    present = datetime.now(UTC).replace(microsecond=0)
    with Sandbox(api_key=API_KEY, customers=150, page_size=20, export_seconds=5, as_of=present) as running:
        yield running


@pytest.fixture(scope="module")
def airflow(
    sandbox: Sandbox, lake: Path, database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RealAirflow]:
    dags = tmp_path_factory.mktemp("dags")
    shutil.copy(EXAMPLE, dags)
    environment = {
        "AIRFLOW_CONN_CHARTMOGUL_DEFAULT": sandbox.connection_uri,
        "AIRFLOW_VAR_CHARTMOGUL_DESTINATION": f"file://{lake}",
        # The search for secrets finds what is logged at any level.
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG",
        # More than the pool has slots.
        "AIRFLOW__CORE__PARALLELISM": str(2 * SLOTS),
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
        # Detect a killed triggerer sooner than by default.
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
        "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    }
    url = database.replace("postgresql://", "postgresql+psycopg2://")
    with RealAirflow(
        tmp_path_factory.mktemp("airflow"), dags, environment=environment, boot_timeout=600, database=url
    ) as running:
        running.cli("pools", "set", POOL, str(SLOTS), "requests to ChartMogul", "--include-deferred")
        running.wait_for_dag(DAG_ID)
        yield running


@pytest.mark.parametrize("disturbed", {"short": [True], "long": [False, True]}[FORM])
def test_whole_account_arrives_within_the_limits(
    disturbed: bool, airflow: RealAirflow, sandbox: Sandbox, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(lake / "account", ignore_errors=True)
    if disturbed:
        # Exports remain in progress until the triggerer has been killed.
        monkeypatch.setattr(sandbox, "export_seconds", 3600)
    before = count_requests(sandbox)
    run_id = start_run(airflow)

    def wait_for_walk(resource: str) -> None:
        wait_for(f"the walk of {resource}", lambda: (count_requests(sandbox) - before)[resource] > 10, every=0.1)

    if disturbed:
        wait_for_walk("subscriptions")
        kill_subscriptions(airflow, run_id)
        # The walk with the most pages.
        wait_for_walk("invoices")
        sandbox.stop()
        time.sleep(OUTAGE_SECONDS)
        sandbox.start()
        wait_for(
            "a deferred task", lambda: [ti for ti in tasks(airflow, run_id) if ti["state"] == "deferred"], every=0.2
        )
        airflow.kill("triggerer")
        airflow.start("triggerer")
        sandbox.export_seconds = 5
    run = airflow.wait_for_run(DAG_ID, run_id, RUN_SECONDS)

    check(airflow, sandbox, run)
    check_objects(sandbox, lake, end=datetime.fromisoformat(run["data_interval_end"]))
    tries = [ti["try_number"] for ti in tasks(airflow, run_id) if ti["task_id"] == "snapshot"]
    # The outage has not ended a try.
    assert sorted(tries) == [*[1] * (len(SNAPSHOTS) - 1), 1 + disturbed]
    assert ("failed (no response from ChartMogul" in logs(airflow, "snapshot")) is disturbed


def start_run(airflow: RealAirflow) -> str:
    """Return the ID of the scheduled run, or else of another run with the same data interval."""
    if not (runs := airflow.runs(DAG_ID)):
        airflow.unpause(DAG_ID)
        return airflow.wait_for_scheduled_run(DAG_ID, RUN_SECONDS)
    start, end = (datetime.fromisoformat(runs[0][f"data_interval_{side}"]) for side in ("start", "end"))
    return airflow.trigger(DAG_ID, run_id=f"run-{len(runs)}", logical_date=end, data_interval=(start, end))


def kill_subscriptions(airflow: RealAirflow, run_id: str) -> None:
    """Kill the process that walks the subscriptions."""
    (walk,) = [ti for ti in tasks(airflow, run_id) if (ti["task_id"], ti["map_index"]) == ("snapshot", 0)]
    worker = Worker.of_task(int(walk["pid"]))
    worker.kill(with_supervisor=False)
    wait_for("the end of the killed process", lambda: not is_alive(worker.task))


def test_airflow_writes_no_key(airflow: RealAirflow, database: str) -> None:
    """Search all logs, of the killed processes too, and the whole database."""
    assert find_secrets(airflow.home, database, API_KEY) == {}
    # The search covers the places where the key would be: urllib3 has logged the requests, and the database has the
    # tasks' results and rendered fields.
    assert '"GET /v1/customers/cus_' in logs(airflow, "snapshot")
    assert b"subscriptions.csv.gz" in table_content(database, "xcom")
    assert b"subscriptions" in table_content(database, "rendered_task_instance_fields")


# Checks


def check(airflow: RealAirflow, sandbox: Sandbox, run: dict[str, Any]) -> None:
    """Check a run: its tasks have succeeded, its sums agree, and no request was refused."""
    run_id = run["dag_run_id"]
    instances = tasks(airflow, run_id)
    counters = sandbox.counters.as_json()["api"]
    retries = sum(ti["try_number"] - 1 for ti in instances)
    print(f"\n{run_id}: {duration(run):.0f} s, {retries} retries; {counters}")
    assert run["state"] == "success", {ti["task_id"]: ti["state"] for ti in instances if ti["state"] != "success"}
    assert Counter(ti["task_id"] for ti in instances) == dict.fromkeys(TASKS, 1) | {"snapshot": len(SNAPSHOTS)}

    assert counters["refused"] == {"429": 0, "503": 0}, "the account's limits were exceeded"
    assert counters["responses"].keys() <= {"200", "none"}
    assert counters["per_second"]["busiest"] <= 40
    assert counters["connections"]["most"] <= 20

    sums = airflow.xcom(DAG_ID, run_id, "compare")
    assert sums.keys() == {"metric", "movements", "customers", "subscriptions"}
    assert len(set(sums.values())) == 1, sums
    assert int(sums["metric"]) > 0
    assert "The sums agree" in airflow.task_log(DAG_ID, run_id, "compare", 1)


def check_objects(sandbox: Sandbox, lake: Path, *, end: datetime) -> None:
    """Check that the objects have exactly the rows of the sandbox."""
    (snapshots,) = (lake / "account" / "snapshots").iterdir()
    for name in SNAPSHOTS:
        resource = RESOURCES[name]
        rows = sandbox.rows(name, resource.build_query(None))
        for table in resource.tables:
            expected = [
                {column: csv_text(value) for column, value in row.items()}
                for row in table_values(table_rows(rows, table), table)
            ]
            assert expected, "nothing to compare"
            actual = [
                {column: row[column] for column in expected[0]} for row in read(snapshots / f"{table.name}.csv.gz")
            ]
            assert actual == expected, table.name
    start = end - timedelta(days=32)
    (activities,) = (lake / "account" / "activities").iterdir()
    assert activities.name == f"{start:%Y-%m-%d}_{end:%Y-%m-%d}.csv.gz"
    assert read(activities) == sandbox.expected_rows(start, end)
    (later,) = (lake / "account" / "later_activities").iterdir()
    assert read(later) == sandbox.expected_rows(end, sandbox.present())
    (metrics,) = (lake / "account" / "metrics").iterdir()
    days = {"start-date": day(start), "end-date": day(end - timedelta(days=1)), "interval": "day"}
    assert [(row["date"], row["mrr"]) for row in read(metrics)] == [
        (row["date"], str(row["mrr"])) for row in sandbox.rows("metrics", days)
    ]


def read(file: Path) -> list[dict[str, str]]:
    with gzip.open(file, "rt", newline="") as opened:
        return list(csv.DictReader(opened))


def day(moment: date) -> str:
    return f"{moment:%Y-%m-%d}"


def tasks(airflow: RealAirflow, run_id: str) -> list[dict[str, Any]]:
    return airflow.task_instances(DAG_ID, run_id)


def logs(airflow: RealAirflow, task_id: str) -> str:
    """Return the logs of all tries of a task, of all runs."""
    files = (airflow.home / "logs").rglob("*.log")
    return "".join(file.read_text(errors="replace") for file in files if f"task_id={task_id}" in str(file))


def count_requests(sandbox: Sandbox) -> Counter[str]:
    """Return the number of requests by the last part of their path."""
    return Counter(request.path.rpartition("/")[2] for request in sandbox.requests)


def duration(run: dict[str, Any]) -> float:
    start, end = (datetime.fromisoformat(run[name]) for name in ("start_date", "end_date"))
    return (end - start).total_seconds()
