# SPDX-License-Identifier: Apache-2.0
"""Loads each object of ChartMogul activities as soon as there is one, whichever DAG has written it.

Airflow starts it by the asset that ``example_full_refresh``, ``example_daily`` and ``example_backfill`` write. Where
the object is, and for which window and type it stands, comes with the asset's events; one run may have several.
It needs what ``example_duckdb`` needs.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Asset, get_current_context, task

with DAG(
    dag_id="example_asset_load",
    description="Loads each object of ChartMogul activities as soon as there is one.",
    schedule=[Asset("chartmogul://activities")],
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    # One after another: DuckDB lets one process write at a time, and of two loads of one window the later one counts.
    max_active_runs=1,
    default_args={"owner": "data", "retries": 3, "retry_delay": timedelta(minutes=1)},
    tags=["chartmogul", "example"],
    doc_md=__doc__,
) as dag:

    @task
    def load(database: str) -> list[dict[str, Any]]:
        """Replace the window of each object in the table; gives the counts of each."""
        from warehouse_loads import load_into_duckdb

        context: Any = get_current_context()
        # Airflow 2 calls assets datasets.
        by_asset = context.get("triggering_asset_events") or context.get("triggering_dataset_events")
        events = sorted((event for events in by_asset.values() for event in events), key=lambda event: event.timestamp)
        loaded = []
        for event in events:
            exported = event.extra
            counts = load_into_duckdb(
                database,
                exported["uri"],
                "activities_of_events",
                start=exported["interval_start"],
                end=exported["interval_end"],
                # An export of one type stands for that type alone; one of all types, for the whole window.
                part={"type": exported["activity_type"]},
            )
            loaded.append({"uri": exported["uri"], **counts})
        return loaded

    load("{{ var.value.get('chartmogul_duckdb', '/tmp/chartmogul/activities.duckdb') }}")
