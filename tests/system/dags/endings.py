# SPDX-License-Identifier: Apache-2.0
"""Waits that fail or are skipped, in each mode, with and without ``soft_fail``. The exports are parameters."""

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_chartmogul.sensors.activities_export import ActivitiesExportSensor

MODES = {
    "deferrable": {"poke_interval": 2},
    "poke": {"deferrable": False, "mode": "poke", "poke_interval": 2},
    # Polls are rare, because a busy scheduler takes a task that runs again within seconds for one that was stopped from
    # outside, and fails the try (apache/airflow#72716).
    "reschedule": {"deferrable": False, "mode": "reschedule", "poke_interval": 15},
}
#: Timeouts in seconds. That of deferrable waits is longer, since they are affected by the same problem.
TIMEOUTS = {"deferrable": 20, "poke": 6, "reschedule": 6}


def endings(timeout: int) -> dict[str, dict[str, Any]]:
    return {
        "failed": {"export_id": "{{ params.failed }}"},
        "late": {"export_id": "{{ params.never }}", "timeout": timeout},
        "unknown": {"export_id": "no-such-export"},
        "overtime": {"export_id": "{{ params.never }}", "execution_timeout": timedelta(seconds=timeout)},
    }


with DAG(
    "endings",
    schedule=None,
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    params={"failed": "", "never": ""},
    # Failures that a retry cannot fix are not retried.
    default_args={"retries": 2, "retry_delay": timedelta(seconds=1)},
):
    for mode_name, mode in MODES.items():
        for ending_name, ending in endings(TIMEOUTS[mode_name]).items():
            if (mode_name, ending_name) == ("reschedule", "overtime"):
                continue  # Airflow limits each poll, and none takes that long.
            for soft_fail in (False, True):
                ActivitiesExportSensor(
                    task_id=f"{ending_name}_{mode_name}{'_soft' if soft_fail else ''}",
                    soft_fail=soft_fail,
                    **mode,
                    **ending,
                )
