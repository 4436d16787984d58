# SPDX-License-Identifier: Apache-2.0
"""
A local file to one object in object storage, all or nothing.

Nothing is ever opened for writing at the destination: an exception inside ``with path.open("wb")`` commits the
truncated object on every fsspec file system. Object stores get ``put_file``, which shows nothing until the upload
is complete; a local folder gets a hidden name, then a rename.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import inspect
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook
from airflow.providers.common.compat.sdk import io as airflow_io  # type: ignore[attr-defined]

from airflow_provider_chartmogul.api.redaction import MESSAGE_LIMIT, redact_urls
from airflow_provider_chartmogul.exceptions import (
    ChartMogulError,
    DestinationError,
    ObjectExistsError,
    ObjectStorageError,
)
from airflow_provider_chartmogul.runtime.cancellation import Cancellation
from airflow_provider_chartmogul.runtime.temporary_files import hidden_file

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

#: The extra of this package that brings a scheme's file system.
EXTRAS = {
    "s3": "amazon",
    "s3a": "amazon",
    "s3n": "amazon",
    "gs": "google",
    "gcs": "google",
    "abfs": "microsoft-azure",
    "abfss": "microsoft-azure",
    "adl": "microsoft-azure",
}

_S3_SCHEMES = ("s3", "s3a", "s3n")

_PART_BYTES = 8 << 20
_MAX_PARTS = 10_000
_PARALLEL_PARTS = 3


@dataclass(frozen=True)
class StoredObject:
    """
    One object's name.

    ``uri`` is without a connection ID, as other tools want it (``s3://bucket/key``, ``file:///folder/name``).

    :param scheme: such as ``s3`` or ``file``
    :param bucket: the bucket or container; empty for local files
    :param key: the object's name in it; for local files the absolute path
    :param conn_id: the Airflow connection; None for the environment's own credentials
    """

    scheme: str
    bucket: str
    key: str
    conn_id: str | None = None

    @classmethod
    def parse(cls, destination: str, conn_id: str | None = None) -> StoredObject:
        """
        Read a destination, ``scheme://[connection@]bucket/key`` or an absolute local path.

        :param conn_id: the connection where the destination does not name it
        :raises DestinationError: for what is not the full name of one object
        """
        scheme, separator, rest = destination.partition("://")
        if not separator:
            scheme, rest = "file", destination
        netloc, _, key = rest.partition("/")
        inner_conn_id, _, bucket = netloc.rpartition("@")
        if inner_conn_id and conn_id and inner_conn_id != conn_id:
            raise DestinationError(
                f"the destination names the connection '{inner_conn_id}', and object_storage_conn_id another, "
                f"'{conn_id}': give one of them"
            )
        if scheme == "file":
            key = "/" + key
        elif "?" in key:
            raise DestinationError(f"destination {destination!r} has a '?', which is not part of an object's name here")
        if not scheme or (scheme == "file") == bool(bucket) or key.endswith("/") or not key:
            raise DestinationError(
                f"destination {destination!r} is not the full name of one object, such as "
                "s3://bucket/activities/2024-01-31.zip or file:///data/activities/2024-01-31.zip"
            )
        return cls(scheme, bucket, key, inner_conn_id or conn_id or None)

    @property
    def uri(self) -> str:
        return f"{self.scheme}://{self.bucket}{'' if self.scheme == 'file' else '/'}{self.key}"

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition("/")[2]

    @cached_property
    def _fs(self) -> AbstractFileSystem:
        extra = EXTRAS.get(self.scheme)
        remedy = (
            f"pip install 'airflow-provider-chartmogul[{extra}]'"
            if extra
            else "install the Airflow provider that has its file system; this package's extras have "
            f"{', '.join(sorted(EXTRAS))}, and file needs none"
        )
        try:
            # What ObjectStoragePath stands on. The class itself cannot be made in Airflow 3.0 together with a
            # universal-pathlib of today, which pip installs there.
            return import_module(f"{airflow_io.__name__}.store").attach(self.scheme, self.conn_id).fs
        except ValueError as error:
            if "No filesystem registered" not in str(error):
                raise
            raise DestinationError(
                f"there is no file system for {self.scheme}:// here, on the worker: {remedy}"
            ) from error
        except ImportError as error:
            raise DestinationError(
                f"the file system for {self.scheme}:// is not installed here, on the worker: {remedy} ({error})"
            ) from error

    @property
    def _fs_path(self) -> str:
        return str(self._fs._strip_protocol(self.uri))

    def prepare(self) -> None:
        """
        Make sure that there is a file system for the destination, before anything is downloaded.

        :raises DestinationError: naming what to install
        """
        with _store_errors(self, "reach"):
            if self.conn_id is not None and not self.conn_id.endswith("_default"):
                # Some file systems take a connection that there is not for the environment's own credentials; with
                # a default name that is what people mean, with another it is a slip.
                try:
                    BaseHook.get_connection(self.conn_id)
                except AirflowNotFoundException:
                    raise DestinationError(
                        f"there is no Airflow connection '{self.conn_id}', which the destination names"
                    ) from None
            _ = self._fs

    def exists(self) -> bool:
        """
        Whether there is such an object.

        :raises ObjectStorageError: when the store does not say
        """
        with _store_errors(self, "look at"):
            if self.scheme == "file":
                return Path(self.key).is_file()
            self._fs.invalidate_cache()
            try:
                # Not exists(): a folder, or a prefix of other keys, is no object. Not isfile(): it takes every
                # error for a no, missing rights too.
                return bool(self._fs.info(self._fs_path)["type"] == "file")
            except FileNotFoundError:
                return False

    def size(self) -> int | None:
        """The object's size in bytes; None where the store does not say."""
        with _store_errors(self, "look at"):
            size = self._fs.info(self._fs_path).get("size")
        return None if size is None else int(size)

    def modified_at(self) -> datetime | None:
        """Return when the object was last written, in UTC; ``None`` if the store does not say."""
        with _store_errors(self, "look at"):
            if self.scheme == "file":
                return datetime.fromtimestamp(Path(self.key).stat().st_mtime, UTC)
            try:
                modified: datetime = self._fs.modified(self._fs_path)
            except NotImplementedError:
                return None
        return modified if modified.tzinfo else modified.replace(tzinfo=UTC)

    def equals(self, file: Path) -> bool:
        """
        Whether the object is the same as a local file, by size and SHA-256.

        Stores name checksums differently or not at all, so the object is read, a part at a time.

        :raises ObjectStorageError: when the store does not give it
        """
        if self.size() != file.stat().st_size:
            return False
        there, here = hashlib.sha256(), hashlib.sha256()
        with _store_errors(self, "read"), file.open("rb") as opened:
            start = 0
            while part := opened.read(_PART_BYTES):
                here.update(part)
                there.update(self._fs.cat_file(self._fs_path, start=start, end=start + len(part)))
                start += len(part)
        return there.digest() == here.digest()

    def publish(
        self,
        file: Path,
        *,
        cancellation: Cancellation | None = None,
        content_type: str = "application/octet-stream",
        exclusive: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Make the object out of a local file, all of it or nothing.

        :param file: the local file
        :param cancellation: ends the upload, with nothing published, when the task is told to end
        :param content_type: for stores that keep one
        :param exclusive: only where there is no object of that name yet, free of races where the store can
        :param options: for the store's ``put_file``, such as ``{"ServerSideEncryption": "aws:kms"}`` for S3
        :raises ObjectExistsError: when ``exclusive`` and there is one
        :raises ObjectStorageError: when the store refuses; what was there before is untouched
        """
        cancellation = cancellation or Cancellation()
        with _store_errors(self, "write", exclusive=exclusive):
            if self.scheme == "file":
                if options:
                    raise DestinationError("upload_options are for object stores; file:// has none")
                _publish_locally(file, Path(self.key), cancellation, exclusive=exclusive)
                return
            put_options = dict(options or {})
            self._add_put_options(put_options, file.stat().st_size, content_type, exclusive=exclusive)
            cancellation.check()
            if getattr(self._fs, "async_impl", False):
                cancellation.run(self._fs.loop, self._put_file(file, put_options))
            else:
                # It works in this thread, where a timeout reaches it.
                self._fs.put_file(str(file), self._fs_path, **put_options)

    async def _put_file(self, file: Path, options: Mapping[str, Any]) -> None:
        """Do what the file system's ``put_file`` does; on being cancelled, leave no multipart upload open."""
        put = self._fs._put_file(str(file), self._fs_path, **options)
        if self.scheme not in _S3_SCHEMES:
            # What is open at GCS or Azure is invisible, and gone after a week.
            await put
            return
        bucket, key, _ = self._fs.split_path(self._fs_path)
        with _multipart_uploads(await self._fs.set_session(), key) as uploads:
            try:
                await put
            except asyncio.CancelledError:
                # s3fs aborts on errors, of which this is none.
                for upload in uploads:
                    with contextlib.suppress(Exception):
                        await self._fs._call_s3("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=upload)
                raise

    def _add_put_options(self, options: dict[str, Any], size: int, content_type: str, *, exclusive: bool) -> None:
        """
        Complete the options of the file system's ``put_file``; what the user gave is left as it is.

        :raises FileExistsError: when ``exclusive``, there is an object of that name, and the file system has no way
            to let the store see to it
        """
        extra = EXTRAS.get(self.scheme)
        if extra == "amazon":
            # s3fs's own defaults hold 10 parts of 50 MB in memory.
            options.setdefault("chunksize", max(_PART_BYTES, math.ceil(size / _MAX_PARTS)))
            options.setdefault("max_concurrency", _PARALLEL_PARTS)
            # Left alone, s3fs calls x.csv.gz text/csv, and readers would not unpack it.
            options.setdefault("ContentType", content_type)
            if exclusive:
                self._add_create_mode(options)
        elif extra == "google":
            # One chunk at a time, of 50 MB if it is left to gcsfs. Google wants multiples of 256 KiB; there is no
            # greatest number of chunks.
            options.setdefault("chunksize", _PART_BYTES)
            options.setdefault("content_type", content_type)
            if exclusive:
                self._add_create_mode(options)
        elif extra == "microsoft-azure":
            from azure.storage.blob import ContentSettings

            # Blocks of 4 MiB, the client's default, of which so many are in memory. But it would read what has no
            # more than 64 MiB as a whole: a figure that is told when it is made, by adlfs, which has no option for it.
            options.setdefault("max_concurrency", _PARALLEL_PARTS)
            if (config := getattr(self._fs.service_client, "_config", None)) is not None:
                config.max_single_put_size = _PART_BYTES
            options.setdefault("content_settings", ContentSettings(content_type=content_type))
            # Said both ways: adlfs's own default is another in older versions.
            options["overwrite"] = not exclusive
        elif exclusive:
            self._fail_if_exists()

    def _add_create_mode(self, options: dict[str, Any]) -> None:
        # s3fs and gcsfs before 2024.12 take any option, do nothing about this one, and overwrite.
        if "mode" in inspect.signature(self._fs._put_file).parameters:
            options["mode"] = "create"
        else:
            self._fail_if_exists()

    def _fail_if_exists(self) -> None:
        if self.exists():
            raise FileExistsError(self.uri)


@contextlib.contextmanager
def _store_errors(stored: StoredObject, verb: str, *, exclusive: bool = False) -> Iterator[None]:
    """Say which destination, and the store's own words."""
    try:
        yield
    except ChartMogulError:
        raise
    except Exception as error:
        if exclusive and _says_exists(error):
            raise ObjectExistsError(
                f"{stored.uri} already exists, and if_exists is 'fail'; nothing was written"
            ) from error
        raise _failed(stored, verb, error) from error


def _says_exists(error: Exception) -> bool:
    # s3fs makes a FileExistsError of S3's own answer only, which names the condition; other stores' do not.
    response = getattr(error.__cause__, "response", None) or {}
    return isinstance(error, FileExistsError) or response.get("Error", {}).get("Code") == "PreconditionFailed"


def _failed(stored: StoredObject, verb: str, error: Exception) -> ObjectStorageError:
    connection = f" (connection {stored.conn_id})" if stored.conn_id else ""
    said = redact_urls(str(error))[:MESSAGE_LIMIT]
    return ObjectStorageError(f"could not {verb} {stored.uri}{connection}: {type(error).__name__}: {said}")


@contextlib.contextmanager
def _multipart_uploads(client: Any, key: str) -> Iterator[list[str]]:
    """Give the IDs of the multipart uploads that are begun for a key; s3fs keeps them to itself."""
    uploads: list[str] = []

    def note(parsed: Mapping[str, Any], **_: Any) -> None:
        if parsed.get("Key", key) == key and (upload := parsed.get("UploadId")):
            uploads.append(upload)

    client.meta.events.register("after-call.s3.CreateMultipartUpload", note)
    try:
        yield uploads
    finally:
        client.meta.events.unregister("after-call.s3.CreateMultipartUpload", note)


def _publish_locally(file: Path, target: Path, cancellation: Cancellation, *, exclusive: bool) -> None:
    """Copy beside the target under a hidden name, then rename: readers see all of it or what was there before."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with hidden_file(target) as hidden:
        shutil.copyfile(file, hidden)
        with hidden.open("rb") as copy:
            os.fsync(copy.fileno())
        cancellation.check()
        if exclusive:
            # A link fails where there is a file, and does so for one of two that try at the same time.
            os.link(hidden, target)
        else:
            hidden.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    except OSError as error:
        # Some file systems of a network take none for a folder; the object is there by now.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(folder)
