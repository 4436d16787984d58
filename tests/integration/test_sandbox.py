# SPDX-License-Identifier: Apache-2.0
"""The sandbox over real sockets: the API's responses, errors and limits, the download host, start and stop, the command
line, and ChartMogul's official client."""

from __future__ import annotations

import base64
import contextlib
import csv
import hashlib
import http.client
import io
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import IO, Any
from urllib.parse import parse_qs, urlsplit

import chartmogul
import pytest
import requests

from airflow_provider_chartmogul.sandbox import Sandbox, presigned

KEY = "sandbox-api-key"
AUTH = (KEY, "")
TIMEOUT = 60.0
MARCH = {"start-date": "2024-03-01", "end-date": "2024-04-01"}


class Clock:
    """A replacement for the `time` module."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A sandbox whose exports are ready at once, without limits."""
    with Sandbox(export_seconds=0, customers=40, requests_per_second=None, max_connections=None) as running:
        yield running


@pytest.fixture
def api(sandbox: Sandbox) -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.auth = AUTH
        session.trust_env = False
        yield session


def create(sandbox: Sandbox, **params: Any) -> dict[str, Any]:
    response = requests.post(f"{sandbox.url}/v1/activities_export", json=params, auth=AUTH, timeout=TIMEOUT)
    assert response.status_code == 200, response.text
    return dict(response.json())


def retrieve(sandbox: Sandbox, export_id: str) -> dict[str, Any]:
    response = requests.get(f"{sandbox.url}/v1/activities_export/{export_id}", auth=AUTH, timeout=TIMEOUT)
    assert response.status_code == 200, response.text
    return dict(response.json())


def file_url(sandbox: Sandbox, params: dict[str, Any] | None = None) -> str:
    export = retrieve(sandbox, create(sandbox, **(MARCH if params is None else params))["id"])
    return str(export["file_url"])


def fetch(url: str, method: str = "GET", **headers: str) -> requests.Response:
    # Without trust_env, requests would add credentials from a .netrc file.
    with requests.Session() as session:
        session.trust_env = False
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return session.request(method, url, headers=named, timeout=TIMEOUT)


