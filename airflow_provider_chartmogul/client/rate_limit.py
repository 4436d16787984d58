# SPDX-License-Identifier: Apache-2.0
"""
The next free slot: how a process keeps to its share of the account's requests a second.

Requests go out at even distances, and no more of them in any one second than the share, as the *server* counts:
it sees a request some time between its going out and its answer, so a slot opens a second after the answer to the
request that is a share of requests back. Token buckets let bursts through that the account's limit counts, and so do
slots that were given out ahead of time, when the process is held up and then makes up for it.
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


class RateLimit:
    """
    Slots for requests, first come, first served.

    :param per_second: requests a second, above 0
    :param clock: seconds that do not jump
    """

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next = float("-inf")
        # The times at which the latest requests were answered, a share of them; infinity: not yet.
        self._answered: deque[list[float]] = deque()
        self._set(per_second)
        self._turn: asyncio.Lock | None = None
        self._lock = threading.Lock()

    @contextmanager
    def slot(self, sleep: Callable[[float], None] = time.sleep) -> Iterator[None]:
        """Wait for a slot, on a worker; the request is sent and answered inside."""
        with self._lock:
            while (wait := self._wait()) > 0:
                sleep(wait)
            request = self._take()
        try:
            yield
        finally:
            request[0] = self._clock()

    @asynccontextmanager
    async def async_slot(self) -> AsyncIterator[None]:
        """Wait for a slot, in an event loop, always the same one; the request is sent and answered inside."""
        # Not at import: it brings sockets along, which what a DAG file loads has no use for.
        import asyncio

        if self._turn is None:
            self._turn = asyncio.Lock()
        async with self._turn:
            # Until a time comes, not until something happens.
            while (wait := self._wait()) > 0:  # noqa: ASYNC110
                await asyncio.sleep(wait)
            request = self._take()
        try:
            yield
        finally:
            request[0] = self._clock()

    def pause(self, seconds: float) -> None:
        """Give no slot for so many seconds: the server said that it is too much."""
        self._next = max(self._next, self._clock() + seconds)

    def change(self, per_second: float) -> None:
        """Go on with another rate: a pause holds, requests that were sent count, and who waits stays in line."""
        self._set(per_second)

    def _set(self, per_second: float) -> None:
        self.per_second = per_second
        self._interval = 1.0 / per_second
        self._share = max(1, math.floor(per_second))
        self._answered = deque(self._answered, maxlen=self._share)

    def _wait(self) -> float:
        """Seconds until the next slot, as far as that is known now; 0 or less: it is here."""
        now = self._clock()
        opens = self._next
        if len(self._answered) == self._share:
            # A request that is under way is answered now, at the earliest.
            opens = max(opens, min(self._answered[0][0], now) + self._share * self._interval)
        return opens - now

    def _take(self) -> list[float]:
        request = [math.inf]
        self._answered.append(request)
        self._next = self._clock() + self._interval
        return request
