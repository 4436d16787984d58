# SPDX-License-Identifier: Apache-2.0
"""
A file URL that the storage refuses: a fresh one is requested, and what a second refusal means for the export.

``test_downloads.py`` tests how refusals are classified.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_chartmogul.api.exports import ActivitiesExport
from airflow_provider_chartmogul.exceptions import DownloadRefusedError, RecreateExportError
from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook
from airflow_provider_chartmogul.sandbox import Sandbox
from airflow_provider_chartmogul.transfers.activities_to_object_storage import ActivitiesToObjectStorageOperator
from tests.integration.servers import Response, ScriptedServer
from tests.integration.task_runner import FakeTaskStateStore, TaskRun, run_task
from tests.integration.transfers import END, START, create_export, csv_rows, serve_export, transfer
from tests.stores import Store


def error(status: int, code: str, message: str = "") -> Response:
    return Response(status, f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode())


def test_expired_url_is_renewed_once(sandbox: Sandbox, store: Store) -> None:
    sandbox.url_seconds = 0
    export_id = create_export()
    ChartMogulHook().get_activities_export(export_id)
    with pytest.raises(AirflowFailException, match=r"fresh one too.*clear the task that creates"):
        transfer(export_id, f"{store.base}/x.zip")
    polls = [request for request in sandbox.requests if request.method == "GET" and request.host == "api"]
    downloads = [request for request in sandbox.requests if request.host == "download"]
    assert (len(polls), len(downloads)) == (1 + 2, 2)
    assert store.list() == []


def test_fresh_url_is_downloaded(sandbox: Sandbox, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    get_activities_export = ChartMogulHook.get_activities_export
    exports: list[ActivitiesExport] = []

    def expired_the_first_time(hook: ChartMogulHook, export_id: str) -> ActivitiesExport:
        sandbox.url_seconds = 3600 if exports else 0
        exports.append(get_activities_export(hook, export_id))
        return exports[-1]

    export_id = create_export()
    monkeypatch.setattr(ChartMogulHook, "get_activities_export", expired_the_first_time)
    transfer(export_id, f"{store.base}/x.zip")
    assert csv_rows(store.read("x.zip")) == sandbox.expected_rows(START, END)


# What a refusal means for the export

TOMORROW = (datetime.now(UTC) + timedelta(days=1)).isoformat()
YESTERDAY = (datetime.now(UTC) - timedelta(days=1)).isoformat()
DAY = {"data_interval_start": datetime(2024, 1, 1, tzinfo=UTC), "data_interval_end": datetime(2024, 1, 2, tzinfo=UTC)}

both_modes = pytest.mark.parametrize("deferrable", [True, False], ids=["deferrable", "on the worker"])


def export_and_transfer(destination: str, store: FakeTaskStateStore, **parameters: Any) -> TaskRun:
    operator = ActivitiesToObjectStorageOperator(task_id="t", destination=destination, **parameters)
    return run_task(operator, **DAY, task_state_store=store)


def count_posts(server: ScriptedServer) -> int:
    return len([request for request in server.requests if request.method == "POST"])


def test_forbidden_download_of_a_valid_export_is_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A firewall or a policy is in the way, and a new export would not help."""
    denied = error(403, "AccessDenied", "Access Denied")
    with (
        serve_export(lambda request: denied, monkeypatch, expires_at=TOMORROW),
        pytest.raises(DownloadRefusedError, match="an endpoint or bucket policy") as raised,
    ):
        transfer("e-1", f"file://{tmp_path}/x.zip")
    assert not raised.value.permanent


@both_modes
def test_forbidden_download_creates_no_new_export_and_is_not_skipped(
    deferrable: bool, archive: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    responses = iter([*[error(403, "AccessDenied", "Access Denied")] * 2, Response(200, archive)])
    store = FakeTaskStateStore()
    with serve_export(lambda request: next(responses), monkeypatch, expires_at=TOMORROW) as server:
        destination = f"file://{tmp_path}/x.zip"
        with pytest.raises(DownloadRefusedError):
            export_and_transfer(destination, store, deferrable=deferrable, soft_fail=True)
        export_and_transfer(destination, store, deferrable=deferrable, soft_fail=True)
        assert count_posts(server) == 1
    assert (tmp_path / "x.zip").read_bytes() == archive


UNUSABLE = {
    "expired by its own time": (error(403, "AccessDenied", "Access Denied"), YESTERDAY, "has expired"),
    "expiry unknown": (error(403, "AccessDenied", "Access Denied"), None, "has expired"),
    "expired": (error(403, "AccessDenied", "Request has expired"), TOMORROW, "has expired"),
    "signer's token expired": (error(400, "ExpiredToken"), TOMORROW, "has expired"),
    "missing": (error(404, "NoSuchKey"), TOMORROW, "the file of export e-1 is missing"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_unusable_export_fails_the_transfer(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    response, expires_at, message = UNUSABLE[case]
    with (
        serve_export(lambda request: response, monkeypatch, expires_at=expires_at),
        pytest.raises(AirflowFailException, match=f"{message}.*clear the task that creates the export"),
    ):
        transfer("e-1", f"file://{tmp_path}/x.zip")


@both_modes
@pytest.mark.parametrize("case", UNUSABLE)
def test_unusable_export_is_created_again_by_a_retry(
    case: str, deferrable: bool, archive: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    response, expires_at, message = UNUSABLE[case]
    responses = iter([response, response, Response(200, archive)])
    store = FakeTaskStateStore()
    with serve_export(lambda request: next(responses), monkeypatch, expires_at=expires_at) as server:
        destination = f"file://{tmp_path}/x.zip"
        with pytest.raises(RecreateExportError, match=message):
            export_and_transfer(destination, store, deferrable=deferrable)
        export_and_transfer(destination, store, deferrable=deferrable)
        assert count_posts(server) == 2
    assert (tmp_path / "x.zip").read_bytes() == archive
