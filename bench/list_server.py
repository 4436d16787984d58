# SPDX-License-Identifier: Apache-2.0
"""
HTTP server for the benchmarks of lists: pages that were serialized before, and one page of subscriptions per customer.

``python -m bench.list_server RESOURCE PAGES LATENCY RATE CONNECTIONS`` prints the server's URL as its first line and
runs until its standard input is closed; then it prints its counts as JSON. ``sendfile`` sends the pages, so that the
benchmark measures the reader. A rate and a number of connections of 0 are no limit. The rate limit counts requests that
are refused, too, as strict servers do.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

_EMPTY_PAGE = b'{"entries":[],"invoices":[],"has_more":false,"cursor":null}'


class ListServer:
    """
    A server in a process of its own. Its counts are complete once it has ended.

    :param url: its base URL
    """

    def __init__(self, url: str) -> None:
        self.url = url
        #: The number of responses by status.
        self.statuses: dict[int, int] = {}
        #: Seconds from the first request to the last.
        self.seconds = 0.0
        #: The most connections that were open at once.
        self.connections = 0

    @property
    def requests(self) -> int:
        return sum(self.statuses.values())

    @property
    def refused(self) -> int:
        return self.requests - self.statuses.get(200, 0)

    @property
    def rate(self) -> float:
        """Requests per second that were not refused."""
        return (self.statuses.get(200, 0) - 1) / self.seconds if self.seconds else 0.0


@contextmanager
def serving_list(
    resource: str, pages: Path, latency: float, *, rate: int = 0, connections: int = 0
) -> Iterator[ListServer]:
    """
    Run the server until the end of the block.

    :param resource: the list's name, which is its path
    :param pages: folder with the pages
    :param latency: seconds that a request and its response take together
    :param rate: the most requests in any one second; 0 for no limit
    :param connections: the most connections; 0 for no limit
    """
    command = [sys.executable, "-m", "bench.list_server"]
    command += map(str, (resource, pages, latency, rate, connections))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        server = ListServer(process.stdout.readline().strip())
        if not server.url:
            raise RuntimeError("the benchmark's server did not start")
        try:
            yield server
        finally:
            process.stdin.close()
            counts = json.loads(process.stdout.readline())
            server.statuses = {int(status): count for status, count in counts["statuses"].items()}
            server.seconds, server.connections = counts["seconds"], counts["connections"]


class _Limits:
    """Admits requests and connections, and counts both."""

    def __init__(self, rate: int, connections: int) -> None:
        self._rate = rate
        self._max_connections = connections
        self._lock = threading.Lock()
        self._latest: deque[float] = deque()
        self._connections = 0
        self._first = self._last = 0.0
        self.statuses: Counter[int] = Counter()
        self.most_connections = 0

    @property
    def seconds(self) -> float:
        return self._last - self._first

    def connect(self) -> bool:
        """Count a connection, and tell whether it is within the limit."""
        with self._lock:
            self._connections += 1
            self.most_connections = max(self.most_connections, self._connections)
            return not self._max_connections or self._connections <= self._max_connections

    def disconnect(self) -> None:
        with self._lock:
            self._connections -= 1

    def admit(self, connected: bool) -> int:
        """Count a request, and return the status of its response."""
        with self._lock:
            self._last = now = time.monotonic()
            self._first = self._first or now
            while self._latest and now - self._latest[0] >= 1.0:
                self._latest.popleft()
            self._latest.append(now)
            status = 200
            if not connected:
                status = 503
            elif self._rate and len(self._latest) > self._rate:
                status = 429
            self.statuses[status] += 1
            return status


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    limits: ClassVar[_Limits]
    resource: ClassVar[str]
    pages: ClassVar[Path]
    latency: ClassVar[float]

    def setup(self) -> None:
        super().setup()
        self.connected = self.limits.connect()

    def finish(self) -> None:
        self.limits.disconnect()
        super().finish()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        time.sleep(self.latency / 2)
        status = self.limits.admit(self.connected)
        time.sleep(self.latency / 2)
        if status != 200:
            self._send(b'{"code":%d,"message":"refused","param":null}' % status, status)
        elif url.path == f"/v1/{self.resource}":
            page = self.pages / f"{int(parse_qs(url.query).get('cursor', ['0'])[0]):05}.json"
            self._send(page if page.exists() else _EMPTY_PAGE)
        else:
            customer_uuid = url.path.split("/")[-2]
            self._send(json.dumps(_page_of_subscriptions(customer_uuid)).encode())

    def _send(self, body: Path | bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(body.stat().st_size if isinstance(body, Path) else len(body)))
        self.end_headers()
        if isinstance(body, Path):
            with body.open("rb") as file:
                self.connection.sendfile(file)
        else:
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _page_of_subscriptions(customer_uuid: str) -> dict[str, Any]:
    """Return the only page of a customer's subscriptions, of which there is one."""
    subscription = {
        "id": 1,
        "uuid": customer_uuid.replace("cus_", "sub_"),
        "external_id": "sub_1",
        "plan": "Growth, yearly",
        "quantity": 1,
        "mrr": 1999,
        "arr": 12 * 1999,
        "status": "active",
        "billing-cycle": "year",
        "billing-cycle-count": 1,
        "start-date": "2023-01-01T00:00:00+00:00",
        "end-date": "2024-01-01T00:00:00+00:00",
        "currency": "EUR",
        "currency-sign": "€",
    }
    return {"entries": [subscription], "has_more": False, "cursor": "c3Vic2NyaXB0aW9uc19uZXh0X3BhZ2U9Mg=="}


def main() -> None:
    resource, pages, latency, rate, connections = sys.argv[1:]
    _Handler.resource, _Handler.pages, _Handler.latency = resource, Path(pages), float(latency)
    _Handler.limits = limits = _Limits(int(rate), int(connections))
    ThreadingHTTPServer.request_queue_size = 128
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.daemon_threads = True
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        # Blocks until the parent process closes the pipe or ends.
        sys.stdin.read()
        server.shutdown()
        counts = {"statuses": limits.statuses, "seconds": limits.seconds, "connections": limits.most_connections}
        print(json.dumps(counts), flush=True)


if __name__ == "__main__":
    main()
