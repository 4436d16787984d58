# SPDX-License-Identifier: Apache-2.0
"""The operator that transfers a finished activities export to object storage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook, fail_without_retry
from airflow_provider_chartmogul.operators.literals import is_literal
from airflow_provider_chartmogul.transfers.base import ExportToObjectStorageOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg


class ActivitiesExportToObjectStorageOperator(ExportToObjectStorageOperator):
    """
    Transfer a finished activities export to object storage, as one object; return its URI.

    The archive is downloaded to local disk and checked completely before anything is written at the destination, where
    the object appears as a whole or not at all. The task pushes the object's metadata as the XCom ``object``: ``uri``,
    ``bucket``, ``key``, ``bytes``, ``sha256``, ``format``, ``rows``, ``columns``, ``interval_start``, ``interval_end``,
    ``activity_type``, ``export_id``, ``exported_at`` and ``chartmogul_conn_id`` (``None`` if not known). Events of the
    task's outlets carry the same as their ``extra``; an ``AssetAlias`` gets an event for the object's URI. The transfer
    is reported to Airflow's hook lineage collector, and to OpenLineage if its provider is installed.

    The task knows only the export's ID. The window and type in its metadata are therefore those that ChartMogul reports
    for the export; ``ActivitiesToObjectStorageOperator`` uses those that it requested.

    :param export_id: a finished export, usually ``wait.output`` of the sensor (templated)
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
        * ``reuse`` keeps it and succeeds, without a download
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
    :raises ChartMogulError: for any other failure
    """

    template_fields: Sequence[str] = ("export_id", *ExportToObjectStorageOperator.template_fields)

    # The parameters of the base class are repeated for editors and type checkers.
    def __init__(
        self,
        *,
        export_id: str | XComArg,
        destination: str | XComArg,
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
        self.export_id: Any = export_id
        self._check_at_parse()

    @classmethod
    def _check_literals(cls, given: Mapping[str, Any]) -> None:
        from airflow_provider_chartmogul.api.exports import validate_export_id

        super()._check_literals(given)
        if "export_id" in given and (given["export_id"] is None or is_literal(given["export_id"])):
            validate_export_id(given["export_id"])

    def execute(self, context: Context) -> str:
        from airflow_provider_chartmogul.api.exports import validate_export_id

        with fail_without_retry():
            delivery = self._delivery()
            export_id = validate_export_id(self.export_id)
            with ChartMogulHook(self.chartmogul_conn_id) as hook:
                return self._download_convert_publish(context, delivery, hook, export_id, request=None)
