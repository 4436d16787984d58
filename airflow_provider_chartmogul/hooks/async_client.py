# SPDX-License-Identifier: Apache-2.0
"""
The transport of a triggerer: one aiohttp session for each running event loop and connection.

All waits of a loop share it, and with it the rate limit and the look-up of the connection: the first opens it,
the last closes it, so that nothing outlives its loop. It knows nothing of waiting; what an answer means is
``airflow_provider_chartmogul.api``'s business. This module loads aiohttp, so only functions import it.
"""

from __future__ import annotations

import asyncio
import logging
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import aiohttp
from airflow.providers.common.compat.connection import get_async_connection, get_async_extra_dejson
from airflow.providers.common.compat.sdk import AirflowNotFoundException

from airflow_provider_chartmogul import __version__, api
from airflow_provider_chartmogul.connection import ConnectionSettings
from airflow_provider_chartmogul.hooks.chartmogul import missing_connection_text
from airflow_provider_chartmogul.rate_limit import RateLimit

log = logging.getLogger(__name__)

#: A connection that was looked up is used for so long (seconds) before it is looked up again.
SETTINGS_SECONDS = 60.0

#: After a 401 the connection is looked up again, unless that has just been done (seconds).
_FRESH_SECONDS = 5.0


class _LookUpError(api.ChartMogulError):
    """The connection could not be looked up, now."""

    transient = True


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
        self._looked_up = float("-inf")
        self._look_up: asyncio.Task[ConnectionSettings] | None = None
        self._session: aiohttp.ClientSession | None = None
        self._slots: asyncio.Semaphore | None = None
        self._limit: RateLimit | None = None
        self._retired: list[aiohttp.ClientSession] = []

    async def get_activities_export(self, export_id: str) -> api.ActivitiesExport:
        """
        Retrieve an export, by one request.

        A 401 looks the connection up again, and where the key has changed asks once more with the new one.

        :raises ChartMogulError: see ``api``
        """
        request = api.get_activities_export_request(export_id)
        settings = await self._current_settings(SETTINGS_SECONDS)
        try:
            answer = await self._send(request, settings)
        except api.AuthenticationError:
            fresh = await self._current_settings(_FRESH_SECONDS)
            if fresh.api_key == settings.api_key:
                raise
            answer = await self._send(request, fresh)
        return api.ActivitiesExport.from_answer(answer)

    async def close(self) -> None:
        """Close the session; nothing may be sent after that."""
        if self._look_up is not None:
            self._look_up.cancel()
        for session in [*self._retired, *([self._session] if self._session else [])]:
            await session.close()

    async def _current_settings(self, max_age: float) -> ConnectionSettings:
        if self._settings is not None and time.monotonic() - self._looked_up < max_age:
            return self._settings
        if self._look_up is None:
            self._look_up = asyncio.create_task(self._refresh())
            self._look_up.add_done_callback(self._look_up_done)
        # Shielded: many wait for this one look-up, and one of them may be cancelled.
        return await asyncio.shield(self._look_up)

    def _look_up_done(self, task: asyncio.Task[ConnectionSettings]) -> None:
        self._look_up = None
        if not task.cancelled():
            task.exception()  # marked as seen, should all who waited for it have been cancelled

    async def _refresh(self) -> ConnectionSettings:
        try:
            connection = await get_async_connection(self.conn_id)
            settings = ConnectionSettings.from_connection(connection, await get_async_extra_dejson(connection))
        except Exception as error:
            if self._settings is None:
                if isinstance(error, api.ConnectionSettingsError):
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
            settings = self._settings
        self._use(settings)
        return settings

    def _use(self, settings: ConnectionSettings) -> None:
        before, self._settings = self._settings, settings
        self._looked_up = time.monotonic()
        if self._session is None or before is None or before.max_connections != settings.max_connections:
            if self._session is not None:
                self._retired.append(self._session)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=settings.max_connections),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={
                    "User-Agent": f"airflow-provider-chartmogul/{__version__}",
                    "Accept": "application/json",
                },
            )
            self._slots = asyncio.Semaphore(settings.max_connections)
        if self._limit is None or before is None or before.requests_per_second != settings.requests_per_second:
            self._limit = RateLimit(settings.requests_per_second)

    async def _send(self, request: api.ApiRequest, settings: ConnectionSettings) -> dict[str, Any]:
        assert self._session is not None
        assert self._slots is not None
        assert self._limit is not None
        async with self._slots:
            if (wait := self._limit.reserve()) > 0:
                await asyncio.sleep(wait)
            try:
                async with self._session.request(
                    request.method,
                    settings.url(request),
                    data=request.data,
                    headers={"Authorization": api.authorization_header(settings.api_key)},
                    allow_redirects=False,
                    proxy=_proxy_for(settings.base_url),
                    timeout=aiohttp.ClientTimeout(
                        total=2 * settings.timeout, sock_connect=settings.timeout, sock_read=settings.timeout
                    ),
                ) as response:
                    body = await response.content.read(api.MAX_ANSWER_BYTES)
                    while len(body) < api.MAX_ANSWER_BYTES and (more := await response.content.readany()):
                        body += more
                    status, headers = response.status, response.headers
            except (aiohttp.ClientError, TimeoutError, OSError, UnicodeError) as error:
                problem, sent = _what_happened(error), not isinstance(error, _NEVER_SENT)
            else:
                return self._read(status, headers, body, settings)
        raise api.NoAnswerError(f"no answer from ChartMogul at {settings.base_url}: {problem}", sent=sent)

    def _read(self, status: int, headers: Any, body: bytes, settings: ConnectionSettings) -> dict[str, Any]:
        try:
            return api.read_answer(status, headers, body, api_key=settings.api_key, now=datetime.now(UTC))
        except api.RateLimitError as error:
            # The limit is the account's: all waits of this process slow down, not just this one.
            assert self._limit is not None
            self._limit.pause(api.retry_delay(1, error))
            raise


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
    if isinstance(error, aiohttp.ClientSSLError):
        return f"TLS failed: {error.os_error if isinstance(error, aiohttp.ClientOSError) else error}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"the connection could not be made: {error.os_error}"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return "the proxy refused or failed"
    return f"the connection broke ({type(error).__name__})"


def _proxy_for(base_url: str) -> str | None:
    """
    Find the environment's proxy for a host.

    aiohttp's own ``trust_env`` would read ``.netrc`` too, for every request.
    """
    parts = urlsplit(base_url)
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    return urllib.request.getproxies().get(parts.scheme)
