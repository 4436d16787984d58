# SPDX-License-Identifier: Apache-2.0
"""The sandbox over real sockets: the API's replies, errors and limits, the download host's strictness, the
thread's beginning and end, the command line, and ChartMogul's own client as a judge from outside."""

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
PATIENCE = 60.0
MARCH = {"start-date": "2024-03-01", "end-date": "2024-04-01"}


class Clock:
    """What the account uses of `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """One whose exports are ready at once, and without limits, which have tests of their own."""
    with Sandbox(export_seconds=0, customers=40, requests_per_second=None, max_connections=None) as running:
        yield running


@pytest.fixture
def api(sandbox: Sandbox) -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.auth = AUTH
        session.trust_env = False
        yield session


def create(sandbox: Sandbox, **params: Any) -> dict[str, Any]:
    reply = requests.post(f"{sandbox.url}/v1/activities_export", json=params, auth=AUTH, timeout=PATIENCE)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def retrieve(sandbox: Sandbox, export_id: str) -> dict[str, Any]:
    reply = requests.get(f"{sandbox.url}/v1/activities_export/{export_id}", auth=AUTH, timeout=PATIENCE)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def file_url(sandbox: Sandbox, params: dict[str, Any] | None = None) -> str:
    export = retrieve(sandbox, create(sandbox, **(MARCH if params is None else params))["id"])
    return str(export["file_url"])


def fetch(url: str, method: str = "GET", **headers: str) -> requests.Response:
    # Without a session's help: requests would otherwise add credentials from a .netrc.
    with requests.Session() as session:
        session.trust_env = False
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return session.request(method, url, headers=named, timeout=PATIENCE)


def rows_of(content: bytes) -> list[dict[str, str]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        text = archive.read(archive.namelist()[0]).decode()
    return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The account's clock, which stands still unless the test moves it."""
    fake = Clock()
    monkeypatch.setattr("airflow_provider_chartmogul.sandbox.account.time", fake)
    return fake


# The API's replies


def test_ping_and_account(sandbox: Sandbox, api: requests.Session) -> None:
    ping = api.get(f"{sandbox.url}/v1/ping", timeout=PATIENCE)
    assert (ping.status_code, ping.json()) == (200, {"data": "pong!"})
    account = api.get(f"{sandbox.url}/v1/account", timeout=PATIENCE)
    assert account.status_code == 200
    assert account.json() == {
        "name": "Example Test Company",
        "currency": "EUR",
        "time_zone": "Europe/Berlin",
        "week_start_on": "sunday",
    }


def test_create_answers_what_was_recorded(sandbox: Sandbox) -> None:
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


def test_retrieve_answers_what_was_recorded(sandbox: Sandbox) -> None:
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
    ("given", "echoed"),
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
def test_dates_are_echoed_in_utc(sandbox: Sandbox, api: requests.Session, given: str, echoed: str, form: bool) -> None:
    params = {"start-date": given}
    reply = api.post(
        f"{sandbox.url}/v1/activities_export",
        data=params if form else None,
        json=None if form else params,
        timeout=PATIENCE,
    )
    assert reply.json()["params"]["params"] == {"start_date": echoed}


@pytest.mark.parametrize("body", ["", "{}", '{"type": null}', '{"start_date": "2024-01-01"}'])
def test_what_is_left_out_is_not_echoed(sandbox: Sandbox, api: requests.Session, body: str) -> None:
    reply = api.post(
        f"{sandbox.url}/v1/activities_export",
        data=body,
        headers={"Content-Type": "application/json"},
        timeout=PATIENCE,
    )
    assert reply.json()["params"] == {"kind": "activities", "params": {}}


def test_two_equal_posts_make_two_exports(sandbox: Sandbox) -> None:
    first, second = create(sandbox, **MARCH), create(sandbox, **MARCH)
    assert first["id"] != second["id"]
    assert [export.id for export in sandbox.exports] == [first["id"], second["id"]]
    assert sandbox.exports[0].params == first["params"]["params"]
    assert sandbox.exports[0].created_at == datetime.fromisoformat(first["created_at"])


@pytest.mark.parametrize("outcome", ["succeeded", "failed"])
def test_pending_then_processing_then_over(sandbox: Sandbox, clock: Clock, outcome: str) -> None:
    sandbox.outcome = outcome
    sandbox.export_seconds = 20
    export_id = create(sandbox)["id"]
    seen = []
    for now in (1000.0, 1004.9, 1005.0, 1019.9, 1020.0, 9999.0):
        clock.now = now
        export = retrieve(sandbox, export_id)
        done = export["status"] == "succeeded"
        assert (export["file_url"] is not None, export["expires_at"] is not None) == (done, done)
        seen.append(export["status"])
    assert seen == ["pending", "pending", "processing", "processing", outcome, outcome]


