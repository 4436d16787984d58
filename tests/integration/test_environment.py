# SPDX-License-Identifier: Apache-2.0
"""
What the environment says of the way to ChartMogul: its proxies and its certificates.

A worker goes by requests and a triggerer by aiohttp, which read such things differently by themselves. An export that
a worker can make and a triggerer cannot see would wait until its timeout; so both must take the same way.
"""

from __future__ import annotations

import json
import logging
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_chartmogul.api.exports import ExportStatus
from airflow_provider_chartmogul.exceptions import ChartMogulError, ConnectionSettingsError
from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook
from airflow_provider_chartmogul.storage import download
from airflow_provider_chartmogul.triggers.activities_export import ActivitiesExportTrigger
from tests.integration.running import run_trigger
from tests.integration.servers import ScriptedServer, json_answer

EXPORT_ID = "e-1"
DONE = json_answer({"id": EXPORT_ID, "status": "succeeded"})

#: RFC 6761: a name that never resolves, so that only a proxy can know it.
HOST = "chartmogul.invalid"


def look(where: str) -> str:
    """Look at the export, from a worker or from a triggerer; give what came of it: its status, or what went wrong."""
    if where == "triggerer":
        trigger = ActivitiesExportTrigger("chartmogul_default", EXPORT_ID, poll_interval=0.1, max_failure_seconds=0)
        event: dict[str, Any] = run_trigger(trigger)
        return str(event.get("message") or event["status"])
    try:
        with ChartMogulHook(retry_seconds=0) as hook:
            found = hook.get_activities_export(EXPORT_ID)
    except ChartMogulError as error:
        return str(error)
    return "done" if found.status is ExportStatus.SUCCEEDED else found.status_word


both = pytest.mark.parametrize("where", ["worker", "triggerer"])


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine that runs the tests may have proxies and certificates of its own."""
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
    def test_one_that_is_named_is_gone_through(
        self, environment: dict[str, str], where: str, proxy: ScriptedServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in environment.items():
            monkeypatch.setenv(name, value.format(proxy=proxy.url.removeprefix("http://")))
        assert look(where) == "done"
        (asked,) = proxy.asked
        assert asked.path == f"http://{HOST}:8080/v1/activities_export/{EXPORT_ID}"

    @both
    @pytest.mark.parametrize("no_proxy", [HOST, f"{HOST}:8080", ".invalid", "*"])
    def test_none_is_where_it_is_said_not_to(
        self, no_proxy: str, where: str, proxy: ScriptedServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", no_proxy)
        assert "the connection failed" in look(where)
        assert proxy.asked == []

    def test_one_that_a_triggerer_cannot_use_is_named(
        self, proxy: ScriptedServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ALL_PROXY", f"socks5h://somebody:else@{proxy.url.removeprefix('http://')}")
        said = look("triggerer")
        assert f"a socks5h proxy for http://{HOST}:8080" in said
        assert "deferrable=False" in said
        assert "else@" not in said
        assert proxy.asked == []


class TestCertificates:
    @pytest.fixture
    def server(self, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
        with ScriptedServer(DONE, tls=tls) as server:
            use(server.url, monkeypatch)
            yield server

    @both
    @pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
    def test_those_of_a_bundle_are_trusted(
        self, name: str, where: str, server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(name, str(tmp_path / "tls.pem"))
        assert look(where) == "done"

    @both
    def test_others_are_not(self, where: str, server: ScriptedServer) -> None:
        assert "certificate verify failed" in look(where)
        assert server.asked == [], "the key is sent to nobody who cannot prove to be the host"

    @both
    def test_a_bundle_that_is_not_there_is_named(
        self, where: str, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/bundle.pem")
        said = look(where)
        assert "CA bundle of the environment cannot be read" in said
        assert "/no/such/bundle.pem" in said
        assert "/no/such/bundle.pem" in ChartMogulHook().test_connection()[1]

    @pytest.mark.usefixtures("short_backoff")
    def test_nor_is_it_taken_for_a_disk_that_cannot_be_written_to(
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
