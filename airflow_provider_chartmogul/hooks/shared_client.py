# SPDX-License-Identifier: Apache-2.0
"""
The async client that all waits of a triggerer share. Loads aiohttp, so import it in functions only.

Thousands of waits may run in one event loop. With one client for each loop and connection they share its limits, and
a single lookup of the Airflow connection.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

from airflow.providers.common.compat.sdk import AirflowNotFoundException
from asgiref.sync import sync_to_async

from airflow_provider_chartmogul.client.async_client import AsyncClient
from airflow_provider_chartmogul.client.settings import ConnectionSettings
from airflow_provider_chartmogul.exceptions import ConnectionLookupError, ConnectionSettingsError
from airflow_provider_chartmogul.hooks.chartmogul import missing_connection_message, read_settings

log = logging.getLogger(__name__)

#: How long the result of a lookup is used, in seconds.
SETTINGS_SECONDS = 60.0

#: Minimum time between two lookups, in seconds: after a 401, and while lookups fail, thousands of waits ask for one.
LOOKUP_SECONDS = 5.0

#: How long a connection that does not exist counts as an outage of the secrets backend, in seconds: Airflow reports
#: both alike, and the worker has just found the connection.
MISSING_SECONDS = 120.0


class ConnectionLookup:
    """
    The settings of an Airflow connection, looked up from time to time for all tasks of an event loop.

    If a lookup fails, the previous settings stay in use, so that an outage of the secrets backend ends no wait.
    """

    def __init__(self, conn_id: str) -> None:
        self._conn_id = conn_id
        self._settings: ConnectionSettings | None = None
        self._created = time.monotonic()
        self._last_started = float("-inf")
        self._task: asyncio.Task[None] | None = None

    async def get(self, refused: ConnectionSettings | None = None) -> ConnectionSettings:
        """
        Return the settings.

        :param refused: settings whose key ChartMogul refused; unless the key has changed since, a new lookup starts
        :raises ConnectionSettingsError: if the connection cannot be used
        :raises ConnectionLookupError: if the first lookup fails
        """
        newest = time.monotonic() - (SETTINGS_SECONDS if refused is None else 0.0)
        if refused and self._settings and self._settings.api_key != refused.api_key:
            return self._settings
        while self._settings is None or self._last_started < newest:
            if self._task is None:
                self._task = asyncio.create_task(self._refresh())
                # Retrieve the exception, in case all waiters have been cancelled.
                self._task.add_done_callback(lambda task: task.cancelled() or task.exception())
            # The task must survive the cancellation of one of its waiters.
            await asyncio.shield(self._task)
        return self._settings

    def close(self) -> None:
        """Cancel a lookup that is under way."""
        if self._task is not None:
            self._task.cancel()

    async def _refresh(self) -> None:
        started = time.monotonic()
        try:
            await asyncio.sleep(self._last_started + LOOKUP_SECONDS - started)
            started = time.monotonic()
            self._settings = await self._look_up()
        finally:
            self._last_started = started
            # Cleared here and not when the task is done, because a caller in between would wait for a finished task.
            self._task = None

    async def _look_up(self) -> ConnectionSettings:
        try:
            # In a thread: aget_connection finds nothing in Airflow's database in `airflow dags test` of Airflow 3.3.
            return await sync_to_async(read_settings)(self._conn_id)
        except Exception as error:
            if self._settings is not None:
                log.warning(
                    "Looking up connection '%s' failed (%s); using the previous settings",
                    self._conn_id,
                    type(error).__name__,
                )
                return self._settings
            if isinstance(error, ConnectionSettingsError):
                raise
            message = missing_connection_message(self._conn_id)
            if isinstance(error, AirflowNotFoundException):
                is_recent = time.monotonic() - self._created < MISSING_SECONDS
                raise ConnectionLookupError(message, transient=is_recent) from None
            raise ConnectionLookupError(f"{message} ({type(error).__name__})", transient=True) from None


class _SharedClient:
    """A client, and how many tasks use it."""

    def __init__(self, conn_id: str) -> None:
        self.lookup = ConnectionLookup(conn_id)
        self.client = AsyncClient(self.lookup.get, log=log)
        self.users = 0


_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _SharedClient]] = WeakKeyDictionary()


@asynccontextmanager
async def shared_client(conn_id: str) -> AsyncIterator[AsyncClient]:
    """Return the running event loop's client for a connection, opened by its first user and closed by its last."""
    clients = _clients.setdefault(asyncio.get_running_loop(), {})
    if (shared := clients.get(conn_id)) is None:
        shared = clients[conn_id] = _SharedClient(conn_id)
    shared.users += 1
    try:
        yield shared.client
    finally:
        shared.users -= 1
        if not shared.users:
            del clients[conn_id]
            shared.lookup.close()
            await shared.client.close()
