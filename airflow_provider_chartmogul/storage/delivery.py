# SPDX-License-Identifier: Apache-2.0
"""
A finished export to one object: what the transfer operators have in common.

Everything that can be checked is checked before a request is sent; everything is on local disk and checked
before a byte is written at the destination.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_chartmogul.api.exports import ActivitiesExport, ExportStatus
from airflow_provider_chartmogul.exceptions import (
    ExportExpiredError,
    ExportFailedError,
    ExportNotReadyError,
    InsufficientDiskSpaceError,
    ObjectExistsError,
    TransferSettingsError,
    UnexpectedResponseError,
)
from airflow_provider_chartmogul.formats.archive import Archive, Content, sha256_of
from airflow_provider_chartmogul.runtime.cancellation import Cancellation
from airflow_provider_chartmogul.runtime.disk_space import require_disk_space
from airflow_provider_chartmogul.runtime.task_log import TaskLog
from airflow_provider_chartmogul.runtime.temporary_files import temporary_folder
from airflow_provider_chartmogul.storage.object_storage import StoredObject

if TYPE_CHECKING:
    from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook
    from airflow_provider_chartmogul.intervals.interval import Interval

IF_EXISTS = ("overwrite", "reuse", "skip", "fail")

#: Formats by the suffix of the destination.
FORMATS = {".zip": "zip", ".csv": "csv", ".csv.gz": "csv.gz", ".parquet": "parquet"}

#: What stores are told that an object is. A csv.gz has no Content-Encoding: clients would unpack it on the way.
CONTENT_TYPES = {
    "zip": "application/zip",
    "csv": "text/csv",
    "csv.gz": "application/gzip",
    "parquet": "application/vnd.apache.parquet",
}

PLACEHOLDERS = ("interval_start", "interval_end", "activity_type", "export_id", "chartmogul_conn_id")


class _NameFormatter(string.Formatter):
    """Fills in names; a time without a format is written as ISO 8601's basic form, which has no colon."""

    def format_field(self, value: Any, format_spec: str) -> str:
        return str(format(value, format_spec or ("%Y%m%dT%H%M%SZ" if isinstance(value, datetime) else "")))


@dataclass(frozen=True)
class Moved:
    """
    What came of a transfer.

    ``facts`` is what is known of the object, ready for JSON; ``found`` says that it was there already;
    ``source_uri`` names what it was made of, for lineage: an account's activities, by the API's host.
    """

    facts: dict[str, Any]
    source_uri: str
    found: bool = False

    @property
    def uri(self) -> str:
        return str(self.facts["uri"])