def test_export_seconds_can_end_what_is_under_way_and_nothing_reopens_it(sandbox: Sandbox) -> None:
    sandbox.export_seconds = 3600
    export_id = create(sandbox)["id"]
    assert retrieve(sandbox, export_id)["status"] == "pending"
    sandbox.export_seconds = 0
    assert retrieve(sandbox, export_id)["status"] == "succeeded"
    sandbox.export_seconds = 3600
    assert retrieve(sandbox, export_id)["status"] == "succeeded"


def test_outcomes_hold_for_exports_made_afterwards(sandbox: Sandbox) -> None:
    ids = {}
    for outcome in ("succeeded", "successful", "failed", "never", "archiving"):
        sandbox.outcome = outcome
        ids[outcome] = create(sandbox, **MARCH)["id"]
    replies = {outcome: retrieve(sandbox, export_id) for outcome, export_id in ids.items()}
    assert {outcome: reply["status"] for outcome, reply in replies.items()} == {
        "succeeded": "succeeded",
        "successful": "successful",
        "failed": "failed",
        "never": "processing",
        "archiving": "archiving",
    }
    done = {outcome for outcome, reply in replies.items() if reply["file_url"] and reply["expires_at"]}
    assert done == {"succeeded", "successful"}


# The API's errors


@pytest.mark.parametrize(
    "auth",
    [None, ("wrong", ""), ("", KEY), (KEY, "password"), ("", "")],
    ids=["none", "wrong", "as password", "with a password", "empty"],
)
@pytest.mark.parametrize("path", ["ping", "account", "activities_export/x", "nowhere"])
def test_401_without_the_key(sandbox: Sandbox, auth: tuple[str, str] | None, path: str) -> None:
    reply = requests.get(f"{sandbox.url}/v1/{path}", auth=auth, timeout=PATIENCE)
    assert reply.status_code == 401
    assert reply.json() == {"code": 401, "message": "No valid API key provided", "param": None}


@pytest.mark.parametrize("header", ["Bearer sandbox-api-key", "Basic", "Basic !!!", "Basic c2FuZGJveA=="])
def test_401_for_other_authorization(sandbox: Sandbox, header: str) -> None:
    assert fetch(f"{sandbox.url}/v1/ping", Authorization=header).status_code == 401


@pytest.mark.parametrize("name", ["start-date", "end-date"])
@pytest.mark.parametrize(
    "value", ["yesterday", "2024-13-01", "2024-02-30", "", "None", "2024-1-1", "20240101", 5, ["2024-01-01"]]
)
def test_400_for_a_malformed_date(sandbox: Sandbox, api: requests.Session, name: str, value: Any) -> None:
    reply = api.post(f"{sandbox.url}/v1/activities_export", json={name: value}, timeout=PATIENCE)
    assert reply.status_code == 400
    assert reply.json() == {"code": 400, "message": f'Parameter "{name}" is malformed', "param": name}
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
def test_400_for_a_body_that_is_not_what_it_says(
    sandbox: Sandbox, api: requests.Session, body: bytes, content_type: str | None
) -> None:
    reply = api.post(
        f"{sandbox.url}/v1/activities_export",
        data=body,
        headers={"Content-Type": content_type},
        timeout=PATIENCE,
    )
    assert reply.status_code == 400
    assert reply.json()["code"] == 400
    assert reply.json()["param"] is None
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
def test_422_for_what_makes_no_sense(
    sandbox: Sandbox, api: requests.Session, params: dict[str, Any], field: str
) -> None:
    reply = api.post(f"{sandbox.url}/v1/activities_export", json=params, timeout=PATIENCE)
    assert reply.status_code == 422
    assert list(reply.json()) == ["errors"]
    assert list(reply.json()["errors"]) == [field]


