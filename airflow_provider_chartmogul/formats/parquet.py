# SPDX-License-Identifier: Apache-2.0
"""
A CSV to Parquet: streamed in batches, every column text unless it is given a type.

Types are not guessed: one guessed from one window's values differs in the next, and ``0042`` is not 42. So the
schema is the same from window to window, and a folder of them reads as one table. This module loads pyarrow, so only
functions import it.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from airflow_provider_chartmogul.exceptions import ColumnTypesError, TableError

#: pyarrow reads up to 32 blocks ahead, whatever it is told, so they are most of the memory. The longest row that can
#: be read for certain has as many bytes.
_BLOCK_BYTES = 2 << 20
_ROW_GROUP_BYTES = 32 << 20


def parse_types(column_types: Mapping[str, str] | None) -> dict[str, pa.DataType]:
    """
    Read ``column_types``: names of Arrow types, such as ``int64``, ``date32``, ``timestamp[us, tz=UTC]``,
    ``decimal128(18, 2)``.

    :raises ColumnTypesError: for what is no type
    """
    return {column: _parse_type(column, name) for column, name in (column_types or {}).items()}


def _parse_type(column: str, name: object) -> pa.DataType:
    text = str(name).strip().replace(" ", "")
    try:
        if text.startswith("timestamp[") and text.endswith("]"):
            unit, _, zone = text.removeprefix("timestamp[")[:-1].partition(",tz=")
            return pa.timestamp(unit, zone or None)
        if text.startswith("decimal128(") and text.endswith(")"):
            precision, _, scale = text.removeprefix("decimal128(")[:-1].partition(",")
            return pa.decimal128(int(precision), int(scale or 0))
        return pa.type_for_alias(text)
    except (ValueError, TypeError) as error:
        raise ColumnTypesError(
            f"column_types: {name!r} for column {column!r} is not the name of an Arrow type, such as int64, float64, "
            "date32, timestamp[us, tz=UTC] or decimal128(18, 2)"
        ) from error


class _Stream(io.RawIOBase):
    """Chunks as a file that pyarrow reads."""

    def __init__(self, first: bytes, chunks: Iterator[bytes]) -> None:
        self._left = memoryview(first)
        self._chunks = chunks

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._left = memoryview(chunk)
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size


def write_parquet(
    chunks: Iterator[bytes], path: Path, column_types: Mapping[str, str] | None = None
) -> tuple[int, tuple[str, ...]]:
    """
    Write a CSV's chunks as a Parquet file, compressed with zstd.

    :param chunks: the CSV's text, UTF-8, with a header
    :param path: the local file
    :param column_types: Arrow types by column; in a column that has one, an empty value is null
    :return: the number of rows, and the columns
    :raises ColumnTypesError: for a value that does not fit its type, naming column, row and value
    :raises TableError: when the text is no CSV in UTF-8 with a header of its own
    """
    types = parse_types(column_types)
    start = b""
    columns: list[str] = []
    for chunk in chunks:
        start += chunk
        if (header := _header(start)) is not None:
            columns = header
            break
    else:
        columns = _header(start + b"\n") or []
        if not columns and start.removeprefix(codecs.BOM_UTF8).strip():
            # Never an empty table, where there is something in it.
            raise TableError("the CSV's header cannot be read: move it as csv or csv.gz")
    try:
        "".join(columns).encode()
    except UnicodeEncodeError:
        raise TableError("the CSV's header is not in UTF-8: move it as csv or csv.gz") from None
    if doubled := [name for name, times in Counter(columns).items() if times > 1]:
        raise TableError(f"the CSV has several columns of the name {doubled[0]!r}: move it as csv or csv.gz")
    # An export without anything in it has no columns either.
    if columns and (unknown := [name for name in types if name not in columns]):
        raise ColumnTypesError(f"column_types names the column {unknown[0]!r}; the export has {', '.join(columns)}")
    schema = pa.schema([(name, types.get(name, pa.string())) for name in columns])
    rows = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        held: list[pa.RecordBatch] = []
        if columns:
            for batch in _batches(_Stream(start, chunks), columns):
                held.append(_cast(batch, schema, types, rows))
                rows += batch.num_rows
                if sum(one.nbytes for one in held) >= _ROW_GROUP_BYTES:
                    writer.write_table(pa.Table.from_batches(held, schema))
                    held = []
        if held:
            writer.write_table(pa.Table.from_batches(held, schema))
    return rows, tuple(columns)


def _header(start: bytes) -> list[str] | None:
    """The first record, once all of it is there."""
    text = start.decode("utf-8-sig", "surrogateescape")
    lines = io.StringIO(text, newline="")
    try:
        row = next(csv.reader(lines), None)
    except csv.Error as error:
        raise TableError(f"the CSV's header cannot be read ({error}): move it as csv or csv.gz") from error
    # Some line ends are carriage returns alone.
    complete = text[: lines.tell()].endswith(("\n", "\r"))
    return row if row and complete else None


def _batches(stream: _Stream, columns: list[str]) -> Iterator[pa.RecordBatch]:
    try:
        reader = pa_csv.open_csv(
            # Buffered: pyarrow takes a short read for a block of its own.
            pa.PythonFile(io.BufferedReader(stream, _BLOCK_BYTES), mode="r"),
            read_options=pa_csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),
            parse_options=pa_csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=len(columns) > 1),
            convert_options=pa_csv.ConvertOptions(
                column_types={name: pa.string() for name in columns},
                strings_can_be_null=False,
                quoted_strings_can_be_null=False,
            ),
        )
        if reader.schema.names != columns:
            raise TableError(f"the CSV's header cannot be read: it seems to be {columns}, and {reader.schema.names}")
        while True:
            try:
                yield reader.read_next_batch()
            except StopIteration:
                return
    except pa.ArrowInvalid as error:
        if "Empty CSV" in str(error):
            return
        raise TableError(f"the CSV cannot be read as a table: {error}") from error


def _cast(
    batch: pa.RecordBatch, schema: pa.Schema, types: Mapping[str, pa.DataType], rows_before: int
) -> pa.RecordBatch:
    arrays = []
    for name, array in zip(batch.schema.names, batch.columns, strict=True):
        wanted = types.get(name)
        if wanted is None:
            arrays.append(array)
            continue
        values = pc.if_else(pc.equal(array, ""), pa.scalar(None, pa.string()), array)
        try:
            arrays.append(pc.cast(values, wanted))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise _misfit(name, wanted, values, rows_before, error) from error
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _misfit(column: str, wanted: pa.DataType, values: pa.Array, rows_before: int, error: Exception) -> ColumnTypesError:
    for index, value in enumerate(values):
        try:
            pc.cast(value, wanted)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return ColumnTypesError(
                f"column {column!r}, row {rows_before + index + 1}: {value.as_py()[:80]!r} is no {wanted}; give the "
                "column another type in column_types, or none, which leaves it text"
            )
    return ColumnTypesError(f"column {column!r} cannot be made {wanted}: {error}")
