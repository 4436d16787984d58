# SPDX-License-Identifier: Apache-2.0
"""Load ChartMogul activities into DuckDB every day, by replacing the window in the table.

Requirements: ``pip install duckdb`` (1.4 or later), and ``warehouse_loads.py`` in the same folder as this file. Set the
Airflow variable ``chartmogul_duckdb`` to the path of the database file; the default is a file in ``/tmp``.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_chartmogul.transfers.activities_to_object_storage import ActivitiesToObjectStorageOperator

with DAG(
    dag_id="example_duckdb",
    description="Load ChartMogul activities into DuckDB, by replacing the window.",
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
            "/duckdb/{interval_start:%Y-%m-%d}_{interval_end:%Y-%m-%d}.csv.gz"
        ),
    )

    # DuckDB allows a single writer.
    @task(max_active_tis_per_dag=1)
    def load(database: str, exported: dict[str, Any]) -> dict[str, int]:
        """Replace the window, then print the month's MRR movements so that the result is visible in the log."""
        import duckdb
        from warehouse_loads import load_into_duckdb, movements_sql

        counts = load_into_duckdb(
            database,
            exported["uri"],
            "activities",
            start=exported["interval_start"],
            end=exported["interval_end"],
            date_column="date",
            # With it, an activity whose date has moved into the window is removed from its old place in the table.
            uuid_column="uuid",
            merge=False,
            loaded_at_column="_loaded_at",
            # object_storage_conn_id="aws_default",
        )
        with duckdb.connect(database, read_only=True) as connection:
            for row in connection.execute(movements_sql("activities", exported["interval_start"])).fetchall():
                print(*row)
        return counts

    load("{{ var.value.get('chartmogul_duckdb', '/tmp/chartmogul/activities.duckdb') }}", export.output["object"])
