# SPDX-License-Identifier: Apache-2.0
"""One task that creates many exports, and a mapped wait for each of them."""

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook
from airflow_provider_chartmogul.sensors.activities_export import ActivitiesExportSensor

with DAG(
    "waits",
    schedule=None,
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    params={"count": 1},
    max_active_tasks=64,
):

    @task
    def create(params: Any = None) -> list[str]:
        with ChartMogulHook("chartmogul_fast") as hook:
            return [hook.create_activities_export().id for _ in range(params["count"])]

    ActivitiesExportSensor.partial(
        task_id="wait", poke_interval=15, retries=3, retry_delay=timedelta(seconds=1)
    ).expand(export_id=create())
