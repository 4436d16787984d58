# SPDX-License-Identifier: Apache-2.0
"""Loads each object of ChartMogul activities as soon as there is one, whichever DAG has written it.

Airflow starts it by the asset that ``example_full_refresh``, ``example_daily`` and ``example_backfill`` write. Where
the object is, and for which window and type it stands, comes with the asset's events; one run may have several. It
needs what ``example_duckdb`` needs.

Of events that come shortly after one another, or while the DAG has as many runs as it may, Airflow gives some to no
run before there is another event (https://github.com/apache/airflow/issues/56050). So a run loads what it was started
for and all that has come since. An object may then be loaded twice, which replaces its window with the same rows.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, AirflowSkipException, Asset, get_current_context, task

ACTIVITIES = Asset("chartmogul://activities")

with DAG(
    dag_id="example_asset_load",
    description="Loads each object of ChartMogul activities as soon as there is one.",
    schedule=[ACTIVITIES],
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    default_args={"owner": "data", "retries": 3, "retry_delay": timedelta(minutes=1)},
    tags=["chartmogul", "example"],
    doc_md=__doc__,
) as dag:
    # One after another, of all runs: DuckDB lets one process write at a time.
    @task(inlets=[ACTIVITIES], max_active_tis_per_dag=1)
    def load(database: str) -> list[dict[str, Any]]:
        """Replace the window of each object in the table; gives the counts of each."""
        from warehouse_loads import load_into_duckdb

        context: Any = get_current_context()
        # Airflow 2 calls assets datasets.
        by_asset = context.get("triggering_asset_events") or context.get("triggering_dataset_events")
        first = min((event.timestamp for events in by_asset.values() for event in events), default=None)
        if first is None:
            raise AirflowSkipException("no event has started this run: to load an object again, clear the run that did")
        since = context["inlet_events"][ACTIVITIES]
        if hasattr(since, "after"):  # Since Airflow 3.1; before, they are all of the asset's events.
            since = since.after(first)
        loaded = []
        # The latest of a window comes last, and counts.
        for event in sorted((event for event in since if event.timestamp >= first), key=lambda event: event.timestamp):
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
