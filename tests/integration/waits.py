# SPDX-License-Identifier: Apache-2.0
"""Sensors and an API's responses about one export, and waiting for a condition: what tests of waits share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from airflow_provider_chartmogul.sensors.activities_export import ActivitiesExportSensor
from tests.integration.servers import Response, json_response

MODES: dict[str, dict[str, Any]] = {
    "deferrable": {"deferrable": True},
    "poke": {"deferrable": False, "mode": "poke"},
    "reschedule": {"deferrable": False, "mode": "reschedule"},
}

EXPORT_ID = "17042239-3674-4a61-b838-b6b307f28506"


def export(status: str) -> Response:
    return json_response({"id": EXPORT_ID, "status": status, "file_url": None, "params": {}})


PENDING, SUCCEEDED = export("pending"), export("succeeded")


def api_error(status: int, body: bytes = b'{"message": "the server\'s message"}', **headers: str) -> Response:
    return Response(status, body, headers)


def new_sensor(**parameters: Any) -> ActivitiesExportSensor:
    return ActivitiesExportSensor(**{"task_id": "wait", "export_id": EXPORT_ID, "poke_interval": 0.2, **parameters})


async def async_wait_until(condition: Callable[[], Any]) -> None:
    """Wait until a condition is true; pytest's timeout ends a test for which it never is."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.02)
