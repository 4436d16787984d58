# SPDX-License-Identifier: Apache-2.0
"""
The sandbox's faults over real sockets, each as a client sees it, its counters and its admin address.
"""

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

from airflow_provider_chartmogul.sandbox import Fault, Sandbox
from airflow_provider_chartmogul.sandbox.faults import STATUSES

PATIENCE = 60.0
AUTH = ("sandbox-api-key", "")
MARCH = {"start-date": "2024-03-01", "end-date": "2024-04-01"}


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(export_seconds=0, customers=40, requests_per_second=None, max_connections=None) as running:
        yield running


def api(
    sandbox: Sandbox, method: str = "GET", path: str = "ping", body: Any = None, timeout: float = PATIENCE
) -> requests.Response:
    return requests.request(method, f"{sandbox.url}/v1/{path}", json=body, auth=AUTH, timeout=timeout)


def file_url(sandbox: Sandbox) -> str:
    export_id = api(sandbox, "POST", "activities_export", MARCH).json()["id"]
    return str(api(sandbox, path=f"activities_export/{export_id}").json()["file_url"])


def fetch(url: str, **headers: str) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        return session.get(
            url, headers={name.replace("_", "-"): value for name, value in headers.items()}, timeout=PATIENCE
        )


def received(url: str, **headers: str) -> tuple[http.client.HTTPResponse, bytes, bool]:
    """The answer, what came of its body, and whether that is what the head had announced."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=PATIENCE)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("GET", f"{parts.path}?{parts.query}", headers=named)
    response = connection.getresponse()
    try:
        return response, response.read(), True
    except http.client.IncompleteRead as error:
        return response, error.partial, False
    finally:
        connection.close()


def raw(sandbox: Sandbox, head: bytes, port: int | None = None) -> socket.socket:
    """A connection on which a request has been sent."""
    connection = socket.create_connection(("127.0.0.1", port or sandbox.port), timeout=PATIENCE)
    connection.sendall(head)
    return connection


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
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
def test_a_fault_is_where_it_was_put_and_nowhere_else(sandbox: Sandbox, place: str) -> None:
    with sandbox.faulty(f"{place}:520"):
        hit = {name for name, ask in REQUESTS.items() if ask(sandbox).status_code == 520}
    everywhere = set(REQUESTS)
    assert hit == {"any": everywhere, "api": everywhere - {"download"}}.get(place, {place})
    assert {seen.fault for seen in sandbox.requests} == {f"{place}:520", ""} - ({""} if place == "any" else set())
    assert not any(ask(sandbox).status_code == 520 for ask in REQUESTS.values())


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
def test_statuses_in_json(sandbox: Sandbox, fault: str, body: dict[str, Any]) -> None:
    sandbox.faults.add(f"retrieve:{fault}")
    reply = api(sandbox, path="activities_export/x")
    assert (reply.status_code, reply.json()) == (int(fault[:3]), body)
    assert reply.headers["Content-Type"].startswith("application/json")
    assert "Retry-After" not in reply.headers


def test_the_other_shape_of_422(sandbox: Sandbox) -> None:
    sandbox.faults.add("create:422;body=json2")
    body = api(sandbox, "POST", "activities_export", MARCH).json()
    assert body["end-date"] == ["must not be before start-date"]
    assert set(body["error_details"][0]) == {"param", "code", "message"}


@pytest.mark.parametrize("status", ["500", "502", "503", "504", "520", "524"])
@pytest.mark.parametrize("body", [None, "text", "html"])
def test_the_servers_own_errors_are_not_json(sandbox: Sandbox, status: str, body: str | None) -> None:
    sandbox.faults.add(Fault("ping", status, body=body))
    reply = api(sandbox)
    expected = body or ("html" if status in ("520", "524") else "text")
    assert reply.status_code == int(status)
    assert reply.reason
    if expected == "text":
        assert reply.headers["Content-Type"].startswith("text/plain")
        assert reply.text == f"{status} {reply.reason}"
    else:
        assert reply.headers["Content-Type"].startswith("text/html")
        assert f"<h1>{status} {reply.reason}</h1>" in reply.text


def test_retry_after_in_seconds_and_as_a_date(sandbox: Sandbox) -> None:
    sandbox.faults.add("ping:429;retry_after=7;times=1", "ping:503;retry_date=30;times=1")
    assert api(sandbox).headers["Retry-After"] == "7"
    before = datetime.now(UTC)
    date = parsedate_to_datetime(api(sandbox).headers["Retry-After"])
    assert 30 <= (date - before).total_seconds() < 30 + PATIENCE
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
def test_the_download_hosts_errors_are_s3s(sandbox: Sandbox, status: str, code: str) -> None:
    url = file_url(sandbox)
    sandbox.faults.add(f"download:{status};times=1;retry_after=3")
    reply = fetch(url)
    assert (reply.status_code, reply.headers["Retry-After"]) == (int(status), "3")
    assert reply.headers["Content-Type"].startswith("application/xml")
    assert f"<Code>{code}</Code><Message>" in reply.text
    assert ("<Message>Request has expired</Message>" in reply.text) == (status == "403")
    assert fetch(url).status_code == 200


@pytest.mark.parametrize("status", STATUSES)
def test_every_status_is_one_at_both_hosts(sandbox: Sandbox, status: str) -> None:
    sandbox.faults.add(f"any:{status}")
    assert api(sandbox).status_code == fetch(f"{sandbox.download_url}/x").status_code == int(status)


@pytest.mark.parametrize("what", ["500", "504", "429", "html", "reset"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_before_and_after_the_export_was_made(sandbox: Sandbox, what: str, when: str) -> None:
    sandbox.faults.add(f"create:{what};when={when}")
    with contextlib.suppress(requests.ConnectionError):
        api(sandbox, "POST", "activities_export", MARCH)
    assert len(sandbox.exports) == (1 if when == "after" else 0)


# Bodies


def test_html_where_json_should_be(sandbox: Sandbox) -> None:
    sandbox.faults.add("any:html")
    for reply in (api(sandbox), fetch(f"{sandbox.download_url}/x")):
        assert reply.status_code == 200
        assert reply.headers["Content-Type"].startswith("text/html")
        assert reply.text.startswith("<!DOCTYPE html>")


def test_half_a_json(sandbox: Sandbox) -> None:
    whole = api(sandbox, path="account").text
    sandbox.faults.add("account:half-json;times=1", "account:half-json;at=7;times=1")
    for length in (len(whole) // 2, 7):
        reply = api(sandbox, path="account")
        assert reply.status_code == 200
        assert reply.headers["Content-Type"].startswith("application/json")
        assert reply.text == whole[:length]
        with pytest.raises(requests.JSONDecodeError):
            reply.json()
    assert api(sandbox, path="account").text == whole


def test_a_half_answer_to_a_post_that_made_the_export(sandbox: Sandbox) -> None:
    sandbox.faults.add("create:half-json")
    api(sandbox, "POST", "activities_export", MARCH)
    assert len(sandbox.exports) == 1


# Connections


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_reset_is_one(sandbox: Sandbox, when: str) -> None:
    sandbox.faults.add(f"ping:reset;when={when};times=1")
    connection = raw(sandbox, b"GET /v1/ping HTTP/1.1\r\nHost: x\r\n\r\n")
    # An orderly end would give b"".
    with connection, pytest.raises(ConnectionResetError):
        connection.recv(1)
    (seen,) = sandbox.requests
    assert (seen.status, seen.fault) == (0, f"ping:reset;times=1;when={when}")
    assert api(sandbox).status_code == 200


def test_a_stall_is_a_head_and_then_nothing(sandbox: Sandbox) -> None:
    sandbox.faults.add("ping:stall")
    with raw(sandbox, b"GET /v1/ping HTTP/1.1\r\nHost: x\r\n\r\n") as connection:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += connection.recv(4096)
        assert head.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            connection.recv(1)
    # Once the client has gone, so has the connection.
    eventually(lambda: sandbox.counters.as_json()["api"]["connections"]["now"] == 0)
    assert [seen.fault for seen in sandbox.requests] == ["ping:stall"]


def test_a_stall_in_the_middle_of_a_download(sandbox: Sandbox) -> None:
    url = file_url(sandbox)
    whole = fetch(url).content
    sandbox.faults.add("download:stall;at=100")
    parts = urlsplit(url)
    head = f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n"
    with raw(sandbox, head.encode(), sandbox.download_port) as connection:
        came = b""
        while len(came.partition(b"\r\n\r\n")[2]) < 100:
            came += connection.recv(4096)
        assert f"Content-Length: {len(whole)}\r\n".encode() in came
        assert came.endswith(b"\r\n\r\n" + whole[:100])
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            connection.recv(1)


def test_stalls_and_slow_answers_do_not_hold_up_the_end() -> None:
    with Sandbox(faults=["ping:stall", "account:slow;delay=3600"], customers=1) as sandbox:
        basic = requests.auth._basic_auth_str(*AUTH).encode()  # type: ignore[attr-defined]
        with contextlib.ExitStack() as stack:
            for path in (b"ping", b"account"):
                head = b"GET /v1/" + path + b" HTTP/1.1\r\nHost: x\r\nAuthorization: " + basic + b"\r\n\r\n"
                stack.enter_context(raw(sandbox, head))
            eventually(lambda: sandbox.counters.as_json()["api"]["requests"] == 2)
            before = time.monotonic()
            sandbox.stop()
            assert time.monotonic() - before < PATIENCE / 2


def test_a_slow_answer(sandbox: Sandbox) -> None:
    sandbox.faults.add("account:slow;delay=0.3;times=1", "account:503;times=1", "create:slow;delay=3600")
    before = time.monotonic()
    assert api(sandbox, path="account").status_code == 503
    assert time.monotonic() - before >= 0.3
    assert api(sandbox, path="account").status_code == 200
    # It is acted on at once, and told late: who gives up has made an export.
    with pytest.raises(requests.ReadTimeout):
        api(sandbox, "POST", "activities_export", MARCH, timeout=0.5)
    eventually(lambda: len(sandbox.exports) == 1)


# Downloads


def test_a_break_comes_after_the_bytes_it_was_given(sandbox: Sandbox) -> None:
    url = file_url(sandbox)
    whole = fetch(url).content
    sandbox.faults.add("download:break;at=1000;times=2", "download:break;at=0;times=1")
    response, came, complete = received(url)
    assert (response.status, response.headers["Content-Length"]) == (200, str(len(whole)))
    assert (came, complete) == (whole[:1000], False)
    # Counted in the answer, not in the file: a client that goes on gets further each time.
    response, came, complete = received(url, Range="bytes=1000-")
    assert (response.status, came, complete) == (206, whole[1000:2000], False)
    response, came, complete = received(url)
    assert (response.status, came, complete) == (200, b"", False)
    assert received(url)[1:] == (whole, True)


def test_a_drawn_break_is_in_the_middle_and_the_same_for_the_same_seed(sandbox: Sandbox) -> None:
    url = file_url(sandbox)
    size = len(fetch(url).content)
    lengths: dict[int, list[int]] = {}
    for seed in (1, 1, 2):
        with sandbox.faulty(f"download:break;seed={seed}"):
            came = [len(received(url)[1]) for _ in range(5)]
        assert all(0 < length < size for length in came)
        assert lengths.setdefault(seed, came) == came
    assert lengths[1] != lengths[2]
    assert len(set(lengths[1])) > 1


def test_cut_short_in_silence(sandbox: Sandbox) -> None:
    url = file_url(sandbox)
    whole = fetch(url).content
    sandbox.faults.add("download:cut;at=1000")
    response, came, complete = received(url)
    assert (response.headers["Content-Length"], came, complete) == ("1000", whole[:1000], True)
    # The checksum is that of the file as it should be.
    assert response.headers["ETag"] == f'"{hashlib.md5(whole).hexdigest()}"'


@pytest.mark.parametrize("at", [None, 0, 100])
def test_one_bit_is_another(sandbox: Sandbox, at: int | None) -> None:
    url = file_url(sandbox)
    whole = fetch(url).content
    sandbox.faults.add(Fault("download", "flip", at=at))
    response, came, complete = received(url)
    assert complete
    assert len(came) == len(whole)
    changed = [index for index, (one, other) in enumerate(zip(came, whole, strict=True)) if one != other]
    assert len(changed) == 1
    assert at in (None, changed[0])
    assert (came[changed[0]] ^ whole[changed[0]]).bit_count() == 1
    assert response.headers["ETag"] == f'"{hashlib.md5(whole).hexdigest()}"'
    sandbox.faults.clear()
    assert fetch(url).content == whole, "the file itself is as it was"


def test_an_etag_that_changes(sandbox: Sandbox) -> None:
    url = file_url(sandbox)
    true = fetch(url).headers["ETag"]
    sandbox.faults.add("download:etag")
    first, second = (fetch(url).headers["ETag"] for _ in range(2))
    assert len({true, first, second}) == 3
    assert fetch(url, Range="bytes=5-9", If_Match=second).status_code == 412
    part = fetch(url, Range="bytes=5-9")
    assert part.status_code == 206
    assert part.headers["ETag"] not in (true, first, second)


def test_a_server_without_ranges(sandbox: Sandbox) -> None:
    url = file_url(sandbox)
    whole = fetch(url).content
    sandbox.faults.add("download:no-range")
    reply = fetch(url, Range="bytes=5-9")
    assert (reply.status_code, reply.content) == (200, whole)
    assert "Content-Range" not in reply.headers
    assert "Accept-Ranges" not in reply.headers


def test_spoilings_add_up(sandbox: Sandbox) -> None:
    url = file_url(sandbox)
    whole = fetch(url).content
    sandbox.faults.add("download:flip;at=0", "download:no-range", "download:break;at=10")
    response, came, complete = received(url, Range="bytes=5-")
    assert (response.status, len(came), complete) == (200, 10, False)
    assert came[0] != whole[0]
    assert came[1:] == whole[1:10]


# Python


def test_faulty_ends_with_its_block_and_counts_its_hits(sandbox: Sandbox) -> None:
    sandbox.faults.add("account:500")
    with sandbox.faulty("ping:500;times=2", Fault("ping", 502, times=1)) as (first, second):
        assert [api(sandbox).status_code for _ in range(4)] == [500, 500, 502, 200]
        assert (first.hits, first.over, second.hits) == (2, True, 1)
    with pytest.raises(KeyError), sandbox.faulty("ping:500"):
        raise KeyError
    assert api(sandbox).status_code == 200
    assert api(sandbox, path="account").status_code == 500
    with pytest.raises(ValueError, match="no such place"):
        Sandbox(faults=["nowhere:500"])


def test_faults_from_many_threads(sandbox: Sandbox) -> None:
    (added,) = sandbox.faults.add("ping:503;times=50")
    statuses: list[int] = []

    def ask() -> None:
        with requests.Session() as session:
            for _ in range(25):
                statuses.append(session.get(f"{sandbox.url}/v1/ping", auth=AUTH, timeout=PATIENCE).status_code)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert (statuses.count(503), statuses.count(200), added.hits) == (50, 50, 50)


# The admin address


class Admin:
    def __init__(self, sandbox: Sandbox) -> None:
        self.url = sandbox.admin_url

    def __call__(self, method: str, path: str, data: str | bytes | None = None) -> requests.Response:
        return requests.request(method, self.url + path, data=data, timeout=PATIENCE)


@pytest.fixture
def admin(sandbox: Sandbox) -> Admin:
    return Admin(sandbox)


def test_faults_are_added_shown_and_taken_away(sandbox: Sandbox, admin: Admin) -> None:
    assert admin("GET", "/faults").json() == []
    added = admin("POST", "/faults", "ping:500;times=1\ncreate:reset;when=after")
    assert added.status_code == 201
    assert added.json() == [
        {"id": 1, "fault": "ping:500;times=1", "hits": 0, "over": False},
        {"id": 2, "fault": "create:reset;when=after", "hits": 0, "over": False},
    ]
    one = {"on": "account", "what": 503, "retry_after": 1}
    assert admin("POST", "/faults", json.dumps(one)).json()[0]["fault"] == "account:503;retry_after=1"
    both = json.dumps([one, "any:slow;delay=0"])
    assert [fault["id"] for fault in admin("POST", "/faults", both).json()] == [4, 5]
    assert [api(sandbox).status_code for _ in range(2)] == [500, 200]
    assert admin("GET", "/faults").json()[0] == {"id": 1, "fault": "ping:500;times=1", "hits": 1, "over": True}
    assert [fault["id"] for fault in admin("DELETE", "/faults/2").json()] == [1, 3, 4, 5]
    assert admin("DELETE", "/faults/2").status_code == 404
    assert admin("DELETE", "/faults").json() == admin("GET", "/faults").json() == []
    assert api(sandbox, path="account").status_code == 200


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("", "wanted in the body"),
        ("ping:500 retreive:429", "no such place for a fault: 'retreive'; known"),
        ("ping:500&times=1", "no such fault: '500&times=1'"),
        ('{"on": "ping"', "no JSON"),
        ('{"on": "ping"}', '"what"'),
        ('["ping:500", 5]', "an object or a string"),
        (b"\xff", "decode"),
        ("[" * 100_000, "" if sys.version_info < (3, 12) else "recursion"),
    ],
)
def test_faults_that_make_no_sense_are_told(sandbox: Sandbox, admin: Admin, data: str | bytes, says: str) -> None:
    reply = admin("POST", "/faults", data)
    assert reply.status_code == 400
    assert says in reply.json()["error"]
    assert list(sandbox.faults) == []


def test_settings(sandbox: Sandbox, admin: Admin) -> None:
    assert admin("GET", "/settings").json() == sandbox.settings
    reply = admin("PATCH", "/settings", '{"outcome": "failed", "url_seconds": 60}')
    assert (reply.status_code, reply.json()) == (200, {**sandbox.settings, "outcome": "failed", "url_seconds": 60})
    made = api(sandbox, "POST", "activities_export", MARCH).json()["id"]
    assert api(sandbox, path=f"activities_export/{made}").json()["status"] == "failed"
    for wrong in (
        '{"outcome": "", "url_seconds": 5}',
        '{"api_key": "x"}',
        "[]",
        "outcome=failed",
        '{"url_seconds": NaN}',
    ):
        assert admin("PATCH", "/settings", wrong).status_code == 400
    assert sandbox.url_seconds == 60


def test_other_addresses_are_told_what_there_is(admin: Admin) -> None:
    for method, path, status in (("GET", "/v1/ping", 404), ("POST", "/counters", 405), ("PUT", "/faults", 405)):
        reply = admin(method, path)
        assert reply.status_code == status
        assert "PATCH /settings" in reply.json()["error"]


def test_counters_count_the_hosts_and_not_the_admin_address(sandbox: Sandbox, admin: Admin) -> None:
    with requests.Session() as session:
        for path in ("ping", "ping", "account", "nowhere"):
            session.get(f"{sandbox.url}/v1/{path}", auth=AUTH, timeout=PATIENCE)
        counted = admin("GET", "/counters").json()
        assert counted["api"]["connections"] == {"now": 1, "most": 1}
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
    counted = admin("GET", "/counters").json()
    assert counted["api"]["requests"] == 11
    assert counted["api"]["answers"] == {"200": 7, "404": 1, "429": 1, "503": 2}
    assert counted["api"]["refused"] == {"429": 1, "503": 2}
    assert counted["api"]["hit_by_faults"] == 2
    assert 1 <= counted["api"]["per_second"]["busiest"] <= 11
    assert counted["download"]["requests"] == 2
    assert counted["download"]["answers"] == {"200": 1, "none": 1}
    assert counted["exports"] == {"processing": 1, "succeeded": 1}
    assert [fault["hits"] for fault in counted["faults"]] == [2, 1]
    assert {seen.host for seen in sandbox.requests} == {"api", "download"}
    assert len(sandbox.requests) == 13
    again = admin("POST", "/reset").json()
    assert (again["api"]["requests"], again["api"]["answers"], again["download"]["requests"]) == (0, {}, 0)
    assert len(sandbox.requests) == 13, "the record is another thing"


def test_idle_connections_are_counted_too(sandbox: Sandbox, admin: Admin) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(socket.create_connection(("127.0.0.1", sandbox.port)))
        eventually(lambda: admin("GET", "/counters").json()["api"]["connections"] == {"now": 5, "most": 5})
    eventually(lambda: admin("GET", "/counters").json()["api"]["connections"] == {"now": 0, "most": 5})


class Page(html.parser.HTMLParser):
    """A page's text, and whether every element that is opened is closed in its order."""

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


