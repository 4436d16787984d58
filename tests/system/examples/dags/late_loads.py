# SPDX-License-Identifier: Apache-2.0
"""Loads objects into DuckDB and PostgreSQL in the order in which the run's configuration lists them."""

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, get_current_context, task

from airflow_provider_chartmogul.transfers.object_storage_to_warehouse import ObjectStorageToWarehouseOperator

TABLE = "activities_in_random_order"

with DAG(
    "late_loads",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    default_args={"retries": 3, "retry_delay": timedelta(seconds=5)},
):

    @task
    def objects(name: str) -> list[dict[str, Any]]:
        """Return the metadata of the objects for a warehouse."""
        return list(get_current_context()["dag_run"].conf[name])

    # Each load is a task of its own. A few run at a time, in the order of their map indexes as far as Airflow keeps it.
    ObjectStorageToWarehouseOperator.partial(
        task_id="load_duckdb",
        duckdb_path="{{ var.value.chartmogul_duckdb }}",
        table=TABLE,
        max_active_tis_per_dagrun=2,
    ).expand(source=objects.override(task_id="duckdb_objects")("example_duckdb"))

    ObjectStorageToWarehouseOperator.partial(
        task_id="load_postgres",
        warehouse_conn_id="postgres_default",
        schema="chartmogul",
        table=TABLE,
        max_active_tis_per_dagrun=2,
    ).expand(source=objects.override(task_id="postgres_objects")("example_postgres"))
