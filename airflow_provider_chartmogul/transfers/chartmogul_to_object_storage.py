# SPDX-License-Identifier: Apache-2.0
"""The operator that transfers a resource of ChartMogul, all of it, to object storage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any

from airflow_provider_chartmogul.exceptions import TransferSettingsError
from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook, fail_without_retry
from airflow_provider_chartmogul.intervals.durations import parse_seconds
from airflow_provider_chartmogul.intervals.interval import DATA_INTERVAL
from airflow_provider_chartmogul.intervals.periods import whole_periods
from airflow_provider_chartmogul.intervals.times import parse_timezone
from airflow_provider_chartmogul.operators.base import WindowOperator
from airflow_provider_chartmogul.operators.literals import is_literal
from airflow_provider_chartmogul.transfers.base import ToObjectStorageOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_chartmogul.api.resources import Resource
    from airflow_provider_chartmogul.sources.resource import ResourceSource
    from airflow_provider_chartmogul.sources.row_files import ResourceOutput
    from airflow_provider_chartmogul.storage.delivery import Delivery, LocalFile, TransferResult
    from airflow_provider_chartmogul.storage.destination import Destination

#: The parameters that only a resource with a window takes, and their defaults.
_WINDOW_DEFAULTS = {
    "interval_start": DATA_INTERVAL,
    "interval_end": DATA_INTERVAL,
    "lookback": None,
    "partition_length": None,
    "partition_timezone": None,
    "metrics_timezone": "UTC",
    "emit_partitions": False,
}


class ChartMogulToObjectStorageOperator(WindowOperator, ToObjectStorageOperator):
    """
    Transfer all rows of a resource to object storage, one object per table, and return the URI of the main one.

    Every resource but ``metrics`` is a complete snapshot, read page by page, since ChartMogul has no filter by time of
    change. Nothing is written at the destination before the last page has been read. The task pushes the metadata of
    its main object as the XCom ``object``, and of all objects, by table, as the XCom ``objects``: ``uri``, ``bucket``,
    ``key``, ``bytes``, ``sha256``, ``format``, ``rows``, ``columns``, ``resource``, ``table``, ``query_params``,
    ``extracted_at``, ``chartmogul_conn_id`` and, for ``metrics``, ``interval_start`` and ``interval_end`` (``None`` if
    not known). Events of the task's outlets carry that of the main object as their ``extra``.

    :param resource: ``account``, ``data_sources``, ``customers``, ``contacts``, ``plans``, ``plan_groups``,
        ``plan_group_plans``, ``invoices``, ``subscription_events``, ``notes``, ``opportunities``, ``tasks``,
        ``subscriptions`` or ``metrics`` (templated)
    :param destination: the object's full name, ``s3://[connection@]bucket/key`` or ``file:///folder/name``, as text or
        as an ``ObjectStoragePath``. These placeholders are filled in (templated):

        * ``{resource}`` and ``{table}``; a resource with several tables needs ``{table}``, unless the format is raw
        * ``{extracted_at}``, when the task began to read, also with a format: ``{extracted_at:%Y-%m-%d}``
        * ``{interval_start}`` and ``{interval_end}``, for ``metrics``
        * ``{chartmogul_conn_id}``

    :param query_params: query parameters of the API for this resource, such as ``{"status": "Active"}``. A list is
        joined by commas, and ``None`` leaves a default out. Disabled rows and invalid invoices are included by default
        (templated)
    :param columns: the columns to keep; ``None`` keeps all. They apply to raw formats, too (templated)
    :param exclude_columns: columns to leave out, such as names and e-mail addresses (templated)
    :param interval_start: for ``metrics``, start of the window: a template, ISO 8601 text, ``date`` or ``datetime``; by
        default that of the run's data interval (templated)
    :param interval_end: for ``metrics``, end of the window, in the same forms (templated)
    :param lookback: for ``metrics``, how much earlier the window starts, since ChartMogul restates history. Its days
        are those of ``metrics_timezone`` (templated)
    :param partition_length: for ``metrics``, length of the window of a run that has a partition key and no data
        interval (templated)
    :param partition_timezone: for ``metrics``, name of the time zone of partition keys that name none (templated)
    :param metrics_timezone: for ``metrics``, name of the time zone whose days the window consists of (templated)
    :param allow_backfill: allow snapshots in backfill runs, which store today's data under a past date
    :param max_failure_seconds: how long to keep retrying transient failures (429, 5xx, connection errors) of one page
        before giving up, in seconds
    :param object_storage_conn_id: the Airflow connection of the object storage, if ``destination`` does not contain it;
        ``None`` uses the credentials of the environment (templated)
    :param output_format: the format, if the destination's suffix does not say it (templated): ``jsonl`` or ``jsonl.gz``
        (raw: the rows as they came), ``parquet``, ``csv`` or ``csv.gz`` (tables with typed columns)
    :param if_exists: what happens if the main table's object exists already (templated):

        * ``overwrite`` (default) replaces it
        * ``reuse`` keeps it and succeeds, without reading the resource
        * ``skip`` skips the task; a retry behaves like ``reuse``, since an earlier try may have written the object
        * ``fail`` fails, in a retry too: two walks do not give the same bytes, so that it cannot tell its own object

    :param column_types: for tables, Arrow types of columns of the main table. A key inside a JSON column becomes a
        column: ``{"attributes.custom.CAC": "int64"}`` adds ``attributes_custom_cac`` (templated)
    :param download_dir: a local folder with room for the rows; ``None`` is the system's folder for temporary files
        (templated)
    :param upload_options: options of the file system's ``put_file``, such as encryption or tags (templated)
    :param emit_partitions: for ``metrics``, give the outlets' events the window's start as partition key, so that they
        trigger only partitioned DAGs (Airflow 3.3 and later)
    :param chartmogul_conn_id: the Airflow connection of ChartMogul (templated)
    :raises AirflowFailException: if no retry can help
    :raises AirflowSkipException: if the object exists and ``if_exists`` is ``skip``
    :raises ChartMogulError: for any other failure
    """

    template_fields: Sequence[str] = tuple(
        dict.fromkeys(
            (
                *("resource", "query_params", "columns", "exclude_columns", "metrics_timezone"),
                *WindowOperator.template_fields,
                *ToObjectStorageOperator.template_fields,
            )
        )
    )
    template_fields_renderers = ToObjectStorageOperator.template_fields_renderers | {"query_params": "json"}

    def __init__(
        self,
        *,
        resource: str | XComArg,
        destination: str | XComArg,
        query_params: dict[str, Any] | None = None,
        columns: Sequence[str] | None = None,
        exclude_columns: Sequence[str] | None = None,
        interval_start: str | date | datetime | XComArg | Any = DATA_INTERVAL,
        interval_end: str | date | datetime | XComArg | Any = DATA_INTERVAL,
        lookback: timedelta | str | XComArg | None = None,
        partition_length: timedelta | str | XComArg | None = None,
        partition_timezone: str | XComArg | None = None,
        metrics_timezone: str = "UTC",
        allow_backfill: bool = False,
        max_failure_seconds: float = 3600,
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
        self.resource: Any = resource
        self.query_params = query_params
        self.columns = columns
        self.exclude_columns = exclude_columns
        self.metrics_timezone = metrics_timezone
        self.allow_backfill = allow_backfill
        self.max_failure_seconds = parse_seconds(max_failure_seconds, "max_failure_seconds")
        self._check_at_parse()

    @classmethod
    def _check_literals(cls, given: Mapping[str, Any]) -> None:
        # Imported here, so that importing this module loads nothing that transfers.
        from airflow_provider_chartmogul.api.resources import get_resource
        from airflow_provider_chartmogul.sources.placeholders import resource_placeholders
        from airflow_provider_chartmogul.sources.row_files import FORMATS
        from airflow_provider_chartmogul.transfers.literals import check_object_settings

        super()._check_literals(given)
        if is_literal(name := given.get("resource")):
            resource = get_resource(name)
            _check_window_parameters(resource, given)
            if is_literal(destination := given.get("destination")):
                _check_window_placeholders(resource, destination)
            check_object_settings(given, resource_placeholders(resource), FORMATS)

    def execute(self, context: Context) -> str:
        from airflow_provider_chartmogul.sources.resource import fetch_rows

        with fail_without_retry(), ChartMogulHook(self.chartmogul_conn_id) as hook:
            source = self._source(context, hook)
            # Computed before anything is published, since it may raise.
            partition_key = self._partition_key(context, source.interval.start if source.interval else None)
            output = self._output(source.resource)
            source = replace(source, column_types=self.column_types, column_selection=output.column_selection)
            delivery = self._delivery(source.resource, output)
            delivery.prepare()
            if existing := self._find_existing_objects(context, source, output, delivery):
                return self._finish(context, existing, hook, partition_key)
            with self._temporary_folder() as folder:
                files = fetch_rows(
                    hook.client,
                    source,
                    output,
                    folder,
                    retry_seconds=self.max_failure_seconds,
                    log=self.log,
                    cancellation=self._cancellation,
                )
                results = self._publish(source, output, delivery, files)
            return self._finish(context, results, hook, partition_key)

    def _source(self, context: Context, hook: ChartMogulHook) -> ResourceSource:
        """
        Check what is to be read, before any request is sent.

        :raises InvalidResourceError: for an unknown resource or query parameter
        :raises TransferSettingsError: for a window of a resource that has none, and for a snapshot in a backfill
        :raises AirflowFailException: if the window makes no sense
        """
        from airflow_provider_chartmogul.api.resources import get_resource
        from airflow_provider_chartmogul.sources.resource import ResourceSource

        resource = get_resource(self.resource)
        query = resource.build_query(self.query_params)
        if resource.has_window:
            query.setdefault("interval", "day")
        _check_window_parameters(resource, vars(self))
        interval = None
        if resource.has_window:
            interval = self._resolve_interval(context)
            week_start_on = (
                hook.get_account().get("week_start_on", "sunday") if query["interval"] == "week" else "monday"
            )
            first, last = whole_periods(
                interval,
                query["interval"],
                parse_timezone(self.metrics_timezone, "metrics_timezone"),
                week_start_on=week_start_on,
            )
            query |= {"start-date": first.isoformat(), "end-date": last.isoformat()}
        elif getattr(context.get("dag_run"), "run_type", None) == "backfill" and not self.allow_backfill:
            raise TransferSettingsError(
                f"{resource.name} is a snapshot of the present, but this run is part of a backfill, which would store "
                "it under a date of the past. Put snapshots into a DAG of their own, which no backfill runs, or set "
                "allow_backfill=True, so that each run of the backfill reads the present state"
            )
        return ResourceSource(
            self.chartmogul_conn_id,
            hook.settings.base_url,
            resource,
            query,
            query_params=self.query_params,
            extracted_at=datetime.now(UTC).replace(microsecond=0),
            interval=interval,
        )

    def _output(self, resource: Resource) -> ResourceOutput:
        """
        Check the parameters that say what the objects contain.

        :raises InvalidResourceError: for a column that the resource does not have
        :raises ColumnTypesError: for a type that Arrow does not have
        """
        from airflow_provider_chartmogul.sources.row_files import FORMATS, ResourceOutput
        from airflow_provider_chartmogul.storage.delivery import choose_format

        return ResourceOutput(
            resource,
            choose_format(self._destination(resource), FORMATS, self.output_format),
            # An iterator would be used up by the first table.
            columns=tuple(self.columns) if isinstance(self.columns, Iterator) else self.columns,
            exclude_columns=tuple(self.exclude_columns)
            if isinstance(self.exclude_columns, Iterator)
            else self.exclude_columns,
            column_types=self.column_types,
        )

    def _destination(self, resource: Resource) -> Destination:
        from airflow_provider_chartmogul.sources.placeholders import resource_placeholders
        from airflow_provider_chartmogul.storage.destination import Destination

        _check_window_placeholders(resource, self.destination)
        return Destination.parse(self.destination, resource_placeholders(resource), self.object_storage_conn_id)

    def _delivery(self, resource: Resource, output: ResourceOutput) -> Delivery:
        """
        Check the parameters that say where and how the objects are published.

        :raises TransferSettingsError: for a parameter that makes no sense
        """
        from airflow_provider_chartmogul.sources.row_files import FORMATS
        from airflow_provider_chartmogul.storage.delivery import Delivery

        destination = self._destination(resource)
        if len(output.tables) > 1 and "table" not in destination.placeholders:
            raise TransferSettingsError(
                f"{resource.name} has the tables {', '.join(table.name for table in output.tables)}: put {{table}} "
                "into the destination, or use a raw format (jsonl, jsonl.gz)"
            )
        return Delivery(
            destination,
            formats=FORMATS,
            output_format=self.output_format,
            if_exists=self.if_exists,
            upload_options=self.upload_options,
        )

    def _find_existing_objects(
        self, context: Context, source: ResourceSource, output: ResourceOutput, delivery: Delivery
    ) -> list[TransferResult]:
        """Return the existing objects if there is a main one and ``if_exists`` says to keep it."""
        from airflow_provider_chartmogul.sources.placeholders import resource_values
        from airflow_provider_chartmogul.storage.delivery import TransferResult

        stored = {table.name: delivery.destination.fill(resource_values(source, table)) for table in output.tables}
        if len({one.uri for one in stored.values()}) < len(stored):
            raise TransferSettingsError(
                f"destination {delivery.destination.template!r} gives several tables of {source.resource.name} the "
                "same name: use {table} without a format"
            )
        main = stored[source.resource.main_table.name]
        if not delivery.find_existing(main, is_retry=False):
            return []
        self.log.info("%s already exists; leaving it as it is", main.uri)
        return [
            TransferResult(
                {
                    **delivery.describe(stored[table.name], None),
                    **source.metadata(table, already_existed=True),
                },
                source.uri,
                already_existed=True,
            )
            for table in output.tables
            if table is source.resource.main_table or stored[table.name].exists()
        ]

    def _publish(
        self, source: ResourceSource, output: ResourceOutput, delivery: Delivery, files: Mapping[str, LocalFile]
    ) -> list[TransferResult]:
        """Publish the tables one by one; the main one last, since ``if_exists`` looks at it."""
        from airflow_provider_chartmogul.sources.placeholders import resource_values
        from airflow_provider_chartmogul.storage.delivery import TransferResult

        results: list[TransferResult] = []
        for table in reversed(output.tables):
            file, stored = files[table.name], delivery.destination.fill(resource_values(source, table))
            metadata = {**delivery.describe(stored, file), **source.metadata(table, already_existed=False)}
            delivery.publish(
                file,
                stored,
                log=self.log,
                cancellation=self._cancellation,
                exclusive=self.if_exists == "fail" and table is source.resource.main_table,
                metadata=metadata,
            )
            results.append(TransferResult(metadata, source.uri, column_types=file.column_types))
        return results[::-1]

    def _lookback_timezone(self) -> tzinfo:
        # Metrics need whole days, also where a day has 23 or 25 hours.
        return parse_timezone(self.metrics_timezone, "metrics_timezone")

    def _map_index_name(self, context: Context) -> str:
        from airflow_provider_chartmogul.api.resources import get_resource

        resource = get_resource(self.resource)
        return f"{resource.name}, {self._resolve_interval(context)}" if resource.has_window else resource.name


def _check_window_parameters(resource: Resource, given: Mapping[str, Any]) -> None:
    """
    Check that a resource without a window gets no parameters of one.

    :param given: parameters by name
    :raises TransferSettingsError: naming the parameter
    """
    names = [name for name, default in _WINDOW_DEFAULTS.items() if given.get(name, default) != default]
    if names and not resource.has_window:
        raise TransferSettingsError(
            f"{resource.name} is a complete snapshot and has no window: remove {', '.join(names)}"
        )


def _check_window_placeholders(resource: Resource, destination: object) -> None:
    """
    Check that the destination of a resource without a window has no placeholders of one.

    :raises TransferSettingsError: naming the placeholder to use
    """
    if not resource.has_window and "{interval_" in str(destination):
        raise TransferSettingsError(
            f"{resource.name} is a complete snapshot and has no window: use {{extracted_at}} in the destination, "
            "not {interval_start} or {interval_end}"
        )
