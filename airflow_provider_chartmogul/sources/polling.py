# SPDX-License-Identifier: Apache-2.0
"""
Poll an export until it is finished, without the requests and the sleeping.

The sensor on a worker and the trigger in a triggerer both follow an ``ExportPoller``, so that they decide the same.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from airflow_provider_chartmogul.api.retries import retry_delay
from airflow_provider_chartmogul.exceptions import (
    ChartMogulError,
    ExportFailedError,
    NotFoundError,
    OutageError,
    RateLimitError,
)
from airflow_provider_chartmogul.runtime.task_log import TaskLog

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.providers.common.compat.sdk import BaseOperator, Context

    from airflow_provider_chartmogul.api.exports import ActivitiesExport

#: No delay between polls is shorter than this (seconds), however young the export is.
FIRST_POLL_SECONDS = 1.0

#: Polls are this share of the export's age apart, until they are ``interval`` apart.
_POLL_SHARE_OF_AGE = 0.45

#: A wait that is older than this (seconds) when it starts in a triggerer was taken over from another triggerer.
_RESUMED_SECONDS = 60.0

#: The API may not show an export right after its creation. This many 404s, within this time from the start of the wait
#: (seconds), count as "not finished yet".
_NOT_FOUND_RETRIES = 3
_NOT_FOUND_SECONDS = 15.0

DeadlineName = Literal["timeout", "execution_timeout"]


class Stats(Protocol):
    """What this package needs of Airflow's metrics."""

    def incr(self, stat: str, /) -> Any: ...

    def timing(self, stat: str, dt: float, /) -> Any: ...


@dataclass(frozen=True)
class PollSettings:
    """
    How to poll an export. Moments are seconds since the epoch, so that a restarted triggerer keeps them.

    :param interval: seconds between polls; the first polls come sooner
    :param max_failure_seconds: how long to keep retrying transient failures, in seconds
    :param started: when the wait began
    :param deadline: when to give up; ``None`` never does
    :param deadline_name: the limit of the task that the deadline comes from
    """

    interval: float
    max_failure_seconds: float
    started: float = field(default_factory=time.time)
    deadline: float | None = None
    deadline_name: DeadlineName = "timeout"

    @classmethod
    def for_task(
        cls, task: BaseOperator, context: Context, *, interval: float, max_failure_seconds: float, timeout: float
    ) -> PollSettings:
        """
        Return the settings of a wait that begins now.

        The deadline is the earlier of ``timeout`` (seconds from now) and the task's ``execution_timeout``, which
        Airflow 3 does not enforce while a task is deferred.
        """
        now = time.time()
        deadline = now + timeout
        name: DeadlineName = "timeout"
        if task.execution_timeout is not None:
            started = context["ti"].start_date
            limit = (started.timestamp() if started else now) + task.execution_timeout.total_seconds()
            if limit < deadline:
                deadline, name = limit, "execution_timeout"
        return cls(interval, max_failure_seconds, started=now, deadline=deadline, deadline_name=name)

    def remaining(self) -> float:
        """Seconds until the deadline; below zero after it."""
        return float("inf") if self.deadline is None else self.deadline - time.time()


def earlier_limit(task: BaseOperator, timeout: float) -> DeadlineName:
    """
    Name the limit of a task that passes first.

    :param timeout: the limit of the wait, in seconds
    """
    limit = task.execution_timeout
    return "execution_timeout" if limit is not None and limit.total_seconds() < timeout else "timeout"


def timeout_message(export_id: str, limit: DeadlineName, status: str | None) -> str:
    """Say that an export did not finish within a limit of the task."""
    return f"export {export_id} did not finish within the task's {limit}; its last status was '{status or 'unknown'}'"


def poll_delay(age: float, interval: float) -> float:
    """
    Return the seconds until the next poll.

    Recorded exports were ready after 3 and 11 s, large ones after minutes. So the first polls are a second apart, and
    the later ones a share of the export's age, up to ``interval``: the wait ends at most half as long again after the
    export is finished. Jitter of 10 % spreads waits that began together.

    :param age: seconds since the wait began
    """
    delay = max(FIRST_POLL_SECONDS, _POLL_SHARE_OF_AGE * age)
    # Never below the interval once it is reached: whoever sets it counts requests.
    return float(min(delay * random.uniform(0.9, 1.1), interval * random.uniform(1.0, 1.1)))


