# SPDX-License-Identifier: Apache-2.0
"""The sandbox as a context manager: an account served on local ports, by a thread of the calling process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from datetime import datetime
from ipaddress import ip_address
from types import TracebackType
from typing import Any
from urllib.parse import quote

from airflow_provider_chartmogul.sandbox.account import Account
from airflow_provider_chartmogul.sandbox.active_faults import AddedFault
from airflow_provider_chartmogul.sandbox.faults import Fault

# Only the servers import aiohttp, and start() imports the servers: importing this module must stay cheap.


class Sandbox(Account):
    """A ChartMogul account on local ports, served by a thread of its own::

        with Sandbox(export_seconds=0) as sandbox:
            os.environ["AIRFLOW_CONN_CHARTMOGUL_DEFAULT"] = sandbox.connection_uri
            ...
            assert rows == sandbox.expected_rows(start, end)

    Faults can be added and removed while it runs, as a `Fault` or in the text form, and hit later requests::

        with sandbox.faulty("retrieve:503;times=3", Fault("download", "interrupt", at=1000, times=1)) as added:
            ...
            assert added[0].hits == 3
        sandbox.faults.add("create:reset;when=after;times=1")
        sandbox.faults.clear()

    These parameters are also attributes, which can be changed while it runs: `export_seconds`, `url_seconds`,
    `fresh_urls`, `requests_per_second`, `max_connections`, `page_size`, `as_of`, `two_currencies` and, for exports
    created later, `outcome`.

    :param host: the name or IP address to listen on.
    :param port: the API's port; 0 chooses a free one.
    :param download_port: the download host's port; 0 chooses a free one.
    :param admin_port: the port of the counters, faults and settings, which ChartMogul does not have; 0 chooses a free
        one. It needs no key: everyone who can reach it can use it.
    :param api_key: the only valid API key.
    :param export_seconds: how long an export takes: it is pending for the first quarter of this time, then processing.
        Setting it to 0 finishes the exports in progress.
    :param customers: the company's customers, from its founding in 2018 to 2040.
    :param seed: selects one company; any whole number.
    :param requests_per_second: the rate limit, for any one second; further requests get 429. `None` for no limit.
    :param max_connections: the limit of open connections, idle ones included; requests on further ones get 503. `None`
        for no limit.
    :param url_seconds: how long a download URL is valid, in whole seconds from the first poll of the finished export:
        at most 604800 (seven days). 0 gives URLs that have expired already.
    :param fresh_urls: whether polling an export whose URL has expired returns a new URL instead of the old one.
    :param outcome: how exports end:

        * `succeeded`: finished
        * `successful`: finished, by the other word that the API reference has for it
        * `failed`: failed
        * `never`: remains in `processing`
        * anything else: this status in every poll, as an unknown status
    :param page_size: the default and the maximum of `per_page`, 1 to 200. A small one gives a small company many pages.
    :param as_of: the company's present: lists and metrics show it as of this moment, and later activities do not
        exist. A datetime without a time zone is UTC. With `None`, lists and metrics show the company as of the last
        midnight in UTC, and activities exist up to 2040.
    :param metrics_time_zone: the time zone of the days of metrics, such as `Europe/Berlin`.
    :param two_currencies: whether every fifth customer pays in US dollars. As in ChartMogul, the MRR of customers and
        subscriptions is then converted at the present rate, that of movements at the rate of their day, so that they no
        longer add up.
    :param faults: the initial faults, each a `Fault` or its text form.
    :raises ValueError: for an invalid parameter; the message names it.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        download_port: int = 0,
        admin_port: int = 0,
        api_key: str = "sandbox-api-key",
        export_seconds: float = 3.0,
        customers: int = 500,
        seed: int = 1,
        requests_per_second: int | None = 40,
        max_connections: int | None = 20,
        url_seconds: int = 604_800,
        fresh_urls: bool = True,
        outcome: str = "succeeded",
        page_size: int = 200,
        as_of: datetime | None = None,
        metrics_time_zone: str = "UTC",
        two_currencies: bool = False,
        faults: Iterable[Fault | str] = (),
    ) -> None:
        super().__init__(
            api_key=api_key,
            export_seconds=export_seconds,
            customers=customers,
            seed=seed,
            requests_per_second=requests_per_second,
            max_connections=max_connections,
            url_seconds=url_seconds,
            fresh_urls=fresh_urls,
            outcome=outcome,
            page_size=page_size,
            as_of=as_of,
            metrics_time_zone=metrics_time_zone,
            two_currencies=two_currencies,
        )
        self.host = host
        self._port = port
        self._download_port = download_port
        self._admin_port = admin_port
        self.faults.add(*faults)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None

    def start(self) -> Sandbox:
        """Start to serve, and return once all ports accept connections.

        After `stop()` it uses the same ports again, so that a test can simulate an outage.

        :raises OSError: for a port in use, or an address of another machine; the message names it.
        :raises RuntimeError: if it is already running.
        """
        if self._thread is not None:
            raise RuntimeError("the sandbox is already running")
        # The ports are bound here instead of in the thread, so that the caller gets the errors.
        with contextlib.ExitStack() as undo:
            api = undo.enter_context(_listen(self.host, self._port))
            download = undo.enter_context(_listen(self.host, self._download_port))
            admin = undo.enter_context(_listen(self.host, self._admin_port))
            listeners = (api, download, admin)
            self._port, self._download_port, self._admin_port = (listener.getsockname()[1] for listener in listeners)
            ready: Future[None] = Future()
            thread = threading.Thread(target=self._run, args=(listeners, ready), name="chartmogul-sandbox", daemon=True)
            thread.start()
            ready.result()
            undo.pop_all()
        self._thread = thread
        return self

    def stop(self) -> None:
        """Close all connections and ports, and end the thread. Do nothing if it is not running."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        if self._loop is not None and self._stopping is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
        thread.join()

    def __enter__(self) -> Sandbox:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @contextlib.contextmanager
    def faulty(self, *faults: Fault | str) -> Iterator[list[AddedFault]]:
        """Add faults for the duration of a `with` block; yield an object for each, which counts its hits.

        :raises ValueError: for an invalid fault; the message lists the known values.
        """
        added = self.faults.add(*faults)
        try:
            yield added
        finally:
            self.faults.remove(*added)

    @property
    def port(self) -> int:
        """The API's port; 0 before the first `start()` if none was given."""
        return self._port

    @property
    def download_port(self) -> int:
        """The download host's port; 0 before the first `start()` if none was given."""
        return self._download_port

    @property
    def admin_port(self) -> int:
        """The admin address's port; 0 before the first `start()` if none was given."""
        return self._admin_port

    @property
    def url(self) -> str:
        """The API's base URL without `/v1`, such as `http://127.0.0.1:8765`.

        :raises RuntimeError: before the first `start()`, if no port was given.
        """
        return f"http://{_in_url(self._reachable_host())}:{self._bound(self._port)}"

    @property
    def download_url(self) -> str:
        """The download host's base URL.

        :raises RuntimeError: before the first `start()`, if no port was given.
        """
        return self._download_url_for("")

    @property
    def admin_url(self) -> str:
        """The base URL of the counters, faults and settings, with a page at `/`; `admin_server.py` lists the addresses.

        :raises RuntimeError: before the first `start()`, if no port was given.
        """
        return f"http://{_in_url(self._reachable_host())}:{self._bound(self._admin_port)}"

    @property
    def connection_uri(self) -> str:
        """An Airflow connection to this sandbox as a URI, for `AIRFLOW_CONN_CHARTMOGUL_DEFAULT`.

        :raises RuntimeError: before the first `start()`, if no port was given.
        """
        host = _in_url(self._reachable_host())
        return f"chartmogul://:{quote(self.api_key, safe='')}@{host}:{self._bound(self._port)}/http"

    @property
    def connection_json(self) -> str:
        """An Airflow connection to this sandbox as JSON, for the same variable and for `airflow connections add`.

        :raises RuntimeError: before the first `start()`, if no port was given.
        """
        return json.dumps(
            {
                "conn_type": "chartmogul",
                "host": self._reachable_host(),
                "schema": "http",
                "port": self._bound(self._port),
                "password": self.api_key,
            }
        )

    def _reachable_host(self) -> str:
        """Return the host to connect to: the loopback address where the sandbox listens on every address."""
        with contextlib.suppress(ValueError):
            address = ip_address(self.host)
            if address.is_unspecified:
                return "127.0.0.1" if address.version == 4 else "::1"
        return self.host or "127.0.0.1"

    def _bound(self, port: int) -> int:
        if not port:
            raise RuntimeError("the sandbox has no port yet: call start() first")
        return port

    def _download_url_for(self, host_name: str) -> str:
        """Return the download host's base URL, with the host name under which a client called the API.

        From another container or machine, the address that the sandbox listens on may not lead to it.
        """
        host = _in_url(host_name or self._reachable_host())
        return f"http://{host}:{self._bound(self._download_port)}"

    def _run(self, listeners: Sequence[socket.socket], ready: Future[None]) -> None:
        try:
            asyncio.run(self._serve(listeners, ready))
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)
        finally:
            self._loop = self._stopping = None
            for listener in listeners:
                listener.close()

    async def _serve(self, listeners: Sequence[socket.socket], ready: Future[None]) -> None:
        from aiohttp import web

        from airflow_provider_chartmogul.sandbox.admin_server import AdminServer
        from airflow_provider_chartmogul.sandbox.api_server import ApiServer
        from airflow_provider_chartmogul.sandbox.download_server import DownloadServer

        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        servers = (ApiServer(self, self._download_url_for), DownloadServer(self), AdminServer(self))
        runners = [server.runner for server in servers]
        try:
            for runner, listener in zip(runners, listeners, strict=True):
                await runner.setup()
                await web.SockSite(runner, listener).start()
            ready.set_result(None)
            await self._stopping.wait()
        finally:
            await _close(runners)


async def _close(runners: list[Any]) -> None:
    """Stop the servers. Requests in progress get a moment to end; idle and stalled connections are closed at once."""
    transports = [
        connection.transport
        for runner in runners
        if runner.server is not None
        for connection in runner.server.connections
    ]
    await asyncio.gather(*(runner.cleanup() for runner in runners))
    # aiohttp waits until the client has read the response; a client that never does would block it for ever.
    for transport in transports:
        if transport is not None:
            transport.abort()
    await asyncio.sleep(0)


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. An error names the address."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=1024)
    except OSError as error:
        reason = (error.strerror or str(error)).split(" (while")[0]
        raise OSError(
            error.errno,
            f"cannot listen on {_in_url(host)}:{port}: {reason}; choose another port, or 0 for a free one",
        ) from error


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
