# SPDX-License-Identifier: Apache-2.0
"""DAGs that export the same windows: ``one_task`` with one task for each window, ``three_tasks`` with three."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG, task_group

from airflow_provider_chartmogul.intervals import split_interval
from airflow_provider_chartmogul.operators.activities_export import CreateActivitiesExportOperator
from airflow_provider_chartmogul.sensors.activities_export import ActivitiesExportSensor
from airflow_provider_chartmogul.transfers.activities_export_to_object_storage import (
    ActivitiesExportToObjectStorageOperator,
)
from airflow_provider_chartmogul.transfers.activities_to_object_storage import ActivitiesToObjectStorageOperator

START = datetime(2024, 1, 1, tzinfo=UTC)
WINDOWS = split_interval(START, START + timedelta(days=int(os.environ["BENCH_TASKS_WINDOWS"])), "day")
OBJECT_NAME = "{interval_start:%Y-%m-%d}.csv.gz"
#: Seconds between polls.
POKE_INTERVAL = 5

with DAG("one_task", schedule=None, start_date=START):
    ActivitiesToObjectStorageOperator.partial(
        task_id="activities",
        destination="{{ var.value.bench_lake }}/one_task/" + OBJECT_NAME,
        poke_interval=POKE_INTERVAL,
    ).expand_kwargs(WINDOWS)

with DAG("three_tasks", schedule=None, start_date=START):

    @task_group
    def activities(interval_start: str, interval_end: str) -> None:
        """Export one window."""
        create = CreateActivitiesExportOperator(
            task_id="create", interval_start=interval_start, interval_end=interval_end
        )
        wait = ActivitiesExportSensor(task_id="wait", export_id=create.output, poke_interval=POKE_INTERVAL)
        ActivitiesExportToObjectStorageOperator(
            task_id="transfer",
            export_id=wait.output,
            destination="{{ var.value.bench_lake }}/three_tasks/" + OBJECT_NAME,
        )

    activities.expand_kwargs(WINDOWS)
