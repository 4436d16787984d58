# SPDX-License-Identifier: Apache-2.0
"""Waits that end badly, in each of the three modes, with and without ``soft_fail``; the exports come as parameters."""

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_chartmogul.sensors.activities_export import ActivitiesExportSensor

MODES = {
    "deferrable": {"poke_interval": 2},
    "poke": {"deferrable": False, "mode": "poke", "poke_interval": 2},
    # Seldom: a scheduler that is busy takes a task which is back within seconds for one that was ended from outside,
    # and fails the try (apache/airflow#72716).
    "reschedule": {"deferrable": False, "mode": "reschedule", "poke_interval": 15},
}
#: Seconds that a wait may take. Back from the triggerer, a task can be back too soon in the same way.
LIMITS = {"deferrable": 20, "poke": 6, "reschedule": 6}


def endings(limit: int) -> dict[str, dict[str, Any]]:
    return {
        "failed": {"export_id": "{{ params.failed }}"},
        "late": {"export_id": "{{ params.never }}", "timeout": limit},
        "unknown": {"export_id": "no-such-export"},
        "overtime": {"export_id": "{{ params.never }}", "execution_timeout": timedelta(seconds=limit)},
    }


with DAG(
    "endings",
    schedule=None,
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    params={"failed": "", "never": ""},
    # What a retry cannot help is not retried.
    default_args={"retries": 2, "retry_delay": timedelta(seconds=1)},
):
    for mode_name, mode in MODES.items():
        for ending_name, ending in endings(LIMITS[mode_name]).items():
            if (mode_name, ending_name) == ("reschedule", "overtime"):
                continue  # Airflow's own rule: it limits each look, and none takes that long.
            for soft_fail in (False, True):
                ActivitiesExportSensor(
                    task_id=f"{ending_name}_{mode_name}{'_soft' if soft_fail else ''}",
                    soft_fail=soft_fail,
                    **mode,
                    **ending,
                )
