# SPDX-License-Identifier: Apache-2.0
"""
Deliver local files to object storage: check the settings, respect ``if_exists``, publish all of a file or nothing.

This module does not know what it delivers. A source (``sources/``) fetches the data into a temporary folder and says
which placeholders and metadata the object gets.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from airflow_provider_chartmogul.exceptions import ObjectExistsError, TransferSettingsError
from airflow_provider_chartmogul.runtime.cancellation import Cancellation
from airflow_provider_chartmogul.runtime.task_log import TaskLog
from airflow_provider_chartmogul.storage.destination import Destination
from airflow_provider_chartmogul.storage.object_metadata import MAX_METADATA_BYTES, METADATA_KEY, encode_metadata
from airflow_provider_chartmogul.storage.object_storage import StoredObject

IF_EXISTS = ("overwrite", "reuse", "skip", "fail")

#: Content types by format. A ``csv.gz`` has no Content-Encoding, since clients would decompress it on the way.
CONTENT_TYPES = {
    "zip": "application/zip",
    "csv": "text/csv",
    "csv.gz": "application/gzip",
    "jsonl": "application/x-ndjson",
    "jsonl.gz": "application/gzip",
    "parquet": "application/vnd.apache.parquet",
}


@dataclass(frozen=True)
class LocalFile:
    """
    A complete, checked file on local disk, ready to be published.

    :param sha256: SHA-256 of its bytes, as hexadecimal digits
    :param rows: number of rows below the header; ``None`` if not known
    :param columns: names of the columns; ``None`` if not known
    :param column_types: Arrow types by column; ``None`` if not declared
    """

    path: Path
    sha256: str
    rows: int | None = None
    columns: tuple[str, ...] | None = None
    column_types: Mapping[str, str] | None = None

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.path.stat().st_size


@dataclass(frozen=True)
class TransferResult:
    """
    The object that a transfer left at its destination.

    :param metadata: what is known of the object, as plain JSON values; the XCom ``object``
    :param source_uri: URI of the asset that the object was made from, for lineage
    :param already_existed: whether the object was there before, and was left as it was
    :param column_types: Arrow types by column, where they are declared
    """

    metadata: dict[str, Any]
    source_uri: str
    already_existed: bool = False
    column_types: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        # Through JSON, so that no odd value, such as a subclass of str from a template, fails the task when Airflow
        # serialises its result and its events.
        object.__setattr__(self, "metadata", _storable(json.loads(json.dumps(self.metadata, default=str))))

    @property
    def uri(self) -> str:
        return str(self.metadata["uri"])


@dataclass(frozen=True)
class Delivery:
    """
    Where and how objects are published: the parameters that all transfers to object storage share.

    :param destination: the objects' names
    :param formats: the formats that the source can produce, by suffix of the destination
    :param output_format: one of ``formats``, where the destination's suffix does not say it
    :param if_exists: one of ``IF_EXISTS``
    :param upload_options: options of the file system's ``put_file``
    :raises TransferSettingsError: at once, for settings that contradict each other or have no meaning
    """

    destination: Destination
    formats: Mapping[str, str]
    output_format: str | None = None
    if_exists: str = "overwrite"
    upload_options: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        check_if_exists(self.if_exists)
        check_dictionary(self.upload_options, "upload_options", "options for put_file")
        _ = self.format
        if self.destination.example().scheme == "file" and self.upload_options:
            raise TransferSettingsError("upload_options are for object stores; file:// has none")

    @property
    def format(self) -> str:
        """The format of the objects."""
        return choose_format(self.destination, self.formats, self.output_format)

    def prepare(self) -> None:
        """
        Check that this worker can reach the destination, before anything is requested from ChartMogul.

        :raises DestinationError: if its file system is not installed, or its connection does not exist
        """
        self.destination.example().prepare()

    def find_existing(self, stored: StoredObject, *, is_retry: bool) -> bool:
        """
        Return whether an object exists that ends the task, as ``if_exists`` says.

        :param is_retry: an earlier try of this task may have published the object; with ``if_exists="fail"``
            ``publish`` then compares instead
        :raises ObjectExistsError: if there is one, with ``if_exists="fail"`` in a first try
        """
        if self.if_exists == "overwrite" or (self.if_exists == "fail" and is_retry) or not stored.exists():
            return False
        if self.if_exists == "fail":
            raise ObjectExistsError(f"{stored.uri} already exists, and if_exists is 'fail'; nothing was written")
        return True

    def publish(
        self,
        file: LocalFile,
        stored: StoredObject,
        *,
        log: TaskLog,
        cancellation: Cancellation,
        exclusive: bool | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Publish a local file as an object, all of it or nothing.

        :param exclusive: refuse to replace an object; ``None`` follows ``if_exists``
        :param metadata: metadata to store with the object, where the store supports it; see ``object_metadata.py``
        :raises ObjectExistsError: with ``if_exists="fail"``, if there is another object of that name
        :raises ObjectStorageError: if the store refuses; an object that existed before is left as it was
        :raises TaskCancelledError: if the task was cancelled
        """
        try:
            stored.publish(
                file.path,
                cancellation=cancellation,
                content_type=CONTENT_TYPES[self.format],
                exclusive=self.if_exists == "fail" if exclusive is None else exclusive,
                options=self.upload_options,
                metadata=self._encode_metadata(stored, metadata, log),
            )
        except ObjectExistsError:
            # It may be ours: an earlier try was killed right after publishing, or the store's client got no response
            # to an upload, repeated it, and met its own object.
            if not stored.equals(file.path):
                raise
            log.info("%s already exists with the same size and checksum: an earlier attempt wrote it", stored.uri)
        else:
            rows = "" if file.rows is None else f"{file.rows} {'row' if file.rows == 1 else 'rows'}, "
            # The URI comes last, since Airflow's UI truncates long lines.
            log.info("Wrote %s%d bytes to %s", rows, file.size, stored.uri)

    def _encode_metadata(self, stored: StoredObject, metadata: Mapping[str, Any] | None, log: TaskLog) -> str | None:
        """Return the metadata to store; ``None`` if it exceeds the limit of stores together with the user's own."""
        if metadata is None or stored.scheme == "file":
            return None
        encoded = encode_metadata(metadata)
        options = self.upload_options or {}
        others = options.get("Metadata") or options.get("metadata") or {}
        size = sum(len(name) + len(str(value)) for name, value in {**others, METADATA_KEY: encoded}.items())
        if size <= MAX_METADATA_BYTES:
            return encoded
        log.warning(
            "%s is stored without metadata: with the user's own, it would have %d bytes, the limit is %d. A load needs "
            "its XCom 'object'; its URI suffices only if it is a Parquet file",
            *(stored.uri, size, MAX_METADATA_BYTES),
        )
        return None

    def describe(self, stored: StoredObject, file: LocalFile | None) -> dict[str, Any]:
        """
        Return the part of an object's metadata that does not depend on its source.

        :param file: what was published; ``None`` for an object that already existed
        """
        return {
            "uri": stored.uri,
            "bucket": stored.bucket,
            "key": stored.key,
            "bytes": file.size if file else stored.size(),
            "sha256": file.sha256 if file else None,
            "format": self.format,
            "rows": file.rows if file else None,
            "columns": list(file.columns) if file and file.columns is not None else None,
            "modified_at": None if file else _format_time(stored.modified_at()),
        }


