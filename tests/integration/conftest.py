# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the integration tests: local stores, TLS servers, short waits."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_chartmogul.api import retries
from airflow_provider_chartmogul.sources import polling
from airflow_provider_chartmogul.triggers import activities_export
from tests.certificates import write_certificate
from tests.integration.fake_s3 import FakeS3
from tests.stores import Cloud, Servers, Store


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    with Servers() as running:
        yield running


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    return servers.open(request.param, tmp_path, monkeypatch)


@pytest.fixture(params=["s3"])
def cloud(request: pytest.FixtureRequest, servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    opened = servers.open(request.param, tmp_path, monkeypatch)
    assert isinstance(opened, Cloud)
    return opened


@pytest.fixture(autouse=True)
def _early_first_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let triggers poll at once: no scheduler is running that could miss a deferral."""
    monkeypatch.setattr(activities_export, "_EARLIEST_POLL_SECONDS", 0.0)


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit the delay before a failed poll is retried to a quarter of a second, and early 404s to two seconds."""
    monkeypatch.setattr(retries, "_MAX_BACKOFF_SECONDS", 0.25)
    monkeypatch.setattr(polling, "_NOT_FOUND_SECONDS", 2.0)


@pytest.fixture
def fake_s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeS3]:
    fake = FakeS3(monkeypatch)
    with fake.server:
        yield fake


@pytest.fixture
def tls(tmp_path: Path) -> ssl.SSLContext:
    """A server's TLS context, with a new certificate for localhost; ``tls.pem`` in ``tmp_path`` is the CA to trust."""
    certificate, key = write_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


@pytest.fixture
def self_signed(tls: ssl.SSLContext) -> Iterator[str]:
    """The URL of a server whose certificate is not trusted."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError), tls.wrap_socket(connection, server_side=True) as secure:
                secure.recv(65536)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"https://localhost:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(10)
