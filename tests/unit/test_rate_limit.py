# SPDX-License-Identifier: Apache-2.0
"""The next free slot, by a clock that the tests move: distances, windows as a server counts them, pauses, fairness."""

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
    """A clock that only sleeping moves."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def send(limit: RateLimit, clock: Clock, times: int, *, latency: float = 0.0) -> list[float]:
    """Send so many requests one after the other; give the times at which they went out."""
    sent = []
    for _ in range(times):
        with limit.slot(clock.sleep):
            sent.append(clock.now)
            clock.now += latency
    return sent


def test_slots_are_so_far_apart() -> None:
    clock = Clock(0)
    assert send(RateLimit(10, clock), clock, 4) == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_time_that_passes_counts() -> None:
    clock = Clock(0)
    assert send(RateLimit(10, clock), clock, 3, latency=0.04) == pytest.approx([0.0, 0.1, 0.2])
    assert send(RateLimit(10, clock), clock, 3, latency=0.5)[1:] == pytest.approx([clock.now - 1.0, clock.now - 0.5])


def test_idle_time_saves_up_no_burst() -> None:
    clock = Clock(0)
    limit = RateLimit(10, clock)
    send(limit, clock, 20)
    clock.now = 3600
    assert send(limit, clock, 3) == pytest.approx([3600.0, 3600.1, 3600.2])


def test_being_held_up_is_not_made_up_for() -> None:
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
def test_the_first_slot_is_free_whatever_the_clock_shows(start: float) -> None:
    clock = Clock(start)
    assert send(RateLimit(1, clock), clock, 1) == [start]


def test_a_pause_moves_the_next_slot() -> None:
    clock = Clock(0)
    limit = RateLimit(10, clock)
    limit.pause(5)
    assert send(limit, clock, 2) == pytest.approx([5.0, 5.1])
    clock.now = 20
    assert send(limit, clock, 1) == [20]


def test_a_shorter_pause_or_none_gives_no_slot_sooner() -> None:
    clock = Clock(0)
    limit = RateLimit(1, clock)
    for seconds in (5, 1, 0, -10):
        limit.pause(seconds)
    assert send(limit, clock, 1) == [5.0]


def test_a_pause_holds_for_who_waits_already() -> None:
    clock = Clock(0)
    limit = RateLimit(10, clock)
    send(limit, clock, 1)
    pauses = iter([5.0])

    def sleep(seconds: float) -> None:
        clock.now += seconds
        limit.pause(next(pauses, 0.0))

    with limit.slot(sleep):
        assert clock.now == pytest.approx(5.1)


def test_less_than_one_a_second() -> None:
    clock = Clock(0)
    assert send(RateLimit(0.25, clock), clock, 3) == [0.0, 4.0, 8.0]


def test_threads_share_the_slots() -> None:
    clock = Clock(0)
    limit = RateLimit(8, clock)
    sent: list[float] = []

    def ask() -> None:
        for _ in range(50):
            with limit.slot(clock.sleep):
                sent.append(clock.now)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sent) == 400
    assert all(later - earlier >= 1 / 8 - 1e-9 for earlier, later in pairwise(sorted(sent)))


class LoopClock:
    """An event loop whose time is the tests': sleeping takes no time, and what is awaited is asked in order."""

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
def test_a_server_never_counts_more_than_the_share_in_any_second(
    latency: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever between going out and answer the server counts each: late for the first ones, soon for those after."""
    clock = LoopClock(monkeypatch)
    limit = RateLimit(10, clock)
    sent: list[float] = []
    answered: list[float] = []

    async def ask() -> None:
        async with limit.async_slot():
            sent.append(clock.now)
            await clock.sleep(latency)
            answered.append(clock.now)

    async def main() -> None:
        await clock.run(*(asyncio.create_task(ask()) for _ in range(60)))

    asyncio.run(main())
    assert len(sent) == 60
    assert all(later - earlier >= 0.1 - 1e-9 for earlier, later in pairwise(sent))
    for first, eleventh in zip(sorted(answered), sent[10:], strict=False):
        assert eleventh - first >= 1.0 - 1e-9, "so even if the server counted the first at its answer"


def test_first_come_first_served_in_an_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = LoopClock(monkeypatch)
    limit = RateLimit(10, clock)
    served: list[int] = []

    async def ask(number: int) -> None:
        async with limit.async_slot():
            served.append(number)

    async def main() -> None:
        await clock.run(*(asyncio.create_task(ask(number)) for number in range(100)))

    asyncio.run(main())
    assert served == list(range(100))


def test_who_is_cancelled_while_waiting_takes_no_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = LoopClock(monkeypatch)
    limit = RateLimit(1, clock)
    served: list[tuple[int, float]] = []

    async def ask(number: int) -> None:
        async with limit.async_slot():
            served.append((number, clock.now))

    async def main() -> None:
        tasks = [asyncio.create_task(ask(number)) for number in range(5)]
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
def test_whatever_happens_slots_keep_their_distance(per_second: float, happened: list[tuple[str, float]]) -> None:
    clock = Clock()
    limit = RateLimit(per_second, clock)
    sent: list[float] = []
    paused_until = clock.now
    for what, seconds in happened:
        if what == "pass":
            clock.now += seconds
        elif what == "pause":
            limit.pause(seconds)
            paused_until = max(paused_until, clock.now + seconds)
        else:
            sent += send(limit, clock, 1, latency=seconds / 100)
            assert sent[-1] >= paused_until - 1e-6
    assert all(later - earlier >= 1 / per_second - 1e-6 for earlier, later in pairwise(sent))
