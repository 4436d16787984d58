# SPDX-License-Identifier: Apache-2.0
"""The operator that moves a finished activities export to object storage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_chartmogul.api.exports import validate_export_id
from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook, fail_without_retry
from airflow_provider_chartmogul.transfers.base import ToObjectStorageOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg


class ActivitiesExportToObjectStorageOperator(ToObjectStorageOperator):
    """
    Move a finished activities export to object storage, as one object; return its URI.

    The archive is downloaded to local disk and checked, every byte of it, before anything is written at the
    destination; there, all of it appears at once or nothing does. What is known of the object is pushed as XCom
    ``object``: ``uri``, ``bucket``, ``key``, ``bytes``, ``sha256``, ``format``, ``rows``, ``columns``,
    ``interval_start``, ``interval_end``, ``activity_type``, ``export_id``, ``exported_at`` and ``chartmogul_conn_id``
    (None where not known); events of the task's outlets carry the same as their ``extra``. A move is reported to
    Airflow's hook lineage collector, and to OpenLineage where its provider is installed.

    :param export_id: a finished export, usually ``wait.output`` of the sensor (templated)
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
        ``fail``. But for the first, nothing is downloaded when there is one; except that with
        ``fail`` a retry compares, and succeeds where the object is the one that it would have written (templated)
    :param column_types: for ``parquet``: Arrow types by column, such as ``{"activity_mrr": "int64"}``; every other
        column is text, so that the schema is the same for each window (templated)
    :param download_dir: a local folder with room for the archive, for ``csv.gz`` twice, for ``csv`` and ``parquet``
        once more for the object; None: the system's (templated)
    :param upload_options: for the file system's ``put_file``, such as encryption or tags (templated)
    :param chartmogul_conn_id: the Airflow connection of ChartMogul (templated)
    :raises AirflowFailException: when a retry cannot help
    :raises AirflowSkipException: when there is an object and ``if_exists`` is ``skip``
    :raises ChartMogulError: for everything else that went wrong
    """

    template_fields: Sequence[str] = ("export_id", *ToObjectStorageOperator.template_fields)

    # What the base takes is written out, so that editors and type checkers know it.
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
            chartmogul_conn_id=chartmogul_conn_id,
            **kwargs,
        )
        self.export_id: Any = export_id

    def execute(self, context: Context) -> str:
        with fail_without_retry():
            transfer = self._make_transfer()
            export_id = validate_export_id(self.export_id)
            with ChartMogulHook(self.chartmogul_conn_id) as hook:
                return self._move(context, transfer, hook, export_id)
