# SPDX-License-Identifier: Apache-2.0
"""
Local files that are not there to stay: hidden names, held by a lock for as long as who made them lives.

So what a killed process left can be told from what another is working on, and the next one removes it.
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

_PREFIX = ".chartmogul-"
_FOLDER_PREFIX = ".chartmogul_scratch-"

#: In a folder: what is locked for it.
_LOCK = ".lock"


@contextlib.contextmanager
def temporary_folder(parent: str | None) -> Iterator[Path]:
    """
    Make a hidden folder; it is gone afterwards, with all that is in it.

    :param parent: where; None: the system's folder for temporary files
    """
    with _held(Path(parent or tempfile.gettempdir()), _FOLDER_PREFIX, lambda path: path.mkdir(mode=0o700)) as folder:
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def hidden_file(target: Path) -> Iterator[Path]:
    """
    Give a hidden, empty file beside the target; it is gone afterwards, unless it was renamed.

    :param target: what it is to become
    """
    # By a digest of the name, which may be as long as a name can be.
    prefix = f"{_PREFIX}{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}-"
    with _held(target.parent, prefix, lambda path: path.touch(exist_ok=False)) as hidden:
        try:
            yield hidden
        finally:
            hidden.unlink(missing_ok=True)


@contextlib.contextmanager
def _held(folder: Path, prefix: str, make: Callable[[Path], None]) -> Iterator[Path]:
    """Make something under a name of its own and hold its lock; remove what nobody holds any more."""
    _remove_abandoned(folder, prefix)
    while True:
        path = folder / f"{prefix}{uuid.uuid4().hex}"
        make(path)
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(_lock(path))
            except (FileNotFoundError, BlockingIOError):
                # Between making and locking, another took it for abandoned.
                continue
            except OSError:
                # A file system without locks: should we be killed, nobody can tell that this is abandoned, and it
                # stays. What is another's stays too.
                pass
            if not path.exists():
                continue
            yield path
            return


def _remove_abandoned(folder: Path, prefix: str) -> None:
    """What cannot be removed is left alone: it may be another user's."""
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
    """Hold the lock of a file, or that of a folder, which is a file in it."""
    # For writing, which a folder cannot be opened for: on NFS, nothing else is locked.
    in_folder = stat.S_ISDIR(path.lstat().st_mode)
    place, flags = (path / _LOCK, os.O_CREAT) if in_folder else (path, 0)
    # Neither a link nor a pipe that somebody put there may lead or hold us.
    descriptor = os.open(place, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
