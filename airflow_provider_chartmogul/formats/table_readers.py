# SPDX-License-Identifier: Apache-2.0
"""
Read tables that a transfer has written, as typed batches that are the same whatever the format is.

Memory is constant: one block of a CSV, or one batch of a Parquet file. Code that runs for every batch passes no Python
values to pyarrow: to convert one, pyarrow would import pandas, which takes 50 MB. This module imports pyarrow, so it is
imported inside functions only.
"""

from __future__ import annotations

import io
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from airflow_provider_chartmogul.exceptions import TableError
from airflow_provider_chartmogul.formats.archive import Archive
from airflow_provider_chartmogul.formats.arrow_types import cast_column
from airflow_provider_chartmogul.formats.csv_blocks import split_header
from airflow_provider_chartmogul.formats.gzip_files import GZIP_ERRORS, open_to_read

_CHUNK_BYTES = 1 << 17
#: Batches and buffers are small, since each column has its own.
_BATCH_ROWS = 2_000
_BUFFER_BYTES = 1 << 16

#: Blocks of a CSV that are parsed before their rows are used.
_BLOCKS_AHEAD = 2

#: The number of the row in pyarrow's message about a CSV.
_ROW_NUMBER = re.compile(r"Row #(\d+): ")


class TableReader:
    """
    A table in a local file.

    :ivar types: the columns with their types, both as in the file; names are unique regardless of case
    :cvar has_empty_text: whether ``read`` may return empty text, and not only null
    """

    types: dict[str, pa.DataType]
    has_empty_text: ClassVar[bool] = False

    def read(self) -> Iterator[pa.RecordBatch]:
        """
        Iterate over the rows, with the columns of ``types``.

        :raises TableError: if the file cannot be read as a table
        """
        raise NotImplementedError


class CsvReader(TableReader):
    """
    A CSV, or several CSVs in one archive, whose rows come one after the other. Every column is text.

    :param path: the local file
    :param table_format: ``csv``, ``csv.gz`` or ``zip``
    :raises ArchiveError: if an archive is damaged
    :raises TableError: if the header cannot be read, or has a name twice
    """

    def __init__(self, path: Path, table_format: str) -> None:
        self._path = path
        self._format = table_format
        headers = [split_header(chunks)[0] for chunks in self._open()]
        names: dict[str, str] = {}
        for header in headers:
            for name in _make_names(header):
                names.setdefault(name.casefold(), name)
        self.types = dict.fromkeys(names.values(), pa.string())

    def read(self) -> Iterator[pa.RecordBatch]:
        rows = 0
        for chunks in self._open():
            header, blocks = split_header(chunks)
            names = _make_names(header)
            positions = {name.casefold(): position for position, name in enumerate(names)}
            for parsed in _parse_ahead(blocks, names):
                try:
                    batch = parsed.result()
                except pa.ArrowInvalid as error:
                    raise _table_error(error, names, rows) from error
                rows += batch.num_rows
                arrays = [
                    batch.column(positions[name.casefold()])
                    if name.casefold() in positions
                    else pa.nulls(batch.num_rows, pa.string())
                    for name in self.types
                ]
                yield pa.RecordBatch.from_arrays(arrays, names=list(self.types))

    def _open(self) -> Iterator[Iterator[bytes]]:
        """Yield the text of each CSV in chunks."""
        if self._format == "zip":
            with Archive(self._path) as archive:
                yield from archive.read_csvs()
            return
        with open_to_read(self._path, compressed=self._format == "csv.gz") as file:
            yield _read_chunks(file)


