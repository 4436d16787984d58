# SPDX-License-Identifier: Apache-2.0
"""Load a whole ChartMogul account into DuckDB every day: activities, metrics, and snapshots of four resources.

Each resource has a task that transfers it to object storage. One task then loads everything, because DuckDB allows a
single writer. The activities are an export of all of history, so that corrections of old ones arrive, too, and the sum
of all movements is the MRR. If an account is too large for that every day, replace ``interval_start`` and
``interval_end`` of the activities by a ``lookback``, which has no effect on a window without a start.

Requirements: ``pip install 'airflow-provider-chartmogul[duckdb]'`` on the workers. Set the Airflow variable
``chartmogul_account_duckdb`` to the path of the database file, and ``chartmogul_destination`` as for
``example_activities_export``; the defaults are in ``/tmp/chartmogul``.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_chartmogul.transfers.activities_to_object_storage import ActivitiesToObjectStorageOperator
from airflow_provider_chartmogul.transfers.chartmogul_to_object_storage import ChartMogulToObjectStorageOperator
from airflow_provider_chartmogul.transfers.object_storage_to_warehouse import ObjectStorageToWarehouseOperator

DESTINATION = "{{ var.value.get('chartmogul_destination', 'file:///tmp/chartmogul') }}/account_duckdb"
DATABASE = "{{ var.value.get('chartmogul_account_duckdb', '/tmp/chartmogul/account.duckdb') }}"

# The slowest first: subscriptions need a request for each customer.
SNAPSHOTS = ["subscriptions", "invoices", "customers", "plans"]

with DAG(
    dag_id="example_account_duckdb",
    description="Load a whole ChartMogul account into DuckDB every day.",
    # Each run covers the days up to midnight. In Airflow 3, a plain "@daily" has an empty data interval.
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    # A snapshot shows the present, so its task fails in a backfill. To backfill activities or metrics, put them into a
    # DAG of their own.
    catchup=False,
    max_active_runs=1,
    default_args={
        "owner": "data",
        "retries": 5,
        "retry_delay": timedelta(seconds=10),
        "retry_exponential_backoff": True,
    },
    tags=["chartmogul", "example", "activities", "resources", "load"],
    doc_md=__doc__,
) as dag:
    activities: Any = ActivitiesToObjectStorageOperator(
        task_id="activities",
        interval_start=None,
        interval_end="{{ data_interval_end }}",
        destination=f"{DESTINATION}/activities/{{interval_end:%Y-%m-%d}}.parquet",
        # Other columns of an export are text.
        column_types={"activity_mrr": "decimal128(18, 2)", "activity_mrr_movement": "decimal128(18, 2)"},
    )

    # One object for each table: invoices have three.
    snapshots: list[Any] = [
        ChartMogulToObjectStorageOperator(
            task_id=resource,
            resource=resource,
            destination=f"{DESTINATION}/snapshots/{{extracted_at:%Y-%m-%d}}/{{table}}.parquet",
        )
        for resource in SNAPSHOTS
    ]

    metrics: Any = ChartMogulToObjectStorageOperator(
        task_id="metrics",
        resource="metrics",
        lookback=timedelta(days=400),
        destination=f"{DESTINATION}/metrics/{{interval_start:%Y-%m-%d}}_{{interval_end:%Y-%m-%d}}.parquet",
    )

    ObjectStorageToWarehouseOperator(
        task_id="load",
        source=[activities.output["object"], metrics.output["object"], *(task.output["objects"] for task in snapshots)],
        duckdb_path=DATABASE,
    )
