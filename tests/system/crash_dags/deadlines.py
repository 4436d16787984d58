# SPDX-License-Identifier: Apache-2.0
"""Two waits for an export that never finishes. They have retries, which a timeout must not use."""

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_chartmogul.sensors.activities_export import ActivitiesExportSensor

with DAG("deadlines", schedule=None, start_date=datetime(2024, 1, 1, tzinfo=UTC), params={"hard": "", "soft": ""}):
    for soft_fail in (False, True):
        name = "soft" if soft_fail else "hard"
        ActivitiesExportSensor(
            task_id=name,
            export_id="{{ params." + name + " }}",
            poke_interval=2,
            timeout=40,
            soft_fail=soft_fail,
            retries=2,
            retry_delay=timedelta(seconds=1),
            priority_weight=1000,
        )
