# SPDX-License-Identifier: Apache-2.0
"""Export all ChartMogul activities as one object every week. This is the simplest approach and often the best one.

Activities of any age are backdated, edited and deleted. If an export of all of history takes only minutes, a full
refresh is always correct and needs no windows. In between, a daily DAG such as ``example_daily`` keeps the last days up
to date. ``example_asset_load`` loads the objects of both.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG, Asset
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_chartmogul.transfers.activities_to_object_storage import ActivitiesToObjectStorageOperator

with DAG(
    dag_id="example_full_refresh",
    description="Export all ChartMogul activities as one object every week.",
    schedule=CronDataIntervalTimetable("0 3 * * 0", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
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
        # None means no limit: from the first activity to the latest.
        interval_start=None,
        interval_end=None,
        # Every run overwrites the same object, so readers always find the latest.
        destination="{{ var.value.get('chartmogul_destination', 'file:///tmp/chartmogul') }}/all.csv.gz",
        # Exports of large accounts take long.
        timeout=timedelta(hours=6),
        outlets=[Asset("chartmogul://api.chartmogul.com/activities")],
    )