def check_if_exists(value: object) -> None:
    """
    Check an operator's ``if_exists``.

    :raises TransferSettingsError: for a value that is not one of ``IF_EXISTS``
    """
    if value not in IF_EXISTS:
        raise TransferSettingsError(f"if_exists cannot be {value!r}: it is one of {', '.join(IF_EXISTS)}")


def check_dictionary(value: object, name: str, content: str) -> None:
    """
    Check an operator's parameter that is a dictionary or ``None``.

    :param name: its name
    :param content: what the dictionary contains
    :raises TransferSettingsError: for another value
    """
    if value is not None and not isinstance(value, Mapping):
        raise TransferSettingsError(f"{name} is a dictionary of {content}")


def check_output_format(value: str | None, formats: Mapping[str, str]) -> None:
    """
    Check an operator's ``output_format``.

    :param formats: the formats that the source can produce, by suffix
    :raises TransferSettingsError: for another format
    """
    if value is not None and value not in formats.values():
        known = ", ".join(sorted(set(formats.values())))
        raise TransferSettingsError(f"output_format cannot be {value!r}: it is one of {known}")


def choose_format(destination: Destination, formats: Mapping[str, str], output_format: str | None) -> str:
    """
    Return the format of objects, from ``output_format`` or the destination's suffix.

    :param formats: the formats that the source can produce, by suffix
    :raises TransferSettingsError: if there is none, or the two say different ones
    """
    check_output_format(output_format, formats)
    template = destination.template
    by_suffix = next((name for suffix, name in formats.items() if template.endswith(suffix)), None)
    if by_suffix and output_format and by_suffix != output_format:
        raise TransferSettingsError(
            f"destination {template!r} says {by_suffix} and output_format says {output_format}: change one of them, or "
            "leave output_format out"
        )
    if (chosen := output_format or by_suffix) is None:
        raise TransferSettingsError(
            f"destination {template!r} has none of the suffixes {', '.join(formats)}: give it one, or give "
            f"output_format ({', '.join(sorted(set(formats.values())))})"
        )
    return chosen


def _storable(value: Any) -> Any:
    """Return a JSON value without the characters that PostgreSQL refuses in JSON: NUL, and half a surrogate pair."""
    if isinstance(value, str):
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
    if isinstance(value, list):
        return [_storable(item) for item in value]
    if isinstance(value, dict):
        return {_storable(key): _storable(item) for key, item in value.items()}
    return value


def _format_time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
