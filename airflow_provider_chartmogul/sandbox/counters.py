# SPDX-License-Identifier: Apache-2.0
"""Counters of the sandbox's two servers: requests, responses, requests per second and connections.

They are numbers only, so that their size does not grow with the number of requests.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Literal

Host = Literal["api", "download"]
HOSTS: tuple[Host, ...] = ("api", "download")

NO_RESPONSE = "none"
"""Counted instead of a status where a request gets no response."""


class _HostCounters:
    """The counters of one host."""

    def __init__(self) -> None:
        self.count_connections: Callable[[], int] = lambda: 0
        self.reset()

    def reset(self) -> None:
        self.requests = 0
        self.faulty = 0
        self.responses: Counter[str] = Counter()
        self.last_second: deque[float] = deque()
        self.busiest_second = 0
        self.most_connections = 0

    def drop_until(self, moment: float) -> None:
        while self.last_second and self.last_second[0] <= moment:
            self.last_second.popleft()

    def sample_connections(self) -> int:
        connections = self.count_connections()
        self.most_connections = max(self.most_connections, connections)
        return connections


class Counters:
    """The counters of both hosts since the start or the last `reset()`. All methods are thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hosts = {host: _HostCounters() for host in HOSTS}
        self._since = time.monotonic()

    def reset(self) -> None:
        """Set all counters to zero. Open connections remain counted."""
        with self._lock:
            for counters in self._hosts.values():
                counters.reset()
            self._since = time.monotonic()

    def set_connection_counter(self, host: Host, count_connections: Callable[[], int]) -> None:
        """Set the function that returns the number of open connections at a host."""
        with self._lock:
            self._hosts[host].count_connections = count_connections

    def request_received(self, host: Host, moment: float) -> None:
        """Count a request.

        :param moment: when it was received, by `time.monotonic()`.
        """
        with self._lock:
            counters = self._hosts[host]
            counters.requests += 1
            counters.drop_until(moment - 1.0)
            counters.last_second.append(moment)
            counters.busiest_second = max(counters.busiest_second, len(counters.last_second))
            counters.sample_connections()

    def response_ready(self, host: Host, status: int, *, faulty: bool) -> None:
        """Count a response before it is sent.

        :param status: its HTTP status; 0 for no response.
        :param faulty: whether a fault hit the request.
        """
        with self._lock:
            counters = self._hosts[host]
            counters.responses[str(status) if status else NO_RESPONSE] += 1
            counters.faulty += faulty

    def as_json(self) -> dict[str, Any]:
        """Return the counters of each host.

        * `requests`: all requests
        * `per_second`: the requests of the last second (`now`), the most in any one second (`busiest`), and the
          average (`average`)
        * `connections`: those open `now`, and the `most` that were open at a time
        * `responses`: the number of responses by status
        * `refused`: the responses with 429 and 503, whether by a limit or by a fault
        * `hit_by_faults`: the requests that a fault hit
        """
        with self._lock:
            now = time.monotonic()
            seconds = now - self._since
            hosts: dict[str, Any] = {}
            for host, counters in self._hosts.items():
                counters.drop_until(now - 1.0)
                hosts[host] = {
                    "requests": counters.requests,
                    "per_second": {
                        "now": len(counters.last_second),
                        "busiest": counters.busiest_second,
                        "average": round(counters.requests / seconds, 2) if seconds > 0 else 0.0,
                    },
                    "connections": {"now": counters.sample_connections(), "most": counters.most_connections},
                    "responses": dict(sorted(counters.responses.items())),
                    "refused": {status: counters.responses[status] for status in ("429", "503")},
                    "hit_by_faults": counters.faulty,
                }
            return {"seconds": round(seconds, 1), **hosts}
