# SPDX-License-Identifier: Apache-2.0
"""
Tests the example on CeleryExecutor, with two workers, Redis as broker and PostgreSQL as database.

After both workers have completed tasks, one is killed with its running tasks, and the other completes the runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from dev.real_airflow import RealAirflow
from tests.postgres import postgres_server
from tests.redis_server import redis_server
from tests.system.crashes import ObservedSandbox, is_alive, wait_for
from tests.system.example_runs import ExampleRuns, copy_example

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(3600)]

RUNS = 10
WORKERS = ("worker-1", "worker-2")

#: A worker's log line about a completed task.
_COMPLETED = re.compile(r"Task \S+\[[0-9a-f-]{36}\] succeeded")


@pytest.fixture
def sandbox() -> Iterator[ObservedSandbox]:
    with ObservedSandbox(export_seconds=5) as running:
        yield running


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return tmp_path / "lake"


@pytest.fixture
def airflow(sandbox: ObservedSandbox, lake: Path, tmp_path: Path) -> Iterator[RealAirflow]:
    dags = tmp_path / "dags"
    dags.mkdir()
    copy_example(dags, max_active_runs=RUNS)
    with postgres_server() as database, redis_server() as broker:
        environment = {
            "AIRFLOW_CONN_CHARTMOGUL_DEFAULT": sandbox.connection_uri,
            "AIRFLOW_VAR_CHARTMOGUL_DESTINATION": f"file://{lake}",
            "AIRFLOW__CELERY__BROKER_URL": broker,
            "AIRFLOW__CELERY__WORKER_CONCURRENCY": "4",
            # Detect the running and the queued tasks of the killed worker sooner than by default.
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "45",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
            "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "90",
            "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "10",
        }
        workers = {
            name: (
                *("celery", "worker", "--skip-serve-logs", "--without-gossip", "--without-mingle"),
                # By default, both workers would use the same name and PID file.
                *("--celery-hostname", name, "--pid", str(tmp_path / f"{name}.pid")),
            )
            for name in WORKERS
        }
        with RealAirflow(
            tmp_path / "airflow",
            dags,
            environment=environment,
            boot_timeout=600,
            more_components=workers,
            database=database,
            executor="CeleryExecutor",
        ) as running:
            yield running


def test_runs_succeed_after_one_of_two_workers_is_killed(
    airflow: RealAirflow, sandbox: ObservedSandbox, lake: Path
) -> None:
    def completed_by(worker: str) -> int:
        return len(_COMPLETED.findall(airflow.component_log(worker).read_text(errors="replace")))

    runs = ExampleRuns(airflow, sandbox, lake)
    # The schedule creates one more run.
    runs.trigger(RUNS - 1)
    wait_for("a completed task of each worker", lambda: all(completed_by(name) for name in WORKERS), every=0.3)
    wait_for(
        f"a running task of {WORKERS[0]}",
        lambda: any(is_run_by(WORKERS[0], task) for task in runs.tasks("running")),
        every=0.1,
    )
    airflow.kill(WORKERS[0])
    before = {name: completed_by(name) for name in WORKERS}
    # Airflow has not noticed yet that these tasks are dead.
    killed = [task for task in runs.tasks("running") if not is_alive(int(task["pid"]))]
    finished = runs.wait_until_finished(timeout=1800)
    after = {name: completed_by(name) for name in WORKERS}
    exports = {run["dag_run_id"]: len(sandbox.export_ids_from(runs.window(run)[0])) for run in finished}
    print(f"\n{len(finished)} runs; tasks completed before the kill: {before}, in total: {after}")
    print(f"killed tasks: {sorted(task['task_id'] for task in killed)}; POSTs: {sandbox.count_requests('POST')}")

    runs.check(finished)
    assert after[WORKERS[0]] == before[WORKERS[0]]
    assert after[WORKERS[1]] > before[WORKERS[1]]
    killed_creations = {task["dag_run_id"] for task in killed if task["task_id"] == "create_export"}
    assert {run_id for run_id, number in exports.items() if number > 1} <= killed_creations
    assert all(1 <= number <= 2 for number in exports.values())
    assert sandbox.count_requests("POST") == sum(exports.values())


def is_run_by(worker: str, task: dict[str, Any]) -> bool:
    """Return whether a task's process descends from a worker's, whose title contains the worker's name."""
    try:
        ancestors = psutil.Process(int(task["pid"])).parents()
        return any(worker in " ".join(process.cmdline()) for process in ancestors)
    except psutil.NoSuchProcess:
        return False
