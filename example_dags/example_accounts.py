# SPDX-License-Identifier: Apache-2.0
"""Each day's activities of several ChartMogul accounts, into one table with a column that tells them apart.

An account is a connection of type ``chartmogul``. Each is a mapped group of tasks of its own, so that one whose
key is wrong keeps none of the others from being loaded. It needs what ``example_duckdb`` needs.
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
    description="Each day's activities of several ChartMogul accounts, into one table.",
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    default_args={"owner": "data", "retries": 3, "retry_delay": timedelta(minutes=1)},
    tags=["chartmogul", "example"],
    doc_md=__doc__,
) as dag:

    @task(max_active_tis_per_dag=1)
    def load(database: str, exported: dict[str, Any]) -> dict[str, int]:
        """Replace the account's part of the window."""
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
