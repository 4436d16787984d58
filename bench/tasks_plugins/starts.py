# SPDX-License-Identifier: Apache-2.0
"""Keeps a line for each process that Airflow starts for a task, and one for its end, in a file that all append to."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin


def _append(line: dict[str, Any]) -> None:
    # One write to a file that is opened for appending: lines of two processes do not mix.
    file = os.open(os.environ["BENCH_TASKS_FILE"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(file, f"{json.dumps({'pid': os.getpid(), **line})}\n".encode())
    finally:
        os.close(file)


def _is_task(component: Any) -> bool:
    # Schedulers and their like are components too.
    return type(component).__name__ == "TaskRunnerMarker"


class Starts:
    """Airflow calls this in the process that it has started for a task, each time it has started one."""

    @hookimpl
    def on_starting(self, component: Any) -> None:
        if _is_task(component):
            import psutil

            _append({"what": "start", "created": psutil.Process().create_time()})

    @hookimpl
    def on_task_instance_running(self, previous_state: Any, task_instance: Any) -> None:
        _append({"what": "task", "dag_id": task_instance.dag_id, "task_id": task_instance.task_id})

    @hookimpl
    def before_stopping(self, component: Any) -> None:
        if _is_task(component):
            import psutil

            times = os.times()
            _append(
                {
                    "what": "end",
                    "seconds": time.time() - psutil.Process().create_time(),
                    "cpu": times.user + times.system,
                }
            )


class StartsPlugin(AirflowPlugin):
    name = "starts"
    listeners = [Starts()]  # noqa: RUF012, Airflow reads it so
