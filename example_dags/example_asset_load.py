# SPDX-License-Identifier: Apache-2.0
"""Load each object of ChartMogul activities as soon as a DAG has published it.

The asset that ``example_full_refresh``, ``example_daily`` and ``example_backfill`` update triggers this DAG. The asset
events contain the object's location, window and activity type; a run may have several events. Requirements: those of
``example_duckdb``.

When several events occur in quick succession, or while the DAG already has ``max_active_runs`` runs, Airflow assigns
some of them to no run until another event occurs (https://github.com/apache/airflow/issues/56050). Also, exports do not
always finish in the order in which they were created: a full export may take hours, and loading it last would undo a
later export of one month. A run therefore loads the objects that triggered it and all that were exported or published
since, in the order in which ChartMogul created the exports. It may load an object again; loads are idempotent.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Asset, get_current_context, task

ACTIVITIES = Asset("chartmogul://api.chartmogul.com/activities")


def exported_at(event: Any) -> datetime:
    """Return when ChartMogul created the export, or the time of the event for an object that existed already."""
    exported = event.extra.get("exported_at")
    return datetime.fromisoformat(exported) if exported else event.timestamp


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
    tags=["chartmogul", "example"],
    doc_md=__doc__,
) as dag:
    # One at a time across all runs, because DuckDB allows a single writer.
    @task(inlets=[ACTIVITIES], max_active_tis_per_dag=1)
    def load(database: str) -> list[dict[str, Any]]:
        """Replace the window of each object in the table, and return the row counts of each load."""
        from warehouse_loads import load_into_duckdb

        context: Any = get_current_context()
        # Airflow 2 calls assets datasets.
        by_asset = context.get("triggering_asset_events") or context.get("triggering_dataset_events") or {}
        own = [exported_at(event) for events in by_asset.values() for event in events]
        # A run may have none of the events that triggered it.
        since = min(own, default=context["dag_run"].start_date) - timedelta(minutes=10)
        events = context["inlet_events"][ACTIVITIES]
        if hasattr(events, "after"):  # From Airflow 3.1 on. Older versions return all events of the asset.
            events = events.after(since)
        # The last event of an object describes its current content.
        latest = {
            event.extra["uri"]: event
            for event in sorted(events, key=lambda event: event.timestamp)
            if event.timestamp >= since and "uri" in event.extra  # Events created in the UI have none.
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
                    # An export of one type replaces only the rows of that type; None replaces the whole window.
                    part={"type": exported["activity_type"]},
                    # object_storage_conn_id="aws_default",
                )
            except Exception as error:
                # Load the other objects all the same.
                failed.append(f"{uri}: {error}")
            else:
                loaded.append({"uri": uri, **counts})
        if failed:
            raise RuntimeError("Not loaded: " + "; ".join(failed))
        return loaded

    load("{{ var.value.get('chartmogul_duckdb', '/tmp/chartmogul/activities.duckdb') }}")