def test_404_for_an_unknown_export_and_an_unknown_path(sandbox: Sandbox, api: requests.Session) -> None:
    unknown = api.get(f"{sandbox.url}/v1/activities_export/{uuid.uuid4()}", timeout=PATIENCE)
    assert unknown.status_code == 404
    assert unknown.json() == {"code": 404, "message": "Activities export not found", "param": "id"}
    for method, path in (
        ("GET", "/v1/nowhere"),
        ("GET", "/ping"),
        ("GET", "/v1/activities_export"),
        ("DELETE", f"/v1/activities_export/{uuid.uuid4()}"),
    ):
        reply = api.request(method, sandbox.url + path, timeout=PATIENCE)
        assert reply.status_code == 404
        assert reply.json() == {"error": "Path not found"}


# The account's limits


def test_429_over_the_rate_in_any_second(sandbox: Sandbox, api: requests.Session, clock: Clock) -> None:
    sandbox.requests_per_second = 3

    def ping(now: float) -> requests.Response:
        clock.now = now
        return api.get(f"{sandbox.url}/v1/ping", timeout=PATIENCE)

    assert [ping(now).status_code for now in (10.0, 10.5, 10.9, 10.9, 10.99)] == [200, 200, 200, 429, 429]
    refused = ping(10.999)
    assert refused.status_code == 429
    assert refused.json()["message"] == "Your request rate has exceeded our rate limit."
    assert "Retry-After" not in refused.headers
    # The second slides: the first one's place is free again, the next only half a second later.
    assert [ping(now).status_code for now in (11.0, 11.4, 11.5, 11.8, 11.9)] == [200, 429, 200, 429, 200]
    sandbox.requests_per_second = 4
    assert [ping(11.9).status_code for _ in range(2)] == [200, 429]


def test_429_by_the_real_clock(sandbox: Sandbox, api: requests.Session) -> None:
    sandbox.requests_per_second = 2
    deadline = time.monotonic() + PATIENCE
    for awaited in (429, 200):
        while api.get(f"{sandbox.url}/v1/ping", timeout=PATIENCE).status_code != awaited:
            assert time.monotonic() < deadline


def test_the_wrong_key_uses_up_nothing(sandbox: Sandbox, api: requests.Session, clock: Clock) -> None:
    sandbox.requests_per_second = 1
    for _ in range(3):
        assert fetch(f"{sandbox.url}/v1/ping").status_code == 401
    assert api.get(f"{sandbox.url}/v1/ping", timeout=PATIENCE).status_code == 200


def test_the_rate_has_no_say_where_there_is_none(sandbox: Sandbox, api: requests.Session) -> None:
    assert {api.get(f"{sandbox.url}/v1/ping", timeout=PATIENCE).status_code for _ in range(100)} == {200}


def test_503_over_the_connections_even_if_they_are_idle(sandbox: Sandbox) -> None:
    sandbox.max_connections = 3
    address = ("127.0.0.1", sandbox.port)
    headers = {"Authorization": requests.auth._basic_auth_str(*AUTH)}  # type: ignore[attr-defined]

    def ping(connection: http.client.HTTPConnection) -> int:
        connection.request("GET", "/v1/ping", headers=headers)
        reply = connection.getresponse()
        reply.read()
        return reply.status

    with contextlib.ExitStack() as stack:
        open_ones = []
        for _ in range(3):
            connection = http.client.HTTPConnection(*address, timeout=PATIENCE)
            stack.callback(connection.close)
            assert ping(connection) == 200
            open_ones.append(connection)
        one_too_many = http.client.HTTPConnection(*address, timeout=PATIENCE)
        stack.callback(one_too_many.close)
        assert ping(one_too_many) == 503
        # Those that were there first go on being served.
        assert [ping(connection) for connection in open_ones] == [200, 200, 200]
        open_ones[0].close()
        deadline = time.monotonic() + PATIENCE
        status = 503
        while status == 503 and time.monotonic() < deadline:
            later = http.client.HTTPConnection(*address, timeout=PATIENCE)
            status = ping(later)
            later.close()
        assert status == 200


def test_the_default_limits_are_the_accounts() -> None:
    sandbox = Sandbox()
    assert (sandbox.requests_per_second, sandbox.max_connections) == (40, 20)


# The download host


def test_signatures_are_those_of_the_s3_reference(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_a_download_is_the_truth(sandbox: Sandbox, outcome: str) -> None:
    sandbox.outcome = outcome
    reply = fetch(file_url(sandbox))
    assert reply.status_code == 200
    assert reply.headers["Content-Type"] == "application/zip"
    assert reply.headers["Accept-Ranges"] == "bytes"
    assert reply.headers["Content-Length"] == str(len(reply.content))
    assert "Transfer-Encoding" not in reply.headers
    assert reply.headers["ETag"] == f'"{hashlib.md5(reply.content).hexdigest()}"'
    assert parsedate_to_datetime(reply.headers["Last-Modified"]) == sandbox.exports[0].created_at
    rows = rows_of(reply.content)
    assert rows
    assert rows == sandbox.truth(datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 4, 1, tzinfo=UTC))


