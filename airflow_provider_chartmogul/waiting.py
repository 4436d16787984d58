# SPDX-License-Identifier: Apache-2.0
"""
A wait for an export, without the sending and the sleeping: how it goes on, and how it ends.

The sensor on a worker and the trigger in a triggerer both ask this, so that they decide the same.
"""

from __future__ import annotations

import random
from typing import Any, Protocol

from airflow_provider_chartmogul.api import ActivitiesExport, ExportStatus, retry_delay
from airflow_provider_chartmogul.errors import ChartMogulError, ExportFailedError, OutageError

FIRST_POLL_SECONDS = 1.0
_POLL_GROWTH = 1.5


class TaskLog(Protocol):
    """What is needed of a task's logger: Airflow's differ between its versions."""

    def info(self, message: str, /, *args: Any) -> Any: ...

    def warning(self, message: str, /, *args: Any) -> Any: ...


def poll_delay(looks: int, poll_interval: float) -> float:
    """
    Seconds until the next look after so many looks that found the export not done (from 1).

    Recorded exports were ready after 3 and 11 s, large ones after minutes: so the first wait is a second, each
    is half as long again as the one before, up to ``poll_interval``, with 10 % of jitter.
    """
    delay: float = min(poll_interval, FIRST_POLL_SECONDS * _POLL_GROWTH ** min(looks - 1, 40))
    return delay * random.uniform(0.9, 1.1)


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
    ) -> None:
        self.export_id = export_id
        self.poll_interval = poll_interval
        self.max_failure_seconds = max_failure_seconds
        self.status_word: str | None = None
        self._log = log
        self._looks = 0
        self._failures = 0
        self._started = now
        self._failing_since = now
        self._last_said = now

    def answered(self, export: ActivitiesExport, now: float) -> float | None:
        """
        Take an answer; give the seconds until the next look, or None when the export is done.

        :raises ExportFailedError: when ChartMogul ended the export as failed
        """
        if self._failures:
            self._log.info("ChartMogul answers again after %.0f s", now - self._failing_since)
        self._failures = 0
        self._looks += 1
        self._say(export, now)
        if export.status is ExportStatus.SUCCEEDED:
            return None
        if export.status is ExportStatus.FAILED:
            raise ExportFailedError(
                f"ChartMogul could not make activities export {self.export_id}: its status is "
                f"'{export.status_word}'. A retry of this task cannot help: clear the task that creates the "
                "export and those after it, so that a new export is made."
            )
        return poll_delay(self._looks, self.poll_interval)

    def failed(self, error: ChartMogulError, now: float) -> float:
        """
        Take a failure; give the seconds until the next look.

        :raises ChartMogulError: the failure itself, when it will not pass by itself
        :raises OutageError: when nothing has succeeded for ``max_failure_seconds``
        """
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
