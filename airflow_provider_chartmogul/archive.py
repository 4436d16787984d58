# SPDX-License-Identifier: Apache-2.0
"""
The zip that ChartMogul makes: opened, every byte of it checked, and its CSV taken out, in constant memory.

A zip member and a gzip file hold the same DEFLATE stream, so ``csv.gz`` is the member's own bytes in another frame:
inflated once, to check them, and never compressed again. Inflating is done by isal where it is installed (several
times as fast), else by zlib.
"""

from __future__ import annotations

import csv
import hashlib
import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import TracebackType
from typing import IO, Any

from airflow_provider_chartmogul.errors import ChartMogulError

_zlib: Any
try:
    from isal import isal_zlib as _zlib
except ImportError:  # no wheel for this machine
    _zlib = zlib

_CHUNK = 1 << 18
_INFLATED_CHUNK = 1 << 20

#: A header line is looked for in so many bytes at the beginning of a CSV.
_HEADER_BYTES = 1 << 16

_ENCRYPTED = 0x1
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_END_RECORD = struct.Struct("<4s6xH10x")

#: What zipfile raises for archives that are none.
_BAD_ZIP = (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, ValueError, RuntimeError, struct.error)

#: Of a gzip file (RFC 1952): DEFLATE, no name and no time in it, so that the same export gives the same bytes.
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"


class ArchiveError(ChartMogulError):
    """What was downloaded is not a whole and sound zip archive of the kind ChartMogul makes."""


@dataclass(frozen=True)
class Content:
    """
    What is known of an archive's content.

    ``members`` are the names in it; ``columns`` the header of its CSV, and ``rows`` the number of rows below it
    (None where not looked for, or where there is not just one CSV).
    """

    members: tuple[str, ...]
    columns: tuple[str, ...] | None
    rows: int | None = None


