# SPDX-License-Identifier: Apache-2.0
"""
Read a zip archive that holds a CSV: check every CRC-32 and extract the CSV, in constant memory.

What Python's ``zipfile`` opens is an archive, and a member with the right CRC-32 is sound. ``zipfile`` reads the
directory; the members are inflated here, by isal where it is installed (several times as fast as zlib). A zip member
and a gzip file hold the same DEFLATE stream, so ``csv.gz`` is the member's stream in another frame, never compressed
again.
"""

from __future__ import annotations

import contextlib
import hashlib
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import TracebackType
from typing import IO, Any

from airflow_provider_chartmogul.exceptions import ArchiveError, TableError
from airflow_provider_chartmogul.formats.csv_text import CsvScanner

_zlib: Any
try:
    from isal import isal_zlib as _zlib
except ImportError:  # no wheel for this machine
    _zlib = zlib

#: Larger chunks are slower: they leave the processor's cache between two passes, and malloc maps new pages for them.
CHUNK_BYTES = 1 << 16

#: Errors raised by inflating damaged data.
INFLATE_ERRORS = (zlib.error, _zlib.error, EOFError)

#: Length of a member's own header without its name and extra fields, which come next.
HEADER_BYTES = 30

_ENCRYPTED = 0x1

#: What zipfile raises for a file that it cannot read.
_ZIP_ERRORS = (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, ValueError, RuntimeError, struct.error)

#: Of a gzip file (RFC 1952): DEFLATE, without name and time, so that the same archive gives the same bytes.
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"


@dataclass(frozen=True)
class Content:
    """
    What is known of an archive's content.

    :param members: the names of its files
    :param columns: the header of its CSV; empty for a CSV without one, ``None`` where it is unknown
    :param rows: the number of rows of its CSV; ``None`` where they were not counted
    """

    members: tuple[str, ...]
    columns: tuple[str, ...] | None
    rows: int | None = None


@dataclass(frozen=True)
class InflatedMember:
    """
    The result of reading a member that is compressed by DEFLATE.

    :param start: offset of its first compressed byte in the archive
    :param compressed_size: bytes of its DEFLATE stream
    :param size: bytes of its content
    :param crc: CRC-32 of its content
    :param scanner: its content as a CSV
    """

    start: int
    compressed_size: int
    size: int
    crc: int
    scanner: CsvScanner


