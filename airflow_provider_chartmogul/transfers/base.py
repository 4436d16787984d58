# SPDX-License-Identifier: Apache-2.0
"""Base classes of the operators that transfer data from ChartMogul to object storage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from airflow import __version__ as airflow_version
from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_chartmogul.exceptions import TransferSettingsError
from airflow_provider_chartmogul.intervals.partition_keys import partition_key_of, run_attribute
from airflow_provider_chartmogul.operators.base import ChartMogulOperator
from airflow_provider_chartmogul.runtime.cancellation import Cancellation

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg
    from airflow.providers.openlineage.extractors.base import OperatorLineage

    from airflow_provider_chartmogul.api.exports import ExportRequest
    from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook
    from airflow_provider_chartmogul.sources.activities_export import ActivitiesExportSource
    from airflow_provider_chartmogul.storage.delivery import Delivery, TransferResult

T = TypeVar("T")


def open_temporary_folder(download_dir: str | None) -> AbstractContextManager[Path]:
    """
    Return a temporary folder for a transfer's files.

    :param download_dir: the operator's parameter; ``None`` is the system's folder for temporary files
    :raises TransferSettingsError: if it does not exist
    """
    from airflow_provider_chartmogul.runtime.temporary_files import temporary_folder

    if download_dir is not None and not Path(download_dir).is_dir():
        raise TransferSettingsError(f"download_dir {download_dir!r} does not exist on this worker")
    return temporary_folder(download_dir)


class ToObjectStorageOperator(ChartMogulOperator):
    """
    An operator that publishes data of ChartMogul as objects: the parameters that all of them share.

    The operators' own docstrings describe the parameters.
    """

    template_fields: Sequence[str] = (
        "destination",
        "object_storage_conn_id",
        "output_format",
        "if_exists",
        "column_types",
        "download_dir",
        "upload_options",
        "chartmogul_conn_id",
    )
    template_fields_renderers = {"upload_options": "json", "column_types": "json"}  # noqa: RUF012

    def __init__(
        self,
        *,
        destination: str | XComArg,
        object_storage_conn_id: str | None = None,
        output_format: str | None = None,
        if_exists: str = "overwrite",
        column_types: dict[str, str] | None = None,
        download_dir: str | None = None,
        upload_options: dict[str, Any] | None = None,
        emit_partitions: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.destination: Any = destination
        self.object_storage_conn_id = object_storage_conn_id
        self.output_format = output_format
        self.if_exists = if_exists
        self.column_types = column_types
        self.download_dir = download_dir
        self.upload_options = upload_options
        self.emit_partitions = emit_partitions
        self._cancellation = Cancellation()
        self._transferred: Sequence[TransferResult] = ()

    @classmethod
    def _check_literals(cls, given: Mapping[str, Any]) -> None:
        super()._check_literals(given)
        if given.get("emit_partitions"):
            if [int(part) for part in airflow_version.split(".")[:2]] < [3, 3]:
                raise TransferSettingsError(
                    "emit_partitions needs Airflow 3.3 or later, where a task can give partition keys to its asset "
                    f"events; this is Airflow {airflow_version}"
                )
            _require_start(given.get("interval_start", ""))

    def _partition_key(self, context: Context, start: datetime | None) -> str | None:
        """
        Return the partition key for the events of the outlets; ``None`` if they get none from this task.

        :param start: start of the window
        :raises TransferSettingsError: if ``emit_partitions`` is set, and the window has no start
        :raises IntervalError: if the time zone is not known
        """
        # Airflow itself gives a run's own key to the events of all its tasks.
        if not self.emit_partitions or run_attribute(context, "partition_key") is not None:
            return None
        return partition_key_of(context, _require_start(start), getattr(self, "partition_timezone", None))

    def _finish(
        self, context: Context, results: Sequence[TransferResult], hook: ChartMogulHook, partition_key: str | None
    ) -> str:
        """
        Report the objects, and return the URI of the main one as the task's result.

        :param results: the objects, the main one first
        :param partition_key: the partition key for the events of the outlets; ``None`` gives them none
        """
        from airflow_provider_chartmogul.lineage.reporting import report_transfer

        main = results[0]
        # A retry may find the object that its own earlier try wrote but did not report, so only the first try skips.
        if main.already_existed and self.if_exists == "skip" and context["ti"].try_number == 1:
            raise AirflowSkipException(f"{main.uri} already exists, and if_exists is 'skip'")
        self._transferred = [result for result in results if not result.already_existed]
        objects = {result.metadata["table"]: result.metadata for result in results}
        context["ti"].xcom_push(key="object", value=objects[main.metadata["table"]])
        context["ti"].xcom_push(key="objects", value=objects)
        report_transfer(context, self.outlets, hook, results, self.log, partition_key=partition_key)
        return main.uri

    def _temporary_folder(self) -> AbstractContextManager[Path]:
        """
        Return a temporary folder for the files to publish.

        :raises TransferSettingsError: if ``download_dir`` does not exist
        """
        return open_temporary_folder(self.download_dir)

    def on_kill(self) -> None:
        """Cancel the running download or upload, and return once its object can no longer appear."""
        self._cancellation.cancel()

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return the datasets for OpenLineage: what ChartMogul gave, and the object that it became."""
        from airflow_provider_chartmogul.lineage.openlineage import operator_lineage

        return operator_lineage(self._transferred)


