# SPDX-License-Identifier: Apache-2.0
"""Polling: the delays between polls, which failures are retried, and what is logged and counted."""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from airflow_provider_chartmogul.api.exports import ActivitiesExport
from airflow_provider_chartmogul.exceptions import (
    AuthenticationError,
    ChartMogulError,
    ExportFailedError,
    NoResponseError,
    NotFoundError,
    OutageError,
    PermissionDeniedError,
    RateLimitError,
    RequestFailedError,
    ServerError,
)
from airflow_provider_chartmogul.sources.polling import ExportPoller, PollSettings, poll_delay
from tests.unit.values import EXPORT_ID, SIGNATURE, export_response


@pytest.mark.parametrize(
    ("age", "least", "most"),
    [(0.0, 0.9, 1.1), (2.0, 0.9, 1.1), (4.0, 1.62, 1.98), (20.0, 8.1, 9.9), (100.0, 30.0, 33.0), (1e9, 30.0, 33.0)],
)
def test_first_polls_come_soon_later_ones_seldom(age: float, least: float, most: float) -> None:
    delays = [poll_delay(age, 30.0) for _ in range(200)]
    assert all(least <= delay <= most for delay in delays)
    assert len(set(delays)) > 1


def test_a_short_poll_interval_holds_from_the_first_poll() -> None:
    assert all(0.1 <= poll_delay(age, 0.1) <= 0.11 for age in range(20))


def polls_until(ready: float, poll_interval: float) -> list[float]:
    """Return the ages at which an export is polled, until a poll sees that it is ready."""
    polls = [0.0]
    while polls[-1] < ready:
        polls.append(polls[-1] + poll_delay(polls[-1], poll_interval))
    return polls


def test_poll_sees_export_soon_after_it_is_finished() -> None:
    assert max(polls_until(4.0, 30.0)[-1] for _ in range(2000)) < 6.0


def test_ten_minutes_of_polling_take_at_most_31_requests() -> None:
    assert max(len(polls_until(600.0, 30.0)) for _ in range(2000)) <= 31


