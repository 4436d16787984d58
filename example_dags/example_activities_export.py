# SPDX-License-Identifier: Apache-2.0
"""Each day's ChartMogul activities, as one archive in object storage.

Copy this file into your DAGs folder. It needs the connection ``chartmogul_default`` and, unless
the local default will do, the Airflow variable ``chartmogul_destination``: a folder of any object
storage that Airflow can reach, such as ``s3://aws_default@my-bucket/chartmogul``. (In place of the
variable, ``AIRFLOW_VAR_CHARTMOGUL_DESTINATION`` in the environment of the workers does the same.)
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

# DAG comes from here so that the one file serves Airflow 2.11 and 3: `airflow.sdk`, where Airflow 3 has it,
# is missing in 2.11, and where 2.11 has it is deprecated in 3. On Airflow 3 alone, write
# `from airflow.sdk import DAG`.
from airflow.providers.common.compat.sdk import DAG
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_chartmogul.operators.activities_export import CreateActivitiesExportOperator
from airflow_provider_chartmogul.sensors.activities_export import ActivitiesExportSensor
from airflow_provider_chartmogul.transfers.activities_export_to_object_storage import (
    ActivitiesExportToObjectStorageOperator,
)

with DAG(
    dag_id="example_activities_export",
    description="Each day's ChartMogul activities, as one archive in object storage.",
    # A run covers the day before it, from midnight to midnight UTC. A plain "@daily" would not do in
    # Airflow 3: its runs are moments, without an interval to export.
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    # So many exports at a time. (On Airflow 3 a backfill has its own limit, `--max-active-runs`.)
    max_active_runs=4,
    default_args={
        "owner": "data",
        "retries": 3,
        "retry_delay": timedelta(seconds=30),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=15),
    },
    tags=["chartmogul", "example"],
    doc_md=__doc__,
) as dag:
    # Asks for the export of the run's data interval and returns its ID, within a second or so.
    create = CreateActivitiesExportOperator(task_id="create_export")

    # Waits in the triggerer, so that no worker is held however long ChartMogul takes.
    wait = ActivitiesExportSensor(
        task_id="wait_for_export",
        export_id=create.output,
        timeout=2 * 3600,
    )

    # `{interval_start}` is filled in from the export itself, so the name is right for every kind of run, and
    # a run that is cleared writes the same object again instead of a second one.
    move = ActivitiesExportToObjectStorageOperator(
        task_id="move_to_storage",
        export_id=wait.output,
        destination=(
            "{{ var.value.get('chartmogul_destination', 'file:///tmp/chartmogul') }}"
            "/activities/{interval_start:%Y-%m-%d}.zip"
        ),
    )

    # `create.output` and `wait.output` are what each of them works on, and already say the order;
    # written out, it can be read at a glance.
    create >> wait >> move
