# SPDX-License-Identifier: Apache-2.0
"""Take a daily snapshot of the resources of a ChartMogul account: customers, plans, invoices and so on.

A snapshot is complete: it contains all rows, not only those that have changed since the last run. It cannot be
backfilled, because ChartMogul only returns the present. Not included are ``subscriptions``, which need a request for
each customer, ``metrics``, which have a window (``example_account`` has both), and activities (see ``example_daily``).

Set the Airflow variable ``chartmogul_destination`` as for ``example_activities_export``. Parquet needs
``pip install 'airflow-provider-chartmogul[parquet]'`` on the workers.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_chartmogul.transfers.chartmogul_to_object_storage import ChartMogulToObjectStorageOperator

RESOURCES = [
    "account",
    "data_sources",
    "customers",
    "contacts",
    "plans",
    "plan_groups",
    "plan_group_plans",
    "invoices",
    "subscription_events",
    "notes",
    "opportunities",
    "tasks",
]

with DAG(
    dag_id="example_resources",
    description="Take a daily snapshot of every resource of a ChartMogul account.",
    # A snapshot needs no data interval, so a preset is fine on every version of Airflow.
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={
        "owner": "data",
        "retries": 5,
        "retry_delay": timedelta(seconds=10),
        "retry_exponential_backoff": True,
    },
    tags=["chartmogul", "example", "resources"],
    doc_md=__doc__,
) as dag:
    ChartMogulToObjectStorageOperator.partial(
        task_id="snapshot",
        # Named after the time at which the walk started. A resource with several tables needs {table}.
        destination=(
            "{{ var.value.get('chartmogul_destination', 'file:///tmp/chartmogul') }}"
            "/snapshots/{extracted_at:%Y-%m-%d}/{table}.parquet"
        ),
        # Each task uses up to 10 of the account's 40 requests a second.
        max_active_tis_per_dagrun=4,
    ).expand(resource=RESOURCES)
