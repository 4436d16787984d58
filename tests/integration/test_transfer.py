# SPDX-License-Identifier: Apache-2.0
"""
The transfer of a finished export: interrupted downloads, exports that cannot be transferred, invalid settings.

``tests/storage_cases.py`` has what is published in each store, ``test_downloads.py`` what the storage's responses mean.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_chartmogul.exceptions import DownloadError, ExportNotReadyError, UnexpectedResponseError
from airflow_provider_chartmogul.sandbox import Sandbox
from airflow_provider_chartmogul.storage import download
from airflow_provider_chartmogul.transfers.activities_export_to_object_storage import (
    ActivitiesExportToObjectStorageOperator,
)
from tests.integration.servers import RecordedRequest, Response, ScriptedServer
from tests.integration.task_runner import TaskRun, render, run_task
from tests.integration.transfers import create_export, serve_export, transfer
from tests.stores import Store


@pytest.mark.usefixtures("short_backoff")
class TestInterruptedDownload:
    def test_download_resumes_with_a_range_request(
        self, archive: bytes, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        etag = f'"{hashlib.md5(archive).hexdigest()}"'

        def serve_in_pieces(request: RecordedRequest) -> Response:
            requested_range = request.headers.get("range")
            if requested_range is None:
                return Response(200, archive, {"ETag": etag}, truncate_at=1000)
            assert request.headers["if-match"] == etag
            start = int(requested_range.removeprefix("bytes=").removesuffix("-"))
            headers = {"ETag": etag, "Content-Range": f"bytes {start}-{len(archive) - 1}/{len(archive)}"}
            return Response(206, archive[start:], headers, truncate_at=5000)

        with serve_export(serve_in_pieces, monkeypatch) as server:
            transfer("e-1", f"{store.base}/x.zip")
        assert store.read("x.zip") == archive
        assert len([request for request in server.requests if "range" in request.headers]) >= 2
        assert {request.method for request in server.requests} == {"GET"}, "the URL is signed for GET"

    def test_bytes_received_before_an_interruption_are_kept(
        self, archive: bytes, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        etag = f'"{hashlib.md5(archive).hexdigest()}"'

        def serve_700_bytes(request: RecordedRequest) -> Response:
            start = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
            headers = {"ETag": etag, "Content-Range": f"bytes {start}-{len(archive) - 1}/{len(archive)}"}
            return Response(206 if start else 200, archive[start:], headers, truncate_at=700)

        with serve_export(serve_700_bytes, monkeypatch) as server:
            transfer("e-1", f"{store.base}/x.zip")
        assert store.read("x.zip") == archive
        ranges = [request.headers["range"] for request in server.requests if "range" in request.headers]
        assert ranges == [f"bytes={start}-" for start in range(700, len(archive), 700)]

    def test_download_that_always_starts_over_fails(
        self, archive: bytes, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sizes = itertools.cycle([300, 600])
        with (
            serve_export(lambda request: Response(200, archive, truncate_at=next(sizes)), monkeypatch) as server,
            pytest.raises(DownloadError, match="interrupted"),
        ):
            transfer("e-1", f"{store.base}/x.zip")
        assert len(server.requests) < 15
        assert store.list() == []

    def test_download_starts_over_without_ranges_or_with_another_etag(
        self, archive: bytes, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        responses = iter(
            [
                Response(200, archive, {"ETag": '"one"'}, truncate_at=1000),
                Response(412, b"<Error><Code>PreconditionFailed</Code></Error>"),
                Response(200, archive, {"ETag": '"two"'}, truncate_at=2000),
                Response(200, archive, {"ETag": '"two"'}),
            ]
        )
        with serve_export(lambda request: next(responses), monkeypatch):
            transfer("e-1", f"{store.base}/x.zip")
        assert store.read("x.zip") == archive


def test_progress_is_logged_at_most_every_ten_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    seconds = itertools.count()
    # A clock that advances by a second each time it is read.
    monkeypatch.setattr(download, "time", SimpleNamespace(monotonic=lambda: float(next(seconds)), sleep=time.sleep))
    content = os.urandom(20 << 20)
    with ScriptedServer(Response(200, content)) as server:
        download.download(
            lambda: f"{server.url}/file.zip",
            tmp_path / "archive.zip",
            timeout=30,
            plain_http_allowed=True,
            log=logging.getLogger(__name__),
        )
    lines = [record.getMessage() for record in caplog.records if record.name == __name__]
    assert len(lines) == (next(seconds) - 1) // int(download.PROGRESS_SECONDS) >= 3
    matches = [match for line in lines if (match := re.fullmatch(r"Downloaded ([\d.]+) MB \((\d+) %\), .* MB/s", line))]
    assert len(matches) == len(lines), lines
    sizes = [float(match[1]) for match in matches]
    assert sizes == sorted(set(sizes))
    assert all(abs(float(match[2]) - 100 * float(match[1]) * 1e6 / len(content)) < 1.1 for match in matches)


def test_log_names_window_and_object_before_the_download(
    sandbox: Sandbox, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The rendered templates show only placeholders."""
    caplog.set_level(logging.INFO)
    export_id = create_export(activity_type="churn")
    transfer(export_id, f"file://{tmp_path}/{{interval_start:%Y-%m-%d}}.zip")
    log = capfd.readouterr().out + caplog.text
    window = "from 2024-01-01T00:00:00+00:00 to 2024-01-03T00:00:00+00:00"
    before_the_download = log.partition("Downloaded export")[0]
    assert (
        f"Transferring export {export_id} (churn activities {window}) to file://{tmp_path}/2024-01-01.zip"
        in before_the_download
    )


