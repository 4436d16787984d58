# SPDX-License-Identifier: Apache-2.0
"""An export, made, served and moved: what tests of the transfer have in common."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook
from airflow_provider_chartmogul.transfers.activities_export_to_object_storage import (
    ActivitiesExportToObjectStorageOperator,
)
from tests.integration.running import Ran, run_task
from tests.integration.servers import Answer, Asked, ScriptedServer, json_answer

START, END = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 3, tzinfo=UTC)


def make_export(**asked: Any) -> str:
    return ChartMogulHook().create_activities_export(**{"start_date": START, "end_date": END, **asked}).id


def move(export_id: str, destination: str, **told: Any) -> Ran:
    return run_task(
        ActivitiesExportToObjectStorageOperator(task_id="move", export_id=export_id, destination=destination, **told)
    )


def serve(content: Callable[[Asked], Answer], monkeypatch: pytest.MonkeyPatch, **export: Any) -> ScriptedServer:
    """An API with one finished export, whose download host says what the test wants."""

    def answer(asked: Asked) -> Answer:
        if not asked.path.startswith("/v1/"):
            return content(asked)
        url = f"{server.url}/file.zip?X-Amz-Signature=verysecretsignature"
        return json_answer({"id": "e-1", "status": "succeeded", "file_url": url, "params": {}, **export})

    server = ScriptedServer(answer)
    monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", server.connection_json(timeout=2, requests_per_second=100))
    return server


def rows_in(archive: bytes) -> list[dict[str, str]]:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        (name,) = opened.namelist()
        return list(csv.DictReader(io.StringIO(opened.read(name).decode(), newline="")))