@dataclass(frozen=True)
class Transfer:
    """
    How a finished export becomes an object; the fields are the transfer operators' parameters of that name.

    :raises TransferSettingsError: at once, for what makes no sense
    """

    destination: str
    chartmogul_conn_id: str
    object_storage_conn_id: str | None = None
    output_format: str | None = None
    if_exists: str = "overwrite"
    column_types: Mapping[str, str] | None = None
    download_dir: str | None = None
    upload_options: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.destination, str) or not self.destination.strip():
            raise TransferSettingsError("destination is empty: it is the full name of an object, s3://bucket/…")
        if self.if_exists not in IF_EXISTS:
            raise TransferSettingsError(f"if_exists cannot be {self.if_exists!r}: it is one of {', '.join(IF_EXISTS)}")
        if self.upload_options is not None and not isinstance(self.upload_options, Mapping):
            raise TransferSettingsError("upload_options is a dictionary of put_file's own options")
        try:
            parts = [part for part in string.Formatter().parse(self.destination) if part[1] is not None]
        except ValueError as error:
            raise TransferSettingsError(
                f"destination {self.destination!r} has a brace that is not closed: {error}"
            ) from error
        if any("{" in (spec or "") for _, _, spec, _ in parts):
            raise TransferSettingsError(f"destination {self.destination!r} has a brace inside a placeholder")
        names = {name for _, name, _, _ in parts if name is not None}
        if unknown := sorted(names.difference(PLACEHOLDERS)):
            raise TransferSettingsError(
                f"destination {self.destination!r} has the unknown placeholder {{{unknown[0]}}}; there are "
                f"{', '.join(f'{{{name}}}' for name in PLACEHOLDERS)}"
            )
        if self.column_types is not None and not isinstance(self.column_types, Mapping):
            raise TransferSettingsError("column_types is a dictionary of Arrow types by column")
        if self.column_types and self.format != "parquet":
            raise TransferSettingsError(f"column_types is for parquet, and has no meaning for {self.format}")
        stored = self._example()
        if stored.scheme == "file" and self.upload_options:
            raise TransferSettingsError("upload_options are for object stores; file:// has none")
        if self.format == "parquet":
            _load_parquet().parse_types(self.column_types)

    @property
    def format(self) -> str:
        """The object's format, by ``output_format`` or the destination's suffix."""
        by_suffix = next((f for suffix, f in FORMATS.items() if self.destination.endswith(suffix)), None)
        known = ", ".join(sorted(set(FORMATS.values())))
        if self.output_format is not None and self.output_format not in FORMATS.values():
            raise TransferSettingsError(f"output_format cannot be {self.output_format!r}: there is {known}")
        if by_suffix and self.output_format and by_suffix != self.output_format:
            raise TransferSettingsError(
                f"destination {self.destination!r} says {by_suffix} and output_format says "
                f"{self.output_format}: let them agree, or leave output_format out"
            )
        chosen = self.output_format or by_suffix
        if chosen is None:
            raise TransferSettingsError(
                f"destination {self.destination!r} has none of the suffixes {', '.join(FORMATS)}: give it one, "
                f"or give output_format ({known})"
            )
        return chosen

    def object_of(self, export: ActivitiesExport) -> StoredObject:
        """
        Fill in the destination's placeholders from the export itself.

        :raises TransferSettingsError: for a placeholder that has no value in this export, or a bad format
        :raises DestinationError: for what is not the full name of one object
        """
        values = {
            "interval_start": export.start_date,
            "interval_end": export.end_date,
            "activity_type": _name_of_type(export),
            "export_id": export.id or "not-made-yet",
            "chartmogul_conn_id": self.chartmogul_conn_id,
        }
        for name in sorted(self._placeholders):
            if values[name] is None:
                raise TransferSettingsError(
                    f"destination {self.destination!r} has {{{name}}}, but the export is open at that "
                    "end: take the placeholder out, or give the export that end"
                )
        return self._stored(values)

    def look(
        self, hook: ChartMogulHook, interval: Interval, activity_type: str | None, *, is_retry: bool
    ) -> Moved | None:
        """
        Look at the destination before an export is made for it.

        :param interval: the export's window
        :param activity_type: None: all of them
        :return: the object, where there is one that counts; None: an export is needed, or a look is of no use
        :raises ObjectExistsError: with ``if_exists="fail"``, when there is one
        :raises ChartMogulError: for a destination that cannot be written to, as far as that shows
        """
        self._example().prepare()
        asked = ActivitiesExport(
            id="",
            status=ExportStatus.PENDING,
            status_word="",
            activity_type=activity_type,
            start_date=interval.start,
            end_date=interval.end,
        )
        # What it will be called is checked here too; but an ID has it only when it is made.
        stored = self.object_of(asked)
        if "export_id" in self._placeholders or (self.if_exists == "fail" and is_retry):
            return None
        return self._existing(hook, stored, asked, "no export was made")

    def _existing(
        self, hook: ChartMogulHook, stored: StoredObject, export: ActivitiesExport, without: str
    ) -> Moved | None:
        """Give what is there already, where that ends the task."""
        if self.if_exists == "overwrite" or not stored.exists():
            return None
        if self.if_exists == "fail":
            raise ObjectExistsError(f"{stored.uri} exists already, and if_exists is 'fail'; {without}")
        # What is there may be of another export.
        facts = {**self._facts(stored, export, size=stored.size()), "exported_at": None}
        return Moved(facts, _source_uri(hook), found=True)

    @property
    def _placeholders(self) -> set[str]:
        return {name for _, name, _, _ in string.Formatter().parse(self.destination) if name is not None}

    def _example(self) -> StoredObject:
        """An object that might be, with which the destination is tried before there is an export."""
        day = datetime(2024, 1, 1, tzinfo=UTC)
        return self._stored({name: day if name.startswith("interval") else "example" for name in PLACEHOLDERS})

    def _stored(self, values: Mapping[str, Any]) -> StoredObject:
        try:
            filled = _NameFormatter().vformat(self.destination, (), values)
        except (ValueError, TypeError) as error:
            raise TransferSettingsError(
                f"destination {self.destination!r} cannot be filled in: {error}; a time's format is such as "
                "{interval_start:%Y-%m-%d}"
            ) from error
        return StoredObject.parse(filled, self.object_storage_conn_id)

    def move(
        self,
        hook: ChartMogulHook,
        export_id: str,
        log: TaskLog,
        cancellation: Cancellation,
        *,
        is_retry: bool = False,
        asked: tuple[Interval, str | None] | None = None,
    ) -> Moved:
        """
        Download, check and publish an export.

        :param hook: asked for the export, and once more for a fresh URL where the first is refused
        :param log: the task's
        :param cancellation: by which the task can be told to end in the middle
        :param is_retry: with ``if_exists="fail"``: an earlier try may have published the very same object, so
            what is there is compared, not refused at once
        :param asked: window and type that the export was asked for, where known: what ChartMogul's answer does not
            say of them is taken from there, since what loads the object replaces that window
        :raises ChartMogulError: see ``api``, ``download``, ``archive`` and ``object_storage``
        """
        self._example().prepare()
        export = hook.get_activities_export(export_id)
        _require_done(export)
        if asked is not None:
            interval, activity_type = asked
            export = replace(
                export,
                start_date=interval.start,
                end_date=interval.end,
                activity_type=activity_type,
                unreadable=(),
            )
        if export.unreadable:
            raise UnexpectedResponseError(
                f"ChartMogul says {' and '.join(export.unreadable)} of export {export.id} in a form that this version "
                "cannot read, so that what the object stands for is not known: look for a newer version of this "
                "package; ActivitiesToObjectStorageOperator, which makes the export itself, does without"
            )
        stored = self.object_of(export)
        may_be_ours = self.if_exists == "fail" and is_retry
        found = None if may_be_ours else self._existing(hook, stored, export, "nothing was downloaded")
        if found is not None:
            log.info("%s exists already; nothing is downloaded", stored.uri)
            return found
        if self.download_dir is not None and not Path(self.download_dir).is_dir():
            raise TransferSettingsError(f"download_dir {self.download_dir!r} is no folder here, on the worker")
        with temporary_folder(self.download_dir) as folder:
            return self._move(hook, export, stored, folder, log, cancellation)

    def _move(
        self,
        hook: ChartMogulHook,
        export: ActivitiesExport,
        stored: StoredObject,
        folder: Path,
        log: TaskLog,
        cancellation: Cancellation,
    ) -> Moved:
        from airflow_provider_chartmogul.storage.download import download

        urls = iter([_file_url(export)])

        def get_url() -> str:
            return next(urls, None) or _file_url(hook.get_activities_export(export.id))

        archive = folder / "archive.zip"
        downloaded = download(
            get_url,
            archive,
            timeout=hook.settings.timeout,
            plain_http_allowed=hook.settings.is_plain_http,
            log=log,
            cancellation=cancellation,
            on_size=lambda size: self._require_room_to_download(folder, size, log),
        )
        product, content = self._convert(archive, folder)
        log.info(
            "Downloaded export %s, %d bytes, and checked all of it; it holds %s%s",
            export.id,
            downloaded.size,
            ", ".join(content.members) or "no files",
            "" if content.rows is None else f" with {content.rows} rows",
        )
        self._publish(stored, product, log, cancellation)
        return Moved(
            self._facts(
                stored,
                export,
                size=product.stat().st_size,
                sha256=downloaded.sha256 if product == archive else sha256_of(product),
                content=content,
            ),
            _source_uri(hook),
        )

    def _publish(self, stored: StoredObject, product: Path, log: TaskLog, cancellation: Cancellation) -> None:
        try:
            stored.publish(
                product,
                cancellation=cancellation,
                content_type=CONTENT_TYPES[self.format],
                exclusive=self.if_exists == "fail",
                options=self.upload_options,
            )
        except ObjectExistsError:
            # By an earlier try that was not told of its success, or by this one: a store's client that gets no
            # answer sends the same again, and then finds its own.
            if not stored.equals(product):
                raise
            log.info("%s is there already, and equal in size and checksum: a try before this wrote it", stored.uri)
        else:
            log.info("Wrote %s", stored.uri)

    def _require_room_to_download(self, folder: Path, size: int, log: TaskLog) -> None:
        """Before anything is written; how large the text is shows only when the archive is there."""
        times = {"zip": 1, "csv.gz": 2}.get(self.format, 1)
        more = " and that of its content" if self.format in ("csv", "parquet") else ""
        log.info(
            "The archive has %.1f MB; %s takes %.1f MB%s on local disk",
            size / 1e6,
            self.format,
            times * size / 1e6,
            more,
        )
        require_disk_space(folder, times * size)

    def _convert(self, archive: Path, folder: Path) -> tuple[Path, Content]:
        """Check the whole archive; give the file to publish, and what is known of its content."""
        with Archive(archive) as opened:
            if self.format == "zip":
                return archive, opened.check()
            # Under the object's own format, by which stores and readers tell what it is.
            product = folder / f"object.{self.format}"
            compressed, text = opened.csv_bytes
            require_disk_space(folder, {"csv": text, "csv.gz": compressed}.get(self.format, compressed))
            try:
                if self.format == "parquet":
                    rows, columns = _load_parquet().write_parquet(opened.read_csv(), product, self.column_types)
                    return product, Content(opened.members, columns, rows)
                with product.open("wb") as file:
                    return product, (opened.write_csv(file) if self.format == "csv" else opened.write_csv_gz(file))
            except OSError as error:
                raise InsufficientDiskSpaceError(
                    f"could not write to {folder}: {error.strerror or error}; download_dir names another folder"
                ) from error

    def _facts(
        self,
        stored: StoredObject,
        export: ActivitiesExport,
        *,
        size: int | None,
        sha256: str | None = None,
        content: Content | None = None,
    ) -> dict[str, Any]:
        return {
            "uri": stored.uri,
            "bucket": stored.bucket,
            "key": stored.key,
            "bytes": size,
            "sha256": sha256,
            "format": self.format,
            "rows": content and content.rows,
            "columns": list(content.columns) if content and content.columns is not None else None,
            "interval_start": export.start_date and export.start_date.isoformat(),
            "interval_end": export.end_date and export.end_date.isoformat(),
            "activity_type": export.activity_type,
            "export_id": export.id or None,
            "exported_at": export.created_at and export.created_at.isoformat(),
            "chartmogul_conn_id": self.chartmogul_conn_id,
        }


