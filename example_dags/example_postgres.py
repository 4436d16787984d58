# SPDX-License-Identifier: Apache-2.0
"""Load ChartMogul activities into PostgreSQL every day, by merging on the activity's UUID.

Requirements: ``pip install 'airflow-provider-chartmogul[parquet]' apache-airflow-providers-postgres``, the connection
``postgres_default`` to PostgreSQL 15 or later, and ``warehouse_loads.py`` in the same folder as this file. The load
also deletes rows that the window no longer contains; merging alone would keep what was deleted in ChartMogul.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_chartmogul.transfers.activities_to_object_storage import ActivitiesToObjectStorageOperator

with DAG(
    dag_id="example_postgres",
    description="Load ChartMogul activities into PostgreSQL, by merging on the activity's UUID.",
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
    tags=["chartmogul", "example"],
    doc_md=__doc__,
) as dag:
    export = ActivitiesToObjectStorageOperator(
        task_id="export",
        lookback=timedelta(days=7),
        destination=(
            "{{ var.value.get('chartmogul_destination', 'file:///tmp/chartmogul') }}"
            "/postgres/{interval_start:%Y-%m-%d}_{interval_end:%Y-%m-%d}.parquet"
        ),
    )

    @task
    def load(exported: dict[str, Any]) -> dict[str, int]:
        """Merge the window, then print the month's MRR movements so that the result is visible in the log."""
        from airflow.providers.postgres.hooks.postgres import PostgresHook
        from warehouse_loads import load_into_postgres, movements_sql

        postgres = PostgresHook("postgres_default")
        counts = load_into_postgres(
            postgres.get_conn(),
            exported["uri"],
            "public.activities",
            start=exported["interval_start"],
            end=exported["interval_end"],
            date_column="date",
            uuid_column="uuid",
            loaded_at_column="_loaded_at",
            # object_storage_conn_id="aws_default",
        )
        for row in postgres.get_records(movements_sql("public.activities", exported["interval_start"])):
            print(*row)
        return counts

    load(export.output["object"])
