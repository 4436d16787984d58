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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import TracebackType
from typing import IO, Any

from airflow_provider_chartmogul.exceptions import ArchiveError

_zlib: Any
try:
    from isal import isal_zlib as _zlib
except ImportError:  # no wheel for this machine
    _zlib = zlib

#: What a pass over a chunk reads is still in the processor's cache for the next pass; larger chunks are slower.
_CHUNK = 1 << 16
_INFLATED_CHUNK = 1 << 18

#: A header line is looked for in so many bytes at the beginning of a CSV.
_HEADER_BYTES = 1 << 16

#: All bytes that do not tell where a row of a CSV ends.
_NO_MARKS = bytes(set(range(256)).difference(b'"\n'))

# Of a member's flags: encrypted, sizes and CRC-32 behind its bytes, compressed as a patch, encrypted in another way.
_ENCRYPTED, _DESCRIBED_BEHIND, _PATCH, _ENCRYPTED_STRONGLY = 0x1, 0x8, 0x20, 0x40

#: Signature, version, flags, method, CRC-32, compressed size, size, length of the name, of the extra fields.
_LOCAL_HEADER = struct.Struct("<4sBxHH4xLLLHH")

#: An entry of the directory: the lengths of the name, of the extra fields and of the comment, which are behind it.
_DIRECTORY_ENTRY = struct.Struct("<28xHHH12x")

#: Signature, number of this disk, of the directory's, entries on this disk, in all, the directory's size, where it
#: begins; then, in the one that ends a file, the length of the comment.
_END_RECORD = struct.Struct("<4sHHHHLLH")
_ZIP64_END_RECORD = struct.Struct("<4sQ4xLLQQQQ")
#: What its size is said to be: without what stands before it, and the size itself.
_ZIP64_REST = _ZIP64_END_RECORD.size - 12
_ZIP64_LOCATOR = struct.Struct("<4sLQL")
_ZIP64_EXTRA = 0x0001

#: zipfile reads no later versions of the format either.
_LATEST_VERSION = 63

#: What zipfile raises for archives that are none.
_BAD_ZIP = (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, ValueError, RuntimeError, struct.error)

