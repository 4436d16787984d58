# SPDX-License-Identifier: Apache-2.0
"""Each day, the last eight days of ChartMogul activities as one object: made, waited for and moved by one task.

Activities change after the fact, so that a run goes back a week before its own day: ``lookback``. The objects of
neighbouring runs overlap, and are loaded by replacing their window in the table, never by appending, nor all
together as one external table. The task's asset tells ``example_asset_load`` of each; ``example_duckdb`` and
``example_postgres`` load in the same DAG.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG, Asset
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_chartmogul.transfers.activities_to_object_storage import ActivitiesToObjectStorageOperator

with DAG(
    dag_id="example_daily",
    description="Each day, the last eight days of ChartMogul activities as one object.",
    # Each run is the day before it, also in a backfill. A plain "@daily" has no width in Airflow 3.
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=4,
    default_args={"owner": "data", "retries": 3, "retry_delay": timedelta(minutes=1)},
    tags=["chartmogul", "example"],
    doc_md=__doc__,
) as dag:
    ActivitiesToObjectStorageOperator(
        task_id="export",
        lookback=timedelta(days=7),
        # Named by its window: the start, a week before the run's day, and the end, which is left out.
        destination=(
            "{{ var.value.get('chartmogul_destination', 'file:///tmp/chartmogul') }}"
            "/daily/{interval_start:%Y-%m-%d}_{interval_end:%Y-%m-%d}.csv.gz"
        ),
        outlets=[Asset("chartmogul://activities")],
    )
