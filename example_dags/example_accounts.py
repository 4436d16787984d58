# SPDX-License-Identifier: Apache-2.0
"""Load the daily activities of several ChartMogul accounts into one table with a column for the account.

Each account is a connection of type ``chartmogul``. The tasks for one account are a mapped task group, so a wrong key
for one account does not keep the others from being loaded. Requirements: those of ``example_duckdb``.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task, task_group
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_chartmogul.transfers.activities_to_object_storage import ActivitiesToObjectStorageOperator

ACCOUNTS = ["chartmogul_europe", "chartmogul_america"]

with DAG(
    dag_id="example_accounts",
    description="Load the daily activities of several ChartMogul accounts into one table.",
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
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

    @task(max_active_tis_per_dag=1)
    def load(database: str, exported: dict[str, Any]) -> dict[str, int]:
        """Replace the account's rows in the window."""
        from warehouse_loads import load_into_duckdb

        return load_into_duckdb(
            database,
            exported["uri"],
            "activities_of_accounts",
            start=exported["interval_start"],
            end=exported["interval_end"],
            uuid_column="uuid",
            part={"account": exported["chartmogul_conn_id"]},
            # object_storage_conn_id="aws_default",
        )

    @task_group
    def account(chartmogul_conn_id: str) -> None:
        """Export and load one account."""
        export = ActivitiesToObjectStorageOperator(
            task_id="export",
            chartmogul_conn_id=chartmogul_conn_id,
            lookback=timedelta(days=7),
            destination=(
                "{{ var.value.get('chartmogul_destination', 'file:///tmp/chartmogul') }}"
                "/accounts/{chartmogul_conn_id}/{interval_start:%Y-%m-%d}_{interval_end:%Y-%m-%d}.csv.gz"
            ),
            map_index_template="{{ task.chartmogul_conn_id }}",
        )
        load("{{ var.value.get('chartmogul_duckdb', '/tmp/chartmogul/activities.duckdb') }}", export.output["object"])

    account.expand(chartmogul_conn_id=ACCOUNTS)
