# SPDX-License-Identifier: Apache-2.0
"""Loads each object of ChartMogul activities as soon as there is one, whichever DAG has written it.

Airflow starts it by the asset that ``example_full_refresh``, ``example_daily`` and ``example_backfill`` write. Where
the object is, and for which window and type it stands, comes with the asset's events; one run may have several. It
needs what ``example_duckdb`` needs.

Of events that come shortly after one another, or while the DAG has as many runs as it may, Airflow gives some to no
run before there is another event (https://github.com/apache/airflow/issues/56050). And exports are not always done in
the order in which they were made: an export of everything may take hours, and would undo what a later one of a month
has brought. So a run loads what it was started for and all that was exported or has come since, in the order in which
ChartMogul made the exports. An object may then be loaded twice, which makes no difference.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Asset, get_current_context, task

ACTIVITIES = Asset("chartmogul://activities")


def exported_at(event: Any) -> datetime:
    """When ChartMogul made the export; of an object that was there already, when the event was."""
    told = event.extra.get("exported_at")
    return datetime.fromisoformat(told) if told else event.timestamp


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
        by_asset = context.get("triggering_asset_events") or context.get("triggering_dataset_events") or {}
        mine = [exported_at(event) for events in by_asset.values() for event in events]
        # A run may have been given none of those that started it.
        since = min(mine, default=context["dag_run"].start_date) - timedelta(minutes=10)
        events = context["inlet_events"][ACTIVITIES]
        if hasattr(events, "after"):  # Since Airflow 3.1; before, they are all of the asset's events.
            events = events.after(since)
        # The last event of an object is the one of what is in it now.
        latest = {
            event.extra["uri"]: event
            for event in sorted(events, key=lambda event: event.timestamp)
            if event.timestamp >= since and "uri" in event.extra  # One made on the Airflow page has none.
        }
        loaded, failed = [], []
        for uri, event in sorted(latest.items(), key=lambda item: (exported_at(item[1]), item[1].timestamp)):
            exported = event.extra
            try:
                counts = load_into_duckdb(
                    database,
                    uri,
                    "activities_of_events",
                    start=exported["interval_start"],
                    end=exported["interval_end"],
                    uuid_column="uuid",
                    # An export of one type stands for that type alone; one of all types, for the whole window.
                    part={"type": exported["activity_type"]},
                    # object_storage_conn_id="aws_default",
                )
            except Exception as error:
                # The others do not wait for this one.
                failed.append(f"{uri}: {error}")
            else:
                loaded.append({"uri": uri, **counts})
        if failed:
            raise RuntimeError("Not loaded: " + "; ".join(failed))
        return loaded

    load("{{ var.value.get('chartmogul_duckdb', '/tmp/chartmogul/activities.duckdb') }}")