@pytest.mark.parametrize(
    ("export", "error", "message"),
    [
        ({"status": "failed"}, AirflowFailException, "clear the task that creates"),
        ({"status": "processing"}, ExportNotReadyError, "ActivitiesExportSensor"),
        ({"status": "being_reviewed"}, ExportNotReadyError, "being_reviewed"),
        ({"file_url": None}, ExportNotReadyError, "gives no file"),
    ],
)
def test_unfinished_export_is_an_error(
    export: dict[str, Any], error: type[Exception], message: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_export(lambda request: Response(500), monkeypatch, **export), pytest.raises(error, match=message):
        transfer("e-1", f"{store.base}/x.zip")
    assert store.list() == []


def test_unreadable_window_is_an_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken for an open window, it would make a load replace the whole table."""
    export = {"params": {"kind": "activities", "params": {"start_date": 1704067200, "end_date": "2024-01-03"}}}
    with (
        serve_export(lambda request: Response(500), monkeypatch, **export),
        pytest.raises(UnexpectedResponseError, match="reports start_date of export e-1 in a form that"),
    ):
        transfer("e-1", f"{store.base}/x.zip")
    assert store.list() == []


@pytest.mark.parametrize("created_at", [None, 1704067200, "yesterday"])
def test_unknown_age_becomes_the_time_of_the_transfer(
    created_at: object, archive: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A load needs an age."""
    with serve_export(lambda request: Response(200, archive), monkeypatch, created_at=created_at):
        metadata = transfer("e-1", f"file://{tmp_path}/x.zip").xcoms["object"]
        kept = transfer("e-1", f"file://{tmp_path}/x.zip", if_exists="reuse").xcoms["object"]
    assert metadata["exported_at"] is None
    assert abs(datetime.fromisoformat(metadata["extracted_at"]) - datetime.now(UTC)) < timedelta(minutes=5)
    assert kept["extracted_at"] is None


def test_placeholder_of_an_open_end_is_an_error(sandbox: Sandbox, store: Store) -> None:
    with pytest.raises(AirflowFailException, match="is None for this task"):
        transfer(create_export(start_date=None), store.base + "/{interval_start:%Y}.zip")
    assert store.list() == []


def transfer_rendered(values: dict[str, Any]) -> TaskRun:
    """Transfer with parameters that are known when the task runs."""
    task = ActivitiesExportToObjectStorageOperator(task_id="t", export_id="{{ x }}", destination="{{ x }}")
    return run_task(render(task, **values))


@pytest.mark.parametrize(
    ("destination", "parameters", "message"),
    [
        ("file:///tmp/x.txt", {}, "suffix"),
        ("file:///tmp/x.zip", {"output_format": "tar"}, "output_format cannot be 'tar'"),
        ("file:///tmp/{interval}.zip", {}, "{interval_start}"),
        ("file:///tmp/{export_id.__class__}.zip", {}, "unknown placeholder"),
        ("file:///tmp/{.zip", {}, "brace"),
        ("", {}, "destination is empty"),
        ("file:///tmp/x.zip", {"if_exists": "append"}, "overwrite, reuse, skip, fail"),
        ("file:///tmp/x.zip", {"column_types": {"a": "int64"}}, "column_types"),
        ("file:///tmp/x.zip", {"export_id": ""}, "export_id is empty"),
    ],
)
def test_invalid_settings_raise_before_a_request(
    destination: str, parameters: dict[str, Any], message: str, sandbox: Sandbox
) -> None:
    with pytest.raises(AirflowFailException) as raised:
        transfer_rendered({"export_id": "e-1", "destination": destination, **parameters})
    assert message in str(raised.value)
    assert sandbox.requests == []


@pytest.mark.parametrize(
    ("destination", "parameters", "message"),
    [
        ("relative/x.zip", {}, "not the full name"),
        ("file://folder/x.zip", {}, "not the full name"),
        ("s3://bucket", {"output_format": "zip"}, "not the full name"),
        ("s3://one@bucket/x.zip", {"object_storage_conn_id": "two"}, "give one of them"),
        ("nowhere://bucket/x.zip", {}, "no file system for nowhere://"),
        ("s3://typo@bucket/x.zip", {}, "there is no Airflow connection 'typo'"),
        ("s3://bucket/x.zip?versionId=7", {"output_format": "zip"}, "has a '\\?'"),
        ("file:///tmp/x.zip", {"download_dir": "/no/such/folder"}, "download_dir '/no/such/folder' does not exist"),
        ("gs://bucket/x.zip", {}, r"pip install 'airflow-provider-chartmogul\[google\]'"),
        ("abfs://container/x.zip", {}, r"pip install 'airflow-provider-chartmogul\[microsoft-azure\]'"),
    ],
)
def test_unusable_destination_raises_before_the_download(
    destination: str, parameters: dict[str, Any], message: str, sandbox: Sandbox, airflow_db: None
) -> None:
    with pytest.raises(AirflowFailException, match=message):
        transfer_rendered({"export_id": create_export(), "destination": destination, **parameters})
    assert [request for request in sandbox.requests if request.host == "download"] == []
