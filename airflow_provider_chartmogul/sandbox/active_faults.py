# SPDX-License-Identifier: Apache-2.0
"""The faults of a running sandbox, and the selection of those that hit a request."""

from __future__ import annotations

import math
import random
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from airflow_provider_chartmogul.sandbox.faults import MODIFYING_KINDS, Fault

_MAX_EXHAUSTED_SHOWN = 20
_DEFAULT_WINDOW_SECONDS = 60.0


class AddedFault:
    """A fault that was added to a running sandbox.

    `id` identifies it at the admin address, `hits` is the number of requests that it has hit.
    """

    def __init__(self, fault_id: int, fault: Fault) -> None:
        self.id = fault_id
        self.fault = fault
        self.hits = 0
        self._requests = 0
        self._admitted: deque[float] = deque()
        self._ends_at = math.inf if fault.for_seconds is None else time.monotonic() + fault.for_seconds
        # Two faults with the same seed must not hit the same requests, hence place and kind.
        self._random = random.Random(f"{fault.seed or 0} {fault.place} {fault.kind}")

    @property
    def exhausted(self) -> bool:
        """Whether it hits no more requests, since its `times` or `for_seconds` are used up."""
        return (self.fault.times is not None and self.hits >= self.fault.times) or time.monotonic() >= self._ends_at

    def __repr__(self) -> str:
        return f"<{self.fault}: {self.hits} hits{', exhausted' if self.exhausted else ''}>"

    def hit(self) -> Hit | None:
        """Count a request at the fault's place, and return the hit if there is one. Called under `Faults`' lock."""
        if self.exhausted:
            return None
        self._requests += 1
        if self._requests <= (self.fault.skip or 0):
            return None
        if self.fault.above is not None and not self._is_above(self.fault.above):
            return None
        if self.fault.p is not None and self._random.random() >= self.fault.p:
            return None
        self.hits += 1
        return Hit(self.fault, self.hits, random.Random(self._random.getrandbits(64)))

    def _is_above(self, limit: int) -> bool:
        """Return whether a request exceeds the number of requests that are left alone within the fault's window."""
        now = time.monotonic()
        while self._admitted and now - self._admitted[0] >= (self.fault.window or _DEFAULT_WINDOW_SECONDS):
            self._admitted.popleft()
        if len(self._admitted) >= limit:
            return True
        self._admitted.append(now)
        return False


@dataclass(frozen=True)
class Hit:
    """A fault that hits a request; `number` counts the fault's hits from 1."""

    fault: Fault
    number: int
    random: random.Random

    def byte(self, length: int) -> int:
        """Return the byte at which the fault occurs in a body of this length; 0 in an empty one."""
        last = max(0, length - 1)
        return self.random.randint(min(1, last), last) if self.fault.at is None else min(self.fault.at, last)


@dataclass(frozen=True)
class Hits:
    """The faults that hit one request: the one that replaces its response, if any, and by kind those that modify it."""

    replacement: Hit | None
    modifications: dict[str, Hit]

    def __str__(self) -> str:
        hits = (*self.modifications.values(), self.replacement)
        return " ".join(str(hit.fault) for hit in hits if hit is not None)


class Faults:
    """The faults of a sandbox, in the order in which they were added. All methods are thread-safe.

    Of the faults that replace a response, the first that hits applies, and the others do not count the request. The
    faults that modify a response all apply; but where the response is replaced, only `slow` does.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._added: list[AddedFault] = []
        self._count = 0

    def __iter__(self) -> Iterator[AddedFault]:
        """Iterate over the active faults, and the last 20 that are exhausted."""
        with self._lock:
            return iter(list(self._added))

    def add(self, *faults: Fault | str) -> list[AddedFault]:
        """Add faults, each a `Fault` or its text form: all of them, or none if one of them is invalid.

        :return: an object for each, which counts its hits.
        :raises ValueError: as `Fault` does.
        """
        parsed = [fault if isinstance(fault, Fault) else Fault.parse(fault) for fault in faults]
        with self._lock:
            added = [AddedFault(self._count + number, fault) for number, fault in enumerate(parsed, 1)]
            self._count += len(added)
            dropped = [fault for fault in self._added if fault.exhausted][:-_MAX_EXHAUSTED_SHOWN]
            self._added = [fault for fault in self._added if fault not in dropped] + added
        return added

    def remove(self, *added: AddedFault) -> None:
        """Remove faults. Faults that were removed before are ignored."""
        with self._lock:
            self._added = [fault for fault in self._added if fault not in added]

    def clear(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._added = []

    def select(self, host: str, endpoint: str) -> Hits | None:
        """Return the faults that hit a request, `None` where none does.

        :param host: `api` or `download`.
        :param endpoint: the API's endpoint as a place, or the host again.
        """
        if not self._added:
            return None
        replacement: Hit | None = None
        modifications: dict[str, Hit] = {}
        with self._lock:
            candidates = [added for added in self._added if added.fault.is_at(host, endpoint)]
            for added in candidates:
                if added.fault.kind not in MODIFYING_KINDS and replacement is None:
                    replacement = added.hit()
            for added in candidates:
                kind = str(added.fault.kind)
                applies = replacement is None or kind == "slow"
                if kind in MODIFYING_KINDS and kind not in modifications and applies and (hit := added.hit()):
                    modifications[kind] = hit
        return Hits(replacement, modifications) if replacement is not None or modifications else None
