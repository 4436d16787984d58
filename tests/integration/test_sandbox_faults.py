# SPDX-License-Identifier: Apache-2.0
"""The sandbox's faults over real sockets, as a client experiences them, its counters and its admin address."""

from __future__ import annotations

import contextlib
import hashlib
import html.parser
import http.client
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from airflow_provider_chartmogul.sandbox import Sandbox
from airflow_provider_chartmogul.sandbox.faults import STATUSES, Fault

TIMEOUT = 60.0
AUTH = ("sandbox-api-key", "")
MARCH = {"start-date": "2024-03-01", "end-date": "2024-04-01"}


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(export_seconds=0, customers=40, requests_per_second=None, max_connections=None) as running:
        yield running


def api(
    sandbox: Sandbox, method: str = "GET", path: str = "ping", body: Any = None, timeout: float = TIMEOUT
) -> requests.Response:
    return requests.request(method, f"{sandbox.url}/v1/{path}", json=body, auth=AUTH, timeout=timeout)


def file_url(sandbox: Sandbox) -> str:
    export_id = api(sandbox, "POST", "activities_export", MARCH).json()["id"]
    return str(api(sandbox, path=f"activities_export/{export_id}").json()["file_url"])


def fetch(url: str, **headers: str) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        return session.get(
            url, headers={name.replace("_", "-"): value for name, value in headers.items()}, timeout=TIMEOUT
        )


