# SPDX-License-Identifier: Apache-2.0
"""Export a date range split into windows, then load all objects with one task that receives them as a list.

Trigger it in the Airflow UI and fill in the form. Requirements: those of ``example_duckdb``.

``example_accounts`` shows the alternative, a mapped task group in which each export is loaded by a task of its own.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, get_current_context, task

from airflow_provider_chartmogul.intervals import split_interval
from airflow_provider_chartmogul.transfers.activities_to_object_storage import ActivitiesToObjectStorageOperator
from airflow_provider_chartmogul.transfers.object_storage_to_warehouse import ObjectStorageToWarehouseOperator

with DAG(
    dag_id="example_mapped_load",
    description="Export a date range split into windows, and load all objects.",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    max_active_runs=1,
    default_args={
        "owner": "data",
        "retries": 5,
        "retry_delay": timedelta(seconds=10),
        "retry_exponential_backoff": True,
    },
    params={
        "start": Param("2026-01-01", type="string", format="date", title="First day"),
        "end": Param(
            "2026-04-01",
            type="string",
            format="date",
            title="End",
            description="The day after the last one. This day is not exported.",
        ),
        "every": Param("month", enum=["day", "week", "month", "quarter", "year"], title="Window"),
    },
    tags=["chartmogul", "example", "activities", "backfill", "load"],
    doc_md=__doc__,
) as dag:

    @task
    def windows() -> list[dict[str, str]]:
        """Split the range into windows."""
        params = get_current_context()["params"]
        return split_interval(params["start"], params["end"], params["every"])

    export: Any = ActivitiesToObjectStorageOperator.partial(
        task_id="export",
        destination=(
            "{{ var.value.get('chartmogul_destination', 'file:///tmp/chartmogul') }}"
            "/mapped/{interval_start:%Y-%m-%d}_{interval_end:%Y-%m-%d}.csv.gz"
        ),
        max_active_tis_per_dagrun=4,
        map_index_template="{{ task.interval_start[:10] }} to {{ task.interval_end[:10] }}",
    ).expand_kwargs(windows())

    # Pass the whole list. `expand(source=…)` fails, because Airflow maps over return values only. The order of the list
    # does not matter.
    ObjectStorageToWarehouseOperator(
        task_id="load",
        source=export.output["object"],
        duckdb_path="{{ var.value.get('chartmogul_duckdb', '/tmp/chartmogul/activities.duckdb') }}",
        table="activities_of_windows",
    )
