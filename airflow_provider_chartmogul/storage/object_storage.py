# SPDX-License-Identifier: Apache-2.0
"""An object at a destination: its name, and whether it exists; and how a local file becomes it, all or nothing."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from airflow_provider_chartmogul.api.redaction import MESSAGE_LIMIT, redact_urls
from airflow_provider_chartmogul.exceptions import (
    ChartMogulError,
    DestinationError,
    ObjectExistsError,
    ObjectStorageError,
)
from airflow_provider_chartmogul.formats.parquet_footer import read_footer
from airflow_provider_chartmogul.runtime.cancellation import Cancellation
from airflow_provider_chartmogul.runtime.disk_space import require_disk_space
from airflow_provider_chartmogul.storage.file_systems import FileSystemObject
from airflow_provider_chartmogul.storage.local_files import LocalFile
from airflow_provider_chartmogul.storage.object_metadata import METADATA_KEY, decode_metadata

_PART_BYTES = 8 << 20

#: Words in the errors of S3-compatible stores that do not accept the checksums of current AWS clients.
_CHECKSUM_WORDS = re.compile(
    "checksum|trailer|aws-chunked|content-?sha256|implies functionality that is not implemented", re.IGNORECASE
)


@dataclass(frozen=True)
class StoredObject:
    """
    The name of an object.

    :param scheme: such as ``s3`` or ``file``
    :param bucket: the bucket or container; empty for local files
    :param key: the object's name in the bucket; the absolute path of a local file
    :param conn_id: the Airflow connection; ``None`` for the credentials of the environment
    """

    scheme: str
    bucket: str
    key: str
    conn_id: str | None = None

    @classmethod
    def parse(cls, destination: str, conn_id: str | None = None) -> StoredObject:
        """
        Parse a destination, ``scheme://[connection@]bucket/key`` or an absolute local path.

        :param conn_id: the connection, unless the destination contains it
        :raises DestinationError: if it is not the full name of one object
        """
        scheme, separator, rest = destination.partition("://")
        if not separator:
            scheme, rest = "file", destination
        netloc, _, key = rest.partition("/")
        inner_conn_id, _, bucket = netloc.rpartition("@")
        if ":" in inner_conn_id:
            # Nothing of it is shown: it looks like a key and its secret.
            raise DestinationError(
                "the destination has a ':' before the '@': write the name of an Airflow connection there, "
                f"{scheme}://connection@{bucket}/…, and keep credentials in the connection"
            )
        if inner_conn_id and conn_id and inner_conn_id != conn_id:
            raise DestinationError(
                f"the destination contains the connection '{inner_conn_id}', but object_storage_conn_id is "
                f"'{conn_id}': give one of them"
            )
        if scheme == "file":
            key = "/" + key
        elif "?" in key:
            # Without what follows, which is a signature if it is a signed URL.
            shown = destination.partition("?")[0] + "?…"
            raise DestinationError(f"destination {shown!r} has a '?', which object names here cannot have")
        if not scheme or (scheme == "file") == bool(bucket) or key.endswith("/") or not key:
            raise DestinationError(
                f"destination {destination!r} is not the full name of one object, such as "
                "s3://bucket/activities/2024-01-31.zip or file:///data/activities/2024-01-31.zip"
            )
        return cls(scheme, bucket, key, inner_conn_id or conn_id or None)

    @classmethod
    def find(cls, prefix: str, conn_id: str | None = None) -> list[StoredObject]:
        """
        List the objects below a prefix, in the order of their names.

        :param prefix: ``scheme://[connection@]bucket/key/`` or an absolute local path, ending in ``/``
        :param conn_id: the connection, unless the prefix contains it
        :raises DestinationError: if it is not a prefix
        :raises ObjectStorageError: if the store refuses
        """
        stored = cls.parse(f"{prefix}-", conn_id)
        folder = replace(stored, key=stored.key[:-1])
        with folder._explain_errors("list"):
            folder._object.prepare()
            found = [replace(stored, key=folder.key + name) for name in folder._object.find()]
            for one in found:
                vars(one)["_object"] = folder._object.sibling(one.uri)
            return found

    @property
    def uri(self) -> str:
        """The name without a connection, for other tools: ``s3://bucket/key``, ``file:///folder/name``."""
        return f"{self.scheme}://{self.bucket}{'' if self.scheme == 'file' else '/'}{self.key}"

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition("/")[2]

    @cached_property
    def _object(self) -> LocalFile | FileSystemObject:
        return LocalFile(self.key) if self.scheme == "file" else FileSystemObject(self.scheme, self.uri, self.conn_id)

    def prepare(self) -> None:
        """
        Check that this worker can reach the destination, before anything is downloaded.

        :raises DestinationError: if the connection does not exist, or the file system is not installed
        """
        with self._explain_errors("reach"):
            if self.conn_id is not None and not self.conn_id.endswith("_default"):
                self._require_connection()
            self._object.prepare()

    def _require_connection(self) -> None:
        """
        Fail if the connection does not exist.

        Some file systems take a missing connection for the environment's credentials. That is what people mean by a
        default name; another one is a mistake.
        """
        from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

        assert self.conn_id is not None
        try:
            BaseHook.get_connection(self.conn_id)
        except AirflowNotFoundException:
            raise DestinationError(
                f"there is no Airflow connection '{self.conn_id}', which the destination names"
            ) from None

    def exists(self) -> bool:
        """
        Return whether the object exists; a folder, or a prefix of other keys, is not an object.

        :raises ObjectStorageError: if the store does not report it
        """
        with self._explain_errors("check"):
            return self._object.exists()

    def size(self) -> int | None:
        """Return the object's size in bytes; ``None`` if the store does not report it."""
        with self._explain_errors("check"):
            return self._object.size()

    def modified_at(self) -> datetime | None:
        """Return when the object was last written, in UTC; ``None`` if the store does not report it."""
        with self._explain_errors("check"):
            return self._object.modified_at()

    def read_metadata(self) -> dict[str, Any] | None:
        """
        Return the metadata that the object carries: in the store, or in the footer of a Parquet file.

        :return: the keys of XCom ``object`` without its location; ``None`` if the object carries no metadata
        :raises ObjectStorageError: if it cannot be read, or does not exist
        """
        with self._explain_errors("read"):
            self._object.prepare()
            text: str | bytes | None = self._object.metadata().get(METADATA_KEY)
            if text is None:
                with self._object.open() as file:
                    text = read_footer(file, METADATA_KEY)
        return decode_metadata(text)

    def equals(self, file: Path) -> bool:
        """
        Return whether the object has the same content as a local file.

        :raises ObjectStorageError: if it cannot be read
        """
        with self._explain_errors("read"):
            return self._object.equals(file)

    def download(self, file: Path, cancellation: Cancellation) -> str:
        """
        Copy the object to a local file, in constant memory. A local object is linked instead where that is possible.

        :param file: the local file, which is replaced, and must not be changed afterwards
        :return: SHA-256 of its bytes, as hexadecimal digits
        :raises ObjectStorageError: if it cannot be read, or does not exist
        :raises InsufficientDiskSpaceError: if the disk is too small
        :raises TaskCancelledError: if the task is cancelled
        """
        digest = hashlib.sha256()
        with self._explain_errors("read"):
            # The file may be a hard link from an earlier call. Writing to it would change the object.
            file.unlink(missing_ok=True)
            if self._object.link(file):
                for part in LocalFile(str(file)).read_parts(_PART_BYTES):
                    cancellation.check()
                    digest.update(part)
                return digest.hexdigest()
            require_disk_space(file.parent, self._object.size() or 0)
            with file.open("wb") as target:
                for part in self._object.read_parts(_PART_BYTES):
                    cancellation.check()
                    digest.update(part)
                    target.write(part)
        return digest.hexdigest()

    def publish(
        self,
        file: Path,
        *,
        cancellation: Cancellation | None = None,
        content_type: str = "application/octet-stream",
        exclusive: bool = False,
        options: Mapping[str, Any] | None = None,
        metadata: str | None = None,
    ) -> None:
        """
        Publish a local file as the object, all of it or nothing.

        :param file: the local file
        :param cancellation: stops the upload, with nothing published, when the task is cancelled
        :param content_type: for stores that have one
        :param exclusive: fail if the object exists; without a race where the store supports it
        :param options: options of the file system's ``put_file``, such as ``{"ServerSideEncryption": "aws:kms"}``
        :param metadata: JSON to store in the object's own metadata, in stores that support it
        :raises ObjectExistsError: if ``exclusive`` and the object exists
        :raises ObjectStorageError: if the store refuses; an object that existed before is left as it was
        :raises TaskCancelledError: if the task is cancelled
        """
        with self._explain_errors("write", exclusive=exclusive):
            self._object.publish(
                file,
                cancellation or Cancellation(),
                content_type,
                options or {},
                exclusive=exclusive,
                metadata={METADATA_KEY: metadata} if metadata is not None else {},
            )

    @contextlib.contextmanager
    def _explain_errors(self, verb: str, *, exclusive: bool = False) -> Iterator[None]:
        try:
            yield
        except ChartMogulError:
            raise
        except Exception as error:
            if exclusive and _is_conflict(error):
                raise ObjectExistsError(
                    f"{self.uri} already exists, and if_exists is 'fail'; nothing was written"
                ) from error
            raise ObjectStorageError(f"could not {verb} {self.uri}{self._explain(error)}") from error

    def _explain(self, error: Exception) -> str:
        """Describe the connection and the store's error message."""
        text = f"{type(error).__name__}: {redact_urls(str(error))[:MESSAGE_LIMIT]}"
        if self.scheme == "file":
            return f": {text}"
        if self.scheme.startswith("s3") and _CHECKSUM_WORDS.search(text):
            text += (
                "; if this store does not accept the checksums of current AWS clients, set config_kwargs in the "
                'connection\'s extra to {"request_checksum_calculation": "when_required"}'
            )
        if self.conn_id is None:
            return f" (without a connection, so with the environment's credentials): {text}"
        return f" (connection {self.conn_id}): {text}"


def _is_conflict(error: Exception) -> bool:
    # s3fs raises FileExistsError only if the response names the condition, as S3's own does.
    response = getattr(error.__cause__, "response", None) or {}
    return isinstance(error, FileExistsError) or response.get("Error", {}).get("Code") == "PreconditionFailed"
