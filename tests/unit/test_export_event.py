# SPDX-License-Identifier: Apache-2.0
"""The trigger's event: what the task reads is what the trigger wrote, and each status raises its own error."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowTaskTimeout

from airflow_provider_chartmogul.exceptions import (
    AuthenticationError,
    ChartMogulError,
    ConnectionLookupError,
    ConnectionSettingsError,
    ExportExpiredError,
    ExportFailedError,
    ExportTimeoutError,
    NotFoundError,
    OutageError,
    ServerError,
    UnusableExportError,
)
from airflow_provider_chartmogul.triggers.events import ExportEvent, Status
from tests.unit.values import EXPORT_ID

STATUSES = get_args(Status)


@pytest.mark.parametrize("status", STATUSES)
def test_event_survives_its_serialization(status: Status) -> None:
    event = ExportEvent(EXPORT_ID, status, "what went wrong")
    payload = json.loads(json.dumps(event.serialize()))
    assert payload == {"export_id": EXPORT_ID, "status": status, "message": "what went wrong"}
    assert ExportEvent.deserialize(payload, EXPORT_ID) == event


@pytest.mark.parametrize(
    "payload",
    [
        None,
        "success",
        [],
        {},
        {"status": "success"},
        {"export_id": EXPORT_ID},
        {"export_id": "another", "status": "success"},
        {"export_id": EXPORT_ID, "status": "done"},
        {"export_id": EXPORT_ID, "status": ["success"]},
        {"export_id": EXPORT_ID, "status": "success", "skipped": True},
    ],
    ids=str,
)
def test_foreign_payload_is_an_error(payload: Any) -> None:
    """The event of another wait, of a trigger of another version, or of none."""
    with pytest.raises(ChartMogulError, match=f"^the wait for export {EXPORT_ID} ended with an unexpected event: "):
        ExportEvent.deserialize(payload, EXPORT_ID)


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ExportFailedError("export e has failed"), "unusable", "export e has failed"),
        (ExportExpiredError("export e has expired"), "unusable", "export e has expired"),
        (NotFoundError(404, "no such export"), "unusable", "404: no such export"),
        (AuthenticationError(401, "wrong key"), "failed", "401: wrong key"),
        (ConnectionSettingsError("no API key"), "failed", "no API key"),
        (OutageError("no response for an hour"), "error", "no response for an hour"),
        (ServerError(500, "sorry"), "error", "500: sorry"),
        (ConnectionLookupError("no connection", transient=False), "error", "no connection"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_error_decides_the_status(error: ChartMogulError, status: str, message: str) -> None:
    event = ExportEvent.from_error(EXPORT_ID, error)
    assert (event.export_id, event.status) == (EXPORT_ID, status)
    assert message in event.message
    # The task that reads the event says what to clear; it may be able to create a new export itself.
    assert "clear the task" not in event.message


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("timeout", ExportTimeoutError),
        ("execution_timeout", AirflowTaskTimeout),
        ("unusable", UnusableExportError),
        ("failed", AirflowFailException),
        ("error", ChartMogulError),
    ],
)
def test_status_raises_its_error(status: Status, error: type[BaseException]) -> None:
    with pytest.raises(error, match="what went wrong") as raised:
        ExportEvent(EXPORT_ID, status, "what went wrong").raise_for_status()
    assert type(raised.value) is error


def test_success_raises_nothing() -> None:
    ExportEvent(EXPORT_ID, "success").raise_for_status()
