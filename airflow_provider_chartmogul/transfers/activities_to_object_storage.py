# SPDX-License-Identifier: Apache-2.0
"""The operator that creates an activities export, waits for it and transfers it, in one task."""

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

from airflow_provider_chartmogul.exceptions import (
    ChartMogulError,
    ExportTimeoutError,
    NotFoundError,
    RecreateExportError,
    UnusableExportError,
)
from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook, fail_without_retry
from airflow_provider_chartmogul.intervals.durations import parse_seconds
from airflow_provider_chartmogul.intervals.interval import DATA_INTERVAL
from airflow_provider_chartmogul.operators.base import ExportRequestOperator
from airflow_provider_chartmogul.sources.polling import ExportPoller, PollSettings, timeout_message
from airflow_provider_chartmogul.transfers.base import ExportToObjectStorageOperator
from airflow_provider_chartmogul.triggers.deferral import defer_until_finished, raise_if_deferral_timed_out
from airflow_provider_chartmogul.triggers.events import ExportEvent

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_chartmogul.api.exports import ExportRequest


class ActivitiesToObjectStorageOperator(ExportRequestOperator, ExportToObjectStorageOperator):
    """
    Create an activities export, wait until it is finished, and transfer it to object storage, in one task.

    One worker process creates the export, the triggerer waits, one worker process transfers it. An export that fails,
    hangs or expires is an error that a retry of the task recovers from, because the next try creates a new export; so
    give the task ``retries``. A retry after a crash resumes the export of the earlier try (Airflow 3.3 and later).

    Without ``interval_start`` and ``interval_end`` the window is the run's data interval. ``None``, written in the DAG,
    leaves an end open. Times without a time zone are UTC, and so is what is sent to ChartMogul. ChartMogul does not
    document whether the end of the window is inclusive.

    The archive is downloaded to local disk and checked completely before anything is written at the destination, where
    the object appears as a whole or not at all. The task pushes the object's metadata as the XCom ``object``: ``uri``,
    ``bucket``, ``key``, ``bytes``, ``sha256``, ``format``, ``rows``, ``columns``, ``interval_start``, ``interval_end``,
    ``activity_type``, ``export_id``, ``exported_at`` and ``chartmogul_conn_id`` (``None`` if not known). Events of the
    task's outlets carry the same as their ``extra``; an ``AssetAlias`` gets an event for the object's URI. The transfer
    is reported to Airflow's hook lineage collector, and to OpenLineage if its provider is installed.

    :param interval_start: start of the window: a template, ISO 8601 text, ``date`` or ``datetime``; ``None`` begins
        with the first activity (templated)
    :param interval_end: end of the window, in the same forms; ``None`` ends when the export is created (templated)
    :param activity_type: ``new_biz``, ``reactivation``, ``expansion``, ``contraction`` or ``churn``; ``None``, or
        ``all`` from a template, exports all types (templated)
    :param lookback: how much earlier the window starts, since activities change after the fact: a ``timedelta`` or ISO
        8601 text such as ``P7D`` (templated)
    :param partition_length: length of the window of a run that has a partition key and no data interval; the key is its
        start. Keys such as ``2024``, ``2024-Q1``, ``2024-03``, ``2024-W11`` and ``2024-03-01/2024-04-01`` need none
        (templated)
    :param partition_timezone: name of the time zone of partition keys that name none. ``None`` is the timetable's on
        Airflow 3.3, and UTC on 3.2 and where the timetable has none (templated)
    :param deferrable: wait in the triggerer; ``False`` waits on the worker, for deployments without a triggerer
    :param poke_interval: seconds (or a ``timedelta``) between polls; the first polls come sooner
    :param timeout: seconds (or a ``timedelta``) that an export may take, from the moment the wait for it begins
    :param max_failure_seconds: how long to keep retrying transient failures (429, 5xx, connection errors) before giving
        up, in seconds
    :param soft_fail: skip the task on a timeout and on a permanent failure, even on one that a new export might fix
    :param destination: the object's full name, ``s3://[connection@]bucket/key`` or ``file:///folder/name``, as text or
        as an ``ObjectStoragePath``. These placeholders are filled in from the export (templated):

        * ``{interval_start}``, ``{interval_end}``, also with a format: ``{interval_start:%Y-%m-%d}``
        * ``{activity_type}``, which is ``all`` for an export of all types
        * ``{export_id}`` and ``{chartmogul_conn_id}``

    :param object_storage_conn_id: the Airflow connection of the object storage, if ``destination`` does not contain it;
        ``None`` uses the credentials of the environment (templated)
    :param output_format: the format, if the destination's suffix does not say it (templated): ``zip`` (the bytes as
        they came), ``csv``, ``csv.gz`` or ``parquet``
    :param if_exists: what happens if the object exists already (templated):

        * ``overwrite`` (default) replaces it
        * ``reuse`` keeps it and succeeds, without an export or a download. If ``destination`` has ``{export_id}``, that
          is known only after the export has been created
        * ``skip`` skips the task; a retry behaves like ``reuse``, since an earlier try may have written the object
        * ``fail`` fails, unless a retry finds the identical object that it wrote itself

    :param column_types: for ``parquet``, Arrow types by column, such as ``{"activity_mrr": "int64"}``; every other
        column is text, so that the schema is the same for each window (templated)
    :param download_dir: a local folder with room for the archive, and for the object if the format is not ``zip``;
        ``None`` is the system's folder for temporary files (templated)
    :param upload_options: options of the file system's ``put_file``, such as encryption or tags (templated)
    :param emit_partitions: give the outlets' events the window's start as partition key, so that they trigger only
        partitioned DAGs (Airflow 3.3 and later)
    :param chartmogul_conn_id: the Airflow connection of ChartMogul (templated)
    :raises AirflowFailException: if no retry can help
    :raises AirflowSkipException: if the object exists and ``if_exists`` is ``skip``
    :raises AirflowTaskTimeout: if ``execution_timeout`` has passed, while deferred too
    :raises ChartMogulError: for any other failure
    """

    template_fields: Sequence[str] = tuple(
        dict.fromkeys((*ExportRequestOperator.template_fields, *ExportToObjectStorageOperator.template_fields))
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
        emit_partitions: bool = False,
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
            emit_partitions=emit_partitions,
            chartmogul_conn_id=chartmogul_conn_id,
            **kwargs,
        )
        self.deferrable = deferrable
        self.poke_interval = parse_seconds(poke_interval, "poke_interval")
        self.timeout = parse_seconds(timeout, "timeout")
        self.max_failure_seconds = parse_seconds(max_failure_seconds, "max_failure_seconds")
        self.soft_fail = soft_fail
        self._check_at_parse()

    def execute(self, context: Context) -> str:
        from airflow_provider_chartmogul.api.exports import ExportStatus
        from airflow_provider_chartmogul.sources.activities_export import ActivitiesExportSource
        from airflow_provider_chartmogul.sources.placeholders import export_values
        from airflow_provider_chartmogul.sources.resumption import create_or_resume_export

        with self._apply_soft_fail():
            request = self._export_request(context)
            with fail_without_retry(), self._open_hook() as hook:
                # Checks that need no export come first: the file system, the partition key, an existing object.
                delivery = self._delivery()
                delivery.prepare()
                partition_key = self._partition_key(context, request.start)
                planned = ActivitiesExportSource(self.chartmogul_conn_id, hook.settings.base_url, request)
                # Rendered templates do not show it, since they keep the destination's placeholders.
                self.log.info("The destination is %s", delivery.destination.fill(export_values(planned)).uri)
                if (existing := self._find_existing_object(context, delivery, planned)) is not None:
                    return self._finish(context, [existing], hook, partition_key)
                self._cancellation.check()
                export = create_or_resume_export(context, hook, request, self.log)
            if export.status is not ExportStatus.SUCCEEDED:
                self._wait(context, export.id, request)
            return self._transfer(context, export.id, request)

    def execute_complete(
        self,
        context: Context,
        event: dict[str, Any] | None = None,
        export_id: str | None = None,
        request: dict[str, str | None] | None = None,
    ) -> str:
        """Transfer the export, or raise the error that the event reports."""
        from airflow_provider_chartmogul.api.exports import ExportRequest, validate_export_id

        if export_id is None:  # dag.test() passes on nothing but the event
            export_id = validate_export_id(event.get("export_id") if isinstance(event, dict) else None)
        with self._recreate_export_on_retry(context, is_wait=True):
            ExportEvent.deserialize(event, export_id).raise_for_status()
        # Logged here, too, because trigger logs are not always kept.
        self.log.info("Export %s succeeded", export_id)
        return self._transfer(context, export_id, None if request is None else ExportRequest.deserialize(request))

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        with self._apply_soft_fail():
            with self._recreate_export_on_retry(context, is_wait=True):
                raise_if_deferral_timed_out(self, next_kwargs, self.timeout)
            return super().resume_execution(next_method, next_kwargs, context)

    def _open_hook(self) -> ChartMogulHook:
        # A short max_failure_seconds limits the POST, too.
        return ChartMogulHook(self.chartmogul_conn_id, retry_seconds=min(120.0, self.max_failure_seconds))

    def _wait(self, context: Context, export_id: str, request: ExportRequest) -> None:
        """Defer the task; or wait on the worker, and return when the export has succeeded."""
        self._cancellation.check()
        settings = PollSettings.for_task(
            self,
            context,
            interval=self.poke_interval,
            max_failure_seconds=self.max_failure_seconds,
            timeout=self.timeout,
        )
        if self.deferrable:
            defer_until_finished(
                self,
                export_id,
                settings,
                chartmogul_conn_id=self.chartmogul_conn_id,
                kwargs={"export_id": export_id, "request": request.serialize()},
            )
        with (
            self._recreate_export_on_retry(context, is_wait=True),
            fail_without_retry(NotFoundError, UnusableExportError),
        ):
            self._wait_on_worker(export_id, settings)

    def _wait_on_worker(self, export_id: str, settings: PollSettings) -> None:
        started = time.monotonic()
        poller = ExportPoller(export_id, settings, now=started, log=self.log, stats=Stats)
        delay: float | None = poller.first_delay()
        while delay is not None:
            poller.raise_if_overtime(self.execution_timeout, time.monotonic())
            remaining = started + self.timeout - time.monotonic()
            if remaining <= 0:
                raise ExportTimeoutError(timeout_message(export_id, "timeout", poller.last_status))
            # The final poll comes right after the deadline, so that an export that finished in time is not given up.
            time.sleep(min(delay, remaining + 0.01))
            self._cancellation.check()
            with ChartMogulHook(self.chartmogul_conn_id, retry_seconds=0) as hook:
                try:
                    export = hook.get_activities_export(export_id)
                except ChartMogulError as error:
                    delay = poller.record_failure(error, time.monotonic())
                else:
                    delay = poller.record_response(export, time.monotonic())

    def _transfer(self, context: Context, export_id: str, request: ExportRequest | None) -> str:
        """Transfer the finished export; if it is unusable, let the next try create a new one."""
        with (
            self._recreate_export_on_retry(context),
            fail_without_retry(NotFoundError, UnusableExportError),
            self._open_hook() as hook,
        ):
            return self._download_convert_publish(context, self._delivery(), hook, export_id, request)

    @contextmanager
    def _recreate_export_on_retry(self, context: Mapping[str, Any], *, is_wait: bool = False) -> Iterator[None]:
        """Let the next try create a new export if that can help, and say so."""
        from airflow_provider_chartmogul.sources.resumption import clear_saved_export

        try:
            yield
        except (ExportTimeoutError, AirflowTaskTimeout):
            # An export that hangs is unusable; one whose download takes too long is not.
            if is_wait:
                clear_saved_export(context, self.log)
            raise
        except (UnusableExportError, NotFoundError) as error:
            clear_saved_export(context, self.log)
            problem = error.what if isinstance(error, UnusableExportError) else str(error)
            raise RecreateExportError(f"{problem}; the next try of this task creates a new export") from error

    @contextmanager
    def _apply_soft_fail(self) -> Iterator[None]:
        """Skip the task on what ``soft_fail`` covers, and on nothing else."""
        try:
            yield
        except AirflowSkipException:
            raise
        except (ExportTimeoutError, RecreateExportError, AirflowTaskTimeout, AirflowFailException) as error:
            if self.soft_fail:
                raise AirflowSkipException(f"Skipped, because soft_fail is set: {error}") from error
            raise
