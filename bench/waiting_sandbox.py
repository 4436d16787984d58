# SPDX-License-Identifier: Apache-2.0
"""The server of the waiting benchmark: a sandbox in a process of its own that counts requests and connections."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

API_KEY = "sandbox-api-key"

#: Requests a second and connections that ChartMogul documents for an account.
RATE, CONNECTIONS = 40, 20

SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class ServerCounts:
    """
    Requests that the server received.

    :param statuses: number of responses by status
    :param busiest_second: the most requests in any one second
    :param connections: the most connections that were open at once
    """

    statuses: dict[int, int]
    busiest_second: int
    connections: int


def busiest_second(times: Iterable[float]) -> int:
    """Return the largest number of times within any one second, which may start at any time."""
    window: deque[float] = deque()
    most = 0
    for moment in sorted(times):
        window.append(moment)
        while moment - window[0] >= 1.0:
            window.popleft()
        most = max(most, len(window))
    return most


class SandboxProcess:
    """A sandbox in a separate process. Its limits are lifted while exports are created."""

    def __init__(self) -> None:
        self._pipe, theirs = SPAWN.Pipe()
        self._process = SPAWN.Process(target=_serve, args=(theirs,))
        self._process.start()
        theirs.close()
        self.url: str = self._pipe.recv()

    def _call(self, *command: Any) -> Any:
        self._pipe.send(command)
        return self._pipe.recv()

    def set(self, name: str, value: Any) -> None:
        """Set an attribute of the sandbox."""
        self._call("set", name, value)

    def finish_exports_in(self, seconds: float) -> None:
        """Let all exports finish ``seconds`` from now."""
        self._call("finish_exports_in", seconds)

    def reset_counts(self) -> None:
        self._call("reset_counts")

    def counts(self) -> ServerCounts:
        """Return what the server counted since the last ``reset_counts``."""
        return ServerCounts(*self._call("counts"))

    def create_exports(self, number: int) -> list[str]:
        """Create unfinished exports, one request each, without limits, and return their IDs."""
        self.set("requests_per_second", None)
        self.set("max_connections", None)
        self.set("export_seconds", 1e9)
        export_ids = asyncio.run(_create_exports(self.url, number))
        self.set("requests_per_second", RATE)
        self.set("max_connections", CONNECTIONS)
        return export_ids

    def __enter__(self) -> SandboxProcess:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._pipe.close()
        self._process.join(30)


async def _create_exports(url: str, number: int) -> list[str]:
    import aiohttp

    async with aiohttp.ClientSession(auth=aiohttp.BasicAuth(API_KEY, "")) as session:
        limit = asyncio.Semaphore(CONNECTIONS)

        async def create() -> str:
            async with limit, session.post(f"{url}/v1/activities_export") as response:
                return str((await response.json())["id"])

        return await asyncio.gather(*(create() for _ in range(number)))


def _serve(pipe: Connection) -> None:
    """Run the sandbox and execute the commands from the pipe until it is closed."""
    from aiohttp.web_server import Server

    from airflow_provider_chartmogul.sandbox import Sandbox

    open_connections, most_connections, counted_since = 0, 0, 0.0
    connection_made, connection_lost = Server.connection_made, Server.connection_lost

    def count_made(self: Any, *args: Any) -> None:
        nonlocal open_connections, most_connections
        open_connections += 1
        most_connections = max(most_connections, open_connections)
        connection_made(self, *args)

    def count_lost(self: Any, *args: Any) -> None:
        nonlocal open_connections
        open_connections -= 1
        connection_lost(self, *args)

    counting_server: Any = Server
    counting_server.connection_made, counting_server.connection_lost = count_made, count_lost
    with Sandbox(api_key=API_KEY, requests_per_second=RATE, max_connections=CONNECTIONS) as sandbox:
        pipe.send(sandbox.url)
        started = time.monotonic()
        with contextlib.suppress(EOFError):
            while True:
                result: Any = None
                match pipe.recv():
                    case ("set", name, value):
                        setattr(sandbox, name, value)
                    case ("finish_exports_in", seconds):
                        # An export finishes at a given age. All of them are almost as old as the sandbox.
                        sandbox.export_seconds = time.monotonic() - started + seconds
                    case ("reset_counts",):
                        counted_since, most_connections = time.monotonic(), open_connections
                    case ("counts",):
                        requests = [request for request in sandbox.requests if request.started >= counted_since]
                        statuses = dict(Counter(request.status for request in requests))
                        result = (statuses, busiest_second(request.started for request in requests), most_connections)
                pipe.send(result)
