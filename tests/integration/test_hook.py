# SPDX-License-Identifier: Apache-2.0
"""The hook over real sockets: where the key is sent, what is retried, and what errors say."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import requests
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_chartmogul import __version__
from airflow_provider_chartmogul.api import retries
from airflow_provider_chartmogul.api.exports import ExportStatus
from airflow_provider_chartmogul.exceptions import (
    AuthenticationError,
    ChartMogulError,
    ForeignRedirectError,
    NoResponseError,
    RateLimitError,
    ServerError,
    UnexpectedResponseError,
)
from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook, fail_without_retry
from airflow_provider_chartmogul.sandbox import Sandbox
from tests.integration.servers import Response, ScriptedServer, closed_port, json_response

KEY = "the-api-key-of-the-test"
BASIC = "Basic " + base64.b64encode(f"{KEY}:".encode()).decode()
CREATED = json_response({"id": "created-1", "status": "pending", "params": {}})


def use(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, **hook: Any) -> ChartMogulHook:
    monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", server.connection_json(requests_per_second=100, timeout=2))
    return ChartMogulHook(**hook)


@pytest.fixture(autouse=True)
def _short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the delays between retries."""
    monkeypatch.setattr(retries, "_MAX_BACKOFF_SECONDS", 0.05)


class TestSandbox:
    def test_create_and_get_export(self, sandbox: Sandbox) -> None:
        with ChartMogulHook() as hook:
            created = hook.create_activities_export(
                start_date=datetime(2024, 1, 1, tzinfo=UTC),
                end_date=datetime(2024, 2, 1, tzinfo=UTC),
                activity_type="churn",
            )
            assert created.status is ExportStatus.PENDING
            done = hook.get_activities_export(created.id)

        assert done.status is ExportStatus.SUCCEEDED
        assert (done.start_date, done.end_date) == (datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC))
        assert done.activity_type == "churn"
        assert done.file_url is not None
        assert "X-Amz-Signature" in done.file_url
        assert "X-Amz" not in repr(done)

    def test_get_account(self, sandbox: Sandbox) -> None:
        assert {"name", "currency", "time_zone", "week_start_on"} <= ChartMogulHook().get_account().keys()

    def test_user_agent(self, sandbox: Sandbox) -> None:
        ChartMogulHook().get_account()
        assert sandbox.requests[0].headers["user-agent"] == f"airflow-provider-chartmogul/{__version__}"

    def test_session_for_other_endpoints(self, sandbox: Sandbox) -> None:
        with ChartMogulHook() as hook:
            assert hook.get_conn().get(f"{hook.base_url}/ping").json() == {"data": "pong!"}


