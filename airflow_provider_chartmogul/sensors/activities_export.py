# SPDX-License-Identifier: Apache-2.0
"""The sensor that waits for an activities export: in the triggerer, or on a worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseSensorOperator,
    PokeReturnValue,
    Stats,
)

from airflow_provider_chartmogul.api.exports import validate_export_id
from airflow_provider_chartmogul.exceptions import ChartMogulError
from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook, fail_without_retry
from airflow_provider_chartmogul.sources.polling import ExportWait
from airflow_provider_chartmogul.triggers.deferral import (
    backstop_text,
    defer_wait,
    earlier_limit,
    is_backstop,
    late_text,
    read_event,
)

if TYPE_CHECKING:
    import datetime as dt

    from airflow.providers.common.compat.sdk import Context, XComArg


#: By the limit of the task that has passed.
_EXCEPTIONS: dict[str, type[BaseException]] = {
    "timeout": AirflowSensorTimeout,
    "execution_timeout": AirflowTaskTimeout,
}


class ActivitiesExportSensor(BaseSensorOperator):
    """
    Wait until an activities export is done, and return its ID.

    Deferrable by default: after one look on the worker the wait goes on in the triggerer, and holds no worker.
    ``deferrable=False`` waits on the worker, in ``mode="poke"`` or ``mode="reschedule"``.

    :param export_id: the export, usually ``create.output`` (templated)
    :param deferrable: wait in the triggerer
    :param poke_interval: seconds (or a ``timedelta``) between looks; except in reschedule mode, where every
        look starts a worker, the first ones come sooner, the first after 1 s
    :param timeout: seconds (or a ``timedelta``) until the wait is given up with ``AirflowSensorTimeout``, which
        Airflow does not retry; counted from the first look of a try (in reschedule mode from the first of all)
    :param max_failure_seconds: how long failures in a row that may pass by themselves (429, 5xx, no connection)
        are borne; in reschedule mode, where nothing is kept from one look to the next, they are borne until
        the timeout
    :param soft_fail: skip on a timeout and on a permanent failure (a failed export, a wrong key), and on
        nothing else. (Airflow 2.11 itself fails a deferred task whose ``execution_timeout`` has passed, before this
        is asked; use ``timeout`` there.)
    :param chartmogul_conn_id: the Airflow connection (templated)
    :raises AirflowFailException: when the export has failed, or ChartMogul refuses for good
    :raises AirflowSensorTimeout: when ``timeout`` has passed
    :raises AirflowTaskTimeout: when ``execution_timeout`` has passed, while deferred too
    :raises ChartMogulError: when ``max_failure_seconds`` have passed without an answer
    """

    template_fields: Sequence[str] = ("export_id", "chartmogul_conn_id")
    ui_color = "#e8f0fb"

    def __init__(
        self,
        *,
        export_id: str | XComArg,
        deferrable: bool = True,
        poke_interval: timedelta | float = 30,
        timeout: timedelta | float = 6 * 3600,
        max_failure_seconds: float = 3600,
        chartmogul_conn_id: str = ChartMogulHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, timeout=timeout, **kwargs)
        self.export_id: Any = export_id
        self.deferrable = deferrable
        self.max_failure_seconds = max_failure_seconds
        self.chartmogul_conn_id = chartmogul_conn_id
        self._wait: ExportWait | None = None
        self._next_look = 0.0

    def execute(self, context: Context) -> str:
        with self._apply_soft_fail():
            with fail_without_retry():
                self.export_id = validate_export_id(self.export_id)
            self._wait = ExportWait(
                self.export_id,
                poll_interval=self.poke_interval,
                max_failure_seconds=self.max_failure_seconds,
                now=time.monotonic(),
                log=self.log,
                stats=Stats,
                age=self._rescheduled_for(context),
            )
            if not self.deferrable:
                # Airflow's loop, clock and rules; only how long to sleep is ours (_get_next_poke_interval).
                try:
                    super().execute(context)
                except AirflowSensorTimeout as error:
                    raise AirflowSensorTimeout(
                        late_text(str(self.export_id), "timeout", self._wait.status_word)
                    ) from error
                return str(self.export_id)
            if not self.poke(context):
                defer_wait(
                    self,
                    context,
                    export_id=self.export_id,
                    chartmogul_conn_id=self.chartmogul_conn_id,
                    poll_interval=self.poke_interval,
                    timeout=self.timeout,
                    max_failure_seconds=self.max_failure_seconds,
                )
        return str(self.export_id)

    def _rescheduled_for(self, context: Context) -> float:
        """Seconds since the first look of all, in reschedule mode, where each is made by a process of its own."""
        if self.deferrable or not self.reschedule:
            return 0.0
        ti: Any = context["ti"]
        # Airflow 2 gives a task that was rescheduled its first start again, Airflow 3 tells it when asked.
        first = ti.get_first_reschedule_date(context) if hasattr(ti, "get_first_reschedule_date") else ti.start_date
        return max(0.0, time.time() - first.timestamp()) if first else 0.0

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once; failures that may pass by themselves mean 'not done yet'."""
        assert self._wait is not None
        with fail_without_retry(), ChartMogulHook(self.chartmogul_conn_id, retry_seconds=0) as hook:
            try:
                export = hook.get_activities_export(self.export_id)
            except ChartMogulError as error:
                self._next_look = self._wait.failed(error, time.monotonic())
                return PokeReturnValue(False)
            delay = self._wait.answered(export, time.monotonic())
        if delay is None:
            return PokeReturnValue(True, self.export_id)
        self._next_look = delay
        return PokeReturnValue(False)

    def _get_next_poke_interval(
        self,
        started_at: dt.datetime | float,
        run_duration: Callable[[], float],
        poke_count: int,
    ) -> float:
        if self.exponential_backoff:
            return float(super()._get_next_poke_interval(started_at, run_duration, poke_count))
        if self.reschedule:
            latest = max(self.poke_interval, self.timeout - run_duration() + 0.01)
            return min(max(self.poke_interval, self._next_look), latest)
        # Not past the timeout: the last look comes right after it.
        return min(self._next_look, max(0.0, self.timeout - run_duration()) + 0.01)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> str:
        """End the wait as the trigger's event says; the outcome is logged here too, as trigger logs get lost."""
        export_id = validate_export_id(self.export_id)
        outcome = read_event(event, export_id)
        if outcome.message is None:
            self.log.info("Export %s is done", export_id)
            return export_id
        if outcome.late:
            raise _EXCEPTIONS.get(outcome.late, AirflowSensorTimeout)(outcome.message)
        if outcome.permanent:
            raise AirflowFailException(outcome.message)
        raise ChartMogulError(outcome.message)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after the deferral; ``soft_fail`` holds as it does everywhere (Airflow's own code differs here)."""
        with self._apply_soft_fail():
            if is_backstop(next_kwargs):
                raise _EXCEPTIONS[earlier_limit(self, self.timeout)](backstop_text())
            # Past BaseSensorOperator, whose own soft_fail skips on a crashed trigger too.
            return super(BaseSensorOperator, self).resume_execution(next_method, next_kwargs, context)

    @contextmanager
    def _apply_soft_fail(self) -> Iterator[None]:
        """Make a skip of what ``soft_fail`` and ``never_fail`` say, and of nothing else."""
        try:
            yield
        except AirflowSkipException:
            raise
        except (AirflowSensorTimeout, AirflowTaskTimeout, AirflowFailException) as error:
            if self.soft_fail or self.never_fail:
                name = "soft_fail" if self.soft_fail else "never_fail"
                raise AirflowSkipException(f"Skipped, as {name} is set: {error}") from error
            raise
        except ChartMogulError as error:
            if self.never_fail:
                raise AirflowSkipException(f"Skipped, as never_fail is set: {error}") from error
            raise
