# SPDX-License-Identifier: Apache-2.0
"""
A rate limit for the requests of one process.

Requests are evenly spaced, and no second has more of them than the limit *as the server counts*. A server may count a
request at any time between its sending and its response. So with a limit of ten a second, a request is sent no sooner
than one second after the response to the tenth request before it. A token bucket would allow bursts, and so would
slots that are assigned ahead of time, whenever the process is suspended and then catches up.

Where thousands of requests follow each other, that distance from the response costs much of the rate: at a latency of
300 ms, a quarter. Paced requests keep a distance from the sending instead, and use 95 % of the rate. The rest makes up
for requests that take longer to the server than others.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

#: The part of the rate that paced requests use.
PACED_SHARE = 0.95


class RateLimit:
    """
    Slots for requests, first come, first served.

    :param per_second: requests per second, above 0
    :param clock: returns seconds that never jump
    """

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._interval = 1.0 / per_second
        # Slots that open within one second.
        self._burst = max(1, math.floor(per_second))
        self._next = float("-inf")
        # When the server counted each of the latest requests, at the latest, in a list of one number: when its response
        # came, infinity while it is under way. Of a paced request, when it was sent.
        self._counted: deque[list[float]] = deque(maxlen=self._burst)
        self._turn: asyncio.Lock | None = None
        self._lock = threading.Lock()

    @contextmanager
    def slot(self, sleep: Callable[[float], None] = time.sleep, *, paced: bool = False) -> Iterator[None]:
        """
        Wait for a slot in a thread; the request must be sent, and its response received, inside.

        :param paced: the request is one of very many
        """
        with self._lock:
            while (wait := self._wait()) > 0:
                sleep(wait)
            counted = self._take(paced)
        try:
            yield
        finally:
            if not paced:
                counted[0] = self._clock()

    @asynccontextmanager
    async def async_slot(self) -> AsyncIterator[None]:
        """Wait for a slot in an event loop, always the same one; otherwise like ``slot``."""
        # Not at module level: asyncio loads sockets and TLS, which a DAG file does not need.
        import asyncio

        if self._turn is None:
            self._turn = asyncio.Lock()
        async with self._turn:
            # This waits for a point in time, for which there is no event.
            while (wait := self._wait()) > 0:  # noqa: ASYNC110
                await asyncio.sleep(wait)
            counted = self._take()
        try:
            yield
        finally:
            counted[0] = self._clock()

    def pause(self, seconds: float) -> None:
        """Open no slot for some seconds, because the server reports that its limit is reached."""
        self._next = max(self._next, self._clock() + seconds)

    def _wait(self) -> float:
        """Return the seconds until the next slot, as far as is known now; zero or less if it is open."""
        now = self._clock()
        opens_at = self._next
        if len(self._counted) == self._burst:
            # A request that is under way gets its response now, at the earliest.
            opens_at = max(opens_at, min(self._counted[0][0], now) + self._burst * self._interval)
        return opens_at - now

    def _take(self, paced: bool = False) -> list[float]:
        now = self._clock()
        counted = [now if paced else math.inf]
        self._counted.append(counted)
        if paced:
            # A sleep that took a little too long is made up for: on a busy machine most do.
            interval = self._interval / PACED_SHARE
            self._next = max(self._next, now - interval / 4) + interval
        else:
            self._next = now + self._interval
        return counted
