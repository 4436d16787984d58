# SPDX-License-Identifier: Apache-2.0
"""Export the previous day's ChartMogul activities to object storage every day, in three tasks.

Copy this file into your DAGs folder. It needs the connection ``chartmogul_default``. Set the Airflow variable
``chartmogul_destination`` to a folder in any object storage that Airflow can reach, such as
``s3://aws_default@my-bucket/chartmogul``, or set ``AIRFLOW_VAR_CHARTMOGUL_DESTINATION`` in the environment of the
workers. The default is a local folder.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

# This import works on Airflow 2.11 and 3: `airflow.sdk` does not exist in 2.11, and the path of 2.11 is deprecated in
# Airflow 3. If you only use Airflow 3, write `from airflow.sdk import DAG`.
from airflow.providers.common.compat.sdk import DAG
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_chartmogul.operators.activities_export import CreateActivitiesExportOperator
from airflow_provider_chartmogul.sensors.activities_export import ActivitiesExportSensor
from airflow_provider_chartmogul.transfers.activities_export_to_object_storage import (
    ActivitiesExportToObjectStorageOperator,
)

with DAG(
    dag_id="example_activities_export",
    description="Export the previous day's ChartMogul activities to object storage.",
    # Each run covers the day before it, from midnight to midnight UTC. In Airflow 3, a plain "@daily" has an empty data
    # interval, so there would be nothing to export.
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    # Limits concurrent exports. (On Airflow 3, a backfill has its own limit, `--max-active-runs`.)
    max_active_runs=4,
    default_args={
        "owner": "data",
        "retries": 5,
        "retry_delay": timedelta(seconds=10),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=15),
    },
    tags=["chartmogul", "example", "activities"],
    doc_md=__doc__,
) as dag:
    # Creates an export of the run's data interval and returns its ID. This takes about a second.
    create = CreateActivitiesExportOperator(task_id="create_export")

    # Waits in the triggerer, so it occupies no worker slot however long ChartMogul takes.
    wait = ActivitiesExportSensor(
        task_id="wait_for_export",
        export_id=create.output,
        timeout=2 * 3600,
    )

    # `{interval_start}` is filled in from the export, so the name is right for every kind of run, and a cleared run
    # overwrites its own object instead of creating a second one.
    transfer = ActivitiesExportToObjectStorageOperator(
        task_id="transfer",
        export_id=wait.output,
        destination=(
            "{{ var.value.get('chartmogul_destination', 'file:///tmp/chartmogul') }}"
            "/activities/{interval_start:%Y-%m-%d}.zip"
        ),
    )

    # `create.output` and `wait.output` already imply this order; writing it out makes it obvious.
    create >> wait >> transfer
