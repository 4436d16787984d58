# SPDX-License-Identifier: Apache-2.0
"""Export the last eight days of ChartMogul activities every day, in one task.

Activities change after the fact, so each run also exports the week before its own day (``lookback``). The objects of
consecutive runs overlap. Load each one by replacing its window in the table; neither append them nor read them together
as one external table. The asset triggers ``example_asset_load`` for each object. ``example_duckdb``,
``example_postgres`` and ``example_snowflake`` load in the same DAG.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG, Asset
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_chartmogul.transfers.activities_to_object_storage import ActivitiesToObjectStorageOperator

with DAG(
    dag_id="example_daily",
    description="Export the last eight days of ChartMogul activities every day.",
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
    tags=["chartmogul", "example", "activities"],
    doc_md=__doc__,
) as dag:
    ActivitiesToObjectStorageOperator(
        task_id="export",
        lookback=timedelta(days=7),
        # Named after its window: the start, a week before the run's day, and the exclusive end.
        destination=(
            "{{ var.value.get('chartmogul_destination', 'file:///tmp/chartmogul') }}"
            "/daily/{interval_start:%Y-%m-%d}_{interval_end:%Y-%m-%d}.csv.gz"
        ),
        outlets=[Asset("chartmogul://api.chartmogul.com/activities")],
    )