def test_the_page(sandbox: Sandbox, admin: Admin) -> None:
    url = file_url(sandbox)
    fetch(url)
    empty = Page(Admin(sandbox)("GET", "/").text)
    assert "Faults none" in re.sub(r"\s+", " ", empty.text)
    sandbox.outcome = "<script>alert(1)</script>&"
    file_url_of_unknown = api(sandbox, "POST", "activities_export", MARCH).json()["id"]
    sandbox.faults.add("retrieve:429;times=1;retry_after=2", "download:break;p=0.5")
    api(sandbox, path=f"activities_export/{file_url_of_unknown}")
    reply = admin("GET", "/")
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
    assert reply.headers["Cache-Control"] == "no-store"
    assert reply.text.startswith("<!DOCTYPE html>\n<html lang=")
    page = Page(reply.text)
    assert "script" not in page.tags
    text = re.sub(r"\s+", " ", page.text)
    for words in (
        "Requests so far 4",
        "Refused with 429 1",
        "Answered 200 3",
        "retrieve:429;times=1;retry_after=2 1 over",
        "download:break;p=0.5 0 on",
        "succeeded 1",
        "<script>alert(1)</script>& 1",
        "max_connections no limit",
        f"curl {sandbox.admin_url}/counters",
    ):
        assert words in text, words