class ParquetReader(TableReader):
    """
    A Parquet file, with the types that its transfer declared.

    :param path: the local file
    :raises TableError: if it cannot be read, or has a name twice
    """

    has_empty_text: ClassVar[bool] = True

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self._path = path
        try:
            with pq.ParquetFile(path) as file:
                schema = file.schema_arrow
        except (pa.ArrowException, OSError) as error:
            raise TableError(f"the Parquet file cannot be read: {error}") from error
        names = _make_names(schema.names)
        self.types = {name: _plain_type(field.type) for name, field in zip(names, schema, strict=True)}

    def read(self) -> Iterator[pa.RecordBatch]:
        import pyarrow.parquet as pq

        schema = pa.schema(list(self.types.items()))
        try:
            with pq.ParquetFile(self._path, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
                for batch in file.iter_batches(_BATCH_ROWS, use_threads=False):
                    arrays = [
                        column if column.type == field.type else column.cast(field.type)
                        for column, field in zip(batch.columns, schema, strict=True)
                    ]
                    yield pa.RecordBatch.from_arrays(arrays, schema=schema)
        except (pa.ArrowException, OSError) as error:
            raise TableError(f"the Parquet file cannot be read: {error}") from error


def open_table(path: Path, table_format: str) -> TableReader:
    """
    Open a table, and read its header.

    :param table_format: ``csv``, ``csv.gz``, ``zip`` or ``parquet``
    :raises TableError: if it cannot be read as a table
    """
    return ParquetReader(path) if table_format == "parquet" else CsvReader(path, table_format)


def typed_batches(
    reader: TableReader,
    types: Mapping[str, pa.DataType],
    warn_of_nul: Callable[[str, int], None],
    remedies: Mapping[str, str | None],
) -> Iterator[pa.RecordBatch]:
    """
    Iterate over the rows of a table with the types of a load. Empty text is null, and NUL characters are removed.

    :param types: the type of each of the reader's columns
    :param warn_of_nul: called with column and row number where NUL characters were removed, which databases refuse
    :param remedies: by column, how to fix the error of a value that does not fit; see ``cast_column``
    :raises ColumnTypesError: for a value that does not fit, naming column, row and value
    :raises TableError: if the file cannot be read as a table
    """
    schema = pa.schema(list(types.items()))
    rows = 0
    for batch in reader.read():
        arrays = []
        for name, array in zip(types, batch.columns, strict=True):
            if pa.types.is_string(array.type):
                array, nul_row = _without_nul(array)
                if nul_row is not None:
                    warn_of_nul(name, rows + nul_row + 1)
                if nul_row is not None or reader.has_empty_text:
                    array = _without_empty(array)
            arrays.append(cast_column(name, array, types[name], rows, remedies[name]))
        rows += batch.num_rows
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def to_csv(batch: pa.RecordBatch) -> bytes:
    """
    Return rows as CSV without a header, by RFC 4180 with line feeds.

    Null is an empty field, text is quoted, times are in ISO 8601 in UTC (with a Z if their type has a time zone).
    """
    arrays = [_csv_array(array) for array in batch.columns]
    sink = io.BytesIO()
    pa_csv.write_csv(
        pa.RecordBatch.from_arrays(arrays, names=batch.schema.names), sink, pa_csv.WriteOptions(include_header=False)
    )
    return sink.getvalue()


def _read_chunks(file: IO[bytes]) -> Iterator[bytes]:
    try:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk
    except (*GZIP_ERRORS, OSError) as error:
        raise TableError(f"the file is damaged: {error}") from error


def _make_names(header: Sequence[str]) -> list[str]:
    """
    Return the names of columns, with generated ones where the header has none, for example after a trailing comma.

    :raises TableError: if two have the same name, apart from case, and for a name that no warehouse accepts
    """
    if nul := [name for name in header if "\0" in name]:
        raise TableError(f"the column {nul[0]!r} has a NUL character in its name: the object is not text in UTF-8")
    names = [name if name.strip() else f"column_{number}" for number, name in enumerate(header, 1)]
    counts = Counter(name.casefold() for name in names)
    if repeated := [name for name in names if counts[name.casefold()] > 1]:
        raise TableError(
            f"the object has several columns named {' and '.join(map(repr, dict.fromkeys(repeated)))}; warehouses do "
            "not distinguish names by case"
        )
    return names


def _parse_ahead(blocks: Iterator[bytes], names: Sequence[str]) -> Iterator[Future[pa.RecordBatch]]:
    """Parse blocks in a thread, while the caller splits the text and uses the rows of the blocks before."""
    with ThreadPoolExecutor(1, "chartmogul-csv") as thread:
        parsing: deque[Future[pa.RecordBatch]] = deque()
        for block in blocks:
            parsing.append(thread.submit(_parse_block, block, names))
            if len(parsing) > _BLOCKS_AHEAD:
                yield parsing.popleft()
        yield from parsing


def _parse_block(block: bytes, names: Sequence[str]) -> pa.RecordBatch:
    schema = pa.schema([(name, pa.string()) for name in names])
    try:
        table = pa_csv.read_csv(
            pa.BufferReader(block),
            # A single block, which one thread parses.
            read_options=pa_csv.ReadOptions(column_names=list(names), block_size=len(block) + 1, use_threads=False),
            parse_options=pa_csv.ParseOptions(newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(
                column_types=schema, null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=True
            ),
            memory_pool=pa.system_memory_pool(),
        )
    except pa.ArrowInvalid as error:
        if "Empty CSV" not in str(error):
            raise
        return pa.RecordBatch.from_arrays([pa.array([], pa.string()) for _ in names], schema=schema)
    return pa.RecordBatch.from_arrays([_combine(column) for column in table.columns], schema=schema)


def _table_error(error: pa.ArrowInvalid, names: Sequence[str], rows_before: int) -> TableError:
    message = _ROW_NUMBER.sub(lambda match: f"row {rows_before + int(match[1])}: ", str(error))
    return TableError(f"the CSV cannot be read as a table of {len(names)} columns: {message[:500]}")


def _combine(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks or [pa.array([], column.type)])


def _plain_type(column_type: pa.DataType) -> pa.DataType:
    """Return the type of the values: without dictionary encoding or 64-bit offsets, and with UTC as time zone."""
    if pa.types.is_dictionary(column_type):
        return _plain_type(column_type.value_type)
    if pa.types.is_large_string(column_type):
        return pa.string()
    if pa.types.is_timestamp(column_type) and column_type.tz:
        return pa.timestamp(column_type.unit, "UTC")
    return column_type


def _without_nul(array: pa.Array) -> tuple[pa.Array, int | None]:
    """Return text without NUL characters, and the position of the first that had one."""
    data = array.buffers()[2]
    if data is None or b"\0" not in data.to_pybytes():
        return array, None
    position = pc.index(pc.fill_null(pc.match_substring(array, "\0"), False), True).as_py()
    return (array, None) if position < 0 else (pc.replace_substring(array, "\0", ""), position)


def _without_empty(array: pa.Array) -> pa.Array:
    is_filled = pc.binary_length(array).cast(pa.bool_())
    return array if pc.all(is_filled).as_py() else pc.if_else(is_filled, array, pa.nulls(1, array.type)[0])


def _csv_array(array: pa.Array) -> pa.Array:
    if pa.types.is_timestamp(array.type):
        # Arrow counts from 1970 in UTC whatever the zone is.
        in_utc = array.cast(pa.int64()).cast(pa.timestamp(array.type.unit))
        iso_format = r"\1T\2Z" if array.type.tz else r"\1T\2"
        return pc.replace_substring_regex(in_utc.cast(pa.string()), r"^(\S+) (\S+)$", iso_format)
    if pa.types.is_decimal(array.type):
        return array.cast(pa.string())
    return array