def test_a_download_of_one_type_with_both_ends_open(sandbox: Sandbox) -> None:
    rows = rows_of(fetch(file_url(sandbox, {"type": "churn"})).content)
    assert {row["type"] for row in rows} == {"churn"}
    assert rows == sandbox.truth(None, sandbox.exports[0].created_at, "churn")


def test_equal_exports_are_equal_files_at_other_urls(sandbox: Sandbox) -> None:
    first, second = file_url(sandbox), file_url(sandbox)
    assert urlsplit(first).path != urlsplit(second).path
    assert fetch(first).content == fetch(second).content


def test_an_export_of_nothing_is_a_header(sandbox: Sandbox) -> None:
    reply = fetch(file_url(sandbox, {"start-date": "2024-03-01", "end-date": "2024-03-01"}))
    assert rows_of(reply.content) == []


def test_400_for_an_authorization_header(sandbox: Sandbox) -> None:
    reply = requests.get(file_url(sandbox), auth=AUTH, timeout=PATIENCE)
    assert reply.status_code == 400
    assert reply.headers["Content-Type"].startswith("application/xml")
    assert "<Code>InvalidArgument</Code><Message>Only one auth mechanism allowed" in reply.text


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
def test_403_for_anything_but_what_was_signed(sandbox: Sandbox, change: Any) -> None:
    url = file_url(sandbox)
    changed = change(url)
    assert changed != url
    reply = fetch(changed)
    assert reply.status_code == 403
    assert "<Code>SignatureDoesNotMatch</Code>" in reply.text
    assert fetch(url).status_code == 200


def test_the_order_of_the_query_does_not_matter(sandbox: Sandbox) -> None:
    base, _, query = file_url(sandbox).partition("?")
    assert fetch(base + "?" + "&".join(reversed(query.split("&")))).status_code == 200


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "POST"])
def test_403_for_other_methods(sandbox: Sandbox, method: str) -> None:
    url = file_url(sandbox)
    reply = fetch(url, method)
    assert reply.status_code == 403
    if method != "HEAD":
        assert "<Code>SignatureDoesNotMatch</Code>" in reply.text


