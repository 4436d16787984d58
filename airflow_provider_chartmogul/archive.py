# SPDX-License-Identifier: Apache-2.0
"""The zip that ChartMogul makes: opened, and every byte of it checked, in constant memory."""

from __future__ import annotations

import csv
import io
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from airflow_provider_chartmogul.api import ChartMogulError

_CHUNK = 1 << 20

#: A header line is looked for in so many bytes at the beginning of a CSV.
_HEADER_BYTES = 1 << 16

_ENCRYPTED = 0x1


class ArchiveError(ChartMogulError):
    """What was downloaded is not a whole and sound zip archive of the kind ChartMogul makes."""


@dataclass(frozen=True)
class ArchiveFacts:
    """
    What is known of an archive.

    ``members`` are the names in it; ``columns`` the header of its one CSV (None where there is no or more than
    one member, or no header).
    """

    members: tuple[str, ...]
    columns: tuple[str, ...] | None


def check_archive(path: Path) -> ArchiveFacts:
    """
    Read the whole archive once and check every member's length and CRC-32.

    :param path: a local file
    :raises ArchiveError: for what is no zip, is cut short or damaged, encrypted, compressed by another method
        than DEFLATE, or has a member whose name climbs out of a folder
    """
    if path.stat().st_size == 0:
        raise ArchiveError("what was downloaded is empty, where a zip archive should be")
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if not info.is_dir()]
            for info in members:
                _check_member(info)
            start = b""
            for info in members:
                with archive.open(info) as member:
                    start = member.read(_HEADER_BYTES)
                    # Reading to the end is what compares the CRC-32.
                    while member.read(_CHUNK):
                        pass
            columns = _header(start) if len(members) == 1 else None
            return ArchiveFacts(tuple(info.filename for info in members), columns)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
        with path.open("rb") as file:
            magic = file.read(4)
        kind = "a damaged or cut-short zip archive" if magic[:2] == b"PK" else "no zip archive"
        raise ArchiveError(
            f"what was downloaded ({path.stat().st_size} bytes) is {kind}: {error}. A retry downloads it "
            "again; should it be the same then, clear the task that creates the export and those after it."
        ) from error


def _check_member(info: zipfile.ZipInfo) -> None:
    name = PurePosixPath(info.filename.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts or ":" in name.parts[0]:
        raise ArchiveError(f"the archive has a member whose name climbs out of a folder: {info.filename!r}")
    if info.flag_bits & _ENCRYPTED:
        raise ArchiveError(f"the archive's member {info.filename!r} is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ArchiveError(
            f"the archive's member {info.filename!r} is compressed by method {info.compress_type}, "
            "which is neither 'stored' (0) nor DEFLATE (8)"
        )


def _header(start: bytes) -> tuple[str, ...] | None:
    text = start.decode("utf-8-sig", "replace")
    row = next(csv.reader(io.StringIO(text, newline="")), None)
    return tuple(row) if row else None