def rows_of(content: bytes) -> list[dict[str, str]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        text = archive.read(archive.namelist()[0]).decode()
    return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of exports and of the rate limit, which stands still unless the test moves it."""
    fake = Clock()
    for module in ("account", "exports"):
        monkeypatch.setattr(f"airflow_provider_chartmogul.sandbox.{module}.time", fake)
    return fake


# The API's responses


def test_ping_and_account(sandbox: Sandbox, api: requests.Session) -> None:
    ping = api.get(f"{sandbox.url}/v1/ping", timeout=TIMEOUT)
    assert (ping.status_code, ping.json()) == (200, {"data": "pong!"})
    account = api.get(f"{sandbox.url}/v1/account", timeout=TIMEOUT)
    assert account.status_code == 200
    assert account.json() == {
        "name": "Example Test Company",
        "currency": "EUR",
        "time_zone": "Europe/Berlin",
        "week_start_on": "sunday",
    }


def test_create_has_recorded_shape(sandbox: Sandbox) -> None:
    export = create(sandbox, **{"type": "new_biz", "start-date": "2020-01-01", "end-date": "2020-12-31"})
    assert uuid.UUID(export.pop("id"))
    created_at = datetime.fromisoformat(export["created_at"])
    assert export.pop("created_at").endswith("+00:00")
    assert abs(datetime.now(UTC) - created_at) < timedelta(minutes=5)
    assert export == {
        "status": "pending",
        "file_url": None,
        "params": {
            "kind": "activities",
            "params": {
                "activity_type": "new_biz",
                "start_date": "2020-01-01 00:00:00 +0000",
                "end_date": "2020-12-31 00:00:00 +0000",
            },
        },
        "expires_at": None,
    }


def test_retrieve_has_recorded_shape(sandbox: Sandbox) -> None:
    created = create(sandbox, **MARCH)
    export = retrieve(sandbox, created["id"])
    assert set(export) == {"id", "status", "file_url", "params", "expires_at", "created_at"}
    assert export["status"] == "succeeded"
    assert {name: export[name] for name in ("id", "params", "created_at")} == {
        name: created[name] for name in ("id", "params", "created_at")
    }
    url = urlsplit(export["file_url"])
    assert f"{url.scheme}://{url.netloc}" == sandbox.download_url
    assert re.fullmatch(r"/activities-[0-9a-f-]{36}-[0-9a-f-]{36}\.zip", url.path)
    query = parse_qs(url.query)
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert query["X-Amz-Expires"] == ["604800"]
    assert query["X-Amz-SignedHeaders"] == ["host"]
    assert re.fullmatch("[0-9a-f]{64}", query["X-Amz-Signature"][0])
    assert query["X-Amz-Credential"][0].endswith(f"/{query['X-Amz-Date'][0][:8]}/eu-west-1/s3/aws4_request")
    signed_at = datetime.strptime(query["X-Amz-Date"][0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    assert datetime.fromisoformat(export["expires_at"]) == signed_at + timedelta(days=7)


@pytest.mark.parametrize(
    ("sent", "echoed"),
    [
        ("2022-01-01", "2022-01-01 00:00:00 +0000"),
        ("2022-01-01T10:20:30", "2022-01-01 10:20:30 +0000"),
        ("2022-01-01T10:20:30Z", "2022-01-01 10:20:30 +0000"),
        ("2022-01-01T10:20:30.123456Z", "2022-01-01 10:20:30 +0000"),
        ("2022-01-01T01:20:30+05:30", "2021-12-31 19:50:30 +0000"),
        ("2022-01-01 10:20:30 +0000", "2022-01-01 10:20:30 +0000"),
    ],
)
@pytest.mark.parametrize("form", [False, True])
def test_dates_are_echoed_in_utc(sandbox: Sandbox, api: requests.Session, sent: str, echoed: str, form: bool) -> None:
    params = {"start-date": sent}
    response = api.post(
        f"{sandbox.url}/v1/activities_export",
        data=params if form else None,
        json=None if form else params,
        timeout=TIMEOUT,
    )
    assert response.json()["params"]["params"] == {"start_date": echoed}


@pytest.mark.parametrize("body", ["", "{}", '{"type": null}', '{"start_date": "2024-01-01"}'])
def test_omitted_parameters_are_not_echoed(sandbox: Sandbox, api: requests.Session, body: str) -> None:
    response = api.post(
        f"{sandbox.url}/v1/activities_export",
        data=body,
        headers={"Content-Type": "application/json"},
        timeout=TIMEOUT,
    )
    assert response.json()["params"] == {"kind": "activities", "params": {}}


def test_equal_posts_create_two_exports(sandbox: Sandbox) -> None:
    first, second = create(sandbox, **MARCH), create(sandbox, **MARCH)
    assert first["id"] != second["id"]
    assert [export.id for export in sandbox.exports] == [first["id"], second["id"]]
    assert sandbox.exports[0].params == first["params"]["params"]
    assert sandbox.exports[0].created_at == datetime.fromisoformat(first["created_at"])


@pytest.mark.parametrize("outcome", ["succeeded", "failed"])
def test_statuses_of_export_over_time(sandbox: Sandbox, clock: Clock, outcome: str) -> None:
    sandbox.outcome = outcome
    sandbox.export_seconds = 20
    export_id = create(sandbox)["id"]
    statuses = []
    for now in (1000.0, 1004.9, 1005.0, 1019.9, 1020.0, 9999.0):
        clock.now = now
        export = retrieve(sandbox, export_id)
        finished = export["status"] == "succeeded"
        assert (export["file_url"] is not None, export["expires_at"] is not None) == (finished, finished)
        statuses.append(export["status"])
    assert statuses == ["pending", "pending", "processing", "processing", outcome, outcome]


def test_shorter_export_seconds_finish_export_for_good(sandbox: Sandbox) -> None:
    sandbox.export_seconds = 3600
    export_id = create(sandbox)["id"]
    assert retrieve(sandbox, export_id)["status"] == "pending"
    sandbox.export_seconds = 0
    assert retrieve(sandbox, export_id)["status"] == "succeeded"
    sandbox.export_seconds = 3600
    assert retrieve(sandbox, export_id)["status"] == "succeeded"


def test_outcome_applies_to_later_exports(sandbox: Sandbox) -> None:
    ids = {}
    for outcome in ("succeeded", "successful", "failed", "never", "archiving"):
        sandbox.outcome = outcome
        ids[outcome] = create(sandbox, **MARCH)["id"]
    responses = {outcome: retrieve(sandbox, export_id) for outcome, export_id in ids.items()}
    assert {outcome: export["status"] for outcome, export in responses.items()} == {
        "succeeded": "succeeded",
        "successful": "successful",
        "failed": "failed",
        "never": "processing",
        "archiving": "archiving",
    }
    finished = {outcome for outcome, export in responses.items() if export["file_url"] and export["expires_at"]}
    assert finished == {"succeeded", "successful"}


# The API's errors


@pytest.mark.parametrize(
    "auth",
    [None, ("wrong", ""), ("", KEY), (KEY, "password"), ("", "")],
    ids=["none", "wrong", "as password", "with a password", "empty"],
)
@pytest.mark.parametrize("path", ["ping", "account", "activities_export/x", "nowhere"])
def test_401_without_valid_key(sandbox: Sandbox, auth: tuple[str, str] | None, path: str) -> None:
    response = requests.get(f"{sandbox.url}/v1/{path}", auth=auth, timeout=TIMEOUT)
    assert response.status_code == 401
    assert response.json() == {"code": 401, "message": "No valid API key provided", "param": None}


@pytest.mark.parametrize("header", ["Bearer sandbox-api-key", "Basic", "Basic !!!", "Basic c2FuZGJveA=="])
def test_401_for_other_authorization(sandbox: Sandbox, header: str) -> None:
    assert fetch(f"{sandbox.url}/v1/ping", Authorization=header).status_code == 401


@pytest.mark.parametrize("name", ["start-date", "end-date"])
@pytest.mark.parametrize(
    "value", ["yesterday", "2024-13-01", "2024-02-30", "", "None", "2024-1-1", "20240101", 5, ["2024-01-01"]]
)
def test_400_for_malformed_date(sandbox: Sandbox, api: requests.Session, name: str, value: Any) -> None:
    response = api.post(f"{sandbox.url}/v1/activities_export", json={name: value}, timeout=TIMEOUT)
    assert response.status_code == 400
    assert response.json() == {"code": 400, "message": f'Parameter "{name}" is malformed', "param": name}
    assert sandbox.exports == []


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"{", "application/json"),
        (b"[]", "application/json"),
        (b"\xff", "application/json"),
        (b"start-date=2024-01-01", "application/json"),
        (b'{"start-date": "2024-01-01"}', "text/plain"),
        (b'{"start-date": "2024-01-01"}', None),
    ],
)
def test_400_for_body_that_does_not_match_content_type(
    sandbox: Sandbox, api: requests.Session, body: bytes, content_type: str | None
) -> None:
    response = api.post(
        f"{sandbox.url}/v1/activities_export",
        data=body,
        headers={"Content-Type": content_type},
        timeout=TIMEOUT,
    )
    assert response.status_code == 400
    assert response.json()["code"] == 400
    assert response.json()["param"] is None
    assert sandbox.exports == []


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"type": "refund"}, "type"),
        ({"type": ""}, "type"),
        ({"type": "churn,new_biz"}, "type"),
        ({"type": ["churn"]}, "type"),
        ({"start-date": "2024-02-01", "end-date": "2024-01-31"}, "end-date"),
        ({"start-date": "2024-01-01T00:00:00Z", "end-date": "2024-01-01T01:00:00+02:00"}, "end-date"),
    ],
)
def test_422_for_invalid_parameters(
    sandbox: Sandbox, api: requests.Session, params: dict[str, Any], field: str
) -> None:
    response = api.post(f"{sandbox.url}/v1/activities_export", json=params, timeout=TIMEOUT)
    assert response.status_code == 422
    assert list(response.json()) == ["errors"]
    assert list(response.json()["errors"]) == [field]


def test_404_for_unknown_export_and_path(sandbox: Sandbox, api: requests.Session) -> None:
    unknown = api.get(f"{sandbox.url}/v1/activities_export/{uuid.uuid4()}", timeout=TIMEOUT)
    assert unknown.status_code == 404
    assert unknown.json() == {"code": 404, "message": "Activities export not found", "param": "id"}
    for method, path in (
        ("GET", "/v1/nowhere"),
        ("GET", "/ping"),
        ("GET", "/v1/activities_export"),
        ("DELETE", f"/v1/activities_export/{uuid.uuid4()}"),
    ):
        response = api.request(method, sandbox.url + path, timeout=TIMEOUT)
        assert response.status_code == 404
        assert response.json() == {"error": "Path not found"}


# The account's limits


def test_429_above_rate_limit_in_any_second(sandbox: Sandbox, api: requests.Session, clock: Clock) -> None:
    sandbox.requests_per_second = 3

    def ping(now: float) -> requests.Response:
        clock.now = now
        return api.get(f"{sandbox.url}/v1/ping", timeout=TIMEOUT)

    assert [ping(now).status_code for now in (10.0, 10.5, 10.9, 10.9, 10.99)] == [200, 200, 200, 429, 429]
    refused = ping(10.999)
    assert refused.status_code == 429
    assert refused.json()["message"] == "Your request rate has exceeded our rate limit."
    assert "Retry-After" not in refused.headers
    # The window slides: the first request leaves it after one second, the second half a second later.
    assert [ping(now).status_code for now in (11.0, 11.4, 11.5, 11.8, 11.9)] == [200, 429, 200, 429, 200]
    sandbox.requests_per_second = 4
    assert [ping(11.9).status_code for _ in range(2)] == [200, 429]


def test_429_with_real_clock(sandbox: Sandbox, api: requests.Session) -> None:
    sandbox.requests_per_second = 2
    deadline = time.monotonic() + TIMEOUT
    for awaited in (429, 200):
        while api.get(f"{sandbox.url}/v1/ping", timeout=TIMEOUT).status_code != awaited:
            assert time.monotonic() < deadline


def test_requests_with_wrong_key_do_not_count_towards_rate_limit(
    sandbox: Sandbox, api: requests.Session, clock: Clock
) -> None:
    sandbox.requests_per_second = 1
    for _ in range(3):
        assert fetch(f"{sandbox.url}/v1/ping").status_code == 401
    assert api.get(f"{sandbox.url}/v1/ping", timeout=TIMEOUT).status_code == 200


def test_no_429_without_rate_limit(sandbox: Sandbox, api: requests.Session) -> None:
    assert {api.get(f"{sandbox.url}/v1/ping", timeout=TIMEOUT).status_code for _ in range(100)} == {200}


def test_503_above_connection_limit_with_idle_connections(sandbox: Sandbox) -> None:
    sandbox.max_connections = 3
    address = ("127.0.0.1", sandbox.port)
    headers = {"Authorization": requests.auth._basic_auth_str(*AUTH)}  # type: ignore[attr-defined]

    def ping(connection: http.client.HTTPConnection) -> int:
        connection.request("GET", "/v1/ping", headers=headers)
        response = connection.getresponse()
        response.read()
        return response.status

    with contextlib.ExitStack() as stack:
        connections = []
        for _ in range(3):
            connection = http.client.HTTPConnection(*address, timeout=TIMEOUT)
            stack.callback(connection.close)
            assert ping(connection) == 200
            connections.append(connection)
        excess = http.client.HTTPConnection(*address, timeout=TIMEOUT)
        stack.callback(excess.close)
        assert ping(excess) == 503
        # The oldest connections are still served.
        assert [ping(connection) for connection in connections] == [200, 200, 200]
        connections[0].close()
        deadline = time.monotonic() + TIMEOUT
        status = 503
        while status == 503 and time.monotonic() < deadline:
            later = http.client.HTTPConnection(*address, timeout=TIMEOUT)
            status = ping(later)
            later.close()
        assert status == 200


def test_default_limits() -> None:
    sandbox = Sandbox()
    assert (sandbox.requests_per_second, sandbox.max_connections) == (40, 20)


# The download host


def test_signature_matches_example_of_s3_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    # The example of 'Authenticating Requests: Using Query Parameters' in the S3 API reference.
    monkeypatch.setattr(presigned, "REGION", "us-east-1")
    monkeypatch.setattr(presigned, "ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    url = presigned.sign(
        "https://examplebucket.s3.amazonaws.com",
        "/test.txt",
        secret="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        signed_at=datetime(2013, 5, 24, tzinfo=UTC),
        seconds=86400,
    )
    assert url == (
        "https://examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256"
        "&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
        "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
        "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )


@pytest.mark.parametrize("outcome", ["succeeded", "successful"])
def test_download_contains_expected_rows(sandbox: Sandbox, outcome: str) -> None:
    sandbox.outcome = outcome
    response = fetch(file_url(sandbox))
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/zip"
    assert response.headers["Accept-Ranges"] == "bytes"
    assert response.headers["Content-Length"] == str(len(response.content))
    assert "Transfer-Encoding" not in response.headers
    assert response.headers["ETag"] == f'"{hashlib.md5(response.content).hexdigest()}"'
    assert parsedate_to_datetime(response.headers["Last-Modified"]) == sandbox.exports[0].created_at
    rows = rows_of(response.content)
    assert rows
    assert rows == sandbox.expected_rows(datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 4, 1, tzinfo=UTC))


def test_download_of_one_type_without_window(sandbox: Sandbox) -> None:
    rows = rows_of(fetch(file_url(sandbox, {"type": "churn"})).content)
    assert {row["type"] for row in rows} == {"churn"}
    assert rows == sandbox.expected_rows(None, sandbox.exports[0].created_at, "churn")


def test_equal_exports_have_equal_files_at_different_urls(sandbox: Sandbox) -> None:
    first, second = file_url(sandbox), file_url(sandbox)
    assert urlsplit(first).path != urlsplit(second).path
    assert fetch(first).content == fetch(second).content


def test_empty_export_is_header(sandbox: Sandbox) -> None:
    response = fetch(file_url(sandbox, {"start-date": "2024-03-01", "end-date": "2024-03-01"}))
    assert rows_of(response.content) == []


def test_400_for_authorization_header(sandbox: Sandbox) -> None:
    response = requests.get(file_url(sandbox), auth=AUTH, timeout=TIMEOUT)
    assert response.status_code == 400
    assert response.headers["Content-Type"].startswith("application/xml")
    assert "<Code>InvalidArgument</Code><Message>Only one auth mechanism allowed" in response.text


@pytest.mark.parametrize(
    "change",
    [
        lambda url: url.partition("?")[0],
        lambda url: url.rpartition("&")[0],
        lambda url: url.rpartition("=")[0] + "=" + "0" * 64,
        lambda url: url + "&more=1",
        lambda url: url + "&X-Amz-Signature=" + "0" * 64,
        lambda url: url.replace("X-Amz-Expires=604800", "X-Amz-Expires=604801"),
        lambda url: url.replace(".zip?", ".csv?"),
        lambda url: url.replace("eu-west-1", "us-east-1"),
        lambda url: url.replace("127.0.0.1", "localhost"),
        lambda url: url.replace("X-Amz-Date=2", "X-Amz-Date=3"),
    ],
    ids=["no query", "no signature", "wrong", "more", "two", "longer", "path", "region", "host", "date"],
)
def test_403_for_changed_url(sandbox: Sandbox, change: Any) -> None:
    url = file_url(sandbox)
    changed = change(url)
    assert changed != url
    response = fetch(changed)
    assert response.status_code == 403
    assert "<Code>SignatureDoesNotMatch</Code>" in response.text
    assert fetch(url).status_code == 200


def test_order_of_query_parameters_does_not_matter(sandbox: Sandbox) -> None:
    base, _, query = file_url(sandbox).partition("?")
    assert fetch(base + "?" + "&".join(reversed(query.split("&")))).status_code == 200


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "POST"])
def test_403_for_other_methods(sandbox: Sandbox, method: str) -> None:
    url = file_url(sandbox)
    response = fetch(url, method)
    assert response.status_code == 403
    if method != "HEAD":
        assert "<Code>SignatureDoesNotMatch</Code>" in response.text


def test_bytes_outside_utf8_get_a_response(sandbox: Sandbox) -> None:
    export_id = create(sandbox, **MARCH)["id"].encode()
    basic = b"Authorization: Basic " + base64.b64encode(f"{KEY}:".encode())
    for port, target, host, header, status in (
        (sandbox.download_port, b"/%ff?X-Amz-Signature=%ff&%ff", b"\xff", b"X-Odd: \xff", b"403"),
        (sandbox.download_port, b"/a.zip", b"x", b"Authorization: \xff", b"400"),
        (sandbox.port, b"/v1/ping", b"x", b"Authorization: Basic \xff", b"401"),
        (sandbox.port, b"/v1/%ff", b"x", basic, b"404"),
        (sandbox.port, b"/v1/activities_export/" + export_id, b"\xff:x", basic, b"200"),
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as connection:
            lines = (b"GET " + target + b" HTTP/1.1", b"Host: " + host, header, b"Connection: close")
            connection.sendall(b"\r\n".join((*lines, b"", b"")))
            assert connection.recv(12) == b"HTTP/1.1 " + status


@pytest.mark.parametrize("fresh", [True, False])
def test_expired_url_is_refused_and_replaced_if_configured(sandbox: Sandbox, fresh: bool) -> None:
    sandbox.fresh_urls = fresh
    sandbox.url_seconds = 0
    export_id = create(sandbox, **MARCH)["id"]
    expired = retrieve(sandbox, export_id)
    assert datetime.fromisoformat(expired["expires_at"]) <= datetime.now(UTC)
    response = fetch(expired["file_url"])
    assert response.status_code == 403
    assert "<Code>AccessDenied</Code><Message>Request has expired</Message>" in response.text
    sandbox.url_seconds = 600
    later = retrieve(sandbox, export_id)
    if fresh:
        assert datetime.fromisoformat(later["expires_at"]) > datetime.now(UTC)
        assert fetch(later["file_url"]).status_code == 200
    else:
        assert later == expired


def test_valid_url_is_returned_again(sandbox: Sandbox) -> None:
    export_id = create(sandbox, **MARCH)["id"]
    assert retrieve(sandbox, export_id) == retrieve(sandbox, export_id)


def test_ranges(sandbox: Sandbox) -> None:
    url = file_url(sandbox)
    whole = fetch(url).content
    size = len(whole)
    for sent, first, last in (
        ("bytes=0-0", 0, 0),
        ("bytes=10-19", 10, 19),
        (f"bytes={size - 1}-", size - 1, size - 1),
        (f"bytes=5-{size + 100}", 5, size - 1),
        ("bytes=-7", size - 7, size - 1),
        (f"bytes=-{size + 100}", 0, size - 1),
    ):
        part = fetch(url, Range=sent)
        assert part.status_code == 206
        assert part.headers["Content-Range"] == f"bytes {first}-{last}/{size}"
        assert part.headers["Content-Length"] == str(last - first + 1)
        assert part.content == whole[first : last + 1]


@pytest.mark.parametrize("sent", ["bytes=", "bytes=-", "bytes=9-5", "bytes=0-1,4-5", "lines=1-2", "bytes=a-b"])
def test_invalid_ranges_are_ignored(sandbox: Sandbox, sent: str) -> None:
    url = file_url(sandbox)
    response = fetch(url, Range=sent)
    assert response.status_code == 200
    assert "Content-Range" not in response.headers
    assert response.content == fetch(url).content


def test_416_for_unsatisfiable_ranges(sandbox: Sandbox) -> None:
    url = file_url(sandbox)
    size = len(fetch(url).content)
    for sent in (f"bytes={size}-", f"bytes={size + 5}-{size + 9}", "bytes=-0"):
        response = fetch(url, Range=sent)
        assert response.status_code == 416
        assert response.headers["Content-Range"] == f"bytes */{size}"
        assert "<Code>InvalidRange</Code>" in response.text


def test_if_match(sandbox: Sandbox) -> None:
    url = file_url(sandbox)
    etag = fetch(url).headers["ETag"]
    for condition in (etag, "*", f'"other", {etag}'):
        assert fetch(url, If_Match=condition, Range="bytes=0-9").status_code == 206
    for condition in ('"other"', '"' + "0" * 32 + '"'):
        response = fetch(url, If_Match=condition, Range="bytes=0-9")
        assert response.status_code == 412
        assert "<Code>PreconditionFailed</Code>" in response.text


def test_concurrent_downloads_of_one_file(sandbox: Sandbox) -> None:
    url = file_url(sandbox, {})
    contents: list[bytes] = []
    threads = [threading.Thread(target=lambda: contents.append(fetch(url).content)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert len(contents) == 8
    assert len(set(contents)) == 1
    assert len(contents[0]) > 2 * 64 * 1024
    assert rows_of(contents[0]) == sandbox.expected_rows(None, sandbox.exports[0].created_at)


# Recorded requests


def test_requests_are_recorded_without_secrets(sandbox: Sandbox, api: requests.Session) -> None:
    before = time.monotonic()
    url = file_url(sandbox)
    fetch(url, "HEAD")
    api.get(f"{sandbox.url}/v1/ping?a=b", headers={"X-Odd": "1"}, timeout=TIMEOUT)
    requests.get(f"{sandbox.url}/v1/ping", timeout=TIMEOUT)
    requests.get(url, auth=AUTH, timeout=TIMEOUT)
    path = urlsplit(url).path
    assert [(request.host, request.method, request.path, request.status) for request in sandbox.requests] == [
        ("api", "POST", "/v1/activities_export", 200),
        ("api", "GET", f"/v1/activities_export/{sandbox.exports[0].id}", 200),
        ("download", "HEAD", path, 403),
        ("api", "GET", "/v1/ping", 200),
        ("api", "GET", "/v1/ping", 401),
        ("download", "GET", path, 400),
    ]
    ping = sandbox.requests[3]
    assert ping.headers["x-odd"] == "1"
    assert ping.headers["authorization"] == "Basic"
    assert "authorization" not in sandbox.requests[4].headers
    starts = [request.started for request in sandbox.requests]
    assert before < starts[0]
    assert starts == sorted(starts)
    assert "X-Amz" not in repr(sandbox.requests)


def test_recorded_requests_can_be_read_while_more_arrive(sandbox: Sandbox) -> None:
    done = threading.Event()
    problems: list[BaseException] = []

    def read() -> None:
        try:
            while not done.is_set():
                assert all(request.status == 200 for request in sandbox.requests)
        except BaseException as error:
            problems.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    with requests.Session() as session:
        session.auth = AUTH
        for _ in range(200):
            session.get(f"{sandbox.url}/v1/ping", timeout=TIMEOUT)
    done.set()
    reader.join(TIMEOUT)
    assert problems == []
    assert len(sandbox.requests) == 200


# Start and stop


def test_import_loads_no_aiohttp() -> None:
    program = "import sys, airflow_provider_chartmogul.sandbox as s; s.Sandbox(); print('aiohttp' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_stop_closes_all_connections_and_start_reuses_ports() -> None:
    sandbox = Sandbox(export_seconds=0, customers=500)
    sandbox.start()
    url, download_url = sandbox.url, sandbox.download_url
    threads = threading.active_count()
    with contextlib.ExitStack() as stack:
        idle = stack.enter_context(socket.create_connection(("127.0.0.1", sandbox.port)))
        kept = stack.enter_context(requests.Session())
        assert kept.get(f"{url}/v1/ping", auth=AUTH, timeout=TIMEOUT).status_code == 200
        # This client requests a file of megabytes and does not read it.
        target = file_url(sandbox, {}).removeprefix(download_url)
        stalled = stack.enter_context(socket.socket())
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.settimeout(TIMEOUT)
        stalled.connect(("127.0.0.1", sandbox.download_port))
        stalled.sendall(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{sandbox.download_port}\r\n\r\n".encode())
        assert stalled.recv(15) == b"HTTP/1.1 200 OK"
        sandbox.stop()  # To wait for the clients would exceed the time limit of tests.
        assert threading.active_count() < threads
        idle.settimeout(TIMEOUT)
        assert idle.recv(1) == b""
        for port in (sandbox.port, sandbox.download_port):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
    sandbox.stop()
    with sandbox:
        assert (sandbox.url, sandbox.download_url) == (url, download_url)
        assert retrieve(sandbox, sandbox.exports[0].id)["status"] == "succeeded"


def test_port_in_use_raises_and_leaves_no_port_open(sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        free_port = reserved.getsockname()[1]
    other = Sandbox(port=free_port, download_port=sandbox.port)
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{sandbox.port}: .*in use"):
        other.start()
    # The API's port, which had been bound first, is free again.
    socket.create_server(("127.0.0.1", free_port)).close()


def test_starting_twice_raises(sandbox: Sandbox) -> None:
    with pytest.raises(RuntimeError, match="already running"):
        sandbox.start()
    assert fetch(f"{sandbox.url}/v1/ping").status_code == 401


def test_addresses_raise_before_start() -> None:
    for name in ("url", "download_url", "connection_uri", "connection_json"):
        with pytest.raises(RuntimeError, match="start"):
            getattr(Sandbox(), name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"api_key": ""}, "api_key"),
        ({"api_key": "a:b"}, "api_key"),
        ({"export_seconds": -1}, "export_seconds"),
        ({"customers": -1}, "customers"),
        ({"url_seconds": 604_801}, "url_seconds"),
        ({"outcome": ""}, "outcome"),
    ],
)
def test_invalid_setting_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sandbox(**settings)


def test_connection_as_uri_and_json() -> None:
    key = "k/ey?#@%é 1"
    with Sandbox(api_key=key, customers=1) as sandbox:
        uri = sandbox.connection_uri
        assert uri == f"chartmogul://:k%2Fey%3F%23%40%25%C3%A9%201@127.0.0.1:{sandbox.port}/http"
        assert json.loads(sandbox.connection_json) == {
            "conn_type": "chartmogul",
            "host": "127.0.0.1",
            "schema": "http",
            "port": sandbox.port,
            "password": key,
        }
        response = requests.get(f"{sandbox.url}/v1/ping", auth=(key.encode(), b""), timeout=TIMEOUT)
        assert response.status_code == 200


def test_download_url_has_host_name_of_api_call() -> None:
    with Sandbox(host="0.0.0.0", export_seconds=0, customers=5) as sandbox:
        assert sandbox.url == f"http://127.0.0.1:{sandbox.port}"
        export_id = create(sandbox, **MARCH)["id"]
        response = requests.get(
            f"http://localhost:{sandbox.port}/v1/activities_export/{export_id}", auth=AUTH, timeout=TIMEOUT
        )
        url = response.json()["file_url"]
        assert url.startswith(f"http://localhost:{sandbox.download_port}/")
        assert fetch(url).status_code == 200


# ChartMogul's official client


def test_official_client(sandbox: Sandbox) -> None:
    config = chartmogul.Config(KEY)
    config.uri = f"{sandbox.url}/v1"
    assert chartmogul.Ping.ping(config).get().data == "pong!"
    assert chartmogul.Account.retrieve(config).get().currency == "EUR"
    created = chartmogul.ActivitiesExport.create(
        config, data={"start-date": datetime(2024, 3, 1), "end-date": datetime(2024, 4, 1), "type": "churn"}
    ).get()
    assert created.status == "pending"
    assert created.params.params == {
        "activity_type": "churn",
        "start_date": "2024-03-01 00:00:00 +0000",
        "end_date": "2024-04-01 00:00:00 +0000",
    }
    export = chartmogul.ActivitiesExport.retrieve(config, id=created.id).get()
    assert export.status == "succeeded"
    assert export.expires_at - created.created_at >= timedelta(days=7)
    march = (datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 4, 1, tzinfo=UTC))
    assert rows_of(fetch(export.file_url).content) == sandbox.expected_rows(*march, "churn")
    config.auth = ("wrong", "")
    with pytest.raises(chartmogul.APIError, match="No valid API key provided"):
        chartmogul.Ping.ping(config).get()


# The command line


@contextlib.contextmanager
def command(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "airflow_provider_chartmogul.sandbox", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # PYTHONUNBUFFERED would hide output that is not flushed.
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def lines_until(stream: IO[str] | None, beginning: str) -> list[str]:
    assert stream is not None
    lines = []
    for line in stream:
        lines.append(line.rstrip("\n"))
        if line.startswith(beginning):
            break
    return lines


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_command_prints_connection_serves_and_stops(number: signal.Signals) -> None:
    with command("--port", "0", "--export-seconds", "0", "--customers", "5", "--api-key", "it's") as process:
        lines = lines_until(process.stdout, "curl ")
        shell = "\n".join(line for line in lines if line.startswith("export "))
        pasted = subprocess.run(
            ["sh", "-c", f'{shell}\nprintf %s "$AIRFLOW_CONN_CHARTMOGUL_DEFAULT"'],
            capture_output=True,
            text=True,
            check=True,
        )
        connection = json.loads(pasted.stdout)
        assert connection["password"] == "it's"
        (command_line,) = [line for line in lines if line.startswith("airflow connections add ")]
        words = shlex.split(command_line)
        assert words[:-1] == ["airflow", "connections", "add", "chartmogul_default", "--conn-json"]
        assert words[-1] == pasted.stdout
        url = f"{connection['schema']}://{connection['host']}:{connection['port']}"
        assert url in lines[0]
        assert lines[-1].endswith(f"{url}/v1/ping")
        response = requests.get(f"{url}/v1/ping?secret=1", auth=("it's", ""), timeout=TIMEOUT)
        assert response.status_code == 200
        process.send_signal(number)
        _, errors = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0
        assert "api GET /v1/ping 200" in errors
        assert "secret" not in errors
        assert "Traceback" not in errors


def test_command_reports_port_in_use_in_one_line(sandbox: Sandbox) -> None:
    with command("--port", str(sandbox.port)) as process:
        output, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 1
    assert output == ""
    assert errors.count("\n") == 1
    assert f"127.0.0.1:{sandbox.port}" in errors
    assert "in use" in errors


@pytest.mark.parametrize(
    "arguments",
    [
        ("--customers", "-1"),
        ("--port", "70000"),
        ("--max-connections", "x"),
        ("--page-size", "201"),
        ("--as-of", "yesterday"),
        ("--metrics-time-zone", "Berlin"),
    ],
)
def test_command_rejects_invalid_arguments(arguments: tuple[str, ...]) -> None:
    with command(*arguments) as process:
        _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 2
    assert "Traceback" not in errors
