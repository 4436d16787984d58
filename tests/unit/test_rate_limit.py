# SPDX-License-Identifier: Apache-2.0
"""The slots of a rate limit: never closer than told, whoever asks and whenever, on a clock of the test's own."""

from __future__ import annotations

import threading
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_chartmogul.rate_limit import RateLimit


class Clock:
    """Seconds that pass when told."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def test_slots_are_so_far_apart() -> None:
    limit = RateLimit(10, Clock())
    assert [limit.reserve() for _ in range(4)] == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_time_that_passes_counts() -> None:
    clock = Clock()
    limit = RateLimit(10, clock)
    limit.reserve()
    clock.now += 0.04
    assert limit.reserve() == pytest.approx(0.06)


def test_idle_time_saves_up_no_burst() -> None:
    clock = Clock()
    limit = RateLimit(10, clock)
    limit.reserve()
    clock.now += 3600
    assert [limit.reserve() for _ in range(3)] == pytest.approx([0.0, 0.1, 0.2])


def test_the_first_slot_is_free_whatever_the_clock_shows() -> None:
    for start in (-1e9, 0.0, 1e9):
        assert RateLimit(1, Clock(start)).reserve() == 0.0


def test_a_pause_moves_the_next_slot() -> None:
    clock = Clock()
    limit = RateLimit(10, clock)
    limit.pause(5)
    assert [limit.reserve(), limit.reserve()] == pytest.approx([5.0, 5.1])
    clock.now += 10
    assert limit.reserve() == 0.0


def test_a_shorter_pause_or_none_gives_no_slot_sooner() -> None:
    limit = RateLimit(1, Clock())
    limit.pause(5)
    limit.pause(1)
    limit.pause(0)
    limit.pause(-10)
    assert limit.reserve() == 5.0


def test_less_than_one_a_second() -> None:
    limit = RateLimit(0.25, Clock())
    assert [limit.reserve() for _ in range(3)] == [0.0, 4.0, 8.0]


def test_threads_share_the_slots() -> None:
    limit = RateLimit(8, Clock())
    slots: list[float] = []

    def ask() -> None:
        slots.extend([limit.reserve() for _ in range(50)])

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(slots) == [number / 8 for number in range(400)]


events = st.lists(st.tuples(st.sampled_from(["pass", "reserve", "pause"]), st.floats(0, 100)), min_size=1, max_size=100)


@given(st.floats(0.01, 100), events)
def test_whatever_happens_slots_keep_their_distance(per_second: float, happened: list[tuple[str, float]]) -> None:
    clock = Clock()
    limit = RateLimit(per_second, clock)
    slots: list[float] = []
    paused_until = clock.now
    for what, seconds in happened:
        if what == "pass":
            clock.now += seconds
        elif what == "pause":
            limit.pause(seconds)
            paused_until = max(paused_until, clock.now + seconds)
        else:
            wait = limit.reserve()
            assert wait >= 0
            slots.append(clock.now + wait)
            assert slots[-1] >= paused_until - 1e-6
    assert all(later - earlier >= 1 / per_second - 1e-6 for earlier, later in pairwise(slots))
