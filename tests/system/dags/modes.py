# SPDX-License-Identifier: Apache-2.0
"""Exports of two types, mapped, waited for in each of the three modes, and moved; everything as templates."""

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
    # On a busy machine Airflow may take the end of a look that was rescheduled for the end of the next one, and fail
    # the task; a retry is what people have for that.
    default_args={"retries": 2, "retry_delay": timedelta(seconds=1)},
):
    create = CreateActivitiesExportOperator.partial(
        task_id="create", interval_start="{{ params.start }}", interval_end="{{ params.end }}"
    ).expand(activity_type=["churn", "expansion"])
    for name, mode in MODES.items():
        wait = ActivitiesExportSensor.partial(task_id=f"wait_{name}", **mode).expand(export_id=create.output)
        ActivitiesExportToObjectStorageOperator.partial(
            task_id=f"move_{name}",
            destination="{{ var.value.lake }}/" + name + "/{activity_type}-{interval_start:%Y-%m-%d}.zip",
        ).expand(export_id=wait.output)
