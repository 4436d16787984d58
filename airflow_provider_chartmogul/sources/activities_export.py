# SPDX-License-Identifier: Apache-2.0
"""
An activities export as the source of a transfer: its metadata, its download and its conversion.

The archive is downloaded to local disk and checked before anything is written at the destination.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from airflow_provider_chartmogul.api.exports import ActivitiesExport, ExportRequest, ExportStatus
from airflow_provider_chartmogul.exceptions import (
    DownloadRefusedError,
    ExportExpiredError,
    ExportFailedError,
    ExportNotReadyError,
    InsufficientDiskSpaceError,
    RefusalReason,
    TransferSettingsError,
    UnexpectedResponseError,
    UnusableExportError,
)
from airflow_provider_chartmogul.formats.archive import Archive, HashedFile, sha256_of
from airflow_provider_chartmogul.formats.arriving_archive import ArrivingArchive, arriving_archive
from airflow_provider_chartmogul.lineage.assets import asset_uri
from airflow_provider_chartmogul.runtime.cancellation import Cancellation
from airflow_provider_chartmogul.runtime.disk_space import require_disk_space
from airflow_provider_chartmogul.runtime.task_log import TaskLog
from airflow_provider_chartmogul.storage.delivery import LocalFile, check_dictionary
from airflow_provider_chartmogul.storage.object_metadata import METADATA_KEY, encode_metadata

if TYPE_CHECKING:
    from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook

#: What an export can become, by suffix of the destination.
FORMATS = {".zip": "zip", ".csv": "csv", ".csv.gz": "csv.gz", ".parquet": "parquet"}

#: How far the clocks of a worker and of the storage may differ. A URL that is refused earlier has not expired.
_CLOCK_SKEW = timedelta(hours=1)


@dataclass(frozen=True)
class ActivitiesExportSource:
    """
    An activities export, as something to transfer.

    :param chartmogul_conn_id: the Airflow connection of its account
    :param base_url: base URL of the API
    :param request: the window and type of the export
    :param export: the export; ``None`` until it has been created
    """

    chartmogul_conn_id: str
    base_url: str
    request: ExportRequest
    export: ActivitiesExport | None = None

    @property
    def uri(self) -> str:
        """URI of the source asset: the activities at this API host."""
        return asset_uri(self.base_url, "activities")

    def metadata(self, *, already_existed: bool) -> dict[str, Any]:
        """
        Return what the object's metadata says about its content.

        :param already_existed: the object may hold another export than this one
        """
        export = None if already_existed else self.export
        created_at = export and export.created_at
        # A load needs the age of an object. The time of the transfer takes its place if ChartMogul does not report
        # when it created the export, or reports it in an unknown format.
        extracted_at = datetime.now(UTC).replace(microsecond=0) if export and created_at is None else None
        return {
            "resource": "activities",
            "table": "activities",
            "query_params": None,
            "extracted_at": extracted_at and extracted_at.isoformat(),
            "interval_start": self.request.start and self.request.start.isoformat(),
            "interval_end": self.request.end and self.request.end.isoformat(),
            "activity_type": self.request.activity_type,
            "export_id": self.export and self.export.id,
            "exported_at": created_at and created_at.isoformat(),
            "chartmogul_conn_id": self.chartmogul_conn_id,
            # Only resources have these.
            "start_date": None,
            "end_date": None,
            "column_types": None,
            "column_selection": None,
        }


def get_finished_export(hook: ChartMogulHook, export_id: str) -> ActivitiesExport:
    """
    Retrieve an export that has succeeded.

    :raises ExportFailedError: if it has failed
    :raises ExportNotReadyError: if it has not finished yet
    :raises ChartMogulError: if the request fails
    """
    export = hook.get_activities_export(export_id)
    if export.status is ExportStatus.FAILED:
        raise ExportFailedError(f"activities export {export.id} has failed, there is nothing to transfer")
    if export.status is not ExportStatus.SUCCEEDED:
        raise ExportNotReadyError(
            f"activities export {export.id} has not finished, its status is '{export.status_word}': wait for it with "
            "ActivitiesExportSensor, and give this task the sensor's output as export_id"
        )
    return export


def reported_request(export: ActivitiesExport) -> ExportRequest:
    """
    Return the window and type that ChartMogul reports for an export, where the task does not know them itself.

    :raises UnexpectedResponseError: if they cannot be read; a load replaces the window of the object, so that a guess
        could delete rows
    """
    if export.unreadable:
        raise UnexpectedResponseError(
            f"ChartMogul reports {' and '.join(export.unreadable)} of export {export.id} in a form that this version "
            "cannot read: look for a newer version of this package, or use ActivitiesToObjectStorageOperator, which "
            "creates the export itself and therefore knows its window"
        )
    return export.request


def open_archive(folder: Path, output_format: str) -> AbstractContextManager[ArrivingArchive]:
    """
    Return the context of the archive that ``download_archive`` downloads.

    :param folder: temporary folder for the archive
    :param output_format: what it will be converted to, which decides whether it is read during the download
    """
    return arriving_archive(
        folder / "archive.zip", read_ahead=output_format in ("zip", "csv.gz"), count_rows=output_format == "csv.gz"
    )


def download_archive(
    hook: ChartMogulHook,
    export: ActivitiesExport,
    archive: ArrivingArchive,
    output_format: str,
    *,
    log: TaskLog,
    cancellation: Cancellation,
) -> None:
    """
    Download the export's archive.

    :param hook: gets a new URL if the storage refuses the first one
    :param output_format: what the archive will be converted to, which decides how much disk space is required
    :raises InsufficientDiskSpaceError: before anything is downloaded
    :raises UnusableExportError: if the export has expired, or the storage has no file for it
    :raises DownloadError: if the archive cannot be downloaded completely, or a policy forbids it
    """
    from airflow_provider_chartmogul.storage.download import download

    exports = [export]
    urls = iter([_file_url(export)])

    def get_url() -> str:
        if (url := next(urls, None)) is not None:
            return url
        exports.append(hook.get_activities_export(export.id))
        return _file_url(exports[-1])

    folder = archive.path.parent
    try:
        size = download(
            get_url,
            archive.path,
            timeout=hook.settings.timeout,
            plain_http_allowed=hook.settings.is_plain_http,
            log=log,
            cancellation=cancellation,
            # The size of the text is known only once the archive is there.
            on_size=lambda size: require_disk_space(folder, 2 * size if output_format == "csv.gz" else size),
            on_start_over=archive.discard,
        )
    except DownloadRefusedError as error:
        if error.reason is RefusalReason.MISSING:
            raise UnusableExportError(f"the file of export {export.id} is missing: {error}") from error
        expires_at = exports[-1].expires_at
        if error.reason is RefusalReason.FORBIDDEN and expires_at and expires_at - datetime.now(UTC) > _CLOCK_SKEW:
            raise
        raise ExportExpiredError(f"activities export {export.id} has expired: {error}") from error
    log.info("Downloaded export %s (%d bytes)", export.id, size)


def convert_archive(
    archive: ArrivingArchive,
    output_format: str,
    column_types: Mapping[str, str] | None,
    metadata: Mapping[str, Any],
) -> LocalFile:
    """
    Check the whole archive, and convert its CSV to another format.

    :param output_format: one of the values of ``FORMATS``
    :param column_types: Arrow types by column, for ``parquet``
    :param metadata: metadata for the footer of a Parquet file
    :raises ArchiveError: if the archive is damaged, or holds several files and is to become one table
    :raises TableError: if the CSV cannot be read as a table
    :raises ColumnTypesError: if a value does not fit the type of its column
    :raises InsufficientDiskSpaceError: if the disk is too small for the result
    """
    with Archive(archive.path, archive.first_member) as opened:
        if output_format == "zip":
            # Meanwhile, the thread may still be reading the first member.
            sha256 = sha256_of(archive.path)
            return LocalFile(archive.path, sha256, columns=opened.check().columns)
        path = archive.path.with_name(f"object.{output_format}")
        compressed, text = opened.csv_bytes
        require_disk_space(path.parent, text if output_format == "csv" else compressed)
        try:
            if output_format == "parquet":
                footer = {METADATA_KEY: encode_metadata({**metadata, "format": output_format})}
                rows, columns = _parquet().write_parquet(opened.read_csv(), path, column_types, footer)
                return LocalFile(path, sha256_of(path), rows, columns)
            with path.open("wb") as file:
                target = HashedFile(file)
                content = opened.write_csv(target) if output_format == "csv" else opened.write_csv_gz(target)
        except OSError as error:
            raise InsufficientDiskSpaceError(
                f"could not write to {path.parent} ({error.strerror or error}): give another folder as download_dir"
            ) from error
        return LocalFile(path, target.sha256, content.rows, content.columns)


def check_column_types(column_types: Mapping[str, str] | None, output_format: str) -> None:
    """
    Check ``column_types`` before an export is created.

    :raises TransferSettingsError: for another format than ``parquet``, for what is not a dictionary, and if pyarrow is
        not installed
    :raises ColumnTypesError: for a type that Arrow does not have
    """
    check_column_types_of_format(column_types, output_format)
    if output_format == "parquet":
        _parquet().parse_types(column_types)


def check_column_types_of_format(column_types: Mapping[str, str] | None, output_format: str) -> None:
    """
    Check ``column_types`` without pyarrow.

    :raises TransferSettingsError: for another format than ``parquet``, and for what is not a dictionary
    """
    check_dictionary(column_types, "column_types", "Arrow types by column")
    if column_types and output_format != "parquet":
        raise TransferSettingsError(f"column_types is for parquet, and has no meaning for {output_format}")


def _parquet() -> ModuleType:
    """Import pyarrow, which is optional, only where Parquet is written."""
    try:
        return import_module("airflow_provider_chartmogul.formats.parquet")
    except ImportError as error:
        raise TransferSettingsError(
            "parquet needs pyarrow, which is not installed on this worker: "
            f"pip install 'airflow-provider-chartmogul[parquet]' ({error})"
        ) from error


def _file_url(export: ActivitiesExport) -> str:
    if export.file_url is None:
        if export.is_expired(datetime.now(UTC)):
            raise ExportExpiredError(
                f"activities export {export.id} has expired, ChartMogul has no file for it any more"
            )
        raise ExportNotReadyError(
            f"activities export {export.id} has succeeded, but ChartMogul gives no file for it. A retry asks again; if "
            "the result is the same, clear the task that creates the export and those after it."
        )
    return export.file_url
