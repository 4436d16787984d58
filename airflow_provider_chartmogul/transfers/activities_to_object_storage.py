# SPDX-License-Identifier: Apache-2.0
"""The operator that makes an export, waits for it, and moves it to object storage, in one task."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSkipException,
    AirflowTaskTimeout,
    Stats,
)

from airflow_provider_chartmogul.api.exports import ExportStatus, validate_export_id
from airflow_provider_chartmogul.exceptions import (
    ChartMogulError,
    ExportTimeoutError,
    NotFoundError,
    UnusableExportError,
)
from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook, fail_without_retry
from airflow_provider_chartmogul.intervals.interval import DATA_INTERVAL, Interval
from airflow_provider_chartmogul.operators.base import ExportRequestOperator
from airflow_provider_chartmogul.sources.polling import ExportWait
from airflow_provider_chartmogul.sources.resumption import create_or_resume, forget
from airflow_provider_chartmogul.transfers.base import ToObjectStorageOperator
from airflow_provider_chartmogul.triggers.deferral import (
    backstop_text,
    defer_wait,
    earlier_limit,
    is_backstop,
    late_text,
    read_event,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_chartmogul.storage.delivery import Transfer


class ActivitiesToObjectStorageOperator(ExportRequestOperator, ToObjectStorageOperator):
    """
    Make an activities export, wait until it is done, and move it to object storage: three steps in one task.

    One worker start makes the export, the triggerer waits, one worker start moves it. Here a failed, a hung and an
    expired export are errors that a retry of the task cures, since the next try makes a new export; give the task
    ``retries``. A retry after a crash goes on with the export that is there (Airflow 3.3 and later).

    The window is the run's data interval where nothing else is said; ``None``, written in the DAG, leaves an
    end open. Times without a time zone are UTC, and what goes to ChartMogul is UTC. Whether ChartMogul counts
    the end of a window in is documented nowhere.

    The archive is downloaded to local disk and checked, every byte of it, before anything is written at the
    destination; there, all of it appears at once or nothing does. What is known of the object is pushed as XCom
    ``object``: ``uri``, ``bucket``, ``key``, ``bytes``, ``sha256``, ``format``, ``rows``, ``columns``,
    ``interval_start``, ``interval_end``, ``activity_type``, ``export_id``, ``exported_at`` and ``chartmogul_conn_id``
    (None where not known); events of the task's outlets carry the same as their ``extra``. A move is reported to
    Airflow's hook lineage collector, and to OpenLineage where its provider is installed.

    :param interval_start: start of the window: a template, ISO 8601 text, ``date`` or ``datetime``; None: from
        the beginning (templated)
    :param interval_end: end of the window, in the same forms; None: until now (templated)
    :param activity_type: ``new_biz``, ``reactivation``, ``expansion``, ``contraction`` or ``churn``; None: all of
        them (templated)
    :param lookback: moves the start of the window earlier, since activities change after the fact; a
        ``timedelta`` or ISO 8601 text such as ``P7D`` (templated)
    :param partition_length: length of the window of a run that has a partition key instead of a data interval;
        the key is its start. Keys such as ``2024``, ``2024-Q1``, ``2024-03``, ``2024-W11`` and
        ``2024-03-01/2024-04-01`` need none (templated)
    :param partition_timezone: name of the time zone of partition keys that name none; None: the timetable's on
        Airflow 3.3, UTC where it has none and on 3.2 (templated)
    :param deferrable: wait in the triggerer; False: on the worker, for deployments without a triggerer
    :param poke_interval: seconds (or a ``timedelta``) between looks; the first ones come sooner
    :param timeout: seconds (or a ``timedelta``) that an export may take, from when the wait for it begins
    :param max_failure_seconds: how long failures in a row that may pass by themselves (429, 5xx, no connection)
        are borne
    :param soft_fail: skip on a timeout and on a permanent failure, also one that a new export might cure
    :param destination: the object's full name, ``s3://[connection@]bucket/key`` or ``file:///folder/name``;
        ``{interval_start}``, ``{interval_end}`` (with a format: ``{interval_start:%Y-%m-%d}``),
        ``{activity_type}`` (``all`` where the export has no type), ``{export_id}`` and ``{chartmogul_conn_id}``
        are filled in from the export itself (templated)
    :param object_storage_conn_id: the Airflow connection of the object storage, where ``destination`` names
        none; None: the environment's own credentials (templated)
    :param output_format: ``zip`` (the bytes as they came), ``csv``, ``csv.gz`` or ``parquet``, where the destination's
        suffix does not say so (templated)
    :param if_exists: ``overwrite``; ``reuse`` (the object that is there is this task's result); ``skip`` (the
        task's first try is skipped; a later one, before which an earlier may have written it, is as with ``reuse``);
        ``fail``. But for the first, no export is made when there is one (where ``destination`` has
        ``{export_id}``, that is seen only afterwards); except that with ``fail`` a retry compares, and succeeds where
        the object is the one that it would have written (templated)
    :param column_types: for ``parquet``: Arrow types by column, such as ``{"activity_mrr": "int64"}``; every other
        column is text, so that the schema is the same for each window (templated)
    :param download_dir: a local folder with room for the archive, for ``csv.gz`` twice, for ``csv`` and ``parquet``
        once more for the object; None: the system's (templated)
    :param upload_options: for the file system's ``put_file``, such as encryption or tags (templated)
    :param chartmogul_conn_id: the Airflow connection of ChartMogul (templated)
    :raises AirflowFailException: when a retry cannot help
    :raises AirflowSkipException: when there is an object and ``if_exists`` is ``skip``
    :raises AirflowTaskTimeout: when ``execution_timeout`` has passed, while deferred too
    :raises ChartMogulError: for everything else that went wrong
    """

    template_fields: Sequence[str] = tuple(
        dict.fromkeys((*ExportRequestOperator.template_fields, *ToObjectStorageOperator.template_fields))
    )

    def __init__(
        self,
        *,
        destination: str | XComArg,
        interval_start: str | date | datetime | XComArg | Any = DATA_INTERVAL,
        interval_end: str | date | datetime | XComArg | Any = DATA_INTERVAL,
        activity_type: str | XComArg | None = None,
        lookback: timedelta | str | XComArg | None = None,
        partition_length: timedelta | str | XComArg | None = None,
        partition_timezone: str | XComArg | None = None,
        deferrable: bool = True,
        poke_interval: timedelta | float = 30,
        timeout: timedelta | float = 6 * 3600,
        max_failure_seconds: float = 3600,
        soft_fail: bool = False,
        object_storage_conn_id: str | None = None,
        output_format: str | None = None,
        if_exists: str = "overwrite",
        column_types: dict[str, str] | None = None,
        download_dir: str | None = None,
        upload_options: dict[str, Any] | None = None,
        chartmogul_conn_id: str = ChartMogulHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            interval_start=interval_start,
            interval_end=interval_end,
            activity_type=activity_type,
            lookback=lookback,
            partition_length=partition_length,
            partition_timezone=partition_timezone,
            destination=destination,
            object_storage_conn_id=object_storage_conn_id,
            output_format=output_format,
            if_exists=if_exists,
            column_types=column_types,
            download_dir=download_dir,
            upload_options=upload_options,
            chartmogul_conn_id=chartmogul_conn_id,
            **kwargs,
        )
        self.deferrable = deferrable
        self.poke_interval = _seconds(poke_interval, "poke_interval")
        self.timeout = _seconds(timeout, "timeout")
        self.max_failure_seconds = max_failure_seconds
        self.soft_fail = soft_fail

    def execute(self, context: Context) -> str:
        with self._apply_soft_fail():
            interval, activity_type = self._wanted(context)
            with fail_without_retry():
                transfer = self._make_transfer()
                # Before an export is made: a file system that is not installed, an object that is there already.
                with ChartMogulHook(self.chartmogul_conn_id) as hook:
                    found = transfer.look(hook, interval, activity_type, is_retry=context["ti"].try_number > 1)
                    if found is not None:
                        self.log.info("%s exists already; no export is made", found.uri)
                        return self._finish(context, found)
                    # A task that was told to end makes no export that nobody will fetch.
                    self._cancellation.check()
                    export = create_or_resume(context, hook, interval, activity_type, self.log)
            if export.status is not ExportStatus.SUCCEEDED:
                self._wait(context, export.id, interval, activity_type)
            return self._move_it(context, transfer, export.id, (interval, activity_type))

    def _wait(self, context: Context, export_id: str, interval: Interval, activity_type: str | None) -> None:
        """Defer; or, on the worker, return when the export is done."""
        self._cancellation.check()
        if self.deferrable:
            defer_wait(
                self,
                context,
                export_id=export_id,
                chartmogul_conn_id=self.chartmogul_conn_id,
                poll_interval=self.poke_interval,
                timeout=self.timeout,
                max_failure_seconds=self.max_failure_seconds,
                # As plain values, which every Airflow hands on as they are.
                kwargs={
                    "export_id": export_id,
                    "asked": {
                        "start_date": interval.start and interval.start.isoformat(),
                        "end_date": interval.end and interval.end.isoformat(),
                        "activity_type": activity_type,
                    },
                },
            )
        started = time.monotonic()
        wait = ExportWait(
            export_id,
            poll_interval=self.poke_interval,
            max_failure_seconds=self.max_failure_seconds,
            now=started,
            log=self.log,
            stats=Stats,
        )
        delay: float | None = wait.first_delay()
        with (
            self._recreate_export_on_retry(context, is_wait=True),
            fail_without_retry(NotFoundError, UnusableExportError),
        ):
            while delay is not None:
                left = started + self.timeout - time.monotonic()
                if left <= 0:
                    raise ExportTimeoutError(late_text(export_id, "timeout", wait.status_word))
                # The last look comes right after the deadline, so that a wait is never given up unseen.
                time.sleep(min(delay, left + 0.01))
                self._cancellation.check()
                with ChartMogulHook(self.chartmogul_conn_id, retry_seconds=0) as hook:
                    try:
                        export = hook.get_activities_export(export_id)
                    except ChartMogulError as error:
                        delay = wait.failed(error, time.monotonic())
                    else:
                        delay = wait.answered(export, time.monotonic())

    def execute_complete(
        self,
        context: Context,
        event: dict[str, Any] | None = None,
        export_id: str | None = None,
        asked: dict[str, str | None] | None = None,
    ) -> str:
        """Go on after the wait: move the export, or fail as the trigger's event says."""
        if export_id is None:  # dag.test() hands on nothing but the event
            export_id = validate_export_id(event.get("export_id") if isinstance(event, dict) else None)
        outcome = read_event(event, export_id)
        if outcome.message is not None:
            with self._recreate_export_on_retry(context, is_wait=True):
                if outcome.late == "execution_timeout":
                    raise AirflowTaskTimeout(outcome.message)
                if outcome.late:
                    raise ExportTimeoutError(outcome.message)
                if outcome.unusable:
                    raise UnusableExportError(outcome.what or outcome.message)
            if outcome.permanent:
                raise AirflowFailException(outcome.message)
            raise ChartMogulError(outcome.message)
        self.log.info("Export %s is done", export_id)
        with fail_without_retry():
            transfer = self._make_transfer()
        return self._move_it(context, transfer, export_id, _read_asked(asked))

    def _move_it(
        self, context: Context, transfer: Transfer, export_id: str, asked: tuple[Interval, str | None] | None
    ) -> str:
        with (
            self._recreate_export_on_retry(context),
            fail_without_retry(NotFoundError, UnusableExportError),
            ChartMogulHook(self.chartmogul_conn_id) as hook,
        ):
            return self._move(context, transfer, hook, export_id, asked)

    @contextmanager
    def _recreate_export_on_retry(self, context: Mapping[str, Any], *, is_wait: bool = False) -> Iterator[None]:
        """Where a new export can help, let the next try make one, and say so."""
        try:
            yield
        except (ExportTimeoutError, AirflowTaskTimeout):
            # An export that takes for ever; but one whose download does is as good as any.
            if is_wait:
                forget(context, self.log)
            raise
        except (UnusableExportError, NotFoundError) as error:
            forget(context, self.log)
            what = getattr(error, "what", str(error))
            raise _NewExportNeededError(f"{what}; the next try of this task makes a new export") from error

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after the deferral."""
        with self._apply_soft_fail():
            if is_backstop(next_kwargs):
                with self._recreate_export_on_retry(context, is_wait=True):
                    if earlier_limit(self, self.timeout) == "execution_timeout":
                        raise AirflowTaskTimeout(backstop_text())
                    raise ExportTimeoutError(backstop_text())
            return super().resume_execution(next_method, next_kwargs, context)

    @contextmanager
    def _apply_soft_fail(self) -> Iterator[None]:
        try:
            yield
        except AirflowSkipException:
            raise
        except (ExportTimeoutError, _NewExportNeededError, AirflowTaskTimeout, AirflowFailException) as error:
            if self.soft_fail:
                raise AirflowSkipException(f"Skipped, as soft_fail is set: {error}") from error
            raise


class _NewExportNeededError(ChartMogulError):
    """There is nothing to be had from the export; the next try makes a new one."""


def _read_asked(asked: dict[str, str | None] | None) -> tuple[Interval, str | None] | None:
    """Read what was handed on over the deferral; None where nothing was: dag.test() hands on the event alone."""
    if asked is None:
        return None
    start, end = (value and datetime.fromisoformat(value) for value in (asked["start_date"], asked["end_date"]))
    return Interval(start or None, end or None), asked["activity_type"]


def _seconds(value: timedelta | float, name: str) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if seconds < 0:
        raise ValueError(f"{name} cannot be below zero")
    return seconds
