# SPDX-License-Identifier: Apache-2.0
"""
Temporary files and folders with hidden names, each locked for as long as its process lives.

The lock tells what a killed process left behind from what another one is using, so that the next process can remove
the leftovers.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

#: Prefix of the names of hidden files.
HIDDEN_PREFIX = ".chartmogul-"
_FOLDER_PREFIX = ".chartmogul_tmp-"

#: The file that is locked for a folder.
_LOCK = ".lock"


@contextlib.contextmanager
def temporary_folder(parent: str | None) -> Iterator[Path]:
    """
    Create a hidden folder, and remove it with its content in the end.

    :param parent: where to create it; ``None`` for the system's folder for temporary files
    """
    parent_folder = Path(parent or tempfile.gettempdir())
    with _create_locked(parent_folder, _FOLDER_PREFIX, lambda path: path.mkdir(mode=0o700)) as folder:
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def hidden_file(target: Path) -> Iterator[Path]:
    """
    Create an empty hidden file beside its target, and remove it in the end unless it was renamed.

    :param target: the name that it will be given
    """
    # A digest, since the target's name may be as long as a name can be.
    prefix = f"{HIDDEN_PREFIX}{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}-"
    with _create_locked(target.parent, prefix, lambda path: path.touch(exist_ok=False)) as hidden:
        try:
            yield hidden
        finally:
            hidden.unlink(missing_ok=True)


@contextlib.contextmanager
def _create_locked(folder: Path, prefix: str, create: Callable[[Path], None]) -> Iterator[Path]:
    """Create a path with a unique name and hold its lock; remove abandoned ones with the same prefix first."""
    _remove_abandoned(folder, prefix)
    while True:
        path = folder / f"{prefix}{uuid.uuid4().hex}"
        create(path)
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(_lock(path))
            except (FileNotFoundError, BlockingIOError):
                # Another process took it for abandoned before it was locked.
                continue
            except OSError:
                # The file system has no locks. If this process is killed, the path stays, since nobody can tell
                # that it is abandoned.
                pass
            if not path.exists():
                continue
            yield path
            return


def _remove_abandoned(folder: Path, prefix: str) -> None:
    """Remove what no process has locked, except what cannot be removed: it may belong to another user."""
    with contextlib.suppress(OSError):
        for path in list(folder.iterdir()):
            if path.name.startswith(prefix):
                with contextlib.suppress(OSError), _lock(path):
                    if path.is_dir():
                        shutil.rmtree(path)
                    else:
                        path.unlink()


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold the lock of a file, or of a file inside a folder."""
    # NFS locks only what is open for writing, which a folder cannot be.
    is_folder = stat.S_ISDIR(path.lstat().st_mode)
    lock_path, flags = (path / _LOCK, os.O_CREAT) if is_folder else (path, 0)
    # Do not follow a link and do not block on a pipe that somebody put there.
    descriptor = os.open(lock_path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
