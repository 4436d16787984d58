# SPDX-License-Identifier: Apache-2.0
"""
The example where one machine is not enough: CeleryExecutor, two workers, Redis between them, PostgreSQL as database.

When both have done something, one of them dies with all that it is at, and the other goes on alone.
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

#: What a worker logs when a task is through.
_DONE = re.compile(r"Task \S+\[[0-9a-f-]{36}\] succeeded")


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
            # So soon is missed what a worker had that was killed: what it was at, and what it had taken and not begun.
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "45",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
            "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "90",
            "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "10",
        }
        workers = {
            name: (
                *("celery", "worker", "--skip-serve-logs", "--without-gossip", "--without-mingle"),
                # By default the two would have the same.
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


def test_two_workers_do_the_example_and_one_goes_on_alone(
    airflow: RealAirflow, sandbox: ObservedSandbox, lake: Path
) -> None:
    def done_by(worker: str) -> int:
        return len(_DONE.findall(airflow.component_log(worker).read_text(errors="replace")))

    runs = ExampleRuns(airflow, sandbox, lake)
    # The schedule makes one more.
    runs.trigger(RUNS - 1)
    wait_for("something that each worker has done", lambda: all(done_by(name) for name in WORKERS), every=0.3)
    wait_for(
        "a task of the worker's", lambda: any(is_of(WORKERS[0], task) for task in runs.tasks("running")), every=0.1
    )
    airflow.kill(WORKERS[0])
    before = {name: done_by(name) for name in WORKERS}
    # Nobody has found out yet.
    lost = [task for task in runs.tasks("running") if not is_alive(int(task["pid"]))]
    ended = runs.wait_until_over(patience=1800)
    after = {name: done_by(name) for name in WORKERS}
    made = {run["dag_run_id"]: len(sandbox.made_from(runs.window(run)[0])) for run in ended}
    print(f"\n{len(ended)} runs; tasks done before one worker was killed: {before}, in the end: {after}")
    print(f"killed with the worker: {sorted(task['task_id'] for task in lost)}; POSTs: {sandbox.count('POST')}")

    assert len(ended) == RUNS
    runs.check(ended)
    assert after[WORKERS[0]] == before[WORKERS[0]]
    assert after[WORKERS[1]] > before[WORKERS[1]]
    posting = {task["dag_run_id"] for task in lost if task["task_id"] == "create_export"}
    assert {run_id for run_id, number in made.items() if number > 1} <= posting
    assert all(1 <= number <= 2 for number in made.values())
    assert sandbox.count("POST") == sum(made.values())


def is_of(worker: str, task: dict[str, Any]) -> bool:
    """Whether a task's process descends from a worker's, which has its name in its title."""
    try:
        above = psutil.Process(int(task["pid"])).parents()
        return any(worker in " ".join(process.cmdline()) for process in above)
    except psutil.NoSuchProcess:
        return False
