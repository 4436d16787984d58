# SPDX-License-Identifier: Apache-2.0
"""The client for a worker; see ``async_client`` for its twin. Loads requests, so import it in functions only."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, LocationParseError

from airflow_provider_chartmogul.api.pagination import Page, walk
from airflow_provider_chartmogul.api.requests import ApiRequest
from airflow_provider_chartmogul.api.resources import Resource
from airflow_provider_chartmogul.api.responses import ApiResponse, parse_response
from airflow_provider_chartmogul.api.retries import Retries, retry_delay
from airflow_provider_chartmogul.client.child_pages import iter_child_pages
from airflow_provider_chartmogul.client.guarded_session import GuardedSession, describe_error, was_sent
from airflow_provider_chartmogul.client.rate_limit import RateLimit
from airflow_provider_chartmogul.client.settings import ConnectionSettings
from airflow_provider_chartmogul.exceptions import (
    AuthenticationError,
    ChartMogulError,
    NoResponseError,
    NotFoundError,
    RateLimitError,
)
from airflow_provider_chartmogul.runtime.cancellation import Cancellation
from airflow_provider_chartmogul.runtime.task_log import TaskLog

T = TypeVar("T")


class SyncClient:
    """
    Sends requests to ChartMogul through one ``requests.Session``, from any number of threads.

    :param get_settings: returns the connection; called with the settings whose key ChartMogul refused, it looks the
        connection up again. The limits are those of the first settings
    :param log: receives a line for each retry
    """

    def __init__(
        self, get_settings: Callable[[ConnectionSettings | None], ConnectionSettings], *, log: TaskLog
    ) -> None:
        self._get_settings = get_settings
        self._log = log
        self._settings = get_settings(None)
        self.max_connections = self._settings.max_connections
        self._rate_limit = RateLimit(self._settings.requests_per_second)
        self._connections = threading.Semaphore(self.max_connections)
        self._lock = threading.Lock()
        self.session = self._open_session(self._settings)

    def send(
        self,
        request: ApiRequest[T],
        *,
        retry_seconds: float = 0.0,
        cancellation: Cancellation | None = None,
        paced: bool = False,
    ) -> T:
        """
        Send a request, and return its parsed response.

        A 401 looks the connection up again; if the key has changed, the request is sent once more.

        :param retry_seconds: how long to keep retrying transient failures, in seconds
        :param cancellation: when it is cancelled, no more attempt is made
        :param paced: the request is one of very many; see ``RateLimit``
        :raises TaskCancelledError: if it was cancelled
        :raises ChartMogulError: if it failed, and cannot or must not be retried
        """
        cancellation = cancellation or Cancellation()
        retries = Retries(request, give_up_at=time.monotonic() + retry_seconds)
        while True:
            settings = self._settings
            try:
                with self._connections, self._rate_limit.slot(cancellation.sleep, paced=paced):
                    cancellation.check()
                    response = self._send_once(request, settings)
                return parse_response(request, response, api_key=settings.api_key, now=datetime.now(UTC))
            except AuthenticationError:
                if self._update_settings(settings).api_key == settings.api_key:
                    raise
            except ChartMogulError as error:
                delay = retries.delay_after(error, time.monotonic())
                if isinstance(error, RateLimitError):
                    # The limit is the account's, so that all threads have reached it.
                    self._rate_limit.pause(retry_delay(1, error))
                self._log.warning("%s failed (%s); retrying in %.0f s", request, error, delay)
                cancellation.sleep(delay)

    def iter_pages(
        self,
        resource: Resource,
        query: Mapping[str, str],
        *,
        include_raw_rows: bool = False,
        retry_seconds: float = 3600.0,
        cancellation: Cancellation | None = None,
    ) -> Generator[Page, None, None]:
        """
        Yield all pages of a resource; of one with a parent, those under every row of the parent.

        A resource with a parent is read by many threads, so close the iterator (``contextlib.closing``) if it may not
        be read to its end.

        :param query: as ``Resource.build_query`` returns it
        :param include_raw_rows: whether pages have the bytes of each row
        :param retry_seconds: how long to keep retrying transient failures of one page, in seconds
        :param cancellation: when it is cancelled, the walk ends
        :raises TaskCancelledError: if it was cancelled
        :raises PaginationError: if the walk would never end
        :raises ChartMogulError: if a page cannot be read
        """
        cancellation = cancellation or Cancellation()
        if resource.parent is None:
            return self.walk(
                resource,
                query,
                include_raw_rows=include_raw_rows,
                retry_seconds=retry_seconds,
                cancellation=cancellation,
            )
        return iter_child_pages(
            self,
            resource,
            query,
            include_raw_rows=include_raw_rows,
            retry_seconds=retry_seconds,
            cancellation=cancellation,
            log=self._log,
        )

    def walk(
        self,
        resource: Resource,
        query: Mapping[str, str],
        *,
        parent_uuid: str | None = None,
        include_raw_rows: bool = False,
        retry_seconds: float,
        cancellation: Cancellation,
        paced: bool = False,
    ) -> Generator[Page, None, None]:
        """
        Yield the pages of one walk from its first to its last.

        :param parent_uuid: the row of the parent to walk under, for a resource with a parent
        :param include_raw_rows: whether pages have the bytes of each row
        :param paced: the walk is one of very many; see ``RateLimit``
        """
        requests_of_walk = walk(resource, query, parent_uuid, include_raw_rows=include_raw_rows)
        request = next(requests_of_walk)
        while True:
            try:
                page = self.send(request, retry_seconds=retry_seconds, cancellation=cancellation, paced=paced)
            except NotFoundError as error:
                request = requests_of_walk.throw(error)
                continue
            yield page
            try:
                request = requests_of_walk.send(page)
            except StopIteration:
                return

    def close(self) -> None:
        """Close the session's connections."""
        self.session.close()

    def _open_session(self, settings: ConnectionSettings) -> GuardedSession:
        session = GuardedSession(settings.base_url, settings.api_key, settings.timeout)
        for scheme in ("https://", "http://"):
            session.mount(scheme, HTTPAdapter(pool_maxsize=self.max_connections))
        return session

    def _update_settings(self, refused: ConnectionSettings) -> ConnectionSettings:
        """Look up the connection again, once for all threads whose key was refused."""
        with self._lock:
            if self._settings is refused:
                settings = self._get_settings(refused)
                if settings.api_key != refused.api_key:
                    self._log.info("ChartMogul refused the API key, and the connection has another one; using that")
                    self.close()
                    self.session = self._open_session(settings)
                self._settings = settings
            return self._settings

    def _send_once(self, request: ApiRequest[Any], settings: ConnectionSettings) -> ApiResponse:
        # The session's timeout limits each read; this one limits a server that sends a byte now and then.
        deadline = time.monotonic() + 2 * settings.timeout
        try:
            with self.session.request(
                request.method,
                settings.url(request),
                data=request.data,
                headers=request.headers,
                allow_redirects=False,
                stream=True,
            ) as response:
                body = bytearray()
                while len(body) < request.max_response_bytes and (
                    chunk := response.raw.read1(65536, decode_content=True)
                ):
                    body += chunk
                    if time.monotonic() > deadline:
                        raise requests.ReadTimeout
                return ApiResponse(response.status_code, response.headers, bytes(body))
        except requests.RequestException as error:
            problem, sent = describe_error(error), was_sent(error)
        except (HTTPError, UnicodeError) as error:
            # urllib3 raises these while the body is read, or for an impossible host name.
            sent = not isinstance(error, (LocationParseError, UnicodeError))
            problem = "the connection broke while the response was read" if sent else "the host name is invalid"
        # Raised here and not above, so that the error of requests, which quotes the URL, is not chained to it.
        raise NoResponseError(f"no response from ChartMogul at {settings.base_url}: {problem}", sent=sent)
