# SPDX-License-Identifier: Apache-2.0
"""Export any date range, split into windows, a few at a time: for the initial load and for corrections.

Trigger it in the Airflow UI and fill in the form. Each window, or each combination of a window and a selected type, is
a mapped task named after what it exports. Clear a failed one on its own. The asset triggers ``example_asset_load`` for
each object; ``example_mapped_load`` loads in the same DAG.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG, Asset, Param, get_current_context, task

from airflow_provider_chartmogul.intervals import split_interval
from airflow_provider_chartmogul.transfers.activities_to_object_storage import ActivitiesToObjectStorageOperator

with DAG(
    dag_id="example_backfill",
    description="Export ChartMogul activities of any date range, split into windows.",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    # Two concurrent ranges might exceed the account's limits and write the same objects.
    max_active_runs=1,
    default_args={
        "owner": "data",
        "retries": 5,
        "retry_delay": timedelta(seconds=10),
        "retry_exponential_backoff": True,
    },
    params={
        "start": Param(
            "2026-01-01",
            type="string",
            format="date",
            title="First day",
            description="Days start at midnight UTC.",
        ),
        "end": Param(
            "2026-04-01",
            type="string",
            format="date",
            title="End",
            description="The day after the last one. This day is not exported.",
        ),
        "every": Param(
            "month",
            enum=["day", "week", "month", "quarter", "year"],
            title="Window",
            description="The range is split at the calendar's borders, into an export and an object each.",
        ),
        "activity_types": Param(
            None,
            type=["null", "array"],
            examples=["new_biz", "reactivation", "expansion", "contraction", "churn"],
            title="Activity types",
            description="Each window is exported once for each selected type. Select none for one export of all types.",
        ),
        "if_exists": Param(
            "overwrite",
            enum=["overwrite", "reuse", "skip"],
            title="If the object exists",
            description="'overwrite' exports again, 'reuse' and 'skip' do not. 'skip' emits no event for the object.",
        ),
    },
    tags=["chartmogul", "example", "activities", "backfill"],
    doc_md=__doc__,
) as dag:

    @task
    def windows() -> list[dict[str, str]]:
        """Split the range into windows, with one activity type each if any are selected."""
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
        # Includes deferred tasks, so this limits the exports in progress at ChartMogul.
        max_active_tis_per_dagrun=4,
        map_index_template=(
            "{{ task.interval_start[:10] }} to {{ task.interval_end[:10] }}"
            "{{ ' ' ~ task.activity_type if task.activity_type else '' }}"
        ),
        outlets=[Asset("chartmogul://api.chartmogul.com/activities")],
    ).expand_kwargs(windows())
