# SPDX-License-Identifier: Apache-2.0
"""Transfers keep the API key and the signed URL secret: in requests, in logs and in tracebacks."""

from __future__ import annotations

import base64
import json
import logging
import traceback
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_chartmogul.exceptions import ChartMogulError, ConnectionSettingsError, UnexpectedResponseError
from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook
from airflow_provider_chartmogul.sandbox import Sandbox
from airflow_provider_chartmogul.storage import download
from tests.integration.servers import Response
from tests.integration.transfers import create_export, serve_export, transfer
from tests.stores import Store


def test_download_sends_no_credentials(
    sandbox: Sandbox, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the API key nor those of a .netrc, which requests would add."""
    (tmp_path / "netrc").write_text("default login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    transfer(create_export(), f"{store.base}/x.zip")
    (request,) = [request for request in sandbox.requests if request.host == "download"]
    assert "authorization" not in request.headers
    assert request.method == "GET"


@pytest.mark.parametrize(
    "file_url", ["http://127.0.0.1:9/f.zip?X-Amz-Signature=verysecret", "file:///etc/passwd", "ftp://h/f.zip"]
)
def test_file_url_must_be_https(file_url: str) -> None:
    with pytest.raises(download.DownloadError, match="only https") as raised:
        download.check_file_url(file_url, plain_http_allowed=False)
    assert "verysecret" not in str(raised.value)


def test_file_url_may_be_http_if_the_connection_is() -> None:
    download.check_file_url("http://127.0.0.1/f.zip", plain_http_allowed=True)
    download.check_file_url("https://bucket.s3.amazonaws.com/f.zip", plain_http_allowed=False)
    with pytest.raises(download.DownloadError, match="only https"):
        download.check_file_url("file:///etc/passwd", plain_http_allowed=True)


def test_no_log_level_shows_key_or_signed_url(sandbox: Sandbox, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    export_id = create_export()
    file_url = ChartMogulHook().get_activities_export(export_id).file_url
    assert file_url is not None
    caplog.clear()
    run = transfer(export_id, f"{store.base}/x.zip")
    # urllib3 does log the request, or this test would prove nothing.
    assert any(r.name == "urllib3.connectionpool" and "/activities-" in r.getMessage() for r in caplog.records)
    written = caplog.text + json.dumps(run.xcoms) + str(run.value) + repr([vars(record) for record in caplog.records])
    query = file_url.partition("?")[2]
    for secret in (file_url, query, file_url.rpartition("X-Amz-Signature=")[2], sandbox.api_key):
        assert secret not in written


def test_warning_about_a_malformed_header_hides_the_signed_url(
    archive: bytes, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """urllib3 logs it with the whole URL, from another logger than its requests."""
    caplog.set_level(logging.DEBUG)
    response = Response(200, archive, {"Content-Length": str(len(archive)), "Bad Header": "x"})
    with serve_export(lambda request: response, monkeypatch):
        transfer("e-1", f"{store.base}/x.zip")
    assert "Failed to parse headers" in caplog.text
    assert "verysecretsignature" not in caplog.text + repr([vars(record) for record in caplog.records])


# Tools that report errors, such as Sentry, send the variables of each frame of a traceback.


def variables_of(error: BaseException | None) -> dict[str, str]:
    """Return the variables of this package's frames in the tracebacks of an error and its causes, as text."""
    variables = {}
    while error is not None:
        for frame, line in traceback.walk_tb(error.__traceback__):
            if "airflow_provider_chartmogul" in frame.f_code.co_filename:
                place = f"{Path(frame.f_code.co_filename).name}:{line}"
                variables.update({f"{place} {name}": repr(value) for name, value in frame.f_locals.items()})
        error = error.__cause__ or error.__context__
    return variables


@pytest.mark.usefixtures("short_backoff")
@pytest.mark.parametrize(
    "fault",
    [
        *("retrieve:401", "retrieve:402"),
        *("download:403", "download:404", "download:reset", "download:flip", "download:html"),
    ],
)
def test_no_variable_of_a_traceback_shows_key_or_signed_url(fault: str, sandbox: Sandbox, store: Store) -> None:
    key, export_id = sandbox.api_key, create_export()
    sandbox.faults.add(fault)
    with pytest.raises((ChartMogulError, AirflowFailException)) as raised:
        transfer(export_id, f"{store.base}/x.zip")
    variables = variables_of(raised.value)
    assert variables, "the traceback has no frame of this package"
    for secret in ("X-Amz-Signature=", key, base64.b64encode(f"{key}:".encode()).decode()):
        assert [name for name, value in variables.items() if secret in value] == []


def test_no_variable_shows_the_signed_url_of_a_truncated_response(sandbox: Sandbox) -> None:
    export_id = create_export()
    sandbox.faults.add("retrieve:half-json")
    with pytest.raises(UnexpectedResponseError) as raised:
        ChartMogulHook(retry_seconds=0).get_activities_export(export_id)
    assert [name for name, value in variables_of(raised.value).items() if "X-Amz-" in value] == []


def test_no_variable_shows_the_key_of_an_unusable_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {"conn_type": "chartmogul", "password": "the-secret-key", "extra": {"timeout": "soon"}}
    monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", json.dumps(connection))
    with pytest.raises(ConnectionSettingsError) as raised:
        ChartMogulHook().get_account()
    assert [name for name, value in variables_of(raised.value).items() if "the-secret-key" in value] == []