def test_bytes_that_are_no_text_are_answered_too(sandbox: Sandbox) -> None:
    export_id = create(sandbox, **MARCH)["id"].encode()
    basic = b"Authorization: Basic " + base64.b64encode(f"{KEY}:".encode())
    for port, target, host, header, status in (
        (sandbox.download_port, b"/%ff?X-Amz-Signature=%ff&%ff", b"\xff", b"X-Odd: \xff", b"403"),
        (sandbox.download_port, b"/a.zip", b"x", b"Authorization: \xff", b"400"),
        (sandbox.port, b"/v1/ping", b"x", b"Authorization: Basic \xff", b"401"),
        (sandbox.port, b"/v1/%ff", b"x", basic, b"404"),
        (sandbox.port, b"/v1/activities_export/" + export_id, b"\xff:x", basic, b"200"),
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
            lines = (b"GET " + target + b" HTTP/1.1", b"Host: " + host, header, b"Connection: close")
            connection.sendall(b"\r\n".join((*lines, b"", b"")))
            assert connection.recv(12) == b"HTTP/1.1 " + status


@pytest.mark.parametrize("fresh", [True, False])
def test_an_expired_url_is_refused_and_perhaps_replaced(sandbox: Sandbox, fresh: bool) -> None:
    sandbox.fresh_urls = fresh
    sandbox.url_seconds = 0
    export_id = create(sandbox, **MARCH)["id"]
    expired = retrieve(sandbox, export_id)
    assert datetime.fromisoformat(expired["expires_at"]) <= datetime.now(UTC)
    reply = fetch(expired["file_url"])
    assert reply.status_code == 403
    assert "<Code>AccessDenied</Code><Message>Request has expired</Message>" in reply.text
    sandbox.url_seconds = 600
    later = retrieve(sandbox, export_id)
    if fresh:
        assert datetime.fromisoformat(later["expires_at"]) > datetime.now(UTC)
        assert fetch(later["file_url"]).status_code == 200
    else:
        assert later == expired


def test_a_url_that_holds_is_given_again(sandbox: Sandbox) -> None:
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
def test_ranges_that_are_none_are_ignored(sandbox: Sandbox, sent: str) -> None:
    url = file_url(sandbox)
    reply = fetch(url, Range=sent)
    assert reply.status_code == 200
    assert "Content-Range" not in reply.headers
    assert reply.content == fetch(url).content


def test_416_for_ranges_with_nothing_in_them(sandbox: Sandbox) -> None:
    url = file_url(sandbox)
    size = len(fetch(url).content)
    for sent in (f"bytes={size}-", f"bytes={size + 5}-{size + 9}", "bytes=-0"):
        reply = fetch(url, Range=sent)
        assert reply.status_code == 416
        assert reply.headers["Content-Range"] == f"bytes */{size}"
        assert "<Code>InvalidRange</Code>" in reply.text


def test_if_match(sandbox: Sandbox) -> None:
    url = file_url(sandbox)
    etag = fetch(url).headers["ETag"]
    for condition in (etag, "*", f'"other", {etag}'):
        assert fetch(url, If_Match=condition, Range="bytes=0-9").status_code == 206
    for condition in ('"other"', '"' + "0" * 32 + '"'):
        reply = fetch(url, If_Match=condition, Range="bytes=0-9")
        assert reply.status_code == 412
        assert "<Code>PreconditionFailed</Code>" in reply.text


def test_the_file_comes_in_chunks_to_many_at_once(sandbox: Sandbox) -> None:
    url = file_url(sandbox, {})
    contents: list[bytes] = []
    threads = [threading.Thread(target=lambda: contents.append(fetch(url).content)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(contents) == 8
    assert len(set(contents)) == 1
    assert len(contents[0]) > 2 * 64 * 1024
    assert rows_of(contents[0]) == sandbox.truth(None, sandbox.exports[0].created_at)


# What it saw


def test_requests_are_on_record_without_what_is_secret(sandbox: Sandbox, api: requests.Session) -> None:
    before = time.monotonic()
    url = file_url(sandbox)
    fetch(url, "HEAD")
    api.get(f"{sandbox.url}/v1/ping?a=b", headers={"X-Odd": "1"}, timeout=PATIENCE)
    requests.get(f"{sandbox.url}/v1/ping", timeout=PATIENCE)
    requests.get(url, auth=AUTH, timeout=PATIENCE)
    path = urlsplit(url).path
    assert [(seen.host, seen.method, seen.path, seen.status) for seen in sandbox.requests] == [
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
    starts = [seen.started for seen in sandbox.requests]
    assert before < starts[0]
    assert starts == sorted(starts)
    assert "X-Amz" not in repr(sandbox.requests)


def test_the_record_can_be_read_while_it_grows(sandbox: Sandbox) -> None:
    done = threading.Event()
    problems: list[BaseException] = []

    def look() -> None:
        try:
            while not done.is_set():
                assert all(seen.status == 200 for seen in sandbox.requests)
        except BaseException as error:
            problems.append(error)

    looker = threading.Thread(target=look)
    looker.start()
    with requests.Session() as session:
        session.auth = AUTH
        for _ in range(200):
            session.get(f"{sandbox.url}/v1/ping", timeout=PATIENCE)
    done.set()
    looker.join(PATIENCE)
    assert problems == []
    assert len(sandbox.requests) == 200


# The thread


def test_importing_it_loads_no_aiohttp() -> None:
    program = "import sys, airflow_provider_chartmogul.sandbox as s; s.Sandbox(); print('aiohttp' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_stop_closes_everything_at_once_and_start_takes_the_same_ports() -> None:
    sandbox = Sandbox(export_seconds=0, customers=500)
    sandbox.start()
    url, download_url = sandbox.url, sandbox.download_url
    threads = threading.active_count()
    with contextlib.ExitStack() as stack:
        idle = stack.enter_context(socket.create_connection(("127.0.0.1", sandbox.port)))
        kept = stack.enter_context(requests.Session())
        assert kept.get(f"{url}/v1/ping", auth=AUTH, timeout=PATIENCE).status_code == 200
        # One that has asked for a file of megabytes and does not read it.
        target = file_url(sandbox, {}).removeprefix(download_url)
        stuck = stack.enter_context(socket.socket())
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.settimeout(PATIENCE)
        stuck.connect(("127.0.0.1", sandbox.download_port))
        stuck.sendall(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{sandbox.download_port}\r\n\r\n".encode())
        assert stuck.recv(15) == b"HTTP/1.1 200 OK"
        before = time.monotonic()
        sandbox.stop()
        assert time.monotonic() - before < 20  # far from the minutes that waiting for them would take
        assert threading.active_count() < threads
        idle.settimeout(PATIENCE)
        assert idle.recv(1) == b""
        for port in (sandbox.port, sandbox.download_port):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    sandbox.stop()
    with sandbox:
        assert (sandbox.url, sandbox.download_url) == (url, download_url)
        assert retrieve(sandbox, sandbox.exports[0].id)["status"] == "succeeded"


def test_a_taken_port_is_a_clear_error_and_leaves_nothing_open(sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        free_port = reserved.getsockname()[1]
    other = Sandbox(port=free_port, download_port=sandbox.port)
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{sandbox.port}: .*in use"):
        other.start()
    # The API's port, which it had already, is free again.
    socket.create_server(("127.0.0.1", free_port)).close()


def test_starting_twice_is_an_error(sandbox: Sandbox) -> None:
    with pytest.raises(RuntimeError, match="running already"):
        sandbox.start()
    assert fetch(f"{sandbox.url}/v1/ping").status_code == 401


def test_addresses_need_a_start() -> None:
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
def test_settings_that_make_no_sense_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sandbox(**settings)


def test_the_connection_in_both_forms() -> None:
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
        reply = requests.get(f"{sandbox.url}/v1/ping", auth=(key.encode(), b""), timeout=PATIENCE)
        assert reply.status_code == 200


def test_downloads_have_the_name_the_api_was_called_by() -> None:
    with Sandbox(host="0.0.0.0", export_seconds=0, customers=5) as sandbox:
        assert sandbox.url == f"http://127.0.0.1:{sandbox.port}"
        export_id = create(sandbox, **MARCH)["id"]
        reply = requests.get(
            f"http://localhost:{sandbox.port}/v1/activities_export/{export_id}", auth=AUTH, timeout=PATIENCE
        )
        url = reply.json()["file_url"]
        assert url.startswith(f"http://localhost:{sandbox.download_port}/")
        assert fetch(url).status_code == 200


# ChartMogul's own client


def test_the_official_client_gets_along_with_it(sandbox: Sandbox) -> None:
    config = chartmogul.Config(KEY)
    config.uri = f"{sandbox.url}/v1"
    assert chartmogul.Ping.ping(config).get().data == "pong!"
    assert chartmogul.Account.retrieve(config).get().currency == "EUR"
    made = chartmogul.ActivitiesExport.create(
        config, data={"start-date": datetime(2024, 3, 1), "end-date": datetime(2024, 4, 1), "type": "churn"}
    ).get()
    assert made.status == "pending"
    assert made.params.params == {
        "activity_type": "churn",
        "start_date": "2024-03-01 00:00:00 +0000",
        "end_date": "2024-04-01 00:00:00 +0000",
    }
    export = chartmogul.ActivitiesExport.retrieve(config, id=made.id).get()
    assert export.status == "succeeded"
    assert export.expires_at - made.created_at >= timedelta(days=7)
    march = (datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 4, 1, tzinfo=UTC))
    assert rows_of(fetch(export.file_url).content) == sandbox.truth(*march, "churn")
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
        # Without PYTHONUNBUFFERED, which would hide output that is not flushed.
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
def test_the_command_prints_what_to_paste_serves_and_ends(number: signal.Signals) -> None:
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
        url = f"{connection['schema']}://{connection['host']}:{connection['port']}"
        assert url in lines[0]
        assert lines[-1].endswith(f"{url}/v1/ping")
        reply = requests.get(f"{url}/v1/ping?secret=1", auth=("it's", ""), timeout=PATIENCE)
        assert reply.status_code == 200
        process.send_signal(number)
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
        assert "api GET /v1/ping 200" in errors
        assert "secret" not in errors
        assert "Traceback" not in errors


def test_the_command_says_in_one_line_that_a_port_is_taken(sandbox: Sandbox) -> None:
    with command("--port", str(sandbox.port)) as process:
        output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert output == ""
    assert errors.count("\n") == 1
    assert f"127.0.0.1:{sandbox.port}" in errors
    assert "in use" in errors


@pytest.mark.parametrize("arguments", [("--customers", "-1"), ("--port", "70000"), ("--max-connections", "x")])
def test_the_command_refuses_what_makes_no_sense(arguments: tuple[str, ...]) -> None:
    with command(*arguments) as process:
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert "Traceback" not in errors
