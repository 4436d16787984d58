# SPDX-License-Identifier: Apache-2.0
"""Read the header of a CSV and count its rows while its text passes in chunks."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator

#: A longer header is not read. No longer than the csv module's own limit for one field.
MAX_HEADER_BYTES = 1 << 17

#: A quoted field, closed or not. A quote opens one only at the start of a field; elsewhere it is plain text.
_QUOTED_FIELD = re.compile(rb'"(?<=[,\r\n]")[^"]*(?:""[^"]*)*"?')


def read_columns(start: bytes, errors: str = "replace") -> tuple[str, ...] | None:
    """
    Return the names in the header, which is the first record that is not blank.

    :param start: the CSV's first ``MAX_HEADER_BYTES``, or all of it where it has fewer
    :param errors: what to do about bytes that are not UTF-8, as in ``bytes.decode``
    :return: no names for a CSV without a record; ``None`` if the header cannot be read
    """
    if len(start) < MAX_HEADER_BYTES:
        start += b"\n"
    text = start.decode("utf-8-sig", errors)
    if not text.strip():
        return ()
    try:
        return tuple(next(filter(None, csv.reader(_complete_lines(text)))))
    except (EOFError, csv.Error):
        return None


def _complete_lines(text: str) -> Iterator[str]:
    """Iterate over the lines that have an end; raise EOFError instead of letting a reader close an open quote."""
    for line in io.StringIO(text, newline=""):
        if line.endswith(("\n", "\r")):
            yield line
    raise EOFError


class CsvScanner:
    """
    Columns and number of rows of a CSV, as a CSV reader would find them.

    Rows are counted by removing quoted fields and counting the lines that are not blank. Chunks end anywhere, so
    the state at the end of one is put in front of the next as text.

    :param count_rows: count the rows; without it, ``rows`` is 0
    """

    def __init__(self, *, count_rows: bool = True) -> None:
        self._start = b""
        self._count_rows = count_rows
        self._records = 0
        #: Text that puts a reader into the state at the end of the last chunk.
        self._state = b"\n"
        self._in_record = False
        self._held_quotes = b""

    def feed(self, chunk: bytes) -> None:
        """Take the next chunk of the text."""
        if not self._start:
            chunk = chunk.removeprefix(codecs.BOM_UTF8)
        if len(self._start) < MAX_HEADER_BYTES:
            self._start += chunk[: MAX_HEADER_BYTES - len(self._start)]
        if self._count_rows:
            self._count(chunk)

    def _count(self, chunk: bytes) -> None:
        chunk = self._held_quotes + chunk
        body = chunk.rstrip(b'"')
        # Whether the last of several quotes closes a field shows only with the next byte. Pairs mean nothing.
        self._held_quotes = b'"' * (2 - quotes % 2) if (quotes := len(chunk) - len(body)) else b""
        text = b"".join((self._state, body, b"\n"))
        if b'"' in text:
            text = _QUOTED_FIELD.sub(b'"', text)
        lines = text.splitlines()
        self._records += len(lines) - lines.count(b"") - self._in_record
        if not text.endswith(b"\n"):
            self._state, self._in_record = b'\n"', True
        elif body:
            self._state = body[-1:]
            self._in_record = self._state not in (b"\n", b"\r")

    @property
    def columns(self) -> tuple[str, ...] | None:
        """The header of the text so far; see ``read_columns``."""
        return read_columns(self._start)

    @property
    def rows(self) -> int:
        """The number of records after the header; blank lines are not records."""
        self._count(b"\n")
        return max(0, self._records - 1)
