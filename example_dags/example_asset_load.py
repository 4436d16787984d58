# SPDX-License-Identifier: Apache-2.0
"""Load each object of ChartMogul activities as soon as a DAG has published it.

The asset that ``example_full_refresh``, ``example_daily`` and ``example_backfill`` update triggers this DAG. The asset
events contain the object's location, window and activity type; a run may have several events. Requirements: those of
``example_duckdb``.

When several events occur in quick succession, or while the DAG already has ``max_active_runs`` runs, Airflow assigns
some of them to no run until another event occurs (https://github.com/apache/airflow/issues/56050). A run therefore
loads the objects that triggered it and all that were published in the ten minutes before and since. It may load an
object again, or in another order than the exports were created in: a full export may take hours. Neither changes the
table, because a load never overwrites the rows of a newer export.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Asset, get_current_context, task

from airflow_provider_chartmogul.transfers.object_storage_to_warehouse import ObjectStorageToWarehouseOperator

log = logging.getLogger(__name__)

ACTIVITIES = Asset("chartmogul://api.chartmogul.com/activities")

with DAG(
    dag_id="example_asset_load",
    description="Load each object of ChartMogul activities as soon as it is published.",
    schedule=[ACTIVITIES],
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    default_args={
        "owner": "data",
        "retries": 5,
        "retry_delay": timedelta(seconds=10),
        "retry_exponential_backoff": True,
    },
    tags=["chartmogul", "example", "activities", "load"],
    doc_md=__doc__,
) as dag:
    # The return value, which has all keys of each object, would be a very long line in the log.
    @task(inlets=[ACTIVITIES], show_return_value_in_logs=False)
    def published() -> list[dict[str, Any]]:
        """Return the metadata of the objects to load."""
        context: Any = get_current_context()
        # Airflow 2 calls assets datasets.
        by_asset = context.get("triggering_asset_events") or context.get("triggering_dataset_events") or {}
        triggering = [event.timestamp for events in by_asset.values() for event in events]
        # A run may have none of the events that triggered it.
        since = min(triggering, default=context["dag_run"].start_date) - timedelta(minutes=10)
        events = context["inlet_events"][ACTIVITIES]
        if hasattr(events, "after"):  # From Airflow 3.1 on. Older versions return all events of the asset.
            events = events.after(since)
        # The last event of an object describes its current content. Events created in the UI have no object.
        latest = {
            event.extra["uri"]: event.extra
            for event in sorted(events, key=lambda event: event.timestamp)
            if event.timestamp >= since and "uri" in event.extra
        }
        log.info("Published since %s: %s", since, ", ".join(latest) or "nothing")
        return list(latest.values())

    ObjectStorageToWarehouseOperator(
        task_id="load",
        source=published(),
        duckdb_path="{{ var.value.get('chartmogul_duckdb', '/tmp/chartmogul/activities.duckdb') }}",
        table="activities_of_events",
        # DuckDB allows a single writer. Other loads would wait for it on a worker.
        max_active_tis_per_dag=1,
    )