class RecordingLog:
    """Records log lines with their level."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def info(self, message: str, /, *args: Any) -> None:
        self.lines.append(("info", message % args))

    def warning(self, message: str, /, *args: Any) -> None:
        self.lines.append(("warning", message % args))

    @property
    def levels(self) -> list[str]:
        return [level for level, _ in self.lines]


class RecordingStats:
    """Records metrics."""

    def __init__(self) -> None:
        self.counted: Counter[str] = Counter()
        self.timed: dict[str, float] = {}

    def incr(self, stat: str, /) -> None:
        self.counted[stat] += 1

    def timing(self, stat: str, dt: float, /) -> None:
        self.timed[stat] = dt


def new_poller(
    log: RecordingLog,
    stats: RecordingStats | None = None,
    *,
    interval: float = 30.0,
    max_failure_seconds: float = 60.0,
    now: float = 0.0,
    age: float = 0.0,
) -> ExportPoller:
    settings = PollSettings(interval, max_failure_seconds)
    return ExportPoller(EXPORT_ID, settings, now=now, log=log, stats=stats or RecordingStats(), age=age)


def export(status: str) -> ActivitiesExport:
    return ActivitiesExport.from_response(export_response(status=status))


@pytest.mark.parametrize("word", ["succeeded", "successful"])
def test_both_success_statuses_end_the_wait(word: str) -> None:
    log = RecordingLog()
    assert new_poller(log).record_response(export(word), 4.0) is None
    assert log.lines == [("info", f"Export {EXPORT_ID} {word} after 4 s")]


def test_delay_between_polls_grows_with_the_age() -> None:
    poller = new_poller(RecordingLog(), now=100.0)
    assert poller.first_delay() == pytest.approx(1.0, rel=0.11)
    for age, middle in [(1, 1.0), (4, 1.8), (10, 4.5), (40, 18.0), (67, 30.0), (600, 31.5)]:
        assert poller.record_response(export("processing"), 100.0 + age) == pytest.approx(middle, rel=0.11)


def test_polls_are_spread_after_a_restart() -> None:
    delays = [new_poller(RecordingLog(), age=600.0).first_delay() for _ in range(1000)]
    assert all(0 <= delay <= 33.0 for delay in delays)
    assert all(any(start <= delay < start + 5 for delay in delays) for start in range(0, 30, 5))


def test_metrics_count_polls_throttles_failures_and_time() -> None:
    stats = RecordingStats()
    poller = new_poller(RecordingLog(), stats, now=10.0, age=5.0)
    poller.record_failure(RateLimitError(429, "slow down"), 11.0)
    poller.record_failure(ServerError(503, "down"), 12.0)
    poller.record_response(export("processing"), 13.0)
    poller.record_response(export("succeeded"), 14.0)
    assert stats.counted == {"chartmogul.polls": 4, "chartmogul.failures": 2, "chartmogul.throttles": 1}
    assert stats.timed == {"chartmogul.waited": 9000.0}


def test_failed_export_names_the_task_to_clear() -> None:
    with pytest.raises(ExportFailedError, match="clear the task that creates the export") as raised:
        new_poller(RecordingLog()).record_response(export("failed"), 1.0)
    assert raised.value.permanent
    assert SIGNATURE not in str(raised.value)


def test_unknown_status_is_logged_once_and_polled_on() -> None:
    log = RecordingLog()
    poller = new_poller(log)
    assert all(poller.record_response(export("archiving"), float(now)) for now in range(250))
    assert log.levels == ["warning"]
    assert "'archiving'" in log.lines[0][1]


def test_log_has_each_change_of_status_and_reminders() -> None:
    log = RecordingLog()
    poller = new_poller(log)
    for now, status in [(0, "pending"), (10, "pending"), (20, "processing"), (300, "processing"), (320, "processing")]:
        poller.record_response(export(status), float(now))
    assert [line for _, line in log.lines] == [
        f"Export {EXPORT_ID} is pending after 0 s",
        f"Export {EXPORT_ID} is processing after 20 s",
        f"Export {EXPORT_ID} is still processing after 320 s",
    ]


@pytest.mark.parametrize(
    "error", [AuthenticationError(401, "x"), RequestFailedError(402, "x"), PermissionDeniedError(403, "x")]
)
def test_permanent_error_ends_the_wait_at_once(error: ChartMogulError) -> None:
    with pytest.raises(type(error)) as raised:
        new_poller(RecordingLog()).record_failure(error, 1.0)
    assert raised.value is error


def test_transient_failures_are_retried_for_max_failure_seconds() -> None:
    log = RecordingLog()
    poller = new_poller(log)
    assert poller.record_failure(ServerError(503, "busy"), 10.0) <= 1.0
    assert poller.record_failure(ServerError(503, "busy"), 30.0) <= 2.0
    with pytest.raises(OutageError, match=r"max_failure_seconds is 60.*ChartMogul responded with 503: busy"):
        poller.record_failure(ServerError(503, "busy"), 71.0)
    assert log.levels == ["warning", "warning"]


def test_success_resets_the_failures() -> None:
    log = RecordingLog()
    poller = new_poller(log)
    for start in (0.0, 60.0, 120.0):
        poller.record_failure(NoResponseError("reset", sent=True), start + 10)
        poller.record_failure(NoResponseError("reset", sent=True), start + 50)
        poller.record_response(export("pending"), start + 55)
    assert [line for _, line in log.lines if "responds again" in line]
    # The backoff starts again, too.
    assert poller.record_failure(ServerError(500, "x"), 180.0) <= 1.0


def test_failure_after_a_long_delay_is_retried() -> None:
    poller = new_poller(RecordingLog(), interval=7200.0, max_failure_seconds=3600.0)
    poller.record_response(export("pending"), 0.0)
    assert poller.record_failure(ServerError(503, "busy"), 7200.0) <= 1.0


def test_zero_max_failure_seconds_retries_nothing() -> None:
    with pytest.raises(OutageError):
        new_poller(RecordingLog(), max_failure_seconds=0.0).record_failure(ServerError(503, "busy"), 1.0)


def test_404_right_after_creation_is_polled_again_a_few_times() -> None:
    poller = new_poller(RecordingLog())
    for now in (1.0, 2.0, 3.0):
        assert poller.record_failure(NotFoundError(404, "x"), now) > 0
    with pytest.raises(NotFoundError):
        poller.record_failure(NotFoundError(404, "x"), 4.0)


def test_404_of_an_export_that_was_there_ends_the_wait() -> None:
    poller = new_poller(RecordingLog())
    poller.record_response(export("pending"), 1.0)
    with pytest.raises(NotFoundError):
        poller.record_failure(NotFoundError(404, "x"), 2.0)


@pytest.mark.parametrize(
    ("execution_timeout", "name", "seconds"),
    [(None, "timeout", 100), (200, "timeout", 100), (50, "execution_timeout", 50)],
)
def test_deadline_is_the_earlier_limit(execution_timeout: float | None, name: str, seconds: float) -> None:
    limit = None if execution_timeout is None else timedelta(seconds=execution_timeout)
    now = time.time()
    task: Any = SimpleNamespace(execution_timeout=limit)
    context: Any = {"ti": SimpleNamespace(start_date=datetime.fromtimestamp(now, UTC))}
    settings = PollSettings.for_task(task, context, interval=30.0, max_failure_seconds=60.0, timeout=100.0)
    assert settings.deadline == pytest.approx(now + seconds, abs=30)
    assert settings.deadline_name == name
    assert settings.remaining() <= seconds


def test_no_deadline_never_passes() -> None:
    assert PollSettings(30.0, 60.0).remaining() == float("inf")


def test_execution_timeout_is_counted_from_the_beginning_of_the_wait() -> None:
    poller = new_poller(RecordingLog(), now=1000.0)
    poller.raise_if_overtime(None, 1e9)
    poller.raise_if_overtime(timedelta(seconds=50), 1049.0)
    with pytest.raises(AirflowTaskTimeout, match=f"{EXPORT_ID} did not finish within the task's execution_timeout"):
        poller.raise_if_overtime(timedelta(seconds=50), 1050.0)


def test_404_long_after_the_start_of_the_wait_ends_it() -> None:
    with pytest.raises(NotFoundError):
        new_poller(RecordingLog(), age=60.0).record_failure(NotFoundError(404, "x"), 0.0)
