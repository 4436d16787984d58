# SPDX-License-Identifier: Apache-2.0
"""Open gzip files by isal where it is installed, which is several times as fast as zlib."""

from __future__ import annotations

import zlib
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

_gzip: Any
_zlib: Any
try:
    from isal import igzip as _gzip
    from isal import isal_zlib as _zlib
except ImportError:  # isal has no wheel for some platforms
    import gzip as _gzip

    _zlib = zlib

#: Errors that reading a damaged file raises.
GZIP_ERRORS = (EOFError, _gzip.BadGzipFile, _zlib.error, zlib.error)

_LEVEL = 2


def open_to_write(path: Path, *, compressed: bool, stack: ExitStack) -> IO[bytes]:
    """
    Create a file, compressed or not; the same content gives the same bytes.

    :param stack: closes the file when it is closed itself
    """
    file: IO[bytes] = stack.enter_context(path.open("wb"))
    if compressed:
        # Neither a name nor a time in the header.
        file = stack.enter_context(_gzip.GzipFile("", "wb", _LEVEL, file, mtime=0))
    return file


def open_to_read(path: Path, *, compressed: bool) -> IO[bytes]:
    """Open a file that ``open_to_write`` has created."""
    file: IO[bytes] = _gzip.GzipFile(path, "rb") if compressed else path.open("rb")
    return file
