# SPDX-License-Identifier: Apache-2.0
"""
The next free slot: how a process keeps to its share of the account's requests a second.

One number, the time at which the next request may go out, and the caller does the sleeping; so the same few
lines serve a worker and an event loop. Token buckets let bursts through that the account's limit counts.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class RateLimit:
    """
    Slots that are ``1 / per_second`` apart.

    :param per_second: requests a second, above 0
    :param clock: seconds that do not jump
    """

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.interval = 1.0 / per_second
        self._clock = clock
        self._next = float("-inf")
        self._lock = threading.Lock()

    def reserve(self) -> float:
        """Take the next free slot; give the seconds until it comes (0 or more)."""
        with self._lock:
            now = self._clock()
            slot = max(now, self._next)
            self._next = slot + self.interval
            return slot - now

    def pause(self, seconds: float) -> None:
        """Give no slot for so many seconds: the server said that it is too much."""
        with self._lock:
            self._next = max(self._next, self._clock() + seconds)