class ExportToObjectStorageOperator(ToObjectStorageOperator):
    """An operator that publishes a finished activities export as one object."""

    @classmethod
    def _check_literals(cls, given: Mapping[str, Any]) -> None:
        # Imported here, so that importing this module loads nothing that transfers.
        from airflow_provider_chartmogul.sources.activities_export import FORMATS, check_column_types_of_format
        from airflow_provider_chartmogul.sources.placeholders import EXPORT_PLACEHOLDERS
        from airflow_provider_chartmogul.transfers.literals import check_object_settings

        super()._check_literals(given)
        destination, output_format = check_object_settings(given, EXPORT_PLACEHOLDERS, FORMATS)
        if destination is not None:
            destination.check_values({name: given.get(name, "") for name in ("interval_start", "interval_end")})
        if output_format is not None and isinstance(column_types := given.get("column_types"), Mapping):
            check_column_types_of_format(column_types, output_format)

    def _delivery(self) -> Delivery:
        """
        Return where and how the object is published.

        :raises TransferSettingsError: for an invalid parameter
        """
        # Imported here, so that reading a DAG loads no file systems.
        from airflow_provider_chartmogul.sources.activities_export import FORMATS, check_column_types
        from airflow_provider_chartmogul.sources.placeholders import EXPORT_PLACEHOLDERS
        from airflow_provider_chartmogul.storage.delivery import Delivery
        from airflow_provider_chartmogul.storage.destination import Destination

        delivery = Delivery(
            Destination.parse(self.destination, EXPORT_PLACEHOLDERS, self.object_storage_conn_id),
            formats=FORMATS,
            output_format=self.output_format,
            if_exists=self.if_exists,
            upload_options=self.upload_options,
        )
        check_column_types(self.column_types, delivery.format)
        return delivery

    def _find_existing_object(
        self, context: Context, delivery: Delivery, source: ActivitiesExportSource
    ) -> TransferResult | None:
        """Return the existing object if ``if_exists`` says to keep it."""
        from airflow_provider_chartmogul.sources.placeholders import export_values
        from airflow_provider_chartmogul.storage.delivery import TransferResult

        stored = delivery.destination.fill(export_values(source))
        if source.export is None and "export_id" in delivery.destination.placeholders:
            return None
        if not delivery.find_existing(stored, is_retry=context["ti"].try_number > 1):
            return None
        self.log.info("%s already exists; leaving it as it is", stored.uri)
        metadata = {**delivery.describe(stored, None), **source.metadata(already_existed=True)}
        return TransferResult(metadata, source.uri, already_existed=True)

    def _download_convert_publish(
        self, context: Context, delivery: Delivery, hook: ChartMogulHook, export_id: str, request: ExportRequest | None
    ) -> str:
        """
        Transfer a finished export, and return the URI of the object.

        :param request: what the export was created for; for ``None`` it uses what ChartMogul reports
        """
        from airflow_provider_chartmogul.sources.activities_export import (
            ActivitiesExportSource,
            convert_archive,
            download_archive,
            get_finished_export,
            open_archive,
            reported_request,
        )
        from airflow_provider_chartmogul.sources.placeholders import export_values
        from airflow_provider_chartmogul.storage.delivery import TransferResult

        delivery.prepare()
        export = get_finished_export(hook, export_id)
        source = ActivitiesExportSource(
            self.chartmogul_conn_id, hook.settings.base_url, request or reported_request(export), export
        )
        # Computed before anything is published, since it may raise.
        partition_key = self._partition_key(context, source.request.start)
        if (existing := self._find_existing_object(context, delivery, source)) is not None:
            return self._finish(context, [existing], hook, partition_key)
        stored = delivery.destination.fill(export_values(source))
        self.log.info("Transferring export %s (%s) to %s", export.id, source.request, stored.uri)
        with self._temporary_folder() as folder, open_archive(folder, delivery.format) as archive:
            download_archive(hook, export, archive, delivery.format, log=self.log, cancellation=self._cancellation)
            metadata = source.metadata(already_existed=False)
            file = convert_archive(archive, delivery.format, self.column_types, metadata)
            metadata = {**delivery.describe(stored, file), **metadata}
            delivery.publish(file, stored, log=self.log, cancellation=self._cancellation, metadata=metadata)
        return self._finish(context, [TransferResult(metadata, source.uri)], hook, partition_key)


def _require_start(start: T | None) -> T:
    """
    Return the start of a window.

    :raises TransferSettingsError: if it has none
    """
    if start is None:
        raise TransferSettingsError(
            "emit_partitions needs a window with a start, which is the partition key: set interval_start, or remove "
            "emit_partitions"
        )
    return start