class Archive:
    """
    An archive on local disk, as a context manager.

    :param path: the archive
    :raises ArchiveError: at once for what is no zip, or has a member that is encrypted, is compressed by another
        method than DEFLATE, or has a name that climbs out of a folder; when read, for what is cut short or damaged
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] = path.open("rb")
        try:
            self._zip, self._members = self._read_directory()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def members(self) -> tuple[str, ...]:
        """The names of the files in it."""
        return tuple(info.filename for info in self._members)

    @property
    def csv_bytes(self) -> tuple[int, int]:
        """Size of the one CSV, compressed and as text, as the archive's directory says; raises as ``read_csv``."""
        info = self._csv()
        return (info.compress_size, info.file_size) if info else (0, 0)

    def check(self) -> Content:
        """
        Read everything and compare every member's size and CRC-32.

        :raises ArchiveError: for what is cut short or damaged
        """
        start = b""
        for info in self._members:
            start = b""
            for chunk in self._inflate(info):
                if len(start) < _HEADER_BYTES:
                    start += chunk[: _HEADER_BYTES - len(start)]
        return Content(self.members, _header(start) if len(self._members) == 1 else None)

    def read_csv(self) -> Iterator[bytes]:
        """
        Give the one CSV's text in chunks; after the last one it is known to be sound.

        :raises ArchiveError: for several CSVs, naming them, and for what is cut short or damaged
        """
        info = self._csv()
        return self._inflate(info) if info else iter(())

    def write_csv(self, target: IO[bytes]) -> Content:
        """
        Write the one CSV as text.

        :raises ArchiveError: as ``read_csv``
        """
        counter = _RowCounter()
        for chunk in self.read_csv():
            counter.feed(chunk)
            target.write(chunk)
        return Content(self.members, counter.columns, counter.rows)

    def write_csv_gz(self, target: IO[bytes]) -> Content:
        """
        Write the one CSV as gzip, its compressed bytes as they are.

        :raises ArchiveError: as ``read_csv``
        """
        counter = _RowCounter()
        info = self._csv()
        target.write(_GZIP_HEADER)
        if info is None or info.compress_type == zipfile.ZIP_STORED:
            deflate = _zlib.compressobj(level=1, wbits=-15) if _zlib is not zlib else zlib.compressobj(wbits=-15)
            for chunk in self.read_csv():
                counter.feed(chunk)
                target.write(deflate.compress(chunk))
            target.write(deflate.flush())
        else:
            for chunk in self._inflate(info, also=target.write):
                counter.feed(chunk)
        crc, size = (info.CRC, info.file_size) if info else (0, 0)
        target.write(struct.pack("<LL", crc, size & 0xFFFFFFFF))
        return Content(self.members, counter.columns, counter.rows)

    def _read_directory(self) -> tuple[zipfile.ZipFile, list[zipfile.ZipInfo]]:
        size = self._path.stat().st_size
        if size == 0:
            raise self._damaged("it is empty")
        try:
            archive = zipfile.ZipFile(self._file)
            entries = archive.infolist()
            self._require_all_entries(len(entries), len(archive.comment))
        except _BAD_ZIP as error:
            self._file.seek(0)
            if self._file.read(2) == b"PK":
                raise self._damaged(str(error)) from error
            raise ArchiveError(f"what was downloaded ({size} bytes) is no zip archive: {error}") from error
        # Not is_dir(): it fails on a member without a name.
        members = [info for info in entries if not info.filename.endswith("/")]
        for info in members:
            _check_member(info)
        return archive, members

    def _require_all_entries(self, found: int, comment_length: int) -> None:
        """Compare with the number the end record gives: zipfile does not, and misses members of a damaged directory."""
        self._file.seek(-(_END_RECORD.size + comment_length), io.SEEK_END)
        signature, said = _END_RECORD.unpack(self._file.read(_END_RECORD.size))
        if signature != b"PK\x05\x06" or said not in (found, 0xFFFF):
            raise self._damaged(f"its directory is said to have {said} entries, and has {found}")

    def _csv(self) -> zipfile.ZipInfo | None:
        """The one CSV; None in an archive without any file."""
        found = self._members
        if len(found) > 1:
            found = [info for info in found if info.filename.lower().endswith(".csv")] or found
        if len(found) > 1:
            raise ArchiveError(
                f"the archive holds several files, {', '.join(info.filename for info in found)}: they can be moved "
                "as they are, as zip, but not as one table"
            )
        return found[0] if found else None

    def _raw(self, info: zipfile.ZipInfo) -> Iterator[bytes]:
        """A member's bytes as they stand in the archive."""
        try:
            # It compares the member's own header with the directory.
            self._zip.open(info).close()
        except _BAD_ZIP as error:
            raise self._damaged(str(error)) from error
        self._file.seek(info.header_offset)
        _, name_length, extra_length = _LOCAL_HEADER.unpack(self._file.read(_LOCAL_HEADER.size))
        self._file.seek(name_length + extra_length, io.SEEK_CUR)
        left = info.compress_size
        while left:
            chunk = self._file.read(min(_CHUNK, left))
            if not chunk:
                raise self._damaged(f"{info.filename} is cut short")
            left -= len(chunk)
            yield chunk

    def _inflate(self, info: zipfile.ZipInfo, also: Callable[[bytes], Any] | None = None) -> Iterator[bytes]:
        """A member's content, checked; its raw bytes go to ``also`` on the way."""
        crc = size = 0
        for chunk in self._inflate_unchecked(info, also):
            crc = _zlib.crc32(chunk, crc)
            size += len(chunk)
            if size > info.file_size:
                break
            yield chunk
        if size != info.file_size:
            raise self._damaged(f"{info.filename} has another size than the archive's directory says")
        if crc != info.CRC:
            raise self._damaged(f"{info.filename} has a bad CRC-32")

    def _inflate_unchecked(self, info: zipfile.ZipInfo, also: Callable[[bytes], Any] | None) -> Iterator[bytes]:
        if info.compress_type == zipfile.ZIP_STORED:
            for raw in self._raw(info):
                if also is not None:
                    also(raw)
                yield raw
            return
        stream = _zlib.decompressobj(wbits=-15)
        try:
            for raw in self._raw(info):
                if stream.eof:
                    raise self._damaged(f"{info.filename} has bytes behind its end")
                if also is not None:
                    also(raw)
                # Bounded: a chunk may hold a thousand times its size.
                while raw and not stream.eof:
                    if chunk := stream.decompress(raw, _INFLATED_CHUNK):
                        yield chunk
                    raw = stream.unconsumed_tail
                if stream.unused_data:
                    raise self._damaged(f"{info.filename} has bytes behind its end")
            # What was held back for the bound of the last call.
            while not stream.eof and (chunk := stream.decompress(b"", _INFLATED_CHUNK)):
                yield chunk
        except (zlib.error, _zlib.error, EOFError) as error:
            raise self._damaged(f"{info.filename}: {error}") from error
        if not stream.eof:
            raise self._damaged(f"{info.filename} is cut short")

    def _damaged(self, why: str) -> ArchiveError:
        return ArchiveError(
            f"what was downloaded ({self._path.stat().st_size} bytes) is a damaged or cut-short zip archive: {why}. A "
            "retry downloads it again; should it be the same then, clear the task that creates the export and those "
            "after it."
        )


def sha256_of(path: Path) -> str:
    """A file's SHA-256 in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _RowCounter:
    """Counts the rows of a CSV as its chunks go by: line feeds outside quotes."""

    def __init__(self) -> None:
        self._start = b""
        self._line_feeds = 0
        self._in_quotes = False
        self._last = b""

    def feed(self, chunk: bytes) -> None:
        if len(self._start) < _HEADER_BYTES:
            self._start += chunk[: _HEADER_BYTES - len(self._start)]
        # Between two quotes is either inside or outside; an escaped quote is two, with nothing between them.
        parts = chunk.split(b'"')
        self._line_feeds += b"".join(parts[self._in_quotes :: 2]).count(b"\n")
        self._in_quotes ^= len(parts) % 2 == 0
        self._last = chunk[-1:] or self._last

    @property
    def columns(self) -> tuple[str, ...] | None:
        return _header(self._start)

    @property
    def rows(self) -> int:
        records = self._line_feeds + (self._last not in (b"", b"\n"))
        return max(0, records - 1)


def _check_member(info: zipfile.ZipInfo) -> None:
    name = PurePosixPath(info.filename.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts or PureWindowsPath(info.filename).drive:
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
