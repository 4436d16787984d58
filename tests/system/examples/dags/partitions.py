# SPDX-License-Identifier: Apache-2.0
"""A partition for every day in Berlin's time zone. The partition's key determines the window."""

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, Asset, CronPartitionTimetable

from airflow_provider_chartmogul.transfers.activities_to_object_storage import ActivitiesToObjectStorageOperator

with DAG(
    "partitions",
    # The run at midnight has the key of the day that has just ended.
    schedule=CronPartitionTimetable("0 0 * * *", timezone="Europe/Berlin", run_offset=-1, run_immediately=True),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    default_args={"retries": 3, "retry_delay": timedelta(seconds=5)},
):
    ActivitiesToObjectStorageOperator(
        task_id="export",
        partition_length=timedelta(days=1),
        destination=(
            "{{ var.value.chartmogul_destination }}"
            "/partitions/{interval_start:%Y-%m-%dT%H}_{interval_end:%Y-%m-%dT%H}.csv.gz"
        ),
        outlets=[Asset("chartmogul://api.chartmogul.com/partitions")],
    )
