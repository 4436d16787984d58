# SPDX-License-Identifier: Apache-2.0
"""A local file as a destination: written under a hidden name, then renamed."""

from __future__ import annotations

import contextlib
import errno
import filecmp
import os
import shutil
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from airflow_provider_chartmogul.exceptions import DestinationError
from airflow_provider_chartmogul.runtime.cancellation import Cancellation
from airflow_provider_chartmogul.runtime.temporary_files import HIDDEN_PREFIX, hidden_file

#: What file systems say that do not have an operation, such as hard links on gcsfuse or SMB, or fsync of a folder.
_UNSUPPORTED = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.EBADF, errno.EMLINK)


class LocalFile:
    """
    A file of this machine, or of a mounted file system.

    :param path: its absolute path
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def sibling(self, uri: str) -> LocalFile:
        """Return another file."""
        return LocalFile(uri.removeprefix("file://"))

    def prepare(self) -> None:
        """Nothing has to be installed."""

    def exists(self) -> bool:
        return self._path.is_file()

    def size(self) -> int:
        return self._path.stat().st_size

    def modified_at(self) -> datetime:
        return datetime.fromtimestamp(self._path.stat().st_mtime, UTC)

    def equals(self, file: Path) -> bool:
        return filecmp.cmp(file, self._path, shallow=False)

    def find(self) -> Iterator[str]:
        """Iterate over the paths of the files below this folder, relative to it."""
        for path in sorted(self._path.rglob("*")):
            # Files with hidden names are still being written.
            if path.is_file() and not path.name.startswith(HIDDEN_PREFIX):
                yield str(path.relative_to(self._path))

    def open(self) -> IO[bytes]:
        """Open the file for reading."""
        return self._path.open("rb")

    def metadata(self) -> Mapping[str, str]:
        """Return an empty dictionary, since files have no metadata of their own."""
        return {}

    def link(self, file: Path) -> bool:
        """
        Create a hard link to the file, which must only be read.

        :param file: the link
        :return: ``False`` if it cannot be created: on another disk, without permission, or if the file does not exist
        """
        try:
            # os.link() creates a link to a symbolic link itself.
            os.link(self._path.resolve(), file)
        except OSError:
            return False
        return True

    def read_parts(self, part_bytes: int) -> Iterator[bytes]:
        """Iterate over the file's content."""
        with self._path.open("rb") as file:
            while part := file.read(part_bytes):
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
        """Publish a copy: readers see the whole file, or the one that was there before."""
        if options:
            raise DestinationError("upload_options are for object stores; file:// has none")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with hidden_file(self._path) as hidden:
            shutil.copyfile(file, hidden)
            _sync(hidden)
            cancellation.check()
            if exclusive:
                _rename_exclusively(hidden, self._path)
            else:
                hidden.replace(self._path)
        _sync(self._path.parent)


def _rename_exclusively(hidden: Path, target: Path) -> None:
    """Rename a file unless there is one with the new name; of two attempts at the same time, one fails."""
    try:
        os.link(hidden, target)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        # Reserve the name by an empty file, which is replaced at once.
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        try:
            hidden.replace(target)
        except BaseException:
            target.unlink(missing_ok=True)
            raise


def _sync(path: Path) -> None:
    """Write a file or folder to the disk, if its file system can."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    finally:
        with contextlib.suppress(OSError):
            os.close(descriptor)
