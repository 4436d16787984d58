# SPDX-License-Identifier: Apache-2.0
"""
Proxies and CA bundles of the environment.

A worker uses requests and a triggerer aiohttp, which read the environment differently. If a worker can create an
export that the triggerer cannot reach, the wait ends only at its timeout; so both must behave alike.
"""

from __future__ import annotations

import json
import logging
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from airflow_provider_chartmogul.api.exports import ExportStatus
from airflow_provider_chartmogul.exceptions import ChartMogulError, ConnectionSettingsError, NoResponseError
from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook
from airflow_provider_chartmogul.storage import download
from airflow_provider_chartmogul.triggers.activities_export import ActivitiesExportTrigger
from tests.certificates import write_lax_certificate
from tests.integration.connect_proxy import ConnectProxy
from tests.integration.servers import Response, ScriptedServer, closed_port, json_response
from tests.integration.task_runner import run_trigger

EXPORT_ID = "e-1"
DONE = json_response({"id": EXPORT_ID, "status": "succeeded"})

#: This name never resolves (RFC 6761), so that only a proxy can reach it.
HOST = "chartmogul.invalid"


def poll(where: str) -> str:
    """Poll the export once, on a worker or in a triggerer; return its status, or the error message."""
    if where == "triggerer":
        trigger = ActivitiesExportTrigger("chartmogul_default", EXPORT_ID, poll_interval=0.1, max_failure_seconds=0)
        event: dict[str, Any] = run_trigger(trigger)
        return str(event.get("message") or event["status"])
    try:
        with ChartMogulHook(retry_seconds=0) as hook:
            export = hook.get_activities_export(EXPORT_ID)
    except ChartMogulError as error:
        return str(error)
    return "success" if export.status is ExportStatus.SUCCEEDED else export.status_word


both = pytest.mark.parametrize("where", ["worker", "triggerer"])


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the proxies and certificates of the machine that runs the tests."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


