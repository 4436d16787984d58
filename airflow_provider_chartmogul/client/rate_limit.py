# SPDX-License-Identifier: Apache-2.0
"""
A rate limit for the requests of one process.

Requests are evenly spaced, and none of them exceeds the limit *as the server counts*. A server may count a
request at any time between its sending and its response. So with a limit of ten a second, a request is sent no sooner
than one second after the response to the tenth request before it. A token bucket would allow bursts, and so would
slots that are assigned ahead of time, whenever the process is suspended and then catches up.

Where thousands of requests follow each other, that distance from the response costs much of the rate: at a latency of
300 ms, a quarter. Paced requests keep a distance from the sending instead, and use 95 % of the rate. The other
5 % allows for requests that take longer to reach the server than others.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

#: The part of the rate that paced requests use.
PACED_SHARE = 0.95

#: How much of a slot a paced request may recover that another one overslept.
MAX_CATCH_UP = 0.25


@dataclass
class _Request:
    """
    A request that was sent.

    :param counted_by: the latest time at which the server may have counted it: when its response came, infinity while
        it is under way. For a paced request, when it was sent
    """

    counted_by: float


class RateLimit:
    """
    Slots for requests, first come, first served.

    :param per_second: requests per second, above 0
    :param clock: returns seconds that never jump
    """

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._interval = 1.0 / per_second
        # The number of slots in a second.
        self._window_size = max(1, math.floor(per_second))
        self._next_opens_at = float("-inf")
        self._latest: deque[_Request] = deque(maxlen=self._window_size)
        # A limit is used by threads or by an event loop, not by both.
        self._async_lock: asyncio.Lock | None = None
        self._thread_lock = threading.Lock()

    @contextmanager
    def slot(self, sleep: Callable[[float], None] = time.sleep, *, paced: bool = False) -> Iterator[None]:
        """
        Wait for a slot in a thread; the request must be sent, and its response received, inside.

        :param paced: the request is one of very many
        """
        with self._thread_lock:
            while (wait := self._seconds_until_open()) > 0:
                sleep(wait)
            request = self._take_slot(paced)
        try:
            yield
        finally:
            if not paced:
                request.counted_by = self._clock()

    @asynccontextmanager
    async def async_slot(self) -> AsyncIterator[None]:
        """Wait for a slot in an event loop, always the same one; otherwise like ``slot``."""
        # Not at module level: asyncio loads sockets and TLS, which a DAG file does not need.
        import asyncio

        if self._async_lock is None:
            self._async_lock = asyncio.Lock()
        async with self._async_lock:
            # This waits for a point in time, for which there is no event.
            while (wait := self._seconds_until_open()) > 0:  # noqa: ASYNC110
                await asyncio.sleep(wait)
            request = self._take_slot()
        try:
            yield
        finally:
            request.counted_by = self._clock()

    def pause(self, seconds: float) -> None:
        """Open no slot for some seconds, because the server reports that its limit is reached."""
        self._next_opens_at = max(self._next_opens_at, self._clock() + seconds)

    def _seconds_until_open(self) -> float:
        """Return the seconds until the next slot, as far as is known now; zero or less if it is open."""
        now = self._clock()
        opens_at = self._next_opens_at
        if len(self._latest) == self._window_size:
            # A request that is under way gets its response now, at the earliest.
            opens_at = max(opens_at, min(self._latest[0].counted_by, now) + self._window_size * self._interval)
        return opens_at - now

    def _take_slot(self, paced: bool = False) -> _Request:
        """Record a request, and set when the next one may start."""
        now = self._clock()
        request = _Request(now if paced else math.inf)
        self._latest.append(request)
        if paced:
            # Sleeps overrun on a busy machine. A part of that delay is recovered, so that the rate does not drop.
            interval = self._interval / PACED_SHARE
            self._next_opens_at = max(self._next_opens_at, now - MAX_CATCH_UP * interval) + interval
        else:
            self._next_opens_at = now + self._interval
        return request
