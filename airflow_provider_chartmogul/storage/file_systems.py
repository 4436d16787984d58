# SPDX-License-Identifier: Apache-2.0
"""
Objects in the file systems of Airflow's providers (fsspec): S3, Google Cloud Storage, Azure, and others.

Nothing is opened for writing at the destination: on every fsspec file system, an exception inside
``with path.open("wb")`` commits the truncated object. Object stores get ``put_file``, which shows the object when its
upload is complete; other file systems get a hidden name, then a rename.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import inspect
import math
import os
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from airflow_provider_chartmogul.exceptions import DestinationError
from airflow_provider_chartmogul.runtime.cancellation import Cancellation
from airflow_provider_chartmogul.runtime.temporary_files import HIDDEN_PREFIX

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

#: The extra of this package that installs a scheme's file system.
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

#: The module of an extra's file system, in Airflow's provider for the store.
_MODULES = {
    "amazon": "airflow.providers.amazon.aws.fs.s3",
    "google": "airflow.providers.google.cloud.fs.gcs",
    "microsoft-azure": "airflow.providers.microsoft.azure.fs.adls",
}

_PART_BYTES = 8 << 20
_MAX_PARTS = 10_000
_PARALLEL_PARTS = 3


class FileSystemObject:
    """
    An object in an fsspec file system, which is opened when it is first used.

    :param scheme: the scheme that the file system is registered for
    :param uri: the object's URI, without a connection
    :param conn_id: the Airflow connection; ``None`` for the credentials of the environment
    """

    def __init__(self, scheme: str, uri: str, conn_id: str | None) -> None:
        self._scheme = scheme
        self._uri = uri
        self._conn_id = conn_id
        self._extra = EXTRAS.get(scheme)

    @cached_property
    def _fs(self) -> AbstractFileSystem:
        if self._extra:
            remedy = f"pip install 'airflow-provider-chartmogul[{self._extra}]'"
        else:
            remedy = (
                "install the Airflow provider of its file system; this package has extras for "
                f"{', '.join(sorted(EXTRAS))}, and file needs none"
            )
        if self._extra == "microsoft-azure" and self._conn_id is None:
            # Older versions of adlfs are anonymous by default.
            os.environ.setdefault("AZURE_STORAGE_ANON", "false")
        try:
            return self._open_file_system()
        except ValueError as error:
            if "No filesystem registered" not in str(error):
                raise
            raise DestinationError(f"this worker has no file system for {self._scheme}://: {remedy}") from error
        except ImportError as error:
            raise DestinationError(
                f"the file system for {self._scheme}:// is not installed on this worker: {remedy} ({error})"
            ) from error

    def _open_file_system(self) -> AbstractFileSystem:
        if self._extra:
            # Airflow's registry would import the file systems of all installed providers first.
            return import_module(_MODULES[self._extra]).get_fs(self._conn_id)
        from airflow.providers.common.compat.sdk import io as airflow_io  # type: ignore[attr-defined]

        # The base of ObjectStoragePath, a class that fails in Airflow 3.0 with current universal-pathlib. Not attach(),
        # whose cache keeps file systems across forks.
        return import_module(f"{airflow_io.__name__}.store").ObjectStore(self._scheme, self._conn_id).fs

    @property
    def _path(self) -> str:
        return str(self._fs._strip_protocol(self._uri))

    def sibling(self, uri: str) -> FileSystemObject:
        """Return another object that shares the open file system of this one."""
        other = FileSystemObject(self._scheme, uri, self._conn_id)
        other._fs = self._fs
        return other

    def prepare(self) -> None:
        """
        Open the file system.

        :raises DestinationError: if it is not installed
        """
        _ = self._fs

    def exists(self) -> bool:
        self._fs.invalidate_cache()
        try:
            # Neither exists(), which is true for a prefix of other keys, nor isfile(), which hides missing permissions.
            return bool(self._fs.info(self._path)["type"] == "file")
        except FileNotFoundError:
            return False

    def size(self) -> int | None:
        size = self._fs.info(self._path).get("size")
        return None if size is None else int(size)

    def modified_at(self) -> datetime | None:
        try:
            modified: datetime = self._fs.modified(self._path)
        except NotImplementedError:
            return None
        return modified if modified.tzinfo else modified.replace(tzinfo=UTC)

    def equals(self, file: Path) -> bool:
        """Read the whole object, since stores name checksums differently or have none."""
        if self.size() != file.stat().st_size:
            return False
        theirs, ours = hashlib.sha256(), hashlib.sha256()
        start = 0
        with file.open("rb") as opened:
            while part := opened.read(_PART_BYTES):
                ours.update(part)
                theirs.update(self._fs.cat_file(self._path, start=start, end=start + len(part)))
                start += len(part)
        return theirs.digest() == ours.digest()

    def find(self) -> Iterator[str]:
        """Iterate over the paths of the objects below this prefix, relative to it."""
        self._fs.invalidate_cache()
        prefix = self._path.rstrip("/") + "/" if self._path else ""
        for path in sorted(self._fs.find(prefix)):
            name = path.removeprefix(prefix)
            if name != path and name and not name.rpartition("/")[2].startswith(HIDDEN_PREFIX):
                yield name

    def open(self) -> IO[bytes]:
        """Open the object for reading; only the requested ranges are downloaded."""
        file: IO[bytes] = self._fs.open(self._path, "rb")
        return file

    def metadata(self) -> Mapping[str, str]:
        """Return the object's own metadata; empty for stores without metadata."""
        self._fs.invalidate_cache()
        if self._extra == "amazon":
            found = self._fs.metadata(self._path)
        else:
            found = self._fs.info(self._path).get("metadata") if self._extra else None
        # Stores return metadata as HTTP headers, whose names are not case-sensitive.
        return {str(name).lower(): value for name, value in (found or {}).items()}

    def link(self, file: Path) -> bool:
        """Return ``False``: the object is not a local file."""
        return False

    def read_parts(self, part_bytes: int) -> Iterator[bytes]:
        """Iterate over the object's content."""
        self._fs.invalidate_cache()
        size, start = self._fs.info(self._path)["size"], 0
        while start < size:
            part = self._fs.cat_file(self._path, start=start, end=min(start + part_bytes, size))
            if not part:
                raise EOFError(f"{start} bytes instead of {size}")
            start += len(part)
            yield part

    def publish(
        self,
        file: Path,
        cancellation: Cancellation,
        content_type: str,
        options: Mapping[str, Any],
        *,
        exclusive: bool,
        metadata: Mapping[str, str],
    ) -> None:
        """
        Upload a file, all of it or nothing.

        :param metadata: added to the object's own metadata, in stores that support it
        :raises FileExistsError: if ``exclusive`` and the object exists, from any store but S3
        """
        put_options = dict(options)
        self._add_metadata(put_options, metadata)
        self._complete_put_options(put_options, file.stat().st_size, content_type, exclusive=exclusive)
        cancellation.check()
        if self._extra or not _can_rename(self._fs):
            self._upload(file, self._path, put_options, cancellation)
            return
        folder, _, name = self._path.rpartition("/")
        hidden = f"{folder}/{HIDDEN_PREFIX}{uuid.uuid4().hex}"
        self._fs.makedirs(folder or "/", exist_ok=True)
        try:
            self._upload(file, hidden, put_options, cancellation)
            if exclusive:
                self._fail_if_exists()
            self._fs.mv(hidden, f"{folder}/{name}")
        except BaseException:
            with contextlib.suppress(Exception):
                self._fs.rm_file(hidden)
            raise

    def _upload(self, file: Path, path: str, options: Mapping[str, Any], cancellation: Cancellation) -> None:
        if getattr(self._fs, "async_impl", False):
            cancellation.run(self._fs.loop, self._put_file(file, path, options))
        else:
            # It uploads in this thread, where a timeout interrupts it.
            self._fs.put_file(str(file), path, **options)

    async def _put_file(self, file: Path, path: str, options: Mapping[str, Any]) -> None:
        """Upload as the file system's ``put_file`` does; if cancelled, leave no multipart upload open."""
        if self._extra != "amazon":
            # Incomplete uploads at Google and Azure are invisible, and removed after a week.
            await self._fs._put_file(str(file), path, **options)
            return
        # s3fs passes options to the beginning of a multipart upload only, but S3 requires some with each part, such as
        # a customer's key. The file system's own options it passes to every call that has such a parameter.
        self._fs.s3_additional_kwargs = {**self._fs.s3_additional_kwargs, **options}
        bucket, key, _ = self._fs.split_path(path)
        with _multipart_uploads(await self._fs.set_session(), key) as uploads:
            try:
                await self._fs._put_file(str(file), path, **options)
            except asyncio.CancelledError:
                # s3fs aborts the upload on an Exception, which this is not.
                for upload in uploads:
                    with contextlib.suppress(Exception):
                        await self._fs._call_s3("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=upload)
                raise

    def _add_metadata(self, options: dict[str, Any], metadata: Mapping[str, str]) -> None:
        if self._extra == "microsoft-azure":
            # adlfs has no parameter for metadata, but it passes on headers, and Azure reads metadata from headers.
            headers = {f"x-ms-meta-{name}": value for name, value in metadata.items()}
            options["headers"] = {**options.get("headers", {}), **headers}
        elif self._extra:
            name = "Metadata" if self._extra == "amazon" else "metadata"
            options[name] = {**(options.get(name) or {}), **metadata}

    def _complete_put_options(self, options: dict[str, Any], size: int, content_type: str, *, exclusive: bool) -> None:
        """
        Add options of the file system's ``put_file`` to the user's.

        :raises FileExistsError: if ``exclusive``, the object exists, and the file system cannot let the store check it
        """
        if self._extra == "amazon":
            # The defaults of s3fs hold 10 parts of 50 MB in memory.
            options.setdefault("chunksize", max(_PART_BYTES, math.ceil(size / _MAX_PARTS)))
            options.setdefault("max_concurrency", _PARALLEL_PARTS)
            # s3fs would call x.csv.gz text/csv, and readers would not decompress it.
            options.setdefault("ContentType", content_type)
            if exclusive:
                self._add_create_mode(options)
        elif self._extra == "google":
            # One chunk at a time, and gcsfs's default is 50 MB. Google requires multiples of 256 KiB, and does not
            # limit the number of chunks.
            options.setdefault("chunksize", _PART_BYTES)
            options.setdefault("content_type", content_type)
            if exclusive:
                self._add_create_mode(options)
        elif self._extra == "microsoft-azure":
            from azure.storage.blob import ContentSettings

            # Blocks have 4 MiB, the client's default. It would read up to 64 MiB as a whole, a limit that adlfs has
            # no option for.
            options.setdefault("max_concurrency", _PARALLEL_PARTS)
            if (config := getattr(self._fs.service_client, "_config", None)) is not None:
                config.max_single_put_size = _PART_BYTES
            options.setdefault("content_settings", ContentSettings(content_type=content_type))
            # Always set, since adlfs has changed its default.
            options["overwrite"] = not exclusive
        elif exclusive:
            self._fail_if_exists()

    def _add_create_mode(self, options: dict[str, Any]) -> None:
        # Before 2024.12, s3fs and gcsfs accept any option, ignore this one, and overwrite.
        if "mode" in inspect.signature(self._fs._put_file).parameters:
            options["mode"] = "create"
        else:
            self._fail_if_exists()

    def _fail_if_exists(self) -> None:
        if self.exists():
            raise FileExistsError(self._uri)


def _can_rename(fs: AbstractFileSystem) -> bool:
    """Whether a file system has its own way to rename, which object stores do not have; else fsspec copies."""
    from fsspec import AbstractFileSystem

    # Of the instance, since fsspec derives the method from an asynchronous one there.
    return getattr(fs.mv, "__func__", None) is not AbstractFileSystem.mv


@contextlib.contextmanager
def _multipart_uploads(client: Any, key: str) -> Iterator[list[str]]:
    """Collect the IDs of the multipart uploads that s3fs begins for a key."""
    uploads: list[str] = []

    def add(parsed: Mapping[str, Any], **_: Any) -> None:
        if parsed.get("Key", key) == key and (upload := parsed.get("UploadId")):
            uploads.append(upload)

    client.meta.events.register("after-call.s3.CreateMultipartUpload", add)
    try:
        yield uploads
    finally:
        client.meta.events.unregister("after-call.s3.CreateMultipartUpload", add)