def fetch_partially(url: str, **headers: str) -> tuple[http.client.HTTPResponse, bytes, bool]:
    """Return the response, the received part of its body, and whether that is the whole body."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("GET", f"{parts.path}?{parts.query}", headers=named)
    response = connection.getresponse()
    try:
        return response, response.read(), True
    except http.client.IncompleteRead as error:
        return response, error.partial, False
    finally:
        connection.close()


def send(sandbox: Sandbox, head: bytes, port: int | None = None) -> socket.socket:
    """Send a request on a new connection, and return the connection."""
    connection = socket.create_connection(("127.0.0.1", port or sandbox.port), timeout=TIMEOUT)
    connection.sendall(head)
    return connection


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


REQUESTS: dict[str, Callable[[Sandbox], requests.Response]] = {
    "ping": lambda sandbox: api(sandbox),
    "account": lambda sandbox: api(sandbox, path="account"),
    "create": lambda sandbox: api(sandbox, "POST", "activities_export", MARCH),
    "retrieve": lambda sandbox: api(sandbox, path="activities_export/x"),
    "elsewhere": lambda sandbox: api(sandbox, path="customers"),
    "download": lambda sandbox: fetch(f"{sandbox.download_url}/x.zip"),
}


@pytest.mark.parametrize("place", ["ping", "account", "create", "retrieve", "api", "download", "any"])
def test_fault_hits_its_place_only(sandbox: Sandbox, place: str) -> None:
    with sandbox.faulty(f"{place}:520"):
        hit = {name for name, send_request in REQUESTS.items() if send_request(sandbox).status_code == 520}
    all_requests = set(REQUESTS)
    assert hit == {"any": all_requests, "api": all_requests - {"download"}}.get(place, {place})
    assert {request.fault for request in sandbox.requests} == {f"{place}:520", ""} - ({""} if place == "any" else set())
    assert not any(send_request(sandbox).status_code == 520 for send_request in REQUESTS.values())


# Statuses


@pytest.mark.parametrize(
    ("fault", "body"),
    [
        ("400", {"code": 400, "message": 'Parameter "start-date" is missing', "param": "start-date"}),
        ("401", {"code": 401, "message": "No valid API key provided", "param": None}),
        ("402", {"code": 402, "message": "The parameters were valid but the request failed", "param": None}),
        ("403", {"code": 403, "message": "Your trial or plan has expired", "param": None}),
        ("404", {"code": 404, "message": "Activities export not found", "param": "id"}),
        ("404;body=json2", {"error": "Activities export not found"}),
        ("422", {"errors": {"end-date": "must not be before start-date"}}),
        ("429", {"code": 429, "message": "Your request rate has exceeded our rate limit.", "param": None}),
    ],
)
def test_statuses_with_json_body(sandbox: Sandbox, fault: str, body: dict[str, Any]) -> None:
    sandbox.faults.add(f"retrieve:{fault}")
    response = api(sandbox, path="activities_export/x")
    assert (response.status_code, response.json()) == (int(fault[:3]), body)
    assert response.headers["Content-Type"].startswith("application/json")
    assert "Retry-After" not in response.headers


def test_second_form_of_422(sandbox: Sandbox) -> None:
    sandbox.faults.add("create:422;body=json2")
    body = api(sandbox, "POST", "activities_export", MARCH).json()
    assert body["end-date"] == ["must not be before start-date"]
    assert set(body["error_details"][0]) == {"param", "code", "message"}


@pytest.mark.parametrize("status", ["408", "425", "500", "502", "503", "504", "520", "524"])
@pytest.mark.parametrize("body", [None, "text", "html"])
def test_server_errors_have_text_or_html_body(sandbox: Sandbox, status: str, body: str | None) -> None:
    sandbox.faults.add(Fault("ping", status, body=body))
    response = api(sandbox)
    expected = body or ("html" if status in ("520", "524") else "text")
    assert response.status_code == int(status)
    assert response.reason
    if expected == "text":
        assert response.headers["Content-Type"].startswith("text/plain")
        assert response.text == f"{status} {response.reason}"
    else:
        assert response.headers["Content-Type"].startswith("text/html")
        assert f"<h1>{status} {response.reason}</h1>" in response.text


def test_retry_after_in_seconds_and_as_date(sandbox: Sandbox) -> None:
    sandbox.faults.add("ping:429;retry_after=7;times=1", "ping:503;retry_date=30;times=1")
    assert api(sandbox).headers["Retry-After"] == "7"
    before = datetime.now(UTC)
    date = parsedate_to_datetime(api(sandbox).headers["Retry-After"])
    assert 30 <= (date - before).total_seconds() < 30 + TIMEOUT
    assert api(sandbox).json() == {"data": "pong!"}


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("400", "RequestTimeout"),
        ("403", "AccessDenied"),
        ("404", "NoSuchKey"),
        ("500", "InternalError"),
        ("503", "SlowDown"),
    ],
)
def test_download_errors_have_s3_body(sandbox: Sandbox, status: str, code: str) -> None:
    url = file_url(sandbox)
    sandbox.faults.add(f"download:{status};times=1;retry_after=3")
    response = fetch(url)
    assert (response.status_code, response.headers["Retry-After"]) == (int(status), "3")
    assert response.headers["Content-Type"].startswith("application/xml")
    assert f"<Code>{code}</Code><Message>" in response.text
    assert ("<Message>Request has expired</Message>" in response.text) == (status == "403")
    assert fetch(url).status_code == 200


@pytest.mark.parametrize("status", STATUSES)
def test_every_status_at_both_hosts(sandbox: Sandbox, status: str) -> None:
    sandbox.faults.add(f"any:{status}")
    assert api(sandbox).status_code == fetch(f"{sandbox.download_url}/x").status_code == int(status)


@pytest.mark.parametrize("kind", ["500", "504", "429", "html", "reset"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_when_decides_whether_export_is_created(sandbox: Sandbox, kind: str, when: str) -> None:
    sandbox.faults.add(f"create:{kind};when={when}")
    with contextlib.suppress(requests.ConnectionError):
        api(sandbox, "POST", "activities_export", MARCH)
    assert len(sandbox.exports) == (1 if when == "after" else 0)


# Bodies


def test_html_instead_of_json(sandbox: Sandbox) -> None:
    sandbox.faults.add("any:html")
    for response in (api(sandbox), fetch(f"{sandbox.download_url}/x")):
        assert response.status_code == 200
        assert response.headers["Content-Type"].startswith("text/html")
        assert response.text.startswith("<!DOCTYPE html>")


def test_half_json(sandbox: Sandbox) -> None:
    whole = api(sandbox, path="account").text
    sandbox.faults.add("account:half-json;times=1", "account:half-json;at=7;times=1")
    for length in (len(whole) // 2, 7):
        response = api(sandbox, path="account")
        assert response.status_code == 200
        assert response.headers["Content-Type"].startswith("application/json")
        assert response.text == whole[:length]
        with pytest.raises(requests.JSONDecodeError):
            response.json()
    assert api(sandbox, path="account").text == whole


def test_half_json_after_export_was_created(sandbox: Sandbox) -> None:
    sandbox.faults.add("create:half-json")
    api(sandbox, "POST", "activities_export", MARCH)
    assert len(sandbox.exports) == 1


# Connections


@pytest.mark.parametrize("when", ["before", "after"])
def test_reset(sandbox: Sandbox, when: str) -> None:
    sandbox.faults.add(f"ping:reset;when={when};times=1")
    connection = send(sandbox, b"GET /v1/ping HTTP/1.1\r\nHost: x\r\n\r\n")
    # An orderly close would return b"".
    with connection, pytest.raises(ConnectionResetError):
        connection.recv(1)
    (request,) = sandbox.requests
    assert (request.status, request.fault) == (0, f"ping:reset;times=1;when={when}")
    assert api(sandbox).status_code == 200


def test_stall_sends_head_only(sandbox: Sandbox) -> None:
    sandbox.faults.add("ping:stall")
    with send(sandbox, b"GET /v1/ping HTTP/1.1\r\nHost: x\r\n\r\n") as connection:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += connection.recv(4096)
        assert head.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            connection.recv(1)
    # The sandbox closes the connection once the client has.
    wait_until(lambda: sandbox.counters.as_json()["api"]["connections"]["now"] == 0)
    assert [request.fault for request in sandbox.requests] == ["ping:stall"]


def test_stall_within_download(sandbox: Sandbox) -> None:
    url = file_url(sandbox)
    whole = fetch(url).content
    sandbox.faults.add("download:stall;at=100")
    parts = urlsplit(url)
    head = f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n"
    with send(sandbox, head.encode(), sandbox.download_port) as connection:
        received = b""
        while len(received.partition(b"\r\n\r\n")[2]) < 100:
            received += connection.recv(4096)
        assert f"Content-Length: {len(whole)}\r\n".encode() in received
        assert received.endswith(b"\r\n\r\n" + whole[:100])
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            connection.recv(1)


def test_stop_does_not_wait_for_stalled_and_slow_responses() -> None:
    with Sandbox(faults=["ping:stall", "account:slow;delay=3600"], customers=1) as sandbox:
        basic = requests.auth._basic_auth_str(*AUTH).encode()  # type: ignore[attr-defined]
        with contextlib.ExitStack() as stack:
            for path in (b"ping", b"account"):
                head = b"GET /v1/" + path + b" HTTP/1.1\r\nHost: x\r\nAuthorization: " + basic + b"\r\n\r\n"
                stack.enter_context(send(sandbox, head))
            wait_until(lambda: sandbox.counters.as_json()["api"]["requests"] == 2)
            sandbox.stop()  # To wait for the responses would exceed the time limit of tests.


def test_slow_response(sandbox: Sandbox) -> None:
    sandbox.faults.add("account:slow;delay=0.3;times=1", "account:503;times=1", "create:slow;delay=3600")
    before = time.monotonic()
    assert api(sandbox, path="account").status_code == 503
    assert time.monotonic() - before >= 0.3
    assert api(sandbox, path="account").status_code == 200
    # The request is processed before the delay: a client that gives up has created an export.
    with pytest.raises(requests.ReadTimeout):
        api(sandbox, "POST", "activities_export", MARCH, timeout=0.5)
    wait_until(lambda: len(sandbox.exports) == 1)


# Downloads


def test_interrupt_at_byte(sandbox: Sandbox) -> None:
    url = file_url(sandbox)
    whole = fetch(url).content
    sandbox.faults.add("download:interrupt;at=1000;times=2", "download:interrupt;at=0;times=1")
    response, received, complete = fetch_partially(url)
    assert (response.status, response.headers["Content-Length"]) == (200, str(len(whole)))
    assert (received, complete) == (whole[:1000], False)
    # The byte counts in the response, not in the file: a client that resumes makes progress.
    response, received, complete = fetch_partially(url, Range="bytes=1000-")
    assert (response.status, received, complete) == (206, whole[1000:2000], False)
    response, received, complete = fetch_partially(url)
    assert (response.status, received, complete) == (200, b"", False)
    assert fetch_partially(url)[1:] == (whole, True)


def test_interrupt_of_api_response(sandbox: Sandbox) -> None:
    whole = api(sandbox, path="account").content
    sandbox.faults.add("account:interrupt;at=10;times=1")
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="10 bytes read"):
        api(sandbox, path="account")
    assert api(sandbox, path="account").content == whole


def test_random_interrupt_uses_seed(sandbox: Sandbox) -> None:
    url = file_url(sandbox)
    size = len(fetch(url).content)
    lengths: dict[int, list[int]] = {}
    for seed in (1, 1, 2):
        with sandbox.faulty(f"download:interrupt;seed={seed}"):
            received = [len(fetch_partially(url)[1]) for _ in range(5)]
        assert all(0 < length < size for length in received)
        assert lengths.setdefault(seed, received) == received
    assert lengths[1] != lengths[2]
    assert len(set(lengths[1])) > 1


def test_truncate_agrees_with_content_length(sandbox: Sandbox) -> None:
    url = file_url(sandbox)
    whole = fetch(url).content
    sandbox.faults.add("download:truncate;at=1000")
    response, received, complete = fetch_partially(url)
    assert (response.headers["Content-Length"], received, complete) == ("1000", whole[:1000], True)
    # The ETag is that of the complete file.
    assert response.headers["ETag"] == f'"{hashlib.md5(whole).hexdigest()}"'


@pytest.mark.parametrize("at", [None, 0, 100])
def test_flip_inverts_one_bit(sandbox: Sandbox, at: int | None) -> None:
    url = file_url(sandbox)
    whole = fetch(url).content
    sandbox.faults.add(Fault("download", "flip", at=at))
    response, received, complete = fetch_partially(url)
    assert complete
    assert len(received) == len(whole)
    changed = [index for index, (one, other) in enumerate(zip(received, whole, strict=True)) if one != other]
    assert len(changed) == 1
    assert at in (None, changed[0])
    assert (received[changed[0]] ^ whole[changed[0]]).bit_count() == 1
    assert response.headers["ETag"] == f'"{hashlib.md5(whole).hexdigest()}"'
    sandbox.faults.clear()
    assert fetch(url).content == whole


def test_etag_changes_with_each_response(sandbox: Sandbox) -> None:
    url = file_url(sandbox)
    true = fetch(url).headers["ETag"]
    sandbox.faults.add("download:etag")
    first, second = (fetch(url).headers["ETag"] for _ in range(2))
    assert len({true, first, second}) == 3
    assert fetch(url, Range="bytes=5-9", If_Match=second).status_code == 412
    part = fetch(url, Range="bytes=5-9")
    assert part.status_code == 206
    assert part.headers["ETag"] not in (true, first, second)


def test_no_range(sandbox: Sandbox) -> None:
    url = file_url(sandbox)
    whole = fetch(url).content
    sandbox.faults.add("download:no-range")
    response = fetch(url, Range="bytes=5-9")
    assert (response.status_code, response.content) == (200, whole)
    assert "Content-Range" not in response.headers
    assert "Accept-Ranges" not in response.headers


def test_modifications_combine(sandbox: Sandbox) -> None:
    url = file_url(sandbox)
    whole = fetch(url).content
    sandbox.faults.add("download:flip;at=0", "download:no-range", "download:interrupt;at=10")
    response, received, complete = fetch_partially(url, Range="bytes=5-")
    assert (response.status, len(received), complete) == (200, 10, False)
    assert received[0] != whole[0]
    assert received[1:] == whole[1:10]


# Python


def test_faulty_removes_faults_and_counts_hits(sandbox: Sandbox) -> None:
    sandbox.faults.add("account:500")
    with sandbox.faulty("ping:500;times=2", Fault("ping", 502, times=1)) as (first, second):
        assert [api(sandbox).status_code for _ in range(4)] == [500, 500, 502, 200]
        assert (first.hits, first.exhausted, second.hits) == (2, True, 1)
    with pytest.raises(KeyError), sandbox.faulty("ping:500"):
        raise KeyError
    assert api(sandbox).status_code == 200
    assert api(sandbox, path="account").status_code == 500
    with pytest.raises(ValueError, match="unknown place"):
        Sandbox(faults=["nowhere:500"])


def test_faults_with_many_threads(sandbox: Sandbox) -> None:
    (added,) = sandbox.faults.add("ping:503;times=50")
    statuses: list[int] = []

    def send_pings() -> None:
        with requests.Session() as session:
            for _ in range(25):
                statuses.append(session.get(f"{sandbox.url}/v1/ping", auth=AUTH, timeout=TIMEOUT).status_code)

    threads = [threading.Thread(target=send_pings) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert (statuses.count(503), statuses.count(200), added.hits) == (50, 50, 50)


# The admin address


class Admin:
    def __init__(self, sandbox: Sandbox) -> None:
        self.url = sandbox.admin_url

    def __call__(self, method: str, path: str, data: str | bytes | None = None) -> requests.Response:
        return requests.request(method, self.url + path, data=data, timeout=TIMEOUT)


@pytest.fixture
def admin(sandbox: Sandbox) -> Admin:
    return Admin(sandbox)


def test_admin_adds_lists_and_removes_faults(sandbox: Sandbox, admin: Admin) -> None:
    assert admin("GET", "/faults").json() == []
    added = admin("POST", "/faults", "ping:500;times=1\ncreate:reset;when=after")
    assert added.status_code == 201
    assert added.json() == [
        {"id": 1, "fault": "ping:500;times=1", "hits": 0, "exhausted": False},
        {"id": 2, "fault": "create:reset;when=after", "hits": 0, "exhausted": False},
    ]
    fault = {"place": "account", "kind": 503, "retry_after": 1}
    assert admin("POST", "/faults", json.dumps(fault)).json()[0]["fault"] == "account:503;retry_after=1"
    both = json.dumps([fault, "any:slow;delay=0"])
    assert [fault["id"] for fault in admin("POST", "/faults", both).json()] == [4, 5]
    assert [api(sandbox).status_code for _ in range(2)] == [500, 200]
    assert admin("GET", "/faults").json()[0] == {"id": 1, "fault": "ping:500;times=1", "hits": 1, "exhausted": True}
    assert [fault["id"] for fault in admin("DELETE", "/faults/2").json()] == [1, 3, 4, 5]
    assert admin("DELETE", "/faults/2").status_code == 404
    assert admin("DELETE", "/faults").json() == admin("GET", "/faults").json() == []
    assert api(sandbox, path="account").status_code == 200


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("", "the body is empty"),
        ("ping:500 retreive:429", "unknown place: 'retreive'; known"),
        ("ping:500&times=1", "unknown kind: '500&times=1'"),
        ('{"place": "ping"', "not valid JSON"),
        ('{"place": "ping"}', '"kind"'),
        ('["ping:500", 5]', "a JSON object or string"),
        (b"\xff", "decode"),
        ("[" * 100_000, "" if sys.version_info < (3, 12) else "recursion"),
    ],
)
def test_admin_rejects_invalid_faults(sandbox: Sandbox, admin: Admin, data: str | bytes, message: str) -> None:
    response = admin("POST", "/faults", data)
    assert response.status_code == 400
    assert message in response.json()["error"]
    assert list(sandbox.faults) == []


def test_admin_changes_settings(sandbox: Sandbox, admin: Admin) -> None:
    assert admin("GET", "/settings").json() == sandbox.settings
    response = admin("PATCH", "/settings", '{"outcome": "failed", "url_seconds": 60}')
    assert (response.status_code, response.json()) == (
        200,
        {**sandbox.settings, "outcome": "failed", "url_seconds": 60},
    )
    export_id = api(sandbox, "POST", "activities_export", MARCH).json()["id"]
    assert api(sandbox, path=f"activities_export/{export_id}").json()["status"] == "failed"
    for invalid in (
        '{"outcome": "", "url_seconds": 5}',
        '{"api_key": "x"}',
        "[]",
        "outcome=failed",
        '{"url_seconds": NaN}',
    ):
        assert admin("PATCH", "/settings", invalid).status_code == 400
    assert sandbox.url_seconds == 60


def test_admin_lists_addresses_for_unknown_one(admin: Admin) -> None:
    for method, path, status in (("GET", "/v1/ping", 404), ("POST", "/counters", 405), ("PUT", "/faults", 405)):
        response = admin(method, path)
        assert response.status_code == status
        assert "PATCH /settings" in response.json()["error"]


def test_counters_exclude_admin_address(sandbox: Sandbox, admin: Admin) -> None:
    with requests.Session() as session:
        for path in ("ping", "ping", "account", "nowhere"):
            session.get(f"{sandbox.url}/v1/{path}", auth=AUTH, timeout=TIMEOUT)
        counters = admin("GET", "/counters").json()
        assert counters["api"]["connections"] == {"now": 1, "most": 1}
    url = file_url(sandbox)
    fetch(url)
    sandbox.outcome = "never"
    file_url(sandbox)
    sandbox.faults.add("ping:503;times=2", "download:reset")
    for _ in range(2):
        api(sandbox)
    with pytest.raises(requests.ConnectionError):
        fetch(url)
    sandbox.requests_per_second = 0
    assert api(sandbox).status_code == 429
    for _ in range(20):
        admin("GET", "/")
    counters = admin("GET", "/counters").json()
    assert counters["api"]["requests"] == 11
    assert counters["api"]["responses"] == {"200": 7, "404": 1, "429": 1, "503": 2}
    assert counters["api"]["refused"] == {"429": 1, "503": 2}
    assert counters["api"]["hit_by_faults"] == 2
    assert 1 <= counters["api"]["per_second"]["busiest"] <= 11
    assert counters["download"]["requests"] == 2
    assert counters["download"]["responses"] == {"200": 1, "none": 1}
    assert counters["exports"] == {"processing": 1, "succeeded": 1}
    assert [fault["hits"] for fault in counters["faults"]] == [2, 1]
    assert {request.host for request in sandbox.requests} == {"api", "download"}
    assert len(sandbox.requests) == 13
    reset = admin("POST", "/reset").json()
    assert (reset["api"]["requests"], reset["api"]["responses"], reset["download"]["requests"]) == (0, {}, 0)
    assert len(sandbox.requests) == 13, "resetting the counters keeps the recorded requests"


def test_counters_include_idle_connections(sandbox: Sandbox, admin: Admin) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(socket.create_connection(("127.0.0.1", sandbox.port)))
        wait_until(lambda: admin("GET", "/counters").json()["api"]["connections"] == {"now": 5, "most": 5})
    wait_until(lambda: admin("GET", "/counters").json()["api"]["connections"] == {"now": 0, "most": 5})


class Page(html.parser.HTMLParser):
    """An HTML page's tags and text. Elements must be closed in order."""

    VOID = ("meta", "br", "hr", "link", "img")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self._open: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text += data + " "


