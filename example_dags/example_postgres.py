# SPDX-License-Identifier: Apache-2.0
"""Load ChartMogul activities into PostgreSQL every day, by replacing the window in the table.

Requirements: ``pip install 'airflow-provider-chartmogul[postgres]'`` on the workers, and the connection
``postgres_default``. Its user may create tables in the schema ``chartmogul``, or may create that schema.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_chartmogul.transfers.activities_to_object_storage import ActivitiesToObjectStorageOperator
from airflow_provider_chartmogul.transfers.object_storage_to_warehouse import ObjectStorageToWarehouseOperator

with DAG(
    dag_id="example_postgres",
    description="Load ChartMogul activities into PostgreSQL, by replacing the window.",
    # Each run covers the day before it, also in a backfill. In Airflow 3, a plain "@daily" has an empty data interval.
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=4,
    default_args={
        "owner": "data",
        "retries": 5,
        "retry_delay": timedelta(seconds=10),
        "retry_exponential_backoff": True,
    },
    tags=["chartmogul", "example", "activities", "load"],
    doc_md=__doc__,
) as dag:
    export = ActivitiesToObjectStorageOperator(
        task_id="export",
        lookback=timedelta(days=7),
        destination=(
            "{{ var.value.get('chartmogul_destination', 'file:///tmp/chartmogul') }}"
            "/postgres/{interval_start:%Y-%m-%d}_{interval_end:%Y-%m-%d}.csv.gz"
        ),
    )

    # Replaces the window in the table chartmogul.chartmogul_activities, and moves activities whose date has changed. A
    # retry, or a load that was cleared after later ones, gives the same table.
    ObjectStorageToWarehouseOperator(
        task_id="load",
        source=export.output["object"],
        warehouse_conn_id="postgres_default",
        schema="chartmogul",
    )
