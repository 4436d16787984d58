# SPDX-License-Identifier: Apache-2.0
"""
Moving an export: what a download survives, where its signed URL goes, and what is refused before any request.

What is published, and what never is, is in ``tests/storage_cases.py``, for all stores.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import logging
import os
import re
import time
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_chartmogul.api.exports import ActivitiesExport
from airflow_provider_chartmogul.exceptions import (
    ChartMogulError,
    ConnectionSettingsError,
    ExportNotReadyError,
    UnexpectedResponseError,
)
from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook
from airflow_provider_chartmogul.sandbox import Sandbox
from airflow_provider_chartmogul.storage import download
from tests.integration.servers import RecordedRequest, Response, ScriptedServer
from tests.integration.transfers import END, START, create_export, csv_rows, serve_export, transfer
from tests.stores import Store


@pytest.mark.usefixtures("short_backoff")
class TestBreaksOnTheWay:
    def test_a_break_is_gone_on_from(self, archive: bytes, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        etag = f'"{hashlib.md5(archive).hexdigest()}"'

        def serve_in_pieces(request: RecordedRequest) -> Response:
            spec = request.headers.get("range")
            if spec is None:
                return Response(200, archive, {"ETag": etag}, truncate_at=1000)
            assert request.headers["if-match"] == etag
            start = int(spec.removeprefix("bytes=").removesuffix("-"))
            headers = {"ETag": etag, "Content-Range": f"bytes {start}-{len(archive) - 1}/{len(archive)}"}
            return Response(206, archive[start:], headers, truncate_at=5000)

        with serve_export(serve_in_pieces, monkeypatch) as server:
            transfer("e-1", f"{store.base}/x.zip")
        assert store.read("x.zip") == archive
        assert len([request for request in server.requests if "range" in request.headers]) >= 2
        assert {request.method for request in server.requests} == {"GET"}, "the URL is signed for GET"

    def test_bytes_that_came_before_a_stall_are_kept(
        self, archive: bytes, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        etag = f'"{hashlib.md5(archive).hexdigest()}"'

        def serve_a_little(request: RecordedRequest) -> Response:
            start = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
            headers = {"ETag": etag, "Content-Range": f"bytes {start}-{len(archive) - 1}/{len(archive)}"}
            return Response(206 if start else 200, archive[start:], headers, truncate_at=700)

        with serve_export(serve_a_little, monkeypatch) as server:
            transfer("e-1", f"{store.base}/x.zip")
        assert store.read("x.zip") == archive
        starts = [request.headers["range"] for request in server.requests if "range" in request.headers]
        assert starts == [f"bytes={n}-" for n in range(700, len(archive), 700)]

    def test_a_file_that_is_started_over_again_and_again_ends(
        self, archive: bytes, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cuts = iter(range(10_000))
        with (
            serve_export(
                lambda request: Response(200, archive, truncate_at=600 if next(cuts) % 2 else 300), monkeypatch
            ) as server,
            pytest.raises(download.DownloadError, match="interrupted"),
        ):
            transfer("e-1", f"{store.base}/x.zip")
        assert len(server.requests) < 15
        assert store.list() == []

    def test_it_starts_over_where_the_server_knows_no_ranges_or_the_file_has_changed(
        self, archive: bytes, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answers = iter(
            [
                Response(200, archive, {"ETag": '"one"'}, truncate_at=1000),
                Response(412, b"<Error><Code>PreconditionFailed</Code></Error>"),
                Response(200, archive, {"ETag": '"two"'}, truncate_at=2000),
                Response(200, archive, {"ETag": '"two"'}),
            ]
        )
        with serve_export(lambda request: next(answers), monkeypatch):
            transfer("e-1", f"{store.base}/x.zip")
        assert store.read("x.zip") == archive

    @pytest.mark.parametrize(
        "file_url", ["http://127.0.0.1:9/f.zip?X-Amz-Signature=verysecret", "file:///etc/passwd", "ftp://h/f.zip"]
    )
    def test_a_file_url_that_is_not_https(self, file_url: str, store: Store, caplog: pytest.LogCaptureFixture) -> None:
        with pytest.raises(download.DownloadError, match="only https") as raised:
            download.check_file_url(file_url, plain_http_allowed=False)
        assert "verysecret" not in str(raised.value)

    def test_plain_http_goes_with_a_plain_http_host_only(self) -> None:
        download.check_file_url("http://127.0.0.1/f.zip", plain_http_allowed=True)
        download.check_file_url("https://bucket.s3.amazonaws.com/f.zip", plain_http_allowed=False)
        with pytest.raises(download.DownloadError, match="only https"):
            download.check_file_url("file:///etc/passwd", plain_http_allowed=True)

    @pytest.mark.parametrize(
        ("export", "ends", "says"),
        [
            ({"status": "failed"}, AirflowFailException, "clear the task that creates"),
            ({"status": "processing"}, ExportNotReadyError, "ActivitiesExportSensor"),
            ({"status": "being_reviewed"}, ExportNotReadyError, "being_reviewed"),
            ({"file_url": None}, ExportNotReadyError, "gives no file"),
        ],
    )
    def test_an_export_that_is_not_done(
        self, export: dict[str, Any], ends: type[Exception], says: str, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with serve_export(lambda request: Response(500), monkeypatch, **export), pytest.raises(ends, match=says):
            transfer("e-1", f"{store.base}/x.zip")
        assert store.list() == []

    def test_a_window_that_cannot_be_read(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is not an open one: what loads the object would replace all of the table."""
        export = {"params": {"kind": "activities", "params": {"start_date": 1704067200, "end_date": "2024-01-03"}}}
        with (
            serve_export(lambda request: Response(500), monkeypatch, **export),
            pytest.raises(UnexpectedResponseError, match="reports start_date of export e-1 in a form that"),
        ):
            transfer("e-1", f"{store.base}/x.zip")
        assert store.list() == []

    def test_an_open_end_has_no_name(self, sandbox: Sandbox, store: Store) -> None:
        with pytest.raises(AirflowFailException, match="is None for this task"):
            transfer(create_export(start_date=None), store.base + "/{interval_start:%Y}.zip")
        assert store.list() == []


