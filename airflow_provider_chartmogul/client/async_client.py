# SPDX-License-Identifier: Apache-2.0
"""
The transport of a triggerer: one aiohttp session for each running event loop and connection.

All waits of a loop share it, and with it the rate limit and the look-up of the connection: the first opens it,
the last closes it, so that nothing outlives its loop. It knows nothing of waiting; what an answer means is
``airflow_provider_chartmogul.api``'s business. This module loads aiohttp and requests, so only functions import it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import aiohttp
import requests
from airflow.providers.common.compat.connection import get_async_connection, get_async_extra_dejson
from airflow.providers.common.compat.sdk import AirflowNotFoundException
from requests.utils import DEFAULT_CA_BUNDLE_PATH, prepend_scheme_if_needed, select_proxy

from airflow_provider_chartmogul import __version__
from airflow_provider_chartmogul.api.exports import ActivitiesExport
from airflow_provider_chartmogul.api.requests import ApiRequest, authorization_header, get_activities_export_request
from airflow_provider_chartmogul.api.responses import MAX_RESPONSE_BYTES, parse_response
from airflow_provider_chartmogul.api.retries import retry_delay
from airflow_provider_chartmogul.client.rate_limit import RateLimit
from airflow_provider_chartmogul.client.settings import ConnectionSettings
from airflow_provider_chartmogul.exceptions import (
    ChartMogulError,
    ConnectionSettingsError,
    NoResponseError,
    RateLimitError,
)
from airflow_provider_chartmogul.hooks.chartmogul import missing_connection_text

log = logging.getLogger(__name__)

#: A connection that was looked up is used for so long (seconds) before it is looked up again.
SETTINGS_SECONDS = 60.0

#: Look-ups begin so far apart (seconds), after a 401 and while they fail: thousands of waits ask for them.
_LOOK_UP_SECONDS = 5.0


class _LookUpError(ChartMogulError):
    """The connection could not be looked up, now."""

    transient = True


class _Answer(NamedTuple):
    """What came back, and what the connection said when the request went out."""

    settings: ConnectionSettings
    status: int
    headers: Any
    body: bytes


class _Connections:
    """
    A session of which so many requests are under way at a time; how many may change while thousands wait.

    aiohttp opens a connection only where none is idle. So there are never more of them than requests were under way,
    and after a change never more than the greater of the two numbers.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._slots = asyncio.Semaphore(number)
        # So many of those under way must not be followed by another.
        self._surplus = 0
        # So many connections are still to be closed.
        self._to_close = 0
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": f"airflow-provider-chartmogul/{__version__}", "Accept": "application/json"},
        )

    @asynccontextmanager
    async def session(self) -> AsyncIterator[aiohttp.ClientSession]:
        """Wait for a turn, and give the session for one request."""
        await self._slots.acquire()
        try:
            yield self._session
        finally:
            if self._surplus:
                self._surplus -= 1
            else:
                self._slots.release()

    def closing(self) -> bool:
        """Whether the connection of the request that goes out now is to be closed after it."""
        if not self._to_close:
            return False
        self._to_close -= 1
        return True

    async def resize(self, number: int) -> None:
        """Allow another number of requests at a time; those that are under way are still answered."""
        fewer, self.number = self.number - number, number
        # aiohttp uses idle connections in turn, none is idle for long: they would all stay.
        self._to_close = max(0, self._to_close + fewer)
        self._surplus += fewer
        while self._surplus < 0:
            self._slots.release()
            self._surplus += 1
        while self._surplus and not self._slots.locked():
            await self._slots.acquire()
            self._surplus -= 1

    async def close(self) -> None:
        await self._session.close()


