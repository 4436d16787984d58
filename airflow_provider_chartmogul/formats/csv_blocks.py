# SPDX-License-Identifier: Apache-2.0
"""Split the text of a CSV into its header and blocks of whole records, in constant memory."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterator
from io import StringIO

from airflow_provider_chartmogul.exceptions import TableError
from airflow_provider_chartmogul.formats.csv_text import MAX_HEADER_BYTES

#: Minimum size of a block but the last. It is exceeded by less than a chunk, unless a record is longer.
_BLOCK_BYTES = 1 << 18

#: Number of attempts to find the end of a record before more text is read.
_ATTEMPTS = 8

#: A quoted field. A quote opens one only at the start of a field; elsewhere it is plain text.
_CLOSED_FIELD = re.compile(rb'"(?<=[,\r\n]")[^"]*(?:""[^"]*)*"')
_OPENED_FIELD = re.compile(rb'"(?<=[,\r\n]")')


def split_header(chunks: Iterator[bytes]) -> tuple[tuple[str, ...], Iterator[bytes]]:
    """
    Read the header, which is the first record that is not blank.

    :param chunks: the text in UTF-8, with or without a byte order mark
    :return: the names, none for a CSV without a record; and the blocks of the rows, each of whole records
    :raises TableError: if the header cannot be read; from the blocks, if the text ends inside a quoted field
    """
    start = b""
    while len(start) < MAX_HEADER_BYTES and (chunk := next(chunks, None)) is not None:
        start += chunk
    start = start.removeprefix(codecs.BOM_UTF8)
    is_all = len(start) < MAX_HEADER_BYTES - len(codecs.BOM_UTF8)
    try:
        # The text has rows as well, whose errors are not the header's, and a character may be cut off at its end.
        names, header = _read_first_record(start.decode("utf-8", "surrogateescape"), is_all=is_all)
        "".join(names).encode()
    except (UnicodeEncodeError, csv.Error) as error:
        raise TableError(f"the header of the CSV cannot be read: {error}") from error
    except EOFError:
        raise TableError(
            f"the header of the CSV has more than {MAX_HEADER_BYTES} bytes, or a quote in it is not closed"
        ) from None
    return names, _split_blocks(start[len(header.encode("utf-8", "surrogateescape")) :], chunks)


def _read_first_record(text: str, *, is_all: bool) -> tuple[tuple[str, ...], str]:
    """Return the fields of the first record that is not blank, and the text up to its end."""
    read: list[str] = []

    def lines() -> Iterator[str]:
        for line in StringIO(text, newline=""):
            read.append(line)
            if is_all or line.endswith(("\n", "\r")):
                yield line
        # Otherwise the reader would close an open quote at the end of the text.
        raise EOFError

    if is_all and not text.strip():
        return (), text
    return tuple(next(filter(None, csv.reader(lines())))), "".join(read)


def _split_blocks(pending: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
    attempt_at = _BLOCK_BYTES
    for chunk in chunks:
        pending += chunk
        if len(pending) < attempt_at:
            continue
        if end := _end_of_last_record(pending):
            yield pending[:end]
            pending = pending[end:]
            attempt_at = _BLOCK_BYTES
        else:
            # A record that is longer than a block. Doubling keeps the time linear.
            attempt_at = 2 * len(pending)
    if pending:
        if _OPENED_FIELD.search(_CLOSED_FIELD.sub(b"", b"\n" + pending)):
            raise TableError("the CSV ends inside a quoted field: it is incomplete")
        yield pending


def _end_of_last_record(text: bytes) -> int:
    """Return where the last complete record ends; 0 if no end was found."""
    end = len(text)
    for _ in range(_ATTEMPTS):
        # A carriage return in the last place may be followed by a line feed.
        end = max(text.rfind(b"\n", 0, end), text.rfind(b"\r", 0, min(end, len(text) - 1))) + 1
        if not end or b'"' not in text:
            return end
        if not _OPENED_FIELD.search(_CLOSED_FIELD.sub(b"", b"\n" + text[:end])):
            return end
        end -= 1
    return 0
