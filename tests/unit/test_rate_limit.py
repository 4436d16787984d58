# SPDX-License-Identifier: Apache-2.0
"""The rate limit, with a simulated clock: spacing, windows as a server counts them, pauses, fairness."""

from __future__ import annotations

import asyncio
import heapq
import threading
from itertools import count, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_chartmogul.client.rate_limit import RateLimit


class Clock:
    """A clock that only advances when its user sleeps."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def send(limit: RateLimit, clock: Clock, times: int, *, latency: float = 0.0) -> list[float]:
    """Send requests one after the other; return the times at which they were sent."""
    sent = []
    for _ in range(times):
        with limit.slot(clock.sleep):
            sent.append(clock.now)
            clock.now += latency
    return sent


def test_slots_are_evenly_spaced() -> None:
    clock = Clock(0)
    assert send(RateLimit(10, clock), clock, 4) == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_latency_counts_towards_the_spacing() -> None:
    clock = Clock(0)
    assert send(RateLimit(10, clock), clock, 3, latency=0.04) == pytest.approx([0.0, 0.1, 0.2])
    assert send(RateLimit(10, clock), clock, 3, latency=0.5)[1:] == pytest.approx([clock.now - 1.0, clock.now - 0.5])


def test_idle_time_allows_no_burst() -> None:
    clock = Clock(0)
    limit = RateLimit(10, clock)
    send(limit, clock, 20)
    clock.now = 3600
    assert send(limit, clock, 3) == pytest.approx([3600.0, 3600.1, 3600.2])


def test_oversleeping_is_not_caught_up() -> None:
    clock = Clock(0)
    limit = RateLimit(10, clock)

    def sleep_too_long(seconds: float) -> None:
        clock.now += seconds + 0.5

    sent = []
    for _ in range(5):
        with limit.slot(sleep_too_long):
            sent.append(clock.now)
    assert all(later - earlier >= 0.1 for earlier, later in pairwise(sent))


@pytest.mark.parametrize("start", [-1e9, 0.0, 1e9])
def test_first_slot_is_open_at_any_clock_time(start: float) -> None:
    clock = Clock(start)
    assert send(RateLimit(1, clock), clock, 1) == [start]


def test_pause_delays_the_next_slot() -> None:
    clock = Clock(0)
    limit = RateLimit(10, clock)
    limit.pause(5)
    assert send(limit, clock, 2) == pytest.approx([5.0, 5.1])
    clock.now = 20
    assert send(limit, clock, 1) == [20]


def test_shorter_pause_does_not_end_a_longer_one() -> None:
    clock = Clock(0)
    limit = RateLimit(1, clock)
    for seconds in (5, 1, 0, -10):
        limit.pause(seconds)
    assert send(limit, clock, 1) == [5.0]


def test_pause_applies_to_waiting_requests() -> None:
    clock = Clock(0)
    limit = RateLimit(10, clock)
    send(limit, clock, 1)
    pauses = iter([5.0])

    def sleep(seconds: float) -> None:
        clock.now += seconds
        limit.pause(next(pauses, 0.0))

    with limit.slot(sleep):
        assert clock.now == pytest.approx(5.1)


def test_less_than_one_request_a_second() -> None:
    clock = Clock(0)
    assert send(RateLimit(0.25, clock), clock, 3) == [0.0, 4.0, 8.0]


@pytest.mark.parametrize("latency", [0.0, 0.05, 0.3, 5.0])
def test_paced_requests_use_95_percent_at_any_latency(latency: float) -> None:
    clock = Clock(0)
    limit = RateLimit(40, clock)
    sent, responses = [], []
    for _ in range(400):
        request = limit.slot(clock.sleep, paced=True)
        request.__enter__()
        sent.append(clock.now)
        responses.append((clock.now + latency, request))
    # The first request counts as a little late.
    assert sent[-1] - sent[0] == pytest.approx(398.75 / 38)
    assert all(later - earlier >= 1.0 for earlier, later in zip(sent, sent[40:], strict=False))
    for _, request in responses:
        request.__exit__(None, None, None)


@pytest.mark.parametrize("seconds", [0.005, 0.02, 0.2])
def test_paced_requests_make_up_for_oversleeping_within_the_limit(seconds: float) -> None:
    clock = Clock(0)
    limit = RateLimit(40, clock)

    def sleep_too_long(wait: float) -> None:
        clock.now += wait + (seconds if len(sent) % 2 else 0.0)

    sent: list[float] = []
    for _ in range(400):
        with limit.slot(sleep_too_long, paced=True):
            sent.append(clock.now)
    assert all(later - earlier >= 1.0 for earlier, later in zip(sent, sent[40:], strict=False))
    if seconds < 1 / 38 / 4:
        assert sent[-1] - sent[0] <= 400 / 38


def test_pause_applies_to_paced_requests() -> None:
    clock = Clock(0)
    limit = RateLimit(40, clock)
    limit.pause(5)
    with limit.slot(clock.sleep, paced=True):
        assert clock.now == 5


def test_paced_requests_follow_others_within_the_limit() -> None:
    clock = Clock(0)
    limit = RateLimit(10, clock)
    responses = []
    for _ in range(10):
        with limit.slot(clock.sleep):
            clock.now += 0.09
            responses.append(clock.now)
    paced = []
    for _ in range(10):
        with limit.slot(clock.sleep, paced=True):
            paced.append(clock.now)
    assert all(later - earlier >= 1.0 - 1e-9 for earlier, later in zip(responses, paced, strict=True))


def test_threads_share_slots() -> None:
    clock = Clock(0)
    limit = RateLimit(8, clock)
    sent: list[float] = []

    def send_one() -> None:
        for _ in range(50):
            with limit.slot(clock.sleep):
                sent.append(clock.now)

    threads = [threading.Thread(target=send_one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sent) == 400
    assert all(later - earlier >= 1 / 8 - 1e-9 for earlier, later in pairwise(sorted(sent)))


class LoopClock:
    """Simulated time for an event loop: sleeping takes no real time, and sleepers wake in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self._order = count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        monkeypatch.setattr(asyncio, "sleep", self.sleep)

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + seconds, next(self._order), future))
        await future

    async def run(self, *tasks: asyncio.Task[None]) -> None:
        while not all(task.done() for task in tasks):
            for _ in range(20):
                await _REAL_SLEEP(0)
            if self._sleepers:
                at, _, future = heapq.heappop(self._sleepers)
                self.now = max(self.now, at)
                if not future.done():
                    future.set_result(None)
        await asyncio.gather(*tasks)


