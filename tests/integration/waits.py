# SPDX-License-Identifier: Apache-2.0
"""Sensors and an API's responses about one export: what tests of waits share."""

from __future__ import annotations

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
