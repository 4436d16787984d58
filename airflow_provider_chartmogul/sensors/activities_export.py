# SPDX-License-Identifier: Apache-2.0
"""The sensor that waits for an activities export, in the triggerer or on a worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
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

from airflow_provider_chartmogul.exceptions import ChartMogulError, ExportTimeoutError
from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook, fail_without_retry
from airflow_provider_chartmogul.intervals.durations import parse_seconds
from airflow_provider_chartmogul.operators.literals import is_declared, is_literal
from airflow_provider_chartmogul.sources.polling import ExportPoller, PollSettings, timeout_message
from airflow_provider_chartmogul.triggers.deferral import defer_until_finished, raise_if_deferral_timed_out
from airflow_provider_chartmogul.triggers.events import ExportEvent

if TYPE_CHECKING:
    import datetime as dt

    from airflow.providers.common.compat.sdk import Context, XComArg


class ActivitiesExportSensor(BaseSensorOperator):
    """
    Wait until an activities export is finished, and return its ID.

    Deferrable by default: after one poll on the worker the wait continues in the triggerer, and occupies no worker.
    ``deferrable=False`` waits on the worker, in ``mode="poke"`` or ``mode="reschedule"``.

    :param export_id: the export, usually ``create.output`` (templated)
    :param deferrable: wait in the triggerer
    :param poke_interval: seconds (or a ``timedelta``) between polls. The first polls come sooner: at once and, in the
        triggerer, after 5 s. Reschedule mode does not poll sooner, because every poll starts a worker process there
    :param timeout: seconds (or a ``timedelta``) until the wait ends with ``AirflowSensorTimeout``, which Airflow does
        not retry; counted from the first poll of a try, in reschedule mode from the task's first poll
    :param max_failure_seconds: how long to keep retrying transient failures (429, 5xx, connection errors) before giving
        up, in seconds. Reschedule mode keeps no state between polls, and retries until the timeout
    :param soft_fail: skip the task on a timeout and on a permanent failure (a failed export, a wrong key), and on
        nothing else. On Airflow 2.11, ``soft_fail`` does not cover a deferred task's ``execution_timeout``; use
        ``timeout`` there
    :param chartmogul_conn_id: the Airflow connection (templated)
    :raises AirflowFailException: if the export has failed, or ChartMogul refuses the request permanently
    :raises AirflowSensorTimeout: if ``timeout`` has passed
    :raises AirflowTaskTimeout: if ``execution_timeout`` has passed, while deferred too
    :raises ChartMogulError: if requests have failed for ``max_failure_seconds``
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
        super().__init__(
            poke_interval=parse_seconds(poke_interval, "poke_interval"),
            timeout=parse_seconds(timeout, "timeout"),
            **kwargs,
        )
        self.export_id: Any = export_id
        self.deferrable = deferrable
        self.max_failure_seconds = parse_seconds(max_failure_seconds, "max_failure_seconds")
        self.chartmogul_conn_id = chartmogul_conn_id
        self._poller: ExportPoller | None = None
        self._next_poll_delay = 0.0
        if is_declared(self):
            _check_export_id(export_id)

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """Begin a mapped task; an ``export_id`` that is a literal is checked at once."""
        if "export_id" in kwargs:
            _check_export_id(kwargs["export_id"])
        return super().partial(**kwargs)

    def execute(self, context: Context) -> str:
        from airflow_provider_chartmogul.api.exports import validate_export_id

        with self._apply_soft_fail():
            with fail_without_retry():
                self.export_id = validate_export_id(self.export_id)
            settings = PollSettings.for_task(
                self,
                context,
                interval=self.poke_interval,
                max_failure_seconds=self.max_failure_seconds,
                timeout=self.timeout,
            )
            self._poller = ExportPoller(
                self.export_id,
                settings,
                now=time.monotonic(),
                log=self.log,
                stats=Stats,
                age=self._seconds_since_first_poke(context),
            )
            if not self.deferrable:
                self._wait_on_worker(context)
            elif not self.poke(context):
                # Raises TaskDeferred; the task continues in execute_complete.
                defer_until_finished(self, self.export_id, settings, chartmogul_conn_id=self.chartmogul_conn_id)
        return str(self.export_id)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> str:
        """Return the export's ID, or raise the error that the event reports."""
        from airflow_provider_chartmogul.api.exports import validate_export_id

        export_id = validate_export_id(self.export_id)
        with self._raise_sensor_timeout(), fail_without_retry():
            ExportEvent.deserialize(event, export_id).raise_for_status()
        # Logged here, too, because trigger logs are not always kept.
        self.log.info("Export %s succeeded", export_id)
        return export_id

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        with self._apply_soft_fail():
            with self._raise_sensor_timeout():
                raise_if_deferral_timed_out(self, next_kwargs, self.timeout)
            # Skip BaseSensorOperator's version, which would apply soft_fail to a crashed trigger as well.
            return super(BaseSensorOperator, self).resume_execution(next_method, next_kwargs, context)

    def poke(self, context: Context) -> PokeReturnValue:
        """Poll once. Transient failures count as 'not finished yet'."""
        assert self._poller is not None
        if not self.deferrable and not self.reschedule:
            self._poller.raise_if_overtime(self.execution_timeout, time.monotonic())
        with fail_without_retry(), ChartMogulHook(self.chartmogul_conn_id, retry_seconds=0) as hook:
            try:
                export = hook.get_activities_export(self.export_id)
            except ChartMogulError as error:
                self._next_poll_delay = self._poller.record_failure(error, time.monotonic())
                return PokeReturnValue(False)
            delay = self._poller.record_response(export, time.monotonic())
        if delay is None:
            return PokeReturnValue(True, self.export_id)
        self._next_poll_delay = delay
        return PokeReturnValue(False)

    def _wait_on_worker(self, context: Context) -> None:
        """Run Airflow's own poke loop; ``_get_next_poke_interval`` says how long it sleeps."""
        assert self._poller is not None
        try:
            super().execute(context)
        except AirflowSensorTimeout as error:
            message = timeout_message(self.export_id, "timeout", self._poller.last_status)
            raise AirflowSensorTimeout(message) from error

    def _seconds_since_first_poke(self, context: Context) -> float:
        """Return the seconds since the first poll in reschedule mode, where every poll has its own process; else 0."""
        if self.deferrable or not self.reschedule:
            return 0.0
        ti: Any = context["ti"]
        if hasattr(ti, "get_first_reschedule_date"):
            first = ti.get_first_reschedule_date(context)
        else:  # Airflow 2, whose sensors read it in the same way
            first = import_module("airflow.sensors.base")._orig_start_date(
                dag_id=ti.dag_id,
                task_id=ti.task_id,
                run_id=ti.run_id,
                map_index=ti.map_index,
                try_number=ti.max_tries - self.retries + 1,
            )
        return max(0.0, time.time() - first.timestamp()) if first else 0.0

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
            return min(max(self.poke_interval, self._next_poll_delay), latest)
        # Sleep to just past the timeout at most, so that the final poll follows at once.
        return min(self._next_poll_delay, max(0.0, self.timeout - run_duration()) + 0.01)

    @contextmanager
    def _raise_sensor_timeout(self) -> Iterator[None]:
        """Turn an ``ExportTimeoutError`` into ``AirflowSensorTimeout``, which Airflow does not retry."""
        try:
            yield
        except ExportTimeoutError as error:
            raise AirflowSensorTimeout(str(error)) from error

    @contextmanager
    def _apply_soft_fail(self) -> Iterator[None]:
        """Skip on timeouts and permanent failures if ``soft_fail`` is set, and on any failure if ``never_fail`` is."""
        try:
            yield
        except AirflowSkipException:
            raise
        except (AirflowSensorTimeout, AirflowTaskTimeout, AirflowFailException) as error:
            if self.soft_fail or self.never_fail:
                name = "soft_fail" if self.soft_fail else "never_fail"
                raise AirflowSkipException(f"Skipped, because {name} is set: {error}") from error
            raise
        except ChartMogulError as error:
            if self.never_fail:
                raise AirflowSkipException(f"Skipped, because never_fail is set: {error}") from error
            raise


def _check_export_id(export_id: object) -> None:
    """
    Check an ``export_id`` that is a literal, when the DAG is parsed.

    :raises InvalidExportIdError: if it is invalid
    """
    from airflow_provider_chartmogul.api.exports import validate_export_id

    if export_id is None or is_literal(export_id):
        validate_export_id(export_id)