class AsyncClient:
    """
    One event loop's way to ChartMogul through one Airflow connection.

    Get it with ``shared_client``. ``get_activities_export`` sends one request a call and raises what
    ``api`` makes of the answer; who calls decides whether and when to ask again.
    """

    def __init__(self, conn_id: str) -> None:
        self.conn_id = conn_id
        self.users = 0
        self._settings: ConnectionSettings | None = None
        # When the latest look-up that is over began.
        self._looked_up = float("-inf")
        self._look_up: asyncio.Task[None] | None = None
        self._headers: dict[str, str] = {}
        self._way = _Way()
        self._timeout = aiohttp.ClientTimeout()
        self._connections: _Connections | None = None
        self._limit: RateLimit | None = None

    async def get_activities_export(self, export_id: str) -> ActivitiesExport:
        """
        Retrieve an export, by one request.

        A 401 looks the connection up again, and where the key has changed asks once more with the new one. Look-ups
        are seconds apart, so that a wrong key, which ends every wait, does not have each of them look it up.

        :raises ChartMogulError: see ``api``
        """
        request = get_activities_export_request(export_id)
        await self._settings_since(time.monotonic() - SETTINGS_SECONDS)
        answer = await self._send(request)
        while answer.status == 401 and await self._has_another_key(answer.settings.api_key):
            answer = await self._send(request)
        return ActivitiesExport.from_response(self._read(answer))

    async def close(self) -> None:
        """Close the session; nothing may be sent after that."""
        if self._look_up is not None:
            self._look_up.cancel()
        if self._connections is not None:
            await self._connections.close()

    async def _has_another_key(self, refused: str) -> bool:
        assert self._settings is not None
        if self._settings.api_key != refused:
            return True
        # However fresh the last look-up is, the key may have changed since.
        return (await self._settings_since(time.monotonic())).api_key != refused

    async def _settings_since(self, moment: float) -> ConnectionSettings:
        """Give the settings, as a look-up found them that began at a moment or later."""
        while self._settings is None or self._looked_up < moment:
            if self._look_up is None:
                self._look_up = asyncio.create_task(self._refresh())
                # Marked as seen, should all who wait for it have been cancelled.
                self._look_up.add_done_callback(lambda task: task.cancelled() or task.exception())
            # Shielded: many wait for this one look-up, and one of them may be cancelled.
            await asyncio.shield(self._look_up)
        return self._settings

    async def _refresh(self) -> None:
        began = time.monotonic()
        try:
            await asyncio.sleep(self._looked_up + _LOOK_UP_SECONDS - began)
            began = time.monotonic()
            await self._use(await self._looked_up_settings())
        finally:
            self._looked_up = began
            # Not when the task is done: who comes between its end and that would wait for what is over.
            self._look_up = None

    async def _looked_up_settings(self) -> ConnectionSettings:
        try:
            connection = await get_async_connection(self.conn_id)
            return ConnectionSettings.from_connection(connection, await get_async_extra_dejson(connection))
        except Exception as error:
            if self._settings is None:
                if isinstance(error, ConnectionSettingsError):
                    raise
                # The worker has just read it, and Airflow says 'not found' of a secrets backend that is down as well.
                why = "" if isinstance(error, AirflowNotFoundException) else f" ({type(error).__name__})"
                raise _LookUpError(missing_connection_text(self.conn_id) + why) from None
            # A secrets backend that is down for a while ends no wait that is under way.
            log.warning(
                "Looking up connection '%s' failed (%s), going on with what it was before",
                self.conn_id,
                type(error).__name__,
            )
            return self._settings

    async def _use(self, settings: ConnectionSettings) -> None:
        # In a thread: a bundle of certificates is read.
        self._way = await asyncio.to_thread(_way_to, settings.base_url, self._way)
        if self._limit is None or self._connections is None:
            self._limit = RateLimit(settings.requests_per_second)
            self._connections = _Connections(settings.max_connections)
        if self._limit.per_second != settings.requests_per_second:
            self._limit.change(settings.requests_per_second)
        if self._connections.number != settings.max_connections:
            await self._connections.resize(settings.max_connections)
        self._settings = settings
        # Worked out once for each look-up, not for each request.
        self._headers = {"Authorization": authorization_header(settings.api_key)}
        self._timeout = aiohttp.ClientTimeout(
            total=2 * settings.timeout, sock_connect=settings.timeout, sock_read=settings.timeout
        )

    async def _send(self, request: ApiRequest) -> _Answer:
        assert self._connections is not None
        assert self._limit is not None
        async with self._connections.session() as session, self._limit.async_slot():
            # As they are when it is sent, which may be long after it was asked for.
            settings = self._settings
            assert settings is not None
            closing = {"Connection": "close"} if self._connections.closing() else {}
            try:
                async with session.request(
                    request.method,
                    settings.url(request),
                    data=request.data,
                    headers={**self._headers, **closing},
                    allow_redirects=False,
                    proxy=self._way.proxy,
                    ssl=self._way.tls,
                    timeout=self._timeout,
                ) as response:
                    body = await response.content.read(MAX_RESPONSE_BYTES)
                    while len(body) < MAX_RESPONSE_BYTES and (more := await response.content.readany()):
                        body += more
                    answer = _Answer(settings, response.status, response.headers, body)
            except (aiohttp.ClientError, TimeoutError, OSError, UnicodeError) as error:
                problem, sent = _what_happened(error), not isinstance(error, _NEVER_SENT)
            else:
                if answer.status == 429:
                    self._slow_down(answer)
                return answer
        raise NoResponseError(f"no answer from ChartMogul at {settings.base_url}: {problem}", sent=sent)

    def _slow_down(self, answer: _Answer) -> None:
        """Pause all waits of this process, not just the one that was refused: the limit is the account's."""
        assert self._limit is not None
        try:
            self._read(answer)
        except RateLimitError as error:
            self._limit.pause(retry_delay(1, error))

    def _read(self, answer: _Answer) -> dict[str, Any]:
        return parse_response(
            answer.status, answer.headers, answer.body, api_key=answer.settings.api_key, now=datetime.now(UTC)
        )


