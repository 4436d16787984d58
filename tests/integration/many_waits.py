# SPDX-License-Identifier: Apache-2.0
"""Many waits in one event loop: what tests of them share."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

from airflow_provider_chartmogul.sandbox import Sandbox
from airflow_provider_chartmogul.sandbox.exports import ExportParameters
from airflow_provider_chartmogul.triggers.activities_export import ActivitiesExportTrigger

CONNECTION_VARIABLE = "AIRFLOW_CONN_CHARTMOGUL_DEFAULT"


def connection_json(sandbox: Sandbox, **extra: Any) -> str:
    """Return an Airflow connection to a sandbox, with limits of its own."""
    return json.dumps({**json.loads(sandbox.connection_json), "extra": extra})


def create_exports(sandbox: Sandbox, number: int) -> list[str]:
    return [sandbox.create_export(ExportParameters(None, None, None)).id for _ in range(number)]


async def wait_for(export_id: str, **parameters: Any) -> Any:
    """Run one trigger, restored from its serialised form; return its event's payload."""
    _, arguments = ActivitiesExportTrigger("chartmogul_default", export_id, **parameters).serialize()
    async for event in ActivitiesExportTrigger(**json.loads(json.dumps(arguments))).run():
        return event.payload
    raise AssertionError("the trigger ended without an event")


async def wait_for_all(export_ids: list[str], **parameters: Any) -> Counter[str]:
    """Run all waits as tasks of this event loop; return how many ended with each status."""
    payloads = await asyncio.gather(*(wait_for(export_id, **parameters) for export_id in export_ids))
    return Counter(payload["status"] for payload in payloads)