def test_admin_page(sandbox: Sandbox, admin: Admin) -> None:
    url = file_url(sandbox)
    fetch(url)
    empty = Page(Admin(sandbox)("GET", "/").text)
    assert "Faults none" in re.sub(r"\s+", " ", empty.text)
    sandbox.outcome = "<script>alert(1)</script>&"
    export_id = api(sandbox, "POST", "activities_export", MARCH).json()["id"]
    sandbox.faults.add("retrieve:429;times=1;retry_after=2", "download:interrupt;p=0.5")
    api(sandbox, path=f"activities_export/{export_id}")
    response = admin("GET", "/")
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.text.startswith("<!DOCTYPE html>\n<html lang=")
    page = Page(response.text)
    assert "script" not in page.tags
    text = re.sub(r"\s+", " ", page.text)
    for expected in (
        "Requests 4",
        "Refused with 429 1",
        "Responses with 200 3",
        "retrieve:429;times=1;retry_after=2 1 exhausted",
        "download:interrupt;p=0.5 0 active",
        "succeeded 1",
        "<script>alert(1)</script>& 1",
        "max_connections no limit",
        f"curl {sandbox.admin_url}/counters",
    ):
        assert expected in text


def test_admin_address_shows_no_secrets(sandbox: Sandbox, admin: Admin) -> None:
    url = file_url(sandbox)
    fetch(url)
    export_id = sandbox.exports[0].id
    sandbox.faults.add("ping:500")
    api(sandbox)
    for path in ("/", "/counters", "/faults", "/settings"):
        text = str(admin("GET", path).headers) + admin("GET", path).text
        for secret in (sandbox.api_key, sandbox.url_secret, url.partition("?")[0], "X-Amz", "Signature", export_id):
            assert secret not in text


