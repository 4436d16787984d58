# SPDX-License-Identifier: Apache-2.0
"""The client for an event loop; see ``sync_client`` for its twin. Loads aiohttp, so import it in functions only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import aiohttp

from airflow_provider_chartmogul.api.requests import ApiRequest, authorization_header
from airflow_provider_chartmogul.api.responses import ApiResponse, parse_response, proxy_refusal
from airflow_provider_chartmogul.api.retries import Retries, retry_delay
from airflow_provider_chartmogul.client.environment import ProxySettings, describe_tls_error, resolve_proxy_and_ca
from airflow_provider_chartmogul.client.guarded_session import USER_AGENT
from airflow_provider_chartmogul.client.rate_limit import RateLimit
from airflow_provider_chartmogul.client.settings import ConnectionSettings
from airflow_provider_chartmogul.exceptions import (
    AuthenticationError,
    ChartMogulError,
    NoResponseError,
    RateLimitError,
)
from airflow_provider_chartmogul.runtime.task_log import TaskLog

T = TypeVar("T")

#: aiohttp raises these if there was no connection, so that the server has not seen the request.
_CONNECT_ERRORS = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError)


class AsyncClient:
    """
    Sends requests to ChartMogul through one ``aiohttp.ClientSession``, for any number of tasks of one event loop.

    :param get_settings: returns the connection; called with the settings whose key ChartMogul refused, it looks the
        connection up again. The limits are those of the first settings
    :param log: receives a line for each retry
    """

    def __init__(
        self, get_settings: Callable[[ConnectionSettings | None], Awaitable[ConnectionSettings]], *, log: TaskLog
    ) -> None:
        self._get_settings = get_settings
        self._log = log
        self._lock = asyncio.Lock()
        self._settings: ConnectionSettings | None = None
        self._session: aiohttp.ClientSession | None = None
        self._proxy = ProxySettings()

    async def send(self, request: ApiRequest[T], *, retry_seconds: float = 0.0) -> T:
        """
        Send a request, and return its parsed response.

        A 401 looks the connection up again; if the key has changed, the request is sent once more.

        :param retry_seconds: how long to keep retrying transient failures, in seconds
        :raises ChartMogulError: if it failed, and cannot or must not be retried
        """
        retries = Retries(request, give_up_at=time.monotonic() + retry_seconds)
        while True:
            settings = await self._update_settings(None)
            try:
                async with self._connections, self._rate_limit.async_slot():
                    # Waiting for the slot may have taken minutes, in which the settings may have changed.
                    settings = self._settings or settings
                    response = await self._send_once(request, settings)
                return parse_response(request, response, api_key=settings.api_key, now=datetime.now(UTC))
            except AuthenticationError:
                if (await self._update_settings(settings)).api_key == settings.api_key:
                    raise
            except ChartMogulError as error:
                if isinstance(error, RateLimitError):
                    # The limit is the account's, so that all tasks of this client have reached it.
                    self._rate_limit.pause(retry_delay(1, error))
                delay = retries.delay_after(error, time.monotonic())
                self._log.warning("%s failed (%s); retrying in %.0f s", request, error, delay)
                await asyncio.sleep(delay)

    async def close(self) -> None:
        """Close the session's connections."""
        if self._session is not None:
            await self._session.close()

    async def _update_settings(self, refused: ConnectionSettings | None) -> ConnectionSettings:
        settings = await self._get_settings(refused)
        if settings is self._settings:
            return settings
        async with self._lock:
            # In a thread, because it reads the CA bundle.
            self._proxy = await asyncio.to_thread(resolve_proxy_and_ca, settings.base_url, self._proxy)
            if self._session is None:
                self._rate_limit = RateLimit(settings.requests_per_second)
                # Not the connector's limit: a request has to wait for its connection before it takes a slot.
                self._connections = asyncio.Semaphore(settings.max_connections)
                self._session = aiohttp.ClientSession(
                    # With aiodns installed, aiohttp would not use the system's resolver, as requests does.
                    connector=aiohttp.TCPConnector(limit=0, resolver=aiohttp.ThreadedResolver()),
                    cookie_jar=aiohttp.DummyCookieJar(),
                    headers={"User-Agent": USER_AGENT},
                )
            self._settings = settings
        return settings

    async def _send_once(self, request: ApiRequest[Any], settings: ConnectionSettings) -> ApiResponse:
        assert self._session is not None
        try:
            async with self._session.request(
                request.method,
                settings.url(request),
                data=request.data,
                headers={**request.headers, "Authorization": authorization_header(settings.api_key)},
                allow_redirects=False,
                proxy=self._proxy.proxy,
                ssl=self._proxy.tls,
                timeout=aiohttp.ClientTimeout(
                    total=2 * settings.timeout, sock_connect=settings.timeout, sock_read=settings.timeout
                ),
            ) as response:
                body = bytearray()
                while len(body) < request.max_response_bytes and (chunk := await response.content.readany()):
                    body += chunk
                return ApiResponse(response.status, response.headers, bytes(body))
        except (aiohttp.ClientError, TimeoutError, OSError, UnicodeError) as error:
            problem, sent = _describe_error(error), not isinstance(error, _CONNECT_ERRORS)
        raise NoResponseError(f"no response from ChartMogul at {settings.base_url}: {problem}", sent=sent)


def _describe_error(error: Exception) -> str:
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return "the connection timed out"
    if isinstance(error, TimeoutError):
        return "the response timed out"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        # It has no `os_error`.
        return describe_tls_error(error.certificate_error)
    if isinstance(error, aiohttp.ClientSSLError):
        return describe_tls_error(error.os_error)
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return f"the connection to the proxy failed: {error.os_error}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"the connection failed: {error.os_error}"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return proxy_refusal(error.status)
    return f"the connection broke ({type(error).__name__})"