class ExportPoller:
    """
    The state of a wait for one export.

    ``record_response`` and ``record_failure`` take the result of a poll and return the seconds until the next one.
    Times are seconds of a monotonic clock.

    :param settings: how to poll; its deadline is up to the caller
    :param now: the present time
    :param log: the task's log
    :param stats: Airflow's metrics: ``chartmogul.polls`` counts all polls, ``chartmogul.throttles`` those with a 429,
        ``chartmogul.failures`` those that failed; ``chartmogul.waited`` times waits that ended well
    :param age: seconds for which another process has waited already
    """

    #: How often the log repeats a status that does not change, in seconds.
    REMINDER_SECONDS = 300.0

    def __init__(
        self,
        export_id: str,
        settings: PollSettings,
        *,
        now: float,
        log: TaskLog,
        stats: Stats,
        age: float = 0.0,
    ) -> None:
        self.export_id = export_id
        self.last_status: str | None = None
        self._settings = settings
        self._log = log
        self._stats = stats
        self._started = now - age
        self._is_resumed = age > _RESUMED_SECONDS
        self._failures = 0
        self._failing_since = now
        self._last_logged = now

    def first_delay(self) -> float:
        """
        Return the seconds until the first poll.

        After a restart of the triggerer thousands of waits start at once, so theirs is drawn from the whole interval.
        """
        delay = poll_delay(self._last_logged - self._started, self._settings.interval)
        return random.uniform(0.0, delay) if self._is_resumed else delay

    def record_response(self, export: ActivitiesExport, now: float) -> float | None:
        """
        Return the seconds until the next poll, or ``None`` once the export has succeeded.

        :raises ExportFailedError: if the export has failed
        """
        from airflow_provider_chartmogul.api.exports import ExportStatus

        if self._failures:
            self._log.info("ChartMogul responds again after %.0f s", now - self._failing_since)
        self._failures = 0
        self._stats.incr("chartmogul.polls")
        self._log_status(export, now)
        if export.status is ExportStatus.SUCCEEDED:
            # Airflow's timings are milliseconds.
            self._stats.timing("chartmogul.waited", 1000 * (now - self._started))
            return None
        if export.status is ExportStatus.FAILED:
            raise ExportFailedError(
                f"ChartMogul could not create activities export {self.export_id}: its status is '{export.status_word}'"
            )
        return poll_delay(now - self._started, self._settings.interval)

    def record_failure(self, error: ChartMogulError, now: float) -> float:
        """
        Return the seconds until the next poll.

        :raises ChartMogulError: the failure itself, if it is not transient
        :raises OutageError: if no poll has succeeded for ``max_failure_seconds``
        """
        self._stats.incr("chartmogul.polls")
        self._stats.incr("chartmogul.failures")
        if isinstance(error, RateLimitError):
            self._stats.incr("chartmogul.throttles")
        if not error.transient and not self._may_not_exist_yet(error, now):
            raise error
        if not self._failures:
            # Counted from the first failure, since a long delay may lie between it and the last success.
            self._failing_since = now
        self._failures += 1
        failing_for = now - self._failing_since
        if failing_for >= self._settings.max_failure_seconds:
            raise OutageError(
                f"polling activities export {self.export_id} has failed for {failing_for:.0f} s "
                f"(max_failure_seconds is {self._settings.max_failure_seconds:.0f}); the last failure: {error}"
            )
        delay = retry_delay(self._failures, error)
        self._log.warning("Polling export %s failed (%s); retrying in %.0f s", self.export_id, error, delay)
        return delay

    def raise_if_overtime(self, execution_timeout: timedelta | None, now: float) -> None:
        """
        Enforce the task's ``execution_timeout`` while it waits on a worker.

        Airflow enforces it, too, by a signal handler that raises an exception. But Python ignores that exception if
        the signal comes during the callback of a weak reference, such as every import has, and the wait would go on.

        Like Airflow's limit, this one ignores the time that the task took to start, and changes of the clock.

        :param execution_timeout: counted from the beginning of the wait
        :param now: the present time
        :raises AirflowTaskTimeout: if the ``execution_timeout`` has passed
        """
        if execution_timeout is not None and now - self._started >= execution_timeout.total_seconds():
            raise AirflowTaskTimeout(timeout_message(self.export_id, "execution_timeout", self.last_status))

    def _may_not_exist_yet(self, error: ChartMogulError, now: float) -> bool:
        """Whether this is a 404 of an export that the API may not show yet, right after its creation."""
        return (
            isinstance(error, NotFoundError)
            and self.last_status is None
            and self._failures < _NOT_FOUND_RETRIES
            and now - self._started < _NOT_FOUND_SECONDS
        )

    def _log_status(self, export: ActivitiesExport, now: float) -> None:
        from airflow_provider_chartmogul.api.exports import ExportStatus

        age = now - self._started
        if export.status_word != self.last_status:
            if export.status is ExportStatus.UNKNOWN:
                self._log.warning(
                    "Export %s has the status '%s', which this version does not know; taking it for 'not finished yet'",
                    export.id,
                    export.status_word,
                )
            else:
                verb = "" if export.status.is_terminal else "is "
                self._log.info("Export %s %s%s after %.0f s", export.id, verb, export.status_word, age)
        elif now - self._last_logged >= self.REMINDER_SECONDS:
            self._log.info("Export %s is still %s after %.0f s", export.id, export.status_word, age)
        else:
            return
        self.last_status = export.status_word
        self._last_logged = now
