# SPDX-License-Identifier: Apache-2.0
"""Load the daily activities of several ChartMogul accounts into one table with a column for the account.

Each account is a connection of type ``chartmogul``. The tasks for one account are a mapped task group, so a wrong key
for one account does not keep the others from being loaded. Requirements: those of ``example_duckdb``.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG, task_group
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_chartmogul.transfers.activities_to_object_storage import ActivitiesToObjectStorageOperator
from airflow_provider_chartmogul.transfers.object_storage_to_warehouse import ObjectStorageToWarehouseOperator

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
    tags=["chartmogul", "example", "activities", "load"],
    doc_md=__doc__,
) as dag:

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
        ObjectStorageToWarehouseOperator(
            task_id="load",
            source=export.output["object"],
            duckdb_path="{{ var.value.get('chartmogul_duckdb', '/tmp/chartmogul/activities.duckdb') }}",
            table="activities_of_accounts",
            # A column with the account's connection. Each load only changes the rows of its own account.
            account_column="account",
            max_active_tis_per_dag=1,
            map_index_template="{{ task.source.chartmogul_conn_id }}",
        )

    account.expand(chartmogul_conn_id=ACCOUNTS)