def test_nothing_secret_is_at_the_admin_address(sandbox: Sandbox, admin: Admin) -> None:
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
    """The sandbox as a command, and what it printed at its start."""
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


def test_faults_on_the_command_line(tmp_path: Path) -> None:
    given = ("--faults", "ping:429;retry_after=2;times=1", "--faults", "account:500 create:502")
    with command(tmp_path, *given) as (process, lines):
        (admin_url,) = [line.rpartition(" ")[2] for line in lines if line.startswith("Counters, faults and settings: ")]
        listed = requests.get(f"{admin_url}faults", timeout=PATIENCE).json()
        assert [one["fault"] for one in listed] == ["ping:429;times=1;retry_after=2", "account:500", "create:502"]
        url = shlex.split(lines[-1])[-1]
        assert [requests.get(url, auth=AUTH, timeout=PATIENCE).status_code for _ in range(2)] == [429, 200]
        process.terminate()
        process.wait(PATIENCE)
    log = (tmp_path / "stderr").read_text()
    assert "api GET /v1/ping 429 (ping:429;times=1;retry_after=2)\n" in log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("fault", "says"), [("ping", "PLACE:KIND"), ("pong:500", "known: ping"), ("ping:teapot", "known: 400")]
)
def test_the_command_refuses_faults_that_make_no_sense(tmp_path: Path, fault: str, says: str) -> None:
    with command(tmp_path, "--faults", fault) as (process, lines):
        assert process.wait(PATIENCE) == 2
    errors = (tmp_path / "stderr").read_text()
    assert lines == []
    assert says in errors
    assert "Traceback" not in errors


def test_a_taken_admin_port_is_told(sandbox: Sandbox) -> None:
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{sandbox.admin_port}: .*in use"):
        Sandbox(admin_port=sandbox.admin_port).start()


def test_the_admin_port_is_the_same_after_a_stop(sandbox: Sandbox) -> None:
    url = sandbox.admin_url
    sandbox.faults.add("ping:500")
    sandbox.stop()
    with pytest.raises(requests.ConnectionError):
        requests.get(url, timeout=PATIENCE)
    sandbox.start()
    assert sandbox.admin_url == url
    assert len(requests.get(f"{url}/faults", timeout=PATIENCE).json()) == 1
