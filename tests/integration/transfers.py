# SPDX-License-Identifier: Apache-2.0
"""Create, serve and transfer an export: what tests of transfers share."""

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
from tests.integration.servers import RecordedRequest, Response, ScriptedServer, json_response
from tests.integration.task_runner import TaskRun, run_task

START, END = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 3, tzinfo=UTC)


def create_export(**parameters: Any) -> str:
    """Create an export at the connection's ChartMogul, of the window START to END; return its ID."""
    return ChartMogulHook().create_activities_export(**{"start_date": START, "end_date": END, **parameters}).id


def transfer(
    export_id: str, destination: str, *, try_number: int = 1, on_start: Any = None, **parameters: Any
) -> TaskRun:
    """Run the task that transfers a finished export."""
    task = ActivitiesExportToObjectStorageOperator(
        task_id="transfer", export_id=export_id, destination=destination, **parameters
    )
    return run_task(task, try_number=try_number, on_start=on_start)


def serve_export(
    respond: Callable[[RecordedRequest], Response], monkeypatch: pytest.MonkeyPatch, **export: Any
) -> ScriptedServer:
    """
    Return a server that is an API with one finished export, ``e-1``, and its download host; connect Airflow to it.

    :param respond: returns the download host's response to a request
    :param export: keys of the API's response about the export
    """

    def respond_to_all(request: RecordedRequest) -> Response:
        if not request.path.startswith("/v1/"):
            return respond(request)
        url = f"{server.url}/file.zip?X-Amz-Signature=verysecretsignature"
        return json_response({"id": "e-1", "status": "succeeded", "file_url": url, "params": {}, **export})

    server = ScriptedServer(respond_to_all)
    monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", server.connection_json(timeout=2, requests_per_second=100))
    return server


def csv_rows(archive: bytes) -> list[dict[str, str]]:
    """Return the rows of the only CSV in an archive."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        (name,) = opened.namelist()
        return list(csv.DictReader(io.StringIO(opened.read(name).decode(), newline="")))