def _name_of_type(export: ActivitiesExport) -> str:
    """The type as part of a name; a word the API echoes must not make folders."""
    return re.sub(r"[^\w-]", "_", export.activity_type or "all")


def _source_uri(hook: ChartMogulHook) -> str:
    return f"chartmogul://{urlsplit(hook.settings.base_url).netloc}/activities"


def _load_parquet() -> ModuleType:
    """Load what needs pyarrow, only where Parquet is asked for."""
    try:
        return import_module("airflow_provider_chartmogul.formats.parquet")
    except ImportError as error:
        raise TransferSettingsError(
            f"parquet needs pyarrow here, on the worker: pip install 'airflow-provider-chartmogul[parquet]' ({error})"
        ) from error


def _require_done(export: ActivitiesExport) -> None:
    if export.status is ExportStatus.FAILED:
        raise ExportFailedError(f"activities export {export.id} has failed, there is nothing to move")
    if export.status is not ExportStatus.SUCCEEDED:
        raise ExportNotReadyError(
            f"activities export {export.id} is not finished, its status is '{export.status_word}': wait for it "
            "with ActivitiesExportSensor, and give this task the sensor's output as export_id"
        )


def _file_url(export: ActivitiesExport) -> str:
    if export.file_url is None:
        if export.is_expired(datetime.now(UTC)):
            raise ExportExpiredError(
                f"activities export {export.id} has expired, ChartMogul gives no file for it any more"
            )
        raise ExportNotReadyError(
            f"activities export {export.id} is done, but ChartMogul gives no file for it. A retry asks again; should "
            "it be the same then, clear the task that creates the export and those after it."
        )
    return export.file_url
