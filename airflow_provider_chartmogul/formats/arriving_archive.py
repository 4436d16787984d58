# SPDX-License-Identifier: Apache-2.0
"""
Check a zip archive while it is downloaded.

The directory, which says what an archive holds, comes last. Until then, the member at the beginning is inflated on the
assumption that it is the CSV, as in ChartMogul's exports. ``Archive`` uses the result if the directory confirms it, and
otherwise reads the member again.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import IO

from airflow_provider_chartmogul.formats.archive import (
    CHUNK_BYTES,
    HEADER_BYTES,
    INFLATE_ERRORS,
    InflatedMember,
    crc32,
    data_start,
    inflate,
)
from airflow_provider_chartmogul.formats.csv_text import CsvScanner

#: Time between two attempts to read more of the file.
_POLL_SECONDS = 0.02


class ArrivingArchive:
    """
    A zip archive that is being downloaded. A thread may read its first member meanwhile; see ``arriving_archive``.

    :ivar path: path of the archive
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is_valid = True
        self._max_size = math.inf
        self._has_ended = threading.Event()
        self._found: Future[InflatedMember | None] | None = None

    def start_reading(self, thread: ThreadPoolExecutor, scanner: CsvScanner) -> None:
        """Read the first member in a thread; its content goes to the scanner."""
        self._found = thread.submit(self._read_or_give_up, scanner)

    def discard(self) -> None:
        """Stop reading and drop the result, because the bytes that have arrived are replaced or no longer needed."""
        self._is_valid = False
        self._has_ended.set()

    def first_member(self, max_size: int) -> InflatedMember | None:
        """
        Wait until the first member has been read, and return the result. The archive must be complete.

        :param max_size: bytes of content after which the thread stops reading
        :return: ``None`` if it is larger, damaged or not compressed by DEFLATE, or if no thread reads it
        """
        self._max_size = max_size
        self._has_ended.set()
        found = self._found.result() if self._found else None
        return found if self._is_valid else None

    def _read_or_give_up(self, scanner: CsvScanner) -> InflatedMember | None:
        # The download or ``Archive`` meets the same error and explains it.
        with contextlib.suppress(OSError, *INFLATE_ERRORS):
            self.path.touch()
            return self._read_first_member(scanner)
        return None

    def _read_first_member(self, scanner: CsvScanner) -> InflatedMember | None:
        with self.path.open("rb", buffering=0) as file:
            chunks = self._read(file)
            header = b""
            while len(header) < HEADER_BYTES or len(header) < data_start(header):
                if not (chunk := next(chunks, b"")):
                    return None
                header += chunk
            if not header.startswith(b"PK\x03\x04") or header[8:10] != b"\x08\x00":
                return None
            start = data_start(header)
            compressed_size = size = crc = 0

            def add_compressed(part: bytes) -> None:
                nonlocal compressed_size
                compressed_size += len(part)

            for text in inflate(chain([header[start:]], chunks), add_compressed):
                crc = crc32(text, crc)
                size += len(text)
                if size > self._max_size:
                    return None
                scanner.feed(text)
        return InflatedMember(start, compressed_size, size, crc, scanner)

    def _read(self, file: IO[bytes]) -> Iterator[bytes]:
        """Iterate over the file's bytes, and wait for more until the download has ended."""
        while self._is_valid:
            # Checked before the read, since the file may grow in between.
            has_ended = self._has_ended.is_set()
            if chunk := file.read(CHUNK_BYTES):
                yield chunk
            elif has_ended:
                return
            else:
                self._has_ended.wait(_POLL_SECONDS)


@contextlib.contextmanager
def arriving_archive(path: Path, *, read_ahead: bool, count_rows: bool) -> Iterator[ArrivingArchive]:
    """
    Yield an archive that is about to be downloaded. Its thread has ended when the context is left.

    :param path: where the archive will be
    :param read_ahead: read the first member in a thread during the download
    :param count_rows: count its rows
    """
    archive = ArrivingArchive(path)
    with ThreadPoolExecutor(1, "chartmogul-inflate") as thread:
        try:
            if read_ahead:
                archive.start_reading(thread, CsvScanner(count_rows=count_rows))
            yield archive
        finally:
            archive.discard()