_REAL_SLEEP = asyncio.sleep


@pytest.mark.parametrize("latency", [0.005, 0.3, 2.5])
def test_server_never_counts_more_than_the_limit_in_any_second(latency: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if the server counts the first requests at their response, and the next ones when they are sent."""
    clock = LoopClock(monkeypatch)
    limit = RateLimit(10, clock)
    sent: list[float] = []
    responded: list[float] = []

    async def send_one() -> None:
        async with limit.async_slot():
            sent.append(clock.now)
            await clock.sleep(latency)
            responded.append(clock.now)

    async def main() -> None:
        await clock.run(*(asyncio.create_task(send_one()) for _ in range(60)))

    asyncio.run(main())
    assert len(sent) == 60
    assert all(later - earlier >= 0.1 - 1e-9 for earlier, later in pairwise(sent))
    for first, eleventh in zip(sorted(responded), sent[10:], strict=False):
        assert eleventh - first >= 1.0 - 1e-9, "even if the server counted the first at its response"


def test_event_loop_serves_first_come_first_served(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = LoopClock(monkeypatch)
    limit = RateLimit(10, clock)
    served: list[int] = []

    async def send_one(number: int) -> None:
        async with limit.async_slot():
            served.append(number)

    async def main() -> None:
        await clock.run(*(asyncio.create_task(send_one(number)) for number in range(100)))

    asyncio.run(main())
    assert served == list(range(100))


def test_cancelled_waiter_takes_no_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = LoopClock(monkeypatch)
    limit = RateLimit(1, clock)
    served: list[tuple[int, float]] = []

    async def send_one(number: int) -> None:
        async with limit.async_slot():
            served.append((number, clock.now))

    async def main() -> None:
        tasks = [asyncio.create_task(send_one(number)) for number in range(5)]
        for _ in range(20):
            await _REAL_SLEEP(0)
        tasks[1].cancel()
        tasks[3].cancel()
        await clock.run(tasks[0], tasks[2], tasks[4])

    asyncio.run(main())
    assert [number for number, _ in served] == [0, 2, 4]
    assert served[-1][1] <= 3.0


events = st.lists(st.tuples(st.sampled_from(["pass", "send", "pause"]), st.floats(0, 100)), min_size=1, max_size=100)


@given(st.floats(0.01, 100), events)
def test_slots_keep_their_distance_in_any_sequence(per_second: float, sequence: list[tuple[str, float]]) -> None:
    clock = Clock()
    limit = RateLimit(per_second, clock)
    sent: list[float] = []
    paused_until = clock.now
    for event, seconds in sequence:
        if event == "pass":
            clock.now += seconds
        elif event == "pause":
            limit.pause(seconds)
            paused_until = max(paused_until, clock.now + seconds)
        else:
            sent += send(limit, clock, 1, latency=seconds / 100)
            assert sent[-1] >= paused_until - 1e-6
    assert all(later - earlier >= 1 / per_second - 1e-6 for earlier, later in pairwise(sent))
