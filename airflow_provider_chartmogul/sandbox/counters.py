# SPDX-License-Identifier: Apache-2.0
"""What the sandbox counts: requests, answers, requests a second and connections, for each of its two hosts.

Numbers only, so that a run of any length takes the same few bytes; the record of the requests themselves is
the account's.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Literal

Host = Literal["api", "download"]
HOSTS: tuple[Host, ...] = ("api", "download")

NO_ANSWER = "none"
"""Stands for the status of a request that was given no answer."""


class _HostCounters:
    """The numbers of one host."""

    def __init__(self) -> None:
        self.connections: Callable[[], int] = lambda: 0
        self.reset()

    def reset(self) -> None:
        self.requests = 0
        self.faulty = 0
        self.answers: Counter[str] = Counter()
        self.last_second: deque[float] = deque()
        self.busiest_second = 0
        self.most_connections = 0

    def forget_before(self, moment: float) -> None:
        while self.last_second and self.last_second[0] <= moment:
            self.last_second.popleft()

    def look_at_connections(self) -> int:
        now = self.connections()
        self.most_connections = max(self.most_connections, now)
        return now


class Counters:
    """The numbers of both hosts since the start, or since the last `reset()`. For use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hosts = {host: _HostCounters() for host in HOSTS}
        self._since = time.monotonic()

    def reset(self) -> None:
        """Begin to count anew. Connections that are open stay counted."""
        with self._lock:
            for counters in self._hosts.values():
                counters.reset()
            self._since = time.monotonic()

    def watch_connections(self, host: Host, connections: Callable[[], int]) -> None:
        """From now on `connections()` says how many are open at this host."""
        with self._lock:
            self._hosts[host].connections = connections

    def came(self, host: Host, moment: float) -> None:
        """A request has come in.

        :param moment: when, as `time.monotonic()` tells it.
        """
        with self._lock:
            counters = self._hosts[host]
            counters.requests += 1
            counters.forget_before(moment - 1.0)
            counters.last_second.append(moment)
            counters.busiest_second = max(counters.busiest_second, len(counters.last_second))
            counters.look_at_connections()

    def answered(self, host: Host, status: int, *, faulty: bool) -> None:
        """A request is about to be answered, with this status or, where that is 0, not at all."""
        with self._lock:
            counters = self._hosts[host]
            counters.answers[str(status) if status else NO_ANSWER] += 1
            counters.faulty += faulty

    def as_json(self) -> dict[str, Any]:
        """The numbers: by host, requests so far and a second, connections, answers by status.

        `per_second` has the requests of the last second, the most in any one second, and the average since the
        counting began. `refused` are the answers 429 and 503, whether by a limit or by a fault, of which
        `hit_by_faults` counts all requests.
        """
        with self._lock:
            now = time.monotonic()
            seconds = now - self._since
            hosts: dict[str, Any] = {}
            for host, counters in self._hosts.items():
                counters.forget_before(now - 1.0)
                hosts[host] = {
                    "requests": counters.requests,
                    "per_second": {
                        "now": len(counters.last_second),
                        "busiest": counters.busiest_second,
                        "average": round(counters.requests / seconds, 2) if seconds > 0 else 0.0,
                    },
                    "connections": {"now": counters.look_at_connections(), "most": counters.most_connections},
                    "answers": dict(sorted(counters.answers.items())),
                    "refused": {status: counters.answers[status] for status in ("429", "503")},
                    "hit_by_faults": counters.faulty,
                }
            return {"seconds": round(seconds, 1), **hosts}