def use(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {"conn_type": "chartmogul", "host": host, "password": "the-api-key", "extra": {"timeout": 5}}
    monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", json.dumps(connection))


class TestProxies:
    @pytest.fixture
    def proxy(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
        use(f"http://{HOST}:8080", monkeypatch)
        with ScriptedServer(DONE) as server:
            yield server

    @both
    @pytest.mark.parametrize(
        "environment",
        [
            {"HTTP_PROXY": "http://{proxy}"},
            {"http_proxy": "http://{proxy}"},
            {"HTTP_PROXY": "{proxy}"},
            {"ALL_PROXY": "http://{proxy}"},
            {"all_proxy": "http://{proxy}", "NO_PROXY": "example.com,10.0.0.0/8"},
            {"HTTP_PROXY": "http://somebody:else@{proxy}"},
        ],
        ids=str,
    )
    def test_proxy_of_the_environment_is_used(
        self, environment: dict[str, str], where: str, proxy: ScriptedServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in environment.items():
            monkeypatch.setenv(name, value.format(proxy=proxy.url.removeprefix("http://")))
        assert poll(where) == "success"
        (request,) = proxy.requests
        assert request.path == f"http://{HOST}:8080/v1/activities_export/{EXPORT_ID}"

    @both
    @pytest.mark.parametrize("no_proxy", [HOST, f"{HOST}:8080", ".invalid", "*"])
    def test_no_proxy_is_respected(
        self, no_proxy: str, where: str, proxy: ScriptedServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", no_proxy)
        assert "the connection failed" in poll(where)
        assert proxy.requests == []

    def test_unsupported_proxy_is_reported(self, proxy: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ALL_PROXY", f"socks5h://somebody:else@{proxy.url.removeprefix('http://')}")
        outcome = poll("triggerer")
        assert f"a socks5h proxy for http://{HOST}:8080" in outcome
        assert "deferrable=False" in outcome
        assert "else@" not in outcome
        assert proxy.requests == []


class TestTunnels:
    """A proxy through which https hosts are reached (``CONNECT``)."""

    @pytest.fixture
    def port(self, tls: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
        with ScriptedServer(DONE, tls=tls) as server:
            port = int(server.url.rpartition(":")[2])
            use(f"https://localhost:{port}", monkeypatch)
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "tls.pem"))
            yield port

    @both
    @pytest.mark.parametrize("credentials", [None, "user:s3cr%40t"])
    def test_tunnel_is_used(
        self, credentials: str | None, where: str, port: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with ConnectProxy(port, credentials=credentials and credentials.replace("%40", "@")) as proxy:
            user = f"{credentials}@" if credentials else ""
            monkeypatch.setenv("HTTPS_PROXY", f"http://{user}{proxy.address}")
            assert poll(where) == "success"
            assert [request.rpartition(" ")[0] for request in proxy.requested] == [f"CONNECT localhost:{port}"]

    @both
    @pytest.mark.parametrize(
        ("status", "message"),
        [
            (403, "the proxy responded with 403"),
            (407, "the proxy responded with 407 (its user name or password is missing or wrong)"),
            (502, "the proxy responded with 502"),
        ],
    )
    def test_refusal_of_the_proxy_is_reported(
        self, status: int, message: str, where: str, port: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with ConnectProxy(port, status=status) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"http://user:s3cr3t@{proxy.address}")
            outcome = poll(where)
        assert message in outcome
        assert "s3cr3t" not in outcome
        assert "dXNlcjpzM2NyM3Q" not in outcome, "the same in base64"

    @both
    def test_refusal_for_a_plain_http_host_is_reported(self, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
        use(f"http://{HOST}:8080", monkeypatch)
        with ScriptedServer(Response(407, b"user:s3cr3t")) as proxy:
            monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("http://", "http://user:s3cr3t@"))
            outcome = poll(where)
        assert "the proxy responded with 407" in outcome
        assert "s3cr3t" not in outcome

    @both
    def test_unreachable_proxy_is_reported(self, where: str, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
        with closed_port() as closed:
            monkeypatch.setenv("HTTPS_PROXY", f"http://user:s3cr3t@127.0.0.1:{closed}")
            outcome = poll(where)
        assert "the connection to the proxy failed" in outcome
        assert "[Errno " in outcome
        assert "s3cr3t" not in outcome

    def test_post_is_repeated_after_a_refusal_of_the_proxy(self, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
        with ConnectProxy(port, status=503) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.address}")
            with pytest.raises(NoResponseError, match="the proxy responded with 503"):
                ChartMogulHook(retry_seconds=3).create_activities_export()
            assert len(proxy.requested) > 1


class TestNames:
    """A host name is resolved by the system, also if aiohttp would use another resolver."""

    @both
    def test_system_resolver_is_used(self, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
        resolve = socket.getaddrinfo

        def system_resolver(host: Any, *args: Any, **kwargs: Any) -> Any:
            return resolve("127.0.0.1" if host == HOST else host, *args, **kwargs)

        class OtherResolver(aiohttp.abc.AbstractResolver):
            """In place of aiodns, which aiohttp uses by default if it is installed."""

            async def resolve(self, *args: Any, **kwargs: Any) -> Any:
                raise OSError("this resolver does not know the host")

            async def close(self) -> None:
                pass

        monkeypatch.setattr(socket, "getaddrinfo", system_resolver)
        monkeypatch.setattr(aiohttp.connector, "DefaultResolver", OtherResolver)
        with ScriptedServer(DONE) as server:
            use(server.url.replace("127.0.0.1", HOST), monkeypatch)
            assert poll(where) == "success"


class TestCertificates:
    @pytest.fixture
    def server(self, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
        with ScriptedServer(DONE, tls=tls) as server:
            use(server.url, monkeypatch)
            yield server

    @both
    @pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
    def test_ca_bundle_is_trusted(
        self, name: str, where: str, server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(name, str(tmp_path / "tls.pem"))
        assert poll(where) == "success"

    @both
    def test_untrusted_certificate_is_rejected(self, where: str, server: ScriptedServer) -> None:
        assert "certificate verify failed" in poll(where)
        assert server.requests == [], "the key must not be sent to an unverified host"

    @both
    def test_plain_http_server_is_suspected(self, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with ScriptedServer(DONE) as server:
            use(server.url.replace("http:", "https:"), monkeypatch)
            assert "is it http instead of https?" in poll(where)

    def test_strictness_is_the_same_on_worker_and_triggerer(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With Python 3.13, urllib3 before 2.4 is less strict than Python's own default."""
        authority, certificate = write_lax_certificate(tmp_path)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))
        with ScriptedServer(DONE, tls=context) as server:
            use(server.url, monkeypatch)
            on_worker, in_triggerer = (poll(where) == "success" for where in ("worker", "triggerer"))
        assert on_worker is in_triggerer

    @both
    def test_missing_ca_bundle_is_reported(
        self, where: str, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/bundle.pem")
        outcome = poll(where)
        assert "CA bundle of the environment cannot be read" in outcome
        assert "/no/such/bundle.pem" in outcome
        assert "/no/such/bundle.pem" in ChartMogulHook().test_connection()[1]

    @pytest.mark.usefixtures("short_backoff")
    def test_missing_ca_bundle_is_not_a_disk_error(
        self, server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/bundle.pem")
        with pytest.raises(ConnectionSettingsError, match=r"CA bundle .* cannot be read.*/no/such/bundle\.pem"):
            download.download(
                lambda: f"{server.url}/file.zip",
                tmp_path / "archive.zip",
                timeout=5,
                plain_http_allowed=False,
                log=logging.getLogger(__name__),
            )
