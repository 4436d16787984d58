# SPDX-License-Identifier: Apache-2.0
"""Once a week, all ChartMogul activities that there are, as one object: the plain way, and often the best one.

Activities are backdated, edited and removed, however old they are. Where all of history is one export of some
minutes, a full refresh has them right without any thought of windows; between two of them, a daily DAG such as
``example_daily`` keeps the last days fresh. ``example_asset_load`` loads what either of them writes.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG, Asset
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_chartmogul.transfers.activities_to_object_storage import ActivitiesToObjectStorageOperator

with DAG(
    dag_id="example_full_refresh",
    description="Once a week, all ChartMogul activities as one object.",
    schedule=CronDataIntervalTimetable("0 3 * * 0", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"owner": "data", "retries": 3, "retry_delay": timedelta(minutes=5)},
    tags=["chartmogul", "example"],
    doc_md=__doc__,
) as dag:
    ActivitiesToObjectStorageOperator(
        task_id="export",
        # Written as None, an end is open: from the first activity to the newest.
        interval_start=None,
        interval_end=None,
        # One name, written over each time: whoever reads it has the newest.
        destination="{{ var.value.get('chartmogul_destination', 'file:///tmp/chartmogul') }}/all.csv.gz",
        # Large accounts take their time.
        timeout=timedelta(hours=6),
        outlets=[Asset("chartmogul://activities")],
    )
