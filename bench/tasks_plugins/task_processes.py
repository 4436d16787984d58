# SPDX-License-Identifier: Apache-2.0
"""Airflow plugin that records when each worker process starts, runs its task and ends, as a JSON line each."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin


def _append(record: dict[str, Any]) -> None:
    # A single write to a file opened for appending keeps the lines of different processes apart.
    file = os.open(os.environ["BENCH_TASKS_FILE"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(file, f"{json.dumps({'pid': os.getpid(), **record})}\n".encode())
    finally:
        os.close(file)


def _is_task(component: Any) -> bool:
    # Airflow also reports the scheduler and its other components.
    return type(component).__name__ == "TaskRunnerMarker"


class TaskProcesses:
    """Listener that Airflow calls in each process it starts for a task."""

    @hookimpl
    def on_starting(self, component: Any) -> None:
        if _is_task(component):
            import psutil

            _append({"event": "start", "created": psutil.Process().create_time()})

    @hookimpl
    def on_task_instance_running(self, previous_state: Any, task_instance: Any) -> None:
        _append({"event": "task", "dag_id": task_instance.dag_id, "task_id": task_instance.task_id})

    @hookimpl
    def before_stopping(self, component: Any) -> None:
        if _is_task(component):
            import psutil

            times = os.times()
            _append(
                {
                    "event": "end",
                    "seconds": time.time() - psutil.Process().create_time(),
                    "cpu": times.user + times.system,
                }
            )


class TaskProcessesPlugin(AirflowPlugin):
    name = "task_processes"
    listeners = [TaskProcesses()]  # noqa: RUF012, since Airflow requires a list on the class
