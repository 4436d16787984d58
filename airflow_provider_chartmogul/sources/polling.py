# SPDX-License-Identifier: Apache-2.0
"""
A wait for an export, without the sending and the sleeping: how it goes on, and how it ends.

The sensor on a worker and the trigger in a triggerer both ask this, so that they decide the same.
"""

from __future__ import annotations

import random
from typing import Any, Protocol

from airflow_provider_chartmogul.api.exports import ActivitiesExport, ExportStatus
from airflow_provider_chartmogul.api.retries import retry_delay
from airflow_provider_chartmogul.exceptions import ChartMogulError, ExportFailedError, OutageError, RateLimitError
from airflow_provider_chartmogul.runtime.task_log import TaskLog

#: A wait is never shorter than this (seconds), however young the export is.
FIRST_POLL_SECONDS = 1.0

#: Looks are so much of the export's age apart, until they are ``poll_interval`` apart.
_POLL_SHARE_OF_AGE = 0.45

#: A wait that is older than this (seconds) when it begins in a triggerer was under way in another before.
_RESUMED_SECONDS = 60.0


class Stats(Protocol):
    """What is needed of Airflow's metrics."""

    def incr(self, stat: str, /) -> Any: ...

    def timing(self, stat: str, dt: float, /) -> Any: ...


def poll_delay(age: float, poll_interval: float) -> float:
    """
    Seconds until the next look at an export that is not done.

    Recorded exports were ready after 3 and 11 s, large ones after minutes: so the first looks are a second apart, and
    then by a share of the age, so that what is done is seen within about half of the time it took. At
    ``poll_interval`` it stays; jitter of 10 % keeps those apart that began together.

    :param age: seconds since the wait began
    """
    delay = max(FIRST_POLL_SECONDS, _POLL_SHARE_OF_AGE * age)
    # Not sooner than the interval, where it is reached: who sets it counts requests.
    return float(min(delay * random.uniform(0.9, 1.1), poll_interval * random.uniform(1.0, 1.1)))


class ExportWait:
    """
    A wait for one export, without the sending and the sleeping.

    ``answered`` and ``failed`` take what a look brought and give the seconds until the next look; ``answered``
    gives None when the export is done. What ends the wait badly is raised. Times are seconds of any clock that
    does not jump (``time.monotonic``).

    :param poll_interval: seconds between looks, once they have grown to it
    :param max_failure_seconds: how long transient failures in a row are borne
    :param now: the present time
    :param log: what a person waiting wants to know goes here
    :param stats: Airflow's metrics, which count ``chartmogul.polls`` (all looks), ``chartmogul.throttles`` (429) and
        ``chartmogul.failures`` (looks that failed), and time ``chartmogul.waited`` (a wait that ended well)
    :param age: seconds for which the export has been waited for already, by another process
    """

    #: While nothing changes, the log says so this often (seconds).
    REMINDER_SECONDS = 300.0

    def __init__(
        self,
        export_id: str,
        *,
        poll_interval: float,
        max_failure_seconds: float,
        now: float,
        log: TaskLog,
        stats: Stats,
        age: float = 0.0,
    ) -> None:
        self.export_id = export_id
        self.poll_interval = poll_interval
        self.max_failure_seconds = max_failure_seconds
        self.status_word: str | None = None
        self._log = log
        self._stats = stats
        self._failures = 0
        self._started = now - age
        self._is_resumed = age > _RESUMED_SECONDS
        self._failing_since = now
        self._last_said = now

    def first_delay(self) -> float:
        """
        Seconds until the first look.

        A wait that goes on after a restart looks at a time drawn from its interval: they are thousands that restart.
        """
        delay = poll_delay(self._last_said - self._started, self.poll_interval)
        return random.uniform(0.0, delay) if self._is_resumed else delay

    def answered(self, export: ActivitiesExport, now: float) -> float | None:
        """
        Take an answer; give the seconds until the next look, or None when the export is done.

        :raises ExportFailedError: when ChartMogul ended the export as failed
        """
        if self._failures:
            self._log.info("ChartMogul answers again after %.0f s", now - self._failing_since)
        self._failures = 0
        self._stats.incr("chartmogul.polls")
        self._say(export, now)
        if export.status is ExportStatus.SUCCEEDED:
            # Airflow's timings are milliseconds.
            self._stats.timing("chartmogul.waited", 1000 * (now - self._started))
            return None
        if export.status is ExportStatus.FAILED:
            raise ExportFailedError(
                f"ChartMogul could not make activities export {self.export_id}: its status is '{export.status_word}'"
            )
        return poll_delay(now - self._started, self.poll_interval)

    def failed(self, error: ChartMogulError, now: float) -> float:
        """
        Take a failure; give the seconds until the next look.

        :raises ChartMogulError: the failure itself, when it will not pass by itself
        :raises OutageError: when nothing has succeeded for ``max_failure_seconds``
        """
        self._stats.incr("chartmogul.polls")
        self._stats.incr("chartmogul.failures")
        if isinstance(error, RateLimitError):
            self._stats.incr("chartmogul.throttles")
        if not error.transient:
            raise error
        if not self._failures:
            # Not since the last success: between looks there may have been a long pause.
            self._failing_since = now
        self._failures += 1
        silent_for = now - self._failing_since
        if silent_for >= self.max_failure_seconds:
            raise OutageError(
                f"no look at activities export {self.export_id} has succeeded for {silent_for:.0f} s "
                f"(max_failure_seconds is {self.max_failure_seconds:.0f}); the last failure: {error}"
            )
        delay = retry_delay(self._failures, error)
        self._log.warning("Looking at export %s failed, next look in %.0f s: %s", self.export_id, delay, error)
        return delay

    def _say(self, export: ActivitiesExport, now: float) -> None:
        age = now - self._started
        if export.status_word != self.status_word:
            if export.status is ExportStatus.UNKNOWN:
                self._log.warning(
                    "Export %s has the status '%s', which this package does not know; it is taken for 'not done yet'",
                    export.id,
                    export.status_word,
                )
            else:
                self._log.info("Export %s is %s after %.0f s", export.id, export.status_word, age)
        elif now - self._last_said >= self.REMINDER_SECONDS:
            self._log.info("Export %s is still %s after %.0f s", export.id, export.status_word, age)
        else:
            return
        self.status_word = export.status_word
        self._last_said = now