#: Of a gzip file (RFC 1952): DEFLATE, no name and no time in it, so that the same export gives the same bytes.
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"


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

    A zip says much of a member twice, and some readers go by its directory, others by the headers before the members:
    where these do not say the same, it is damaged.

    :param path: the archive
    :raises ArchiveError: at once for what is no zip, or has a member that is encrypted, is compressed by another
        method than DEFLATE, or has a name that climbs out of a folder, or where what stands in it twice differs; when
        read, for what is cut short or damaged
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] = path.open("rb")
        self._begins: dict[int, int] = {}
        try:
            self._entries = self._read_directory()
        except BaseException:
            self._file.close()
            raise
        # Not is_dir(): it fails on a member without a name.
        self._members = [info for info in self._entries if not info.filename.endswith("/")]

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
        for info in self._entries:
            is_the_only_one = self._members == [info]
            for chunk in self._inflate(info):
                if is_the_only_one and len(start) < _HEADER_BYTES:
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
        for chunk in _ahead(self.read_csv()):
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
            for chunk in _ahead(self._inflate(info, also=target.write)):
                counter.feed(chunk)
        crc, size = (info.CRC, info.file_size) if info else (0, 0)
        target.write(struct.pack("<LL", crc, size & 0xFFFFFFFF))
        return Content(self.members, counter.columns, counter.rows)

    def _read_directory(self) -> list[zipfile.ZipInfo]:
        """Check all but the members' bytes; give what is in it, folders too, and remember where their bytes begin."""
        size = self._path.stat().st_size
        if size == 0:
            raise self._damaged("it is empty")
        try:
            archive = zipfile.ZipFile(self._file)
            entries = archive.infolist()
            self._check_end(archive, len(entries), size)
        except _BAD_ZIP as error:
            self._file.seek(0)
            if self._file.read(2) == b"PK":
                raise self._damaged(str(error)) from error
            raise ArchiveError(f"what was downloaded ({size} bytes) is no zip archive: {error}") from error
        for info in entries:
            _check_member(info)
            try:
                # It compares the name in the member's own header with the directory's.
                archive.open(info).close()
                self._begins[info.header_offset] = self._check_header(info)
            except _BAD_ZIP as error:
                raise self._damaged(str(error)) from error
        places = sorted((info.header_offset, self._begins[info.header_offset] + info.compress_size) for info in entries)
        nexts = [*(place for place, _ in places), archive.start_dir][1:]
        if any(end > following for (_, end), following in zip(places, nexts, strict=True)):
            raise self._damaged("a member reaches into what is behind it")
        return entries

    def _check_end(self, archive: zipfile.ZipFile, found: int, size: int) -> None:
        """Compare the records at the end with what was found: zipfile does not, and misses members by damaged ones."""
        end = size - _END_RECORD.size - len(archive.comment)
        signature, *said, comment_length = self._unpack(_END_RECORD, end)
        if signature != b"PK\x05\x06" or comment_length != len(archive.comment):
            raise zipfile.BadZipFile("its comment has another length than its end record says")
        place = archive.start_dir
        for _ in range(found):
            place += _DIRECTORY_ENTRY.size + sum(self._unpack(_DIRECTORY_ENTRY, place))
        expected = [0, 0, found, found, end - archive.start_dir, archive.start_dir]
        locator_at = end - _ZIP64_LOCATOR.size
        if locator_at >= 0 and self._unpack(_ZIP64_LOCATOR, locator_at)[0] == b"PK\x06\x07":
            end = locator_at - _ZIP64_END_RECORD.size
            _, disk, at, disks = self._unpack(_ZIP64_LOCATOR, locator_at)
            signature, size_64, *said_64 = self._unpack(_ZIP64_END_RECORD, end)
            expected[4] = end - archive.start_dir
            # Some programs count no disks.
            fine = disks in (0, 1) and said_64 == expected
            if not fine or (signature, size_64, disk, at) != (b"PK\x06\x06", _ZIP64_REST, 0, end):
                raise zipfile.BadZipFile("its Zip64 end record does not say what its directory has")
            # All bits set: see there.
            unset = (0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
            said = [right if one == every else one for one, every, right in zip(said, unset, expected, strict=True)]
        if said != expected or place != end:
            raise zipfile.BadZipFile(
                f"its directory is said to have {said[3]} entries, and has {found}, or is elsewhere"
            )

    def _check_header(self, info: zipfile.ZipInfo) -> int:
        """
        Compare a member's own header, and what is behind its bytes, with the directory; give where its bytes begin.

        :raises BadZipFile: where they differ
        """
        _, version, flags, method, crc, compressed, size, name_length, extra_length = self._unpack(
            _LOCAL_HEADER, info.header_offset
        )
        begin: int = info.header_offset + _LOCAL_HEADER.size + name_length + extra_length
        self._file.seek(begin - extra_length)
        zip64 = _zip64_sizes(self._file.read(extra_length))
        if zip64 is not None:
            size, compressed = (
                of_64 if of_32 == 0xFFFFFFFF else of_32 for of_32, of_64 in zip((size, compressed), zip64, strict=True)
            )
        said, expected = (crc, compressed, size), (info.CRC, info.compress_size, info.file_size)
        if flags & _DESCRIBED_BEHIND:
            # Nothing is said in front; behind, with or without a signature, which came later than the format.
            same = all(one in (0, right) for one, right in zip(said, expected, strict=True))
            # Which of the two widths is used, programs do not agree on.
            described = [struct.pack("<LQQ", *expected)]
            if max(expected) <= 0xFFFFFFFF:
                described.append(struct.pack("<LLL", *expected))
            self._file.seek(begin + info.compress_size)
            behind = self._file.read(24).removeprefix(b"PK\x07\x08")
            same = same and any(map(behind.startswith, described))
        else:
            same = said == expected
        same = same and method == info.compress_type and version <= _LATEST_VERSION
        if not same or flags & (_ENCRYPTED | _PATCH | _ENCRYPTED_STRONGLY):
            raise zipfile.BadZipFile(f"{info.filename} has another header than the archive's directory says")
        return begin

    def _unpack(self, form: struct.Struct, place: int) -> tuple[Any, ...]:
        self._file.seek(place)
        return form.unpack(self._file.read(form.size))

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
        self._file.seek(self._begins[info.header_offset])
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


def _ahead(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Give the same chunks; each is made by a thread while the one before it is worked on."""
    with ThreadPoolExecutor(1, "chartmogul-inflate") as thread:
        coming = thread.submit(next, chunks, None)
        while (chunk := coming.result()) is not None:
            coming = thread.submit(next, chunks, None)
            yield chunk


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
        self._last = chunk[-1:] or self._last
        # Only quotes and line feeds matter, and of them no two quotes side by side, whichever they open or close:
        # what is inside quotes before them is so after them.
        marks = chunk.translate(None, _NO_MARKS).replace(b'""', b"")
        # Between two quotes is either inside or outside.
        parts = marks.split(b'"')
        self._line_feeds += b"".join(parts[self._in_quotes :: 2]).count(b"\n")
        self._in_quotes ^= len(parts) % 2 == 0

    @property
    def columns(self) -> tuple[str, ...] | None:
        return _header(self._start)

    @property
    def rows(self) -> int | None:
        """None where lines do not end in line feeds, but in carriage returns alone, which are not counted."""
        if not self._line_feeds and b"\r" in self._start.rstrip(b"\r\n"):
            return None
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


def _zip64_sizes(extra: bytes) -> tuple[int, int] | None:
    """Size and compressed size in a header's extra fields, for what has no room in the header itself."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        if kind == _ZIP64_EXTRA and min(length, len(extra) - 4) >= 16:
            return struct.unpack_from("<QQ", extra, 4)
        extra = extra[4 + length :]
    return None


def _header(start: bytes) -> tuple[str, ...] | None:
    text = start.decode("utf-8-sig", "replace")
    row = next(csv.reader(io.StringIO(text, newline="")), None)
    return tuple(row) if row else None