class TestTestConnection:
    def test_working_connection(self, sandbox: Sandbox) -> None:
        assert ChartMogulHook().test_connection() == (True, f"ChartMogul at {sandbox.url} accepts the API key.")

    def test_missing_key(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", '{"conn_type": "chartmogul"}')
        works, message = ChartMogulHook().test_connection()
        assert not works
        assert "no API key" in message
        assert "password" in message

    def test_wrong_key(self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        wrong = sandbox.connection_uri.replace("sandbox-api-key", "wrong-key")
        monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", wrong)
        works, message = ChartMogulHook().test_connection()
        assert not works
        assert "refused the API key (401)" in message
        assert "wrong-key" not in message

    def test_connection_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with closed_port() as port:
            monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", f"chartmogul://:k@127.0.0.1:{port}/http")
            works, message = ChartMogulHook().test_connection()
        assert not works
        assert "cannot be reached" in message
        assert f"127.0.0.1:{port}" in message
        assert "Connection refused" in message

    def test_unknown_host(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", "chartmogul://:k@chartmogul.invalid/https")
        works, message = ChartMogulHook().test_connection()
        assert not works
        assert "cannot be reached" in message
        assert "chartmogul.invalid" in message

    @pytest.mark.parametrize(
        "first_response",
        [
            Response(200, b"<html><title>Welcome to nginx</title></html>"),
            Response(404, b"<html><title>404 Not Found</title></html>"),
            json_response({"status": "ok"}),
            Response(301, headers={"Location": "https://www.example.com/"}),
        ],
    )
    def test_server_is_not_chartmogul(self, first_response: Response, monkeypatch: pytest.MonkeyPatch) -> None:
        with ScriptedServer(first_response) as server:
            works, message = use(server, monkeypatch).test_connection()
        assert not works
        assert "does not look like ChartMogul" in message

    def test_connection_test_does_not_retry(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with ScriptedServer(Response(500)) as server:
            works, message = use(server, monkeypatch).test_connection()
            assert len(server.requests) == 1
        assert not works
        assert "500" in message


class TestKeyStaysAtItsHost:
    def test_key_is_sent_to_its_host_only(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with ScriptedServer(Response(200)) as home, ScriptedServer(Response(200)) as other:
            session = use(home, monkeypatch).get_conn()
            session.get(home.url)
            # For the key, another port is another host.
            session.get(other.url)
            session.get(other.url, headers={"Authorization": "Bearer mine"})
        assert home.requests[0].headers["authorization"] == BASIC
        assert all("authorization" not in request.headers for request in other.requests)

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_redirect_to_another_host_is_refused(self, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
        with ScriptedServer(Response(200)) as other:
            elsewhere = Response(status, headers={"Location": f"{other.url}/?signature=secret"})
            with ScriptedServer(elsewhere) as home:
                hook = use(home, monkeypatch)
                with pytest.raises(ForeignRedirectError) as raised:
                    hook.get_conn().get(home.url)
                assert "secret" not in str(raised.value)
                with pytest.raises(UnexpectedResponseError, match="redirect"):
                    ChartMogulHook(retry_seconds=0).get_account()
            assert other.requests == []

    def test_redirect_within_the_host_keeps_the_key(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with ScriptedServer(Response(302, headers={"Location": "/elsewhere"}), Response(200)) as home:
            use(home, monkeypatch).get_conn().get(home.url)
        assert [request.headers["authorization"] for request in home.requests] == [BASIC, BASIC]

    def test_netrc_is_ignored(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "netrc").write_text("default login somebody password else\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        with (
            ScriptedServer(Response(302, headers={"Location": "/2"}), Response(200)) as home,
            ScriptedServer(Response(200)) as other,
        ):
            assert requests.get(other.url).request.headers["Authorization"], "requests reads .netrc"
            session = use(home, monkeypatch).get_conn()
            session.get(home.url)
            session.get(other.url)
        assert [request.headers["authorization"] for request in home.requests] == [BASIC, BASIC]
        assert "authorization" not in other.requests[1].headers

    def test_every_request_has_a_timeout(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with ScriptedServer(Response(stall=True)) as server:
            session = use(server, monkeypatch).get_conn()
            with pytest.raises(requests.ReadTimeout):
                session.get(server.url)
            with pytest.raises(requests.ReadTimeout):
                session.get(server.url, timeout=None)

    def test_unencrypted_key_is_logged(self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", "chartmogul://:k@chartmogul.invalid/http")
        assert ChartMogulHook().settings.sends_key_unencrypted
        monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", "chartmogul://:k@127.0.0.1:1/http")
        assert not ChartMogulHook().settings.sends_key_unencrypted


class TestPostIsSentOnce:
    @pytest.mark.parametrize(
        "first_response",
        [
            Response(500, b"Internal Server Error"),
            Response(502, b"<html><title>Bad gateway</title></html>"),
            Response(503),
            Response(504),
            Response(402),
            Response(200, b"<html>"),
            Response(200, b'{"id": "17', truncate_at=5),
            Response(200, b"{}"),
            Response(307, headers={"Location": "/v1/activities_export"}),
            Response(hang_up=True),
            Response(stall=True),
        ],
        ids=str,
    )
    def test_post_is_not_repeated_if_it_may_have_been_acted_on(
        self, first_response: Response, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with ScriptedServer(first_response) as server:
            with pytest.raises(ChartMogulError):
                use(server, monkeypatch).create_activities_export()
            time.sleep(0.2)
            assert [request.method for request in server.requests] == ["POST"]

    def test_post_is_repeated_after_429(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with ScriptedServer(Response(429), Response(429, headers={"Retry-After": "0"}), CREATED) as server:
            assert use(server, monkeypatch).create_activities_export().id == "created-1"
            assert len(server.requests) == 3

    def test_post_is_repeated_after_a_failed_connect(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with closed_port() as port:
            monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", f"chartmogul://:k@127.0.0.1:{port}/http")
            with pytest.raises(NoResponseError) as raised:
                ChartMogulHook(retry_seconds=0.5).create_activities_export()
        assert raised.value.sent is False

    def test_post_is_not_repeated_on_a_stale_connection(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """If the server closes an idle connection as the next request is sent, it may have acted on the request."""
        with ScriptedServer(json_response({"data": "pong!"}), Response(hang_up=True), CREATED) as server:
            hook = use(server, monkeypatch)
            hook.get_conn().get(f"{hook.base_url}/ping")
            with pytest.raises(NoResponseError):
                hook.create_activities_export()
            assert [request.method for request in server.requests] == ["GET", "POST"]


class TestGetIsRetried:
    @pytest.mark.parametrize(
        "first_response",
        [Response(s) for s in (408, 425, 429, 500, 502, 503, 504, 520, 524)]
        + [
            Response(200, b"<html>"),
            Response(200, b'{"id"', truncate_at=2),
            Response(hang_up=True),
            Response(stall=True),
        ],
        ids=str,
    )
    def test_get_is_retried_until_it_succeeds(self, first_response: Response, monkeypatch: pytest.MonkeyPatch) -> None:
        with ScriptedServer(first_response, json_response({"id": "e-1", "status": "succeeded"})) as server:
            assert use(server, monkeypatch).get_activities_export("e-1").status is ExportStatus.SUCCEEDED
            assert len(server.requests) == 2

    def test_get_is_retried_for_retry_seconds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with ScriptedServer(Response(503, b"Over capacity")) as server:
            with pytest.raises(ServerError, match="503: Over capacity"):
                use(server, monkeypatch, retry_seconds=0.3).get_activities_export("e-1")
            assert 2 <= len(server.requests) < 60

    def test_get_is_not_retried_after_a_longer_retry_after(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with ScriptedServer(Response(429, headers={"Retry-After": "3600"})) as server:
            with pytest.raises(RateLimitError):
                use(server, monkeypatch).get_activities_export("e-1")
            assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("first_response", "message_part"),
    [
        (json_response({"code": 400, "message": 'Parameter "x" is missing', "param": "x"}, 400), "400: Parameter"),
        (json_response({"code": 401, "message": "No valid API key provided", "param": None}, 401), "No valid API key"),
        (json_response({"message": "Plan expired"}, 403), "403: Plan expired"),
        (json_response({"error": "Export not found"}, 404), "404: Export not found"),
        (json_response({"errors": {"type": "is unknown"}}, 422), "422: type: is unknown"),
        (json_response({"type": ["is unknown"], "error_details": []}, 422), "422: type: is unknown"),
    ],
)
def test_permanent_errors_fail_at_once_with_chartmoguls_message(
    first_response: Response, message_part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptedServer(first_response) as server:
        with pytest.raises(AirflowFailException) as raised, fail_without_retry():
            use(server, monkeypatch).get_activities_export("e-1")
        assert message_part in str(raised.value)
        assert len(server.requests) == 1


def test_no_error_and_no_log_line_shows_the_key(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even if a gateway echoes the request on its error page."""

    def echo(request: Any) -> Response:
        return Response(500, json.dumps(request.headers).encode())

    caplog.set_level(logging.DEBUG)
    with ScriptedServer(echo) as server, pytest.raises(ServerError) as raised:
        use(server, monkeypatch, retry_seconds=0.2).get_account()
    shown = caplog.text + str(raised.value) + repr(raised.value) + repr(raised.value.__dict__)
    assert server.requests[0].headers["authorization"] == BASIC
    assert KEY not in shown
    assert BASIC.removeprefix("Basic ") not in shown


@pytest.mark.parametrize(
    "connection",
    [
        '{"conn_type": "chartmogul", "host": "%s", "password": "sandbox-api-key"}',
        '{"conn_type": "chartmogul", "host": "%s/v1/", "password": " sandbox-api-key\\n"}',
        '{"conn_type": "http", "host": "%s", "login": "sandbox-api-key"}',
        '{"conn_type": "chartmogul", "host": "%s", "password": "sandbox-api-key", "extra": {"timeout": "5"}}',
        '{"conn_type": "chartmogul", "host": "%s", "password": "sandbox-api-key", "extra": "{\\"timeout\\": 5}"}',
    ],
)
def test_connection_formats(connection: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", connection % sandbox.url)
    assert ChartMogulHook().test_connection()[0]


@pytest.mark.parametrize("conn_id", [None, "", " "])
def test_empty_connection_id_is_reported(conn_id: Any) -> None:
    with pytest.raises(AirflowFailException, match="chartmogul_conn_id cannot be"), fail_without_retry():
        ChartMogulHook(conn_id).get_account()


def test_hook_keeps_to_requests_per_second(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the server's clock, requests are as far apart as the rate demands."""
    monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", f"{sandbox.connection_uri}?requests_per_second=20")
    with ChartMogulHook() as hook:
        for _ in range(5):
            hook.get_account()
    times = [request.started for request in sandbox.requests]
    assert times[-1] - times[0] >= 4 / 20 - 0.04


class TestRotatedKey:
    """The connection has a new key, and the old one is revoked, while a task runs."""

    @pytest.fixture
    def hook(self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> ChartMogulHook:
        hook = ChartMogulHook()
        hook.get_account()
        sandbox.api_key = "rotated"
        monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", sandbox.connection_uri)
        return hook

    def test_request_is_sent_again_with_the_new_key(self, hook: ChartMogulHook, sandbox: Sandbox) -> None:
        hook.get_account()
        assert hook.create_activities_export().status is ExportStatus.PENDING
        assert [request.status for request in sandbox.requests] == [200, 401, 200, 200]

    def test_post_is_sent_again_with_the_new_key(self, hook: ChartMogulHook, sandbox: Sandbox) -> None:
        hook.create_activities_export()
        assert [request.status for request in sandbox.requests] == [200, 401, 200]
        assert len(sandbox.exports) == 1

    def test_settings_and_session_have_the_new_key(self, hook: ChartMogulHook) -> None:
        hook.get_account()
        assert hook.settings.api_key == "rotated"
        assert hook.get_conn().get(f"{hook.base_url}/ping").status_code == 200

    def test_wrong_key_is_looked_up_once(self, hook: ChartMogulHook, sandbox: Sandbox) -> None:
        sandbox.api_key = "rotated again"
        with pytest.raises(AuthenticationError):
            hook.get_account()
        assert [request.status for request in sandbox.requests] == [200, 401, 401]


@pytest.mark.parametrize("login", [None, KEY])
def test_only_a_key_that_airflow_does_not_mask_is_masked(login: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """dag.test() logs every masked value at DEBUG, so that the fewer the better."""
    masked: list[str] = []
    monkeypatch.setattr("airflow_provider_chartmogul.hooks.chartmogul.mask_secret", masked.append)
    connection = {"conn_type": "chartmogul", "login": login, "password": None if login else KEY}
    monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", json.dumps(connection))
    assert ChartMogulHook().settings.api_key == KEY
    assert masked == ([KEY] if login else [])


def test_export_is_no_xcom_since_its_url_is_a_credential(sandbox: Sandbox) -> None:
    try:
        serde: Any = import_module("airflow.sdk.serde")
    except ImportError:
        serde = import_module("airflow.serialization.serde")
    export = ChartMogulHook().create_activities_export()
    with pytest.raises(TypeError, match="its file_url is a credential: return its id instead"):
        serde.serialize(export)
    assert json.dumps(serde.serialize({"id": export.id, "status": export.status})) == json.dumps(
        {"id": export.id, "status": "pending"}
    )


class TestTls:
    """A server that reads the POST and then breaks the TLS stream; ``posts`` is what it has read."""

    @pytest.fixture
    def posts(self, tls: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
        read: list[bytes] = []
        listener = socket.create_server(("127.0.0.1", 0))

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with contextlib.suppress(OSError), tls.wrap_socket(connection, server_side=True) as secure:
                    read.append(secure.recv(65536))
                    # This is not a TLS record, so the client's next read is a TLS error and not a reset.
                    os.write(secure.fileno(), b"garbage" * 10)
                    time.sleep(0.2)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        port = listener.getsockname()[1]
        monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", f"chartmogul://:{KEY}@localhost:{port}/https")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "tls.pem"))
        yield read
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)

    def test_post_is_sent_once_if_tls_breaks(self, posts: list[bytes]) -> None:
        with pytest.raises(NoResponseError) as raised:
            ChartMogulHook().create_activities_export()
        assert raised.value.sent
        assert len(posts) == 1
        assert posts[0].startswith(b"POST ")

    def test_untrusted_certificate_is_reported(self, posts: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("REQUESTS_CA_BUNDLE")
        works, message = ChartMogulHook().test_connection()
        assert not works
        assert "certificate verify failed" in message
        assert posts == [], "the key must not be sent to an unverified host"