# The command line


@contextlib.contextmanager
def command(tmp_path: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Run the sandbox as a command; yield the process and the lines that it prints at its start."""
    process = subprocess.Popen(
        [sys.executable, "-m", "airflow_provider_chartmogul.sandbox", "--port", "0", "--customers", "5", *arguments],
        stdout=subprocess.PIPE,
        stderr=(tmp_path / "stderr").open("w"),
        text=True,
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
    )
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if line.startswith("curl "):
                break
        yield process, lines
    finally:
        process.kill()
        process.communicate()


def test_command_line_faults(tmp_path: Path) -> None:
    arguments = ("--faults", "ping:429;retry_after=2;times=1", "--faults", "account:500 create:502")
    with command(tmp_path, *arguments) as (process, lines):
        (admin_url,) = [line.rpartition(" ")[2] for line in lines if line.startswith("Counters, faults and settings: ")]
        listed = requests.get(f"{admin_url}faults", timeout=TIMEOUT).json()
        assert [fault["fault"] for fault in listed] == ["ping:429;times=1;retry_after=2", "account:500", "create:502"]
        url = shlex.split(lines[-1])[-1]
        assert [requests.get(url, auth=AUTH, timeout=TIMEOUT).status_code for _ in range(2)] == [429, 200]
        process.terminate()
        process.wait(TIMEOUT)
    log = (tmp_path / "stderr").read_text()
    assert "api GET /v1/ping 429 (ping:429;times=1;retry_after=2)\n" in log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("fault", "message"),
    [("ping", "PLACE:KIND"), ("pong:500", "known places: ping"), ("ping:teapot", "known kinds: 400")],
)
def test_command_rejects_invalid_faults(tmp_path: Path, fault: str, message: str) -> None:
    with command(tmp_path, "--faults", fault) as (process, lines):
        assert process.wait(TIMEOUT) == 2
    errors = (tmp_path / "stderr").read_text()
    assert lines == []
    assert message in errors
    assert "Traceback" not in errors


def test_admin_port_in_use_raises(sandbox: Sandbox) -> None:
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{sandbox.admin_port}: .*in use"):
        Sandbox(admin_port=sandbox.admin_port).start()


def test_start_reuses_admin_port(sandbox: Sandbox) -> None:
    url = sandbox.admin_url
    sandbox.faults.add("ping:500")
    sandbox.stop()
    with pytest.raises(requests.ConnectionError):
        requests.get(url, timeout=TIMEOUT)
    sandbox.start()
    assert sandbox.admin_url == url
    assert len(requests.get(f"{url}/faults", timeout=TIMEOUT).json()) == 1
