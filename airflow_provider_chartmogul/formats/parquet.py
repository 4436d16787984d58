# SPDX-License-Identifier: Apache-2.0
"""
Convert a CSV to Parquet in batches; every column is text unless it is given a type.

Types are not guessed: a type guessed from one window's values differs in the next, and ``0042`` is not 42. So the
schema is the same from window to window, and a folder of them reads as one table. This module imports pyarrow, so it
is imported inside functions only.
"""

from __future__ import annotations

import io
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from airflow_provider_chartmogul.exceptions import ColumnTypesError, TableError
from airflow_provider_chartmogul.formats.arrow_types import cast_column, parse_types
from airflow_provider_chartmogul.formats.csv_text import MAX_HEADER_BYTES, read_columns

#: pyarrow always reads up to 32 blocks ahead, so blocks account for most of the memory. A row can be as long as one.
_BLOCK_BYTES = 2 << 20
_ROW_GROUP_BYTES = 32 << 20
#: Limit for a page, and for a dictionary. Readers hold one of each in memory for every column.
_PAGE_BYTES = 128 << 10
#: Number of bytes at the end of the text that are compared with the last value.
_TAIL_BYTES = 4 << 10


class _ChunkStream(io.RawIOBase):
    """Chunks as a file for pyarrow, which reads ahead in a thread of its own."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._left = memoryview(b"")
        self._error: Exception | None = None
        self._lock = threading.Lock()
        #: The last bytes that were read.
        self.tail = b"\n"

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with self._lock:
            while not self._left:
                chunk = self._next()
                if not chunk:
                    return 0
                self._left = memoryview(chunk)
            size = min(len(buffer), len(self._left))
            buffer[:size] = self._left[:size]
            self._left = self._left[size:]
            return size

    def peek(self, size: int) -> bytes:
        """Return the beginning of the text without consuming it: at least ``size`` bytes, unless it has fewer."""
        start = b""
        while len(start) < size and (chunk := self._next()):
            start += chunk
        self._left = memoryview(start)
        return start

    def exhaust(self) -> None:
        """Read the rest of the chunks, and raise the error that reading them raises or has raised."""
        with self._lock:
            while self._error is None and self._next():
                pass
            if self._error is not None:
                raise self._error

    def _next(self) -> bytes:
        try:
            chunk = next(self._chunks, b"")
        except Exception as error:
            self._error = error
            raise
        self.tail = (self.tail + chunk[-_TAIL_BYTES:])[-_TAIL_BYTES:]
        return chunk


def write_parquet(
    chunks: Iterator[bytes],
    path: Path,
    column_types: Mapping[str, str] | None = None,
    footer: Mapping[str, str] | None = None,
) -> tuple[int, tuple[str, ...]]:
    """
    Write a CSV as a Parquet file, compressed with zstd. An empty value is null, quoted or not.

    :param chunks: the CSV's text, UTF-8, with a header; a CSV without any text gives a file without columns
    :param path: the local file
    :param column_types: Arrow types by column
    :param footer: metadata for the file's footer
    :return: the number of rows, and the columns
    :raises ColumnTypesError: for a value that does not fit its column's type, naming column, row and value
    :raises TableError: if the text is not a CSV in UTF-8 with a header
    """
    types = parse_types(column_types)
    stream = _ChunkStream(chunks)
    try:
        return _write(stream, path, types, footer)
    except (ColumnTypesError, TableError):
        # A damaged archive is the more likely cause, and only its end shows that it is damaged.
        stream.exhaust()
        raise


def _write(
    stream: _ChunkStream, path: Path, types: Mapping[str, pa.DataType], footer: Mapping[str, str] | None
) -> tuple[int, tuple[str, ...]]:
    columns = _parse_header(stream.peek(MAX_HEADER_BYTES))
    if columns and (unknown := [name for name in types if name not in columns]):
        raise ColumnTypesError(f"column_types names the column {unknown[0]!r}; the export has {', '.join(columns)}")
    schema = pa.schema([(name, types.get(name, pa.string())) for name in columns])
    rows = 0
    with pq.ParquetWriter(
        path,
        schema.with_metadata(footer),
        compression="zstd",
        data_page_size=_PAGE_BYTES,
        dictionary_pagesize_limit=_PAGE_BYTES,
    ) as writer:
        group: list[pa.RecordBatch] = []
        for batch in _read_batches(stream, columns):
            group.append(_cast_batch(batch, schema, types, rows))
            rows += batch.num_rows
            if sum(batch.nbytes for batch in group) >= _ROW_GROUP_BYTES:
                writer.write_table(pa.Table.from_batches(group, schema))
                group = []
        if group:
            writer.write_table(pa.Table.from_batches(group, schema))
    return rows, columns


def _parse_header(start: bytes) -> tuple[str, ...]:
    columns = read_columns(start, "surrogateescape")
    if columns is None:
        raise TableError(
            f"the CSV's header cannot be read, or has more than {MAX_HEADER_BYTES} bytes; use csv or csv.gz instead of "
            "parquet"
        )
    try:
        "".join(columns).encode()
    except UnicodeEncodeError:
        raise TableError("the header of the CSV is not UTF-8; use csv or csv.gz instead of parquet") from None
    if repeated := [name for name, count in Counter(columns).items() if count > 1]:
        raise TableError(f"the CSV has several columns named {repeated[0]!r}; use csv or csv.gz instead of parquet")
    return columns


def _read_batches(stream: _ChunkStream, columns: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    if not columns:
        return
    try:
        reader = pa_csv.open_csv(
            # Buffered, since pyarrow takes a short read for a whole block.
            pa.PythonFile(io.BufferedReader(stream, _BLOCK_BYTES), mode="r"),
            read_options=pa_csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),
            parse_options=pa_csv.ParseOptions(newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(
                column_types={name: pa.string() for name in columns},
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
            ),
        )
        if tuple(reader.schema.names) != columns:
            raise TableError(f"the header of the CSV is ambiguous: it is read as {columns} and {reader.schema.names}")
        last = None
        for batch in reader:
            if batch.num_rows:
                last = batch.column(len(columns) - 1)[-1]
            yield batch
        if last is not None and _is_unclosed(last, stream.tail):
            raise TableError("the CSV ends inside a quoted field: it is incomplete")
    except pa.ArrowInvalid as error:
        if "Empty CSV" in str(error):
            return
        if "straddles two block boundaries" in str(error):
            raise TableError(
                f"the CSV has a row of more than {_BLOCK_BYTES >> 20} MiB, which cannot be written as Parquet; use csv "
                "or csv.gz instead of parquet"
            ) from error
        raise TableError(
            f"the CSV cannot be read as a table ({error}); use csv or csv.gz instead of parquet"
        ) from error


def _is_unclosed(last: pa.Scalar, tail: bytes) -> bool:
    """
    Return whether the text ends inside a quoted field. pyarrow closes such a field without an error.

    :param last: the last value of the last row
    :param tail: the end of the text; only an unclosed field, or one without quotes, ends with it
    """
    if not last.is_valid:
        return tail.endswith((b',"', b'\n"', b'\r"'))
    value = last.as_py().encode()
    quoted = value.replace(b'"', b'""')
    if len(quoted) > len(tail) - 2:
        # The tail does not reach back to an opening quote. Only quoted values have line breaks.
        return quoted.endswith(tail) and (b"\n" in value or b"\r" in value)
    # A closing quote after a line break looks like an opening one.
    is_closed = tail.rstrip(b"\r\n").endswith(b'"' + quoted + b'"')
    return not is_closed and tail.endswith(tuple(separator + b'"' + quoted for separator in (b",", b"\n", b"\r")))


def _cast_batch(
    batch: pa.RecordBatch, schema: pa.Schema, types: Mapping[str, pa.DataType], rows_before: int
) -> pa.RecordBatch:
    arrays = []
    for name, array in zip(batch.schema.names, batch.columns, strict=True):
        arrays.append(cast_column(name, array, types[name], rows_before) if name in types else array)
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