_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, AsyncClient]] = WeakKeyDictionary()


@asynccontextmanager
async def shared_client(conn_id: str) -> AsyncIterator[AsyncClient]:
    """Give the running loop's client for a connection: opened by the first who asks, closed by the last who leaves."""
    clients = _clients.setdefault(asyncio.get_running_loop(), {})
    client = clients.setdefault(conn_id, AsyncClient(conn_id))
    client.users += 1
    try:
        yield client
    finally:
        client.users -= 1
        if not client.users:
            del clients[conn_id]
            await client.close()


#: Where aiohttp raises these, the connection was never made, so that the server saw nothing of the request.
_NEVER_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


def _what_happened(error: Exception) -> str:
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return "no connection within the timeout"
    if isinstance(error, TimeoutError):
        return "no answer within the timeout"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        # aiohttp 3.10 gives it no `os_error`.
        return f"TLS failed: {error.certificate_error}"
    if isinstance(error, aiohttp.ClientSSLError):
        return f"TLS failed: {error.os_error}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"the connection could not be made: {error.os_error}"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return "the proxy refused or failed"
    return f"the connection broke ({type(error).__name__})"


class _Way(NamedTuple):
    """Through which proxy a host is reached, and which certificates are trusted, by the bundle of this path."""

    proxy: str | None = None
    bundle: str | None = None
    tls: ssl.SSLContext | bool = True


def _way_to(base_url: str, before: _Way) -> _Way:
    """
    Read what the environment says of the way to a host, as requests reads it for a worker.

    aiohttp's own ``trust_env`` would read ``.netrc`` too, for every request, and knows neither ``ALL_PROXY`` nor
    ``REQUESTS_CA_BUNDLE``.

    :param before: what came of it the last time; while the bundle is the same, so is the context, or aiohttp would
        open other connections
    :raises ConnectionSettingsError: for a proxy or a bundle that cannot be used
    """
    with requests.Session() as session:
        environment = session.merge_environment_settings(base_url, {}, None, None, None)
    proxy = select_proxy(base_url, environment["proxies"]) or None
    if proxy is not None:
        proxy = prepend_scheme_if_needed(proxy, "http")  # type: ignore[no-untyped-call]
        scheme = urlsplit(proxy).scheme
        if scheme not in ("http", "https"):
            raise ConnectionSettingsError(
                f"the environment has a {scheme} proxy for {base_url}, which cannot be used in the triggerer: set an "
                "http proxy or NO_PROXY there, or wait with deferrable=False"
            )
    if not (base_url.startswith("https:") or (proxy or "").startswith("https:")):
        return _Way(proxy)
    verify = environment["verify"]
    bundle = verify if isinstance(verify, str) else DEFAULT_CA_BUNDLE_PATH
    if bundle == before.bundle:
        return before._replace(proxy=proxy)
    try:
        if os.path.isdir(bundle):
            tls = ssl.create_default_context(capath=bundle)
        else:
            tls = ssl.create_default_context(cafile=bundle)
    except OSError as error:
        raise ConnectionSettingsError(
            f"the certificates that the environment names cannot be read: {bundle}: {error}"
        ) from error
    return _Way(proxy, bundle, tls)
