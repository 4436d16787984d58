# SPDX-License-Identifier: Apache-2.0
"""
A task that makes an export, and stops at three places until it is told to go on: before, behind, and after success.

It is the package's operator as it is; it stops in hooks that Airflow has for every task. At each stop it leaves a file
with the IDs of its process and of its supervisor's, and it goes on when there is one of that name with ``.go``.
"""

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_chartmogul.operators.activities_export import CreateActivitiesExportOperator

STOPS = Path(os.environ["STOPS_FOLDER"])


def stop(name: str) -> Callable[..., None]:
    def hook(context: Any, result: Any = None) -> None:
        ti = context["ti"]
        mark = STOPS / f"{ti.run_id}.{ti.try_number}.{name}"
        unfinished = mark.with_name(f".{mark.name}")
        unfinished.write_text(f"{os.getpid()} {os.getppid()}")
        unfinished.rename(mark)
        go = mark.with_name(f"{mark.name}.go")
        deadline = time.monotonic() + 300
        while not go.exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"nobody has made {go}")
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
        pre_execute=stop("before"),
        post_execute=stop("behind"),
        on_success_callback=stop("success"),
    )
