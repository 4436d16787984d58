# SPDX-License-Identifier: Apache-2.0
"""
A task that creates an export and pauses at three checkpoints: before and after the operator runs, and after success.

The operator is the package's own; the checkpoints are in Airflow's hooks for every task. At a checkpoint, the task
writes a file with the IDs of its process and of its supervisor's, and continues once a file of the same name with the
suffix ``.continue`` exists.
"""

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_chartmogul.operators.activities_export import CreateActivitiesExportOperator

FOLDER = Path(os.environ["CHECKPOINTS_FOLDER"])


def checkpoint(name: str) -> Callable[..., None]:
    def hook(context: Any, result: Any = None) -> None:
        ti = context["ti"]
        file = FOLDER / f"{ti.run_id}.{ti.try_number}.{name}"
        unfinished = file.with_name(f".{file.name}")
        unfinished.write_text(f"{os.getpid()} {os.getppid()}")
        unfinished.rename(file)
        permission = file.with_name(f"{file.name}.continue")
        deadline = time.monotonic() + 300
        while not permission.exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{permission} was not created")
            time.sleep(0.01)

    return hook


with DAG(
    "killed",
    schedule=None,
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    params={"day": "2024-01-01"},
    default_args={"retries": 8, "retry_delay": timedelta(seconds=1)},
):
    CreateActivitiesExportOperator(
        task_id="create",
        interval_start="{{ params.day }}",
        interval_end="{{ macros.ds_add(params.day, 1) }}",
        pre_execute=checkpoint("before"),
        post_execute=checkpoint("after"),
        on_success_callback=checkpoint("success"),
    )
