# SPDX-License-Identifier: Apache-2.0
"""
A DAG without partitions, one of whose tasks gives its asset events partition keys, and a DAG for each asset.

Events with a key start ``emitted_days``, which is partitioned. Events without a key start ``emitted_objects``.
"""

from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset, CronDataIntervalTimetable, PartitionedAssetTimetable, StartOfDayMapper

from airflow_provider_chartmogul.transfers.activities_to_object_storage import ActivitiesToObjectStorageOperator

DAYS = Asset("chartmogul://api.chartmogul.com/emitted_days")
OBJECTS = Asset("chartmogul://api.chartmogul.com/emitted_objects")

with DAG(
    "emitted_partitions",
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="Europe/Berlin"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    default_args={"retries": 3, "retry_delay": timedelta(seconds=5)},
):
    for task_id, asset in (("with_key", DAYS), ("without_key", OBJECTS)):
        ActivitiesToObjectStorageOperator(
            task_id=task_id,
            destination=f"{{{{ var.value.chartmogul_destination }}}}/emitted/{task_id}/{{interval_start}}.csv.gz",
            outlets=[asset],
            emit_partitions=task_id == "with_key",
        )

with DAG(
    "emitted_days",
    schedule=PartitionedAssetTimetable(
        assets=DAYS, default_partition_mapper=StartOfDayMapper(timezone="Europe/Berlin")
    ),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
):
    EmptyOperator(task_id="end")

with DAG("emitted_objects", schedule=[OBJECTS], start_date=datetime(2026, 1, 1, tzinfo=UTC)):
    EmptyOperator(task_id="end")