def test_progress_is_at_most_a_line_in_ten_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    seconds = itertools.count()
    # By a clock that goes on by a second with each look at it.
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
    told = [re.fullmatch(r"Downloaded ([\d.]+) MB \((\d+) %\), [\d.]+ MB/s", line) for line in lines]
    assert all(told), lines
    sizes = [float(one[1]) for one in told if one]
    assert sizes == sorted(set(sizes))
    assert all(abs(float(one[2]) - 100 * float(one[1]) * 1e6 / len(content)) < 1.1 for one in told if one)


class TestTheSignedUrl:
    def test_no_authorization_goes_with_it(self, sandbox: Sandbox, store: Store) -> None:
        transfer(create_export(), f"{store.base}/x.zip")
        (request,) = [seen for seen in sandbox.requests if seen.host == "download"]
        assert "authorization" not in request.headers
        assert request.method == "GET"

    def test_neither_netrc(
        self, sandbox: Sandbox, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "netrc").write_text("default login somebody password else\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        transfer(create_export(), f"{store.base}/x.zip")
        assert all("authorization" not in seen.headers for seen in sandbox.requests if seen.host == "download")

    def test_it_is_in_no_log_at_any_level(
        self, sandbox: Sandbox, store: Store, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        export_id = create_export()
        file_url = ChartMogulHook().get_activities_export(export_id).file_url
        assert file_url is not None
        caplog.clear()
        ran = transfer(export_id, f"{store.base}/x.zip")
        # urllib3 does log the request, or this test would prove nothing.
        assert any(r.name == "urllib3.connectionpool" and "/activities-" in r.getMessage() for r in caplog.records)
        written = caplog.text + json.dumps(ran.xcoms) + str(ran.value) + repr([vars(r) for r in caplog.records])
        for secret in (
            file_url,
            file_url.partition("?")[2],
            file_url.rpartition("X-Amz-Signature=")[2],
            "sandbox-api-key",
        ):
            assert secret not in written

    def test_a_malformed_header_does_not_show_it(
        self, archive: bytes, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """urllib3 warns of it from another logger, with the whole URL."""
        caplog.set_level(logging.DEBUG)
        with serve_export(
            lambda request: Response(200, archive, {"Content-Length": str(len(archive)), "Bad Header": "x"}),
            monkeypatch,
        ):
            transfer("e-1", f"{store.base}/x.zip")
        assert "Failed to parse headers" in caplog.text
        assert "verysecretsignature" not in caplog.text + repr([vars(r) for r in caplog.records])

    @pytest.mark.usefixtures("short_backoff")
    @pytest.mark.parametrize(
        "fault",
        [
            *("retrieve:401", "retrieve:402"),
            *("download:403", "download:404", "download:reset", "download:flip", "download:html"),
        ],
    )
    def test_no_variable_of_a_traceback_shows_it_or_the_key(self, fault: str, sandbox: Sandbox, store: Store) -> None:
        """There are tools that report errors with the variables of each frame; what they see of this package."""
        key, export_id = sandbox.api_key, create_export()
        sandbox.faults.add(fault)
        with pytest.raises((ChartMogulError, AirflowFailException)) as raised:
            transfer(export_id, f"{store.base}/x.zip")
        seen = variables_of(raised.value)
        assert seen, "there are frames of this package"
        for secret in ("X-Amz-Signature=", key, base64.b64encode(f"{key}:".encode()).decode()):
            assert [name for name, value in seen.items() if secret in value] == []

    def test_neither_that_of_half_an_answer(self, sandbox: Sandbox) -> None:
        export_id = create_export()
        sandbox.faults.add("retrieve:half-json")
        with pytest.raises(UnexpectedResponseError) as raised:
            ChartMogulHook(retry_seconds=0).get_activities_export(export_id)
        assert [name for name, value in variables_of(raised.value).items() if "X-Amz-" in value] == []

    def test_neither_where_the_connection_cannot_be_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        connection = {"conn_type": "chartmogul", "password": "the-secret-key", "extra": {"timeout": "soon"}}
        monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", json.dumps(connection))
        with pytest.raises(ConnectionSettingsError) as raised:
            ChartMogulHook().get_account()
        assert [name for name, value in variables_of(raised.value).items() if "the-secret-key" in value] == []

    def test_an_expired_one_is_made_fresh_once(self, sandbox: Sandbox, store: Store) -> None:
        sandbox.url_seconds = 0
        export_id = create_export()
        ChartMogulHook().get_activities_export(export_id)
        with pytest.raises(AirflowFailException, match=r"fresh one too.*clear the task that creates"):
            transfer(export_id, f"{store.base}/x.zip")
        looks = [seen for seen in sandbox.requests if seen.method == "GET" and seen.host == "api"]
        downloads = [seen for seen in sandbox.requests if seen.host == "download"]
        assert (len(looks), len(downloads)) == (1 + 2, 2)
        assert store.list() == []

    def test_a_fresh_one_is_used(self, sandbox: Sandbox, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        real = ChartMogulHook.get_activities_export
        answers: list[ActivitiesExport] = []

        def expired_the_first_time(hook: ChartMogulHook, export_id: str) -> ActivitiesExport:
            sandbox.url_seconds = 0 if not answers else 3600
            answers.append(real(hook, export_id))
            return answers[-1]

        export_id = create_export()
        monkeypatch.setattr(ChartMogulHook, "get_activities_export", expired_the_first_time)
        transfer(export_id, f"{store.base}/x.zip")
        assert csv_rows(store.read("x.zip")) == sandbox.expected_rows(START, END)


def variables_of(error: BaseException | None) -> dict[str, str]:
    """What the variables of this package's frames look like, in the tracebacks of an error and of those behind it."""
    seen = {}
    while error is not None:
        for frame, line in traceback.walk_tb(error.__traceback__):
            if "airflow_provider_chartmogul" in frame.f_code.co_filename:
                where = f"{Path(frame.f_code.co_filename).name}:{line}"
                seen.update({f"{where} {name}": repr(value) for name, value in frame.f_locals.items()})
        error = error.__cause__ or error.__context__
    return seen


class TestClearErrorsBeforeARequest:
    @pytest.mark.parametrize(
        ("destination", "told", "says"),
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
    def test_it(self, destination: str, told: dict[str, Any], says: str, sandbox: Sandbox) -> None:
        with pytest.raises(AirflowFailException) as raised:
            transfer(told.pop("export_id", "e-1"), destination, **told)
        assert says in str(raised.value)
        assert sandbox.requests == []

    @pytest.mark.parametrize(
        ("destination", "told", "says"),
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
    def test_before_a_download(
        self, destination: str, told: dict[str, Any], says: str, sandbox: Sandbox, airflow_db: None
    ) -> None:
        with pytest.raises(AirflowFailException, match=says):
            transfer(create_export(), destination, **told)
        assert [seen for seen in sandbox.requests if seen.host == "download"] == []
