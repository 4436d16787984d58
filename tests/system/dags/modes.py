# SPDX-License-Identifier: Apache-2.0
"""Mapped exports of two types, waited for in each mode and transferred, with templates in every field."""

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_chartmogul.operators.activities_export import CreateActivitiesExportOperator
from airflow_provider_chartmogul.sensors.activities_export import ActivitiesExportSensor
from airflow_provider_chartmogul.transfers.activities_export_to_object_storage import (
    ActivitiesExportToObjectStorageOperator,
)

MODES = {
    "deferrable": {"poke_interval": 5},
    "poke": {"deferrable": False, "mode": "poke", "poke_interval": 5},
    "reschedule": {"deferrable": False, "mode": "reschedule", "poke_interval": 15},
}

with DAG(
    "modes",
    schedule=None,
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    params={"start": "2024-01-01", "end": "2024-01-08"},
    # A busy Airflow may confuse the end of a rescheduled poll with that of the next one and fail the task, which users
    # handle with retries.
    default_args={"retries": 2, "retry_delay": timedelta(seconds=1)},
):
    create = CreateActivitiesExportOperator.partial(
        task_id="create", interval_start="{{ params.start }}", interval_end="{{ params.end }}"
    ).expand(activity_type=["churn", "expansion"])
    for name, mode in MODES.items():
        wait = ActivitiesExportSensor.partial(task_id=f"wait_{name}", **mode).expand(export_id=create.output)
        ActivitiesExportToObjectStorageOperator.partial(
            task_id=f"transfer_{name}",
            destination="{{ var.value.lake }}/" + name + "/{activity_type}-{interval_start:%Y-%m-%d}.zip",
        ).expand(export_id=wait.output)
