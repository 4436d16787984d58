# SPDX-License-Identifier: Apache-2.0
"""Write rows as JSON Lines: each as the bytes that ChartMogul sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from airflow_provider_chartmogul.formats.column_selection import ColumnSelection
from airflow_provider_chartmogul.formats.gzip_files import open_to_write
from airflow_provider_chartmogul.formats.json_text import dump_json


class JsonLinesWriter:
    """
    Write rows to a JSON Lines file, used as a context manager.

    :param path: the local file
    :param compressed: whether to compress it by gzip
    :param selection: the columns to keep; rows are written as they came where it keeps all
    """

    def __init__(self, path: Path, *, compressed: bool, selection: ColumnSelection) -> None:
        #: The number of rows written so far.
        self.rows = 0
        self._selection = selection
        self._stack = ExitStack()
        self._file = open_to_write(path, compressed=compressed, stack=self._stack)

    def __enter__(self) -> JsonLinesWriter:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def write(self, rows: Sequence[Mapping[str, Any]], raw_rows: Sequence[bytes]) -> None:
        """
        Write the rows of a page.

        :param rows: the rows
        :param raw_rows: the same rows as the bytes of the response, each on one line; unused if columns are left out
        :raises ValueError: if raw rows are missing
        """
        if self._selection.keeps_all:
            if len(raw_rows) != len(rows):
                raise ValueError(f"the page has {len(rows)} rows, but {len(raw_rows)} raw rows")
        else:
            raw_rows = [dump_json(self._selection.filter_row(row)).encode() for row in rows]
        if raw_rows:
            self._file.write(b"\n".join((*raw_rows, b"")))
            self.rows += len(raw_rows)

    def close(self) -> None:
        """Complete the file and close it."""
        self._stack.close()
