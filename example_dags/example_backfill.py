# SPDX-License-Identifier: Apache-2.0
"""Any range of dates, cut into windows, a few exports at a time: for the first load, and for corrections.

Trigger it on the Airflow page and fill in the form. Each window, and each type where some are chosen, is a mapped
task of its own, which is named by what it exports; one that fails is cleared by itself. The asset tells
``example_asset_load`` of each object.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG, Asset, Param, get_current_context, task

from airflow_provider_chartmogul.intervals import split_interval
from airflow_provider_chartmogul.transfers.activities_to_object_storage import ActivitiesToObjectStorageOperator

with DAG(
    dag_id="example_backfill",
    description="ChartMogul activities of any range of dates, by windows.",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    # Two ranges at a time could be one too many for the account, and write the same objects.
    max_active_runs=1,
    default_args={"owner": "data", "retries": 3, "retry_delay": timedelta(minutes=1)},
    params={
        "start": Param("2026-01-01", type="string", format="date", title="First day"),
        "end": Param(
            "2026-04-01",
            type="string",
            format="date",
            title="The day after the last",
            description="Days begin at midnight UTC; this one is not exported any more.",
        ),
        "every": Param("month", enum=["day", "week", "month", "quarter", "year"], title="A window for every"),
        "activity_types": Param(
            None,
            type=["null", "array"],
            examples=["new_biz", "reactivation", "expansion", "contraction", "churn"],
            title="Activity types",
            description="A window is exported once for each of them; with none, once with all types.",
        ),
        "if_exists": Param(
            "overwrite",
            enum=["overwrite", "reuse", "skip"],
            title="Objects that are there already",
            description="'reuse' goes on with a range left half done; 'skip' too, but tells nobody of what is there.",
        ),
    },
    tags=["chartmogul", "example"],
    doc_md=__doc__,
) as dag:

    @task
    def windows() -> list[dict[str, str]]:
        """Cut the range: a window, with a type where some are chosen, for each mapped task."""
        params = get_current_context()["params"]
        return split_interval(
            params["start"], params["end"], params["every"], activity_types=params["activity_types"] or None
        )

    ActivitiesToObjectStorageOperator.partial(
        task_id="export",
        destination=(
            "{{ var.value.get('chartmogul_destination', 'file:///tmp/chartmogul') }}"
            "/backfill/{activity_type}/{interval_start:%Y-%m-%d}_{interval_end:%Y-%m-%d}.csv.gz"
        ),
        if_exists="{{ params.if_exists }}",
        # Counts tasks that wait in the triggerer too: this many exports are under way at ChartMogul.
        max_active_tis_per_dagrun=4,
        map_index_template=(
            "{{ task.interval_start[:10] }} to {{ task.interval_end[:10] }} {{ task.activity_type or '' }}"
        ),
        outlets=[Asset("chartmogul://activities")],
    ).expand_kwargs(windows())