class Archive:
    """
    A zip archive on local disk, used as a context manager.

    :param path: the archive
    :param first_member: waits for the thread that reads the member at the archive's beginning, and returns its result;
        its argument is the member's size in the directory. ``None`` if no thread reads it
    :raises ArchiveError: if it cannot be opened, or if a member is encrypted, is compressed by another method than
        DEFLATE, or has a name that leads out of a folder; while it is read, if a member is truncated or damaged
    """

    def __init__(self, path: Path, first_member: Callable[[int], InflatedMember | None] | None = None) -> None:
        self._path = path
        self._first_member = first_member
        with contextlib.ExitStack() as stack:
            self._file = stack.enter_context(path.open("rb"))
            self._entries = self._read_directory()
            self._stack = stack.pop_all()
        # Not is_dir(), which fails on an empty name.
        self._files = [info for info in self._entries if not info.filename.endswith("/")]

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def members(self) -> tuple[str, ...]:
        """The names of the files in it."""
        return tuple(info.filename for info in self._files)

    @property
    def csv_bytes(self) -> tuple[int, int]:
        """Sizes of the CSV in bytes, compressed and as text, according to the archive's directory."""
        info = self._find_csv()
        return (info.compress_size, info.file_size) if info else (0, 0)

    def check(self) -> Content:
        """
        Read every member and compare its CRC-32.

        :raises ArchiveError: if a member is truncated or damaged
        """
        columns = None
        for info in self._entries:
            if (inflated := self._inflated_during_download(info)) is not None:
                scanner = inflated.scanner
            else:
                scanner = CsvScanner(count_rows=False)
                for chunk in self._read(info):
                    scanner.feed(chunk)
            if self._files == [info]:
                columns = scanner.columns
        return Content(self.members, columns)

    def read_csv(self) -> Iterator[bytes]:
        """
        Iterate over the CSV's text in chunks; its CRC-32 is compared after the last one.

        :raises ArchiveError: if the CSV is truncated or damaged
        :raises TableError: if there are several files that could be the CSV
        """
        info = self._find_csv()
        return self._read(info) if info else iter(())

    def read_csvs(self) -> Iterator[Iterator[bytes]]:
        """
        Iterate over the CSVs, each as chunks of its text: the files named ``.csv``, or all files if there is none.

        :raises ArchiveError: if a file is truncated or damaged
        """
        return map(self._read, self._csv_files)

    def write_csv(self, target: HashedFile) -> Content:
        """
        Write the CSV as text.

        :raises ChartMogulError: as ``read_csv``
        """
        scanner = CsvScanner()
        for chunk in self.read_csv():
            scanner.feed(chunk)
            target.write(chunk)
        return Content(self.members, scanner.columns, scanner.rows)

    def write_csv_gz(self, target: HashedFile) -> Content:
        """
        Write the CSV as gzip, with its compressed bytes unchanged.

        :raises ChartMogulError: as ``read_csv``
        """
        info = self._find_csv()
        if info is not None and (inflated := self._write_first_member_gz(info, target)) is not None:
            return Content(self.members, inflated.scanner.columns, inflated.scanner.rows)
        scanner = CsvScanner()
        if info is None or info.compress_type == zipfile.ZIP_STORED:
            compressor = _zlib.compressobj(wbits=31)
            for chunk in self.read_csv():
                scanner.feed(chunk)
                target.write(compressor.compress(chunk))
            target.write(compressor.flush())
        else:
            size = 0
            target.write(_GZIP_HEADER)
            for chunk in self._read(info, target.write):
                scanner.feed(chunk)
                size += len(chunk)
            target.write(_gzip_trailer(info.CRC, size))
        return Content(self.members, scanner.columns, scanner.rows)

    def _write_first_member_gz(self, info: zipfile.ZipInfo, target: HashedFile) -> InflatedMember | None:
        """Write a member as gzip if it was read during the download; otherwise return ``None`` and write nothing."""
        if self._first_member is None or info.header_offset:
            return None
        # Copied before the result is requested, since the thread may still be reading.
        target.write(_GZIP_HEADER)
        for chunk in self._read_raw(info):
            target.write(chunk)
        if (inflated := self._inflated_during_download(info)) is None:
            target.start_over()
        else:
            target.write(_gzip_trailer(inflated.crc, inflated.size))
        return inflated

    def _read_directory(self) -> list[zipfile.ZipInfo]:
        try:
            archive = zipfile.ZipFile(self._file)
            entries = archive.infolist()
            for info in entries:
                _check_member(info)
                # Opening compares the name in the member's own header with the directory's.
                archive.open(info).close()
            # A wrong count or length hides members, which zipfile does not notice. Nothing stands in front of the
            # directory of an archive without members.
            hides_all = not entries and archive.start_dir > 0
            if hides_all or any(b"PK\x01\x02" in info.extra + info.comment for info in entries):
                raise zipfile.BadZipFile("its directory does not list all members")
        except _ZIP_ERRORS as error:
            raise self._unsound(str(error)) from error
        return entries

    @property
    def _csv_files(self) -> list[zipfile.ZipInfo]:
        return [info for info in self._files if info.filename.lower().endswith(".csv")] or self._files

    def _find_csv(self) -> zipfile.ZipInfo | None:
        """Return the only file, or the only one named ``.csv``; ``None`` in an archive without files."""
        files = self._csv_files
        if len(files) > 1:
            raise TableError(
                f"the archive holds several files ({', '.join(info.filename for info in files)}), which do not make "
                "one table; use output_format='zip' to transfer the archive as it is"
            )
        return files[0] if files else None

    def _read(self, info: zipfile.ZipInfo, write_raw: Callable[[bytes], Any] = len) -> Iterator[bytes]:
        """Iterate over a member's content, and check it; its compressed bytes go to ``write_raw``."""
        chunks = self._read_raw(info)
        if info.compress_type == zipfile.ZIP_DEFLATED:
            chunks = self._name_errors(info.filename, inflate(chunks, write_raw))
        crc = size = 0
        for chunk in chunks:
            size += len(chunk)
            if size > info.file_size:
                raise self._unsound(f"{info.filename} is larger than the archive's directory says")
            crc = _zlib.crc32(chunk, crc)
            yield chunk
        if crc != info.CRC:
            raise self._unsound(f"{info.filename} has a bad CRC-32")

    def _read_raw(self, info: zipfile.ZipInfo) -> Iterator[bytes]:
        """Iterate over a member's bytes as they stand in the archive."""
        self._file.seek(self._data_start(info))
        left = info.compress_size
        while chunk := self._file.read(min(CHUNK_BYTES, left)):
            left -= len(chunk)
            yield chunk

    def _data_start(self, info: zipfile.ZipInfo) -> int:
        """Return where a member's bytes begin."""
        self._file.seek(info.header_offset)
        return info.header_offset + data_start(self._file.read(HEADER_BYTES))

    def _inflated_during_download(self, info: zipfile.ZipInfo) -> InflatedMember | None:
        """Return the result of reading a member during the download; ``None`` unless the directory confirms it."""
        if self._first_member is None or info.header_offset or info.compress_type != zipfile.ZIP_DEFLATED:
            return None
        if (inflated := self._first_member(info.file_size)) is None:
            return None
        expected = (self._data_start(info), info.compress_size, info.file_size, info.CRC)
        return inflated if (inflated.start, inflated.compressed_size, inflated.size, inflated.crc) == expected else None

    def _name_errors(self, name: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
        try:
            yield from chunks
        except INFLATE_ERRORS as error:
            raise self._unsound(f"{name}: {error}") from error

    def _unsound(self, reason: str) -> ArchiveError:
        return ArchiveError(
            f"the downloaded file ({self._path.stat().st_size} bytes) is not a sound zip archive: {reason}. A retry "
            "downloads it again; if the result is the same, the file is damaged at its source."
        )


def inflate(chunks: Iterator[bytes], write_raw: Callable[[bytes], Any]) -> Iterator[bytes]:
    """
    Iterate over the content of a DEFLATE stream; its own bytes, without any that follow, go to ``write_raw``.

    :raises Exception: one of ``INFLATE_ERRORS``, if the stream is damaged or truncated
    """
    stream = _zlib.decompressobj(wbits=-15)
    for chunk in chunks:
        left = chunk
        # Bounded, since a chunk may expand to a thousand times its size.
        while left and not stream.eof:
            if text := stream.decompress(left, CHUNK_BYTES):
                yield text
            left = stream.unconsumed_tail
        write_raw(chunk[: len(chunk) - len(stream.unused_data)])
        if stream.eof:
            return
    # What the bound of the last call held back.
    while not stream.eof and (text := stream.decompress(b"", CHUNK_BYTES)):
        yield text
    if not stream.eof:
        raise EOFError("the DEFLATE stream is truncated")


def data_start(header: bytes) -> int:
    """
    Return how many bytes after the beginning of a member's header its data begins.

    :param header: the first ``HEADER_BYTES`` of it, or more
    """
    # Its last fields are the lengths of the name and of the extra fields.
    name, extra = struct.unpack_from("<HH", header, HEADER_BYTES - 4)
    return HEADER_BYTES + int(name) + int(extra)


def crc32(data: bytes, value: int) -> int:
    """Return the CRC-32 of all data so far; ``value`` is that of the data before this piece."""
    return int(_zlib.crc32(data, value))


class HashedFile:
    """
    Write a file and compute its SHA-256.

    :param file: an empty file, opened for writing
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()

    def write(self, data: bytes) -> None:
        """Append data."""
        self._file.write(data)
        self._sha256.update(data)

    def start_over(self) -> None:
        """Truncate the file, so that it can be written again."""
        self._file.seek(0)
        self._file.truncate()
        self._sha256 = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """SHA-256 of the content so far, as hexadecimal digits."""
        return self._sha256.hexdigest()


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _gzip_trailer(crc: int, size: int) -> bytes:
    return struct.pack("<LL", crc, size & 0xFFFFFFFF)


def _check_member(info: zipfile.ZipInfo) -> None:
    name = PurePosixPath(info.filename.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts or PureWindowsPath(info.filename).drive:
        raise ArchiveError(f"the name of the archive's member {info.filename!r} leads out of the archive's folder")
    if info.flag_bits & _ENCRYPTED:
        raise ArchiveError(f"the archive's member {info.filename!r} is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ArchiveError(
            f"the archive's member {info.filename!r} is compressed by method {info.compress_type}; supported are "
            "0 (stored) and 8 (DEFLATE)"
        )
