# SPDX-License-Identifier: Apache-2.0
"""
A finished export to one object: what the transfer operators have in common.

Everything that can be checked is checked before a request is sent; everything is on local disk and checked
before a byte is written at the destination.
"""

from __future__ import annotations

import string
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_chartmogul import api
from airflow_provider_chartmogul.archive import check_archive
from airflow_provider_chartmogul.object_storage import ObjectExistsError, StoredObject

if TYPE_CHECKING:
    from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook

IF_EXISTS = ("overwrite", "reuse", "skip", "fail")

#: Formats by the suffix of the destination.
FORMATS = {".zip": "zip"}

PLACEHOLDERS = ("interval_start", "interval_end", "activity_type", "export_id", "chartmogul_conn_id")


class TransferSettingsError(api.ChartMogulError, ValueError):
    """What the transfer was told makes no sense."""

    permanent = True


@dataclass(frozen=True)
class Moved:
    """
    What came of a transfer.

    ``facts`` is what is known of the object, ready for JSON; ``found`` says that it was there already.
    """

    facts: dict[str, Any]
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
            names = {name for _, name, _, _ in string.Formatter().parse(self.destination) if name is not None}
        except ValueError as error:
            raise TransferSettingsError(
                f"destination {self.destination!r} has a brace that is not closed: {error}"
            ) from error
        if unknown := sorted(names.difference(PLACEHOLDERS)):
            raise TransferSettingsError(
                f"destination {self.destination!r} has the unknown placeholder {{{unknown[0]}}}; there are "
                f"{', '.join(f'{{{name}}}' for name in PLACEHOLDERS)}"
            )
        if self.column_types:
            raise TransferSettingsError(f"column_types has no meaning for the format {self.format}")
        _ = self.format

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

    def object_of(self, export: api.ActivitiesExport) -> StoredObject:
        """
        Fill in the destination's placeholders from the export itself.

        :raises TransferSettingsError: for a placeholder that has no value in this export, or a bad format
        :raises DestinationError: for what is not the full name of one object
        """
        values = {
            "interval_start": export.start_date,
            "interval_end": export.end_date,
            "activity_type": export.activity_type or "all",
            "export_id": export.id,
            "chartmogul_conn_id": self.chartmogul_conn_id,
        }
        for _, name, _, _ in string.Formatter().parse(self.destination):
            if name is not None and values[name] is None:
                raise TransferSettingsError(
                    f"destination {self.destination!r} has {{{name}}}, but export {export.id} is open at that "
                    "end: take the placeholder out, or give the export that end"
                )
        try:
            filled = self.destination.format_map(values)
        except (ValueError, TypeError) as error:
            raise TransferSettingsError(
                f"destination {self.destination!r} cannot be filled in: {error}; a time's format is such as "
                "{interval_start:%Y-%m-%d}"
            ) from error
        return StoredObject.parse(filled, self.object_storage_conn_id)

    def move(self, hook: ChartMogulHook, export_id: str, log: api.TaskLog) -> Moved:
        """
        Download, check and publish an export.

        :param hook: asked for the export, and once more for a fresh URL where the first is refused
        :param log: the task's
        :raises ChartMogulError: see ``api``, ``download``, ``archive`` and ``object_storage``
        """
        export = hook.get_activities_export(export_id)
        _require_done(export)
        stored = self.object_of(export)
        stored.prepare()
        if self.if_exists != "overwrite" and stored.exists():
            if self.if_exists == "fail":
                raise ObjectExistsError(f"{stored.uri} exists already, and if_exists is 'fail'; nothing was downloaded")
            log.info("%s exists already; nothing is downloaded", stored.uri)
            return Moved(self._facts(stored, export, size=stored.size()), found=True)
        with tempfile.TemporaryDirectory(prefix="chartmogul-", dir=self.download_dir) as folder:
            return self._move(hook, export, stored, Path(folder), log)

    def _move(
        self,
        hook: ChartMogulHook,
        export: api.ActivitiesExport,
        stored: StoredObject,
        folder: Path,
        log: api.TaskLog,
    ) -> Moved:
        from airflow_provider_chartmogul.download import download

        urls = iter([_file_url(export)])

        def get_url() -> str:
            return next(urls, None) or _file_url(hook.get_activities_export(export.id))

        # Under the object's own name, by which stores tell the content type.
        archive = folder / stored.name
        downloaded = download(
            get_url,
            archive,
            timeout=hook.settings.timeout,
            plain_http_allowed=hook.settings.is_plain_http,
            log=log,
        )
        facts = check_archive(archive)
        log.info(
            "Downloaded export %s, %d bytes, and checked all of it; it holds %s",
            export.id,
            downloaded.size,
            ", ".join(facts.members) or "no files",
        )
        stored.publish(archive, exclusive=self.if_exists == "fail", options=self.upload_options)
        log.info("Wrote %s", stored.uri)
        return Moved(self._facts(stored, export, size=downloaded.size, sha256=downloaded.sha256, columns=facts.columns))

    def _facts(
        self,
        stored: StoredObject,
        export: api.ActivitiesExport,
        *,
        size: int | None,
        sha256: str | None = None,
        columns: tuple[str, ...] | None = None,
    ) -> dict[str, Any]:
        return {
            "uri": stored.uri,
            "bucket": stored.bucket,
            "key": stored.key,
            "bytes": size,
            "sha256": sha256,
            "format": self.format,
            "rows": None,
            "columns": None if columns is None else list(columns),
            "interval_start": export.start_date and export.start_date.isoformat(),
            "interval_end": export.end_date and export.end_date.isoformat(),
            "activity_type": export.activity_type,
            "export_id": export.id,
            "chartmogul_conn_id": self.chartmogul_conn_id,
        }


def _require_done(export: api.ActivitiesExport) -> None:
    if export.status is api.ExportStatus.FAILED:
        raise api.ExportFailedError(
            f"activities export {export.id} has failed, there is nothing to move: clear the task that creates "
            "the export and those after it, so that a new one is made"
        )
    if export.status is not api.ExportStatus.SUCCEEDED:
        raise api.ExportNotFinishedError(
            f"activities export {export.id} is not finished, its status is '{export.status_word}': wait for it "
            "with ActivitiesExportSensor, and give this task the sensor's output as export_id"
        )


def _file_url(export: api.ActivitiesExport) -> str:
    if export.file_url is None:
        expired = export.expires_at is not None and export.expires_at < datetime.now(UTC)
        raise api.ExportNotFinishedError(
            f"activities export {export.id} is done, but ChartMogul gives no file for it"
            + (", as it has expired: clear the task that creates it and those after it" if expired else "")
        )
    return export.file_url
