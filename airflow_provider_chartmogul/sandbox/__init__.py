# SPDX-License-Identifier: Apache-2.0
"""A ChartMogul on this machine, for demos, DAG development and tests.

It holds `Sandbox`, which runs the API and the download host in a thread of the calling process, for use as a
context manager in a test; `python -m airflow_provider_chartmogul.sandbox` runs the same from a shell. What
it enforces is what the real thing enforces: the key, 40 requests a second, 20 connections, signed URLs that
expire and go to nobody with an Authorization header. What goes wrong with the real thing goes wrong with it on
demand: see `faults`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from ipaddress import ip_address
from types import TracebackType
from typing import Any
from urllib.parse import quote

from airflow_provider_chartmogul.sandbox.account import Account, SeenExport, SeenRequest
from airflow_provider_chartmogul.sandbox.faults import AddedFault, Fault, Faults

# aiohttp is imported by the servers only, and these by start(): importing this package must stay cheap.

__all__ = ["AddedFault", "Fault", "Faults", "Sandbox", "SeenExport", "SeenRequest"]


class Sandbox(Account):
    """A ChartMogul account served on ports of this machine, from a thread of its own::

        with Sandbox(export_seconds=0) as sandbox:
            os.environ["AIRFLOW_CONN_CHARTMOGUL_DEFAULT"] = sandbox.connection_uri
            ...
            assert rows == sandbox.truth(start, end)

    Faults are added and taken away while it runs, as a `Fault` or as text, and hit what comes from then on::

        with sandbox.faulty("retrieve:503;times=3", Fault("download", "break", at=1000, times=1)) as added:
            ...
            assert added[0].hits == 3
        sandbox.faults.add("create:reset;when=after;times=1")
        sandbox.faults.clear()

    These parameters are attributes too, which can be changed while it runs and hold from then on:
    `export_seconds`, `url_seconds`, `fresh_urls`, `requests_per_second`, `max_connections` and, for exports
    made afterwards, `outcome`.

    :param host: the address to listen on, a name or an IP address.
    :param port: the API's port; 0 takes a free one.
    :param download_port: the download host's port; 0 takes a free one.
    :param admin_port: the port of the counters, faults and settings, at which nothing is ChartMogul's; 0 takes
        a free one. Whoever reaches it can use it: it asks for no key.
    :param api_key: the one key that is let in.
    :param export_seconds: seconds from making an export to its end; pending for the first quarter of them,
        then processing. Setting it to 0 ends those that are under way.
    :param customers: customers of the company, from its founding in 2018 to 2040; see `company`.
    :param seed: which company; any whole number.
    :param requests_per_second: requests answered in any one second; the next gets 429. None: no limit.
    :param max_connections: connections open at a time, idle ones included; requests on later ones get 503.
        None: no limit.
    :param url_seconds: for how long a download URL is good, from the first look at the finished export; 0 to
        604800 (seven days). 0 makes URLs that have expired; a URL's clock has whole seconds.
    :param fresh_urls: whether a look at an export whose URL has expired gives a fresh one, or the old one.
    :param outcome: how exports end: `succeeded`; `successful`, the other word for done; `failed`; `never`,
        which goes on processing; anything else is shown as the status at every look, for words not known.
    :param faults: faults to begin with, each a `Fault` or its text form; see `faults`.
    :raises ValueError: for a setting that makes no sense, naming it.
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
        """Listen and answer; returns once all ports do.

        After a `stop()` it listens on the same ports again, so that an outage can be played.

        :raises OSError: for a port that is taken or an address that is not this machine's, naming it.
        :raises RuntimeError: when it is running already.
        """
        if self._thread is not None:
            raise RuntimeError("the sandbox is running already")
        # Bound here and not in the thread, so that what goes wrong is raised where the caller is.
        with contextlib.ExitStack() as undo:
            api = undo.enter_context(_listen(self.host, self._port))
            download = undo.enter_context(_listen(self.host, self._download_port))
            admin = undo.enter_context(_listen(self.host, self._admin_port))
            listeners = (api, download, admin)
            self._port, self._download_port, self._admin_port = (one.getsockname()[1] for one in listeners)
            ready: Future[None] = Future()
            thread = threading.Thread(target=self._run, args=(listeners, ready), name="chartmogul-sandbox", daemon=True)
            thread.start()
            ready.result()
            undo.pop_all()
        self._thread = thread
        return self

    def stop(self) -> None:
        """Close every connection and all ports, and end the thread. Does nothing when it is not running."""
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
        """Add faults for as long as a `with` block takes; gives one object for each, which counts its hits.

        :raises ValueError: for a fault that makes no sense, naming what is known.
        """
        added = self.faults.add(*faults)
        try:
            yield added
        finally:
            self.faults.remove(*added)

    @property
    def port(self) -> int:
        """The API's port; 0 until one has been taken."""
        return self._port

    @property
    def download_port(self) -> int:
        """The download host's port; 0 until one has been taken."""
        return self._download_port

    @property
    def admin_port(self) -> int:
        """The admin address's port; 0 until one has been taken."""
        return self._admin_port

    @property
    def url(self) -> str:
        """The API's base URL without `/v1`, such as `http://127.0.0.1:8765`.

        :raises RuntimeError: before the first `start()`, when there is no port yet.
        """
        return f"http://{_in_url(self._reachable_host())}:{self._taken(self._port)}"

    @property
    def download_url(self) -> str:
        """The download host's base URL.

        :raises RuntimeError: before the first `start()`.
        """
        return self._download_url_for("")

    @property
    def admin_url(self) -> str:
        """Where the counters, faults and settings are: a page at `/`; see `admin`.

        :raises RuntimeError: before the first `start()`.
        """
        return f"http://{_in_url(self._reachable_host())}:{self._taken(self._admin_port)}"

    @property
    def connection_uri(self) -> str:
        """An Airflow connection to this sandbox as a URI, as `AIRFLOW_CONN_CHARTMOGUL_DEFAULT` takes it.

        :raises RuntimeError: before the first `start()`.
        """
        host = _in_url(self._reachable_host())
        return f"chartmogul://:{quote(self.api_key, safe='')}@{host}:{self._taken(self._port)}/http"

    @property
    def connection_json(self) -> str:
        """The same connection in the other form that variable takes.

        :raises RuntimeError: before the first `start()`.
        """
        return json.dumps(
            {
                "conn_type": "chartmogul",
                "host": self._reachable_host(),
                "schema": "http",
                "port": self._taken(self._port),
                "password": self.api_key,
            }
        )

    def _reachable_host(self) -> str:
        """The host to connect to: what listens on every address is reached on the loopback one."""
        with contextlib.suppress(ValueError):
            address = ip_address(self.host)
            if address.is_unspecified:
                return "127.0.0.1" if address.version == 4 else "::1"
        return self.host or "127.0.0.1"

    def _taken(self, port: int) -> int:
        if not port:
            raise RuntimeError("the sandbox has no port yet: start() it first")
        return port

    def _download_url_for(self, host_name: str) -> str:
        """The download host's base URL by the name the API was called by: from another container or
        machine, the address listened on here is not the one that leads here."""
        host = _in_url(host_name or self._reachable_host())
        return f"http://{host}:{self._taken(self._download_port)}"

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

        from airflow_provider_chartmogul.sandbox.admin import AdminServer
        from airflow_provider_chartmogul.sandbox.bucket import BucketServer
        from airflow_provider_chartmogul.sandbox.server import ApiServer

        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        servers = (ApiServer(self, self._download_url_for), BucketServer(self), AdminServer(self))
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
    """End the servers at once: requests under way get a moment, idle and stuck connections none."""
    transports = [
        connection.transport
        for runner in runners
        if runner.server is not None
        for connection in runner.server.connections
    ]
    await asyncio.gather(*(runner.cleanup() for runner in runners))
    # aiohttp closes politely, which with a client that does not read what it was sent takes for ever.
    for transport in transports:
        if transport is not None:
            transport.abort()
    await asyncio.sleep(0)


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket; an error that says which address it is about."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=1024)
    except OSError as error:
        reason = (error.strerror or str(error)).split(" (while")[0]
        raise OSError(
            error.errno,
            f"cannot listen on {_in_url(host)}:{port}: {reason}; choose another one, or port 0 for a free port",
        ) from error


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
