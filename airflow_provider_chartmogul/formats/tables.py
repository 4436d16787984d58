# SPDX-License-Identifier: Apache-2.0
"""
Write rows as a table: Parquet, CSV or compressed CSV, with the columns and types that the catalogue declares.

The schema is the same in every run, with any rows and with none. No value is lost: what has no column, or does not fit
the type of its column, goes to the column ``_extra`` under the API's own key. Rows are converted to Arrow a page at a
time, and only Arrow is held until a row group is complete. This module imports pyarrow, so it is imported inside
functions only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import chain
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from airflow_provider_chartmogul.api.resources import JSON, TEXT, TIME, Table
from airflow_provider_chartmogul.formats.column_selection import EXTRA, EXTRACTED_AT, ColumnSelection
from airflow_provider_chartmogul.formats.column_values import converter_for
from airflow_provider_chartmogul.formats.columns import list_columns, look_up
from airflow_provider_chartmogul.formats.gzip_files import open_to_write
from airflow_provider_chartmogul.formats.json_text import dump_json

_ROW_GROUP_ROWS = 10_000

#: Rows of small pages, as those of one customer's subscriptions, are collected until there are this many: converting a
#: batch costs more than converting a row.
_BATCH_ROWS = 200

_TIME = pa.timestamp("us", "UTC")


def check_column_types(table: Table, column_types: Mapping[str, str] | None) -> None:
    """
    Check ``column_types`` before anything is written.

    :raises ColumnTypesError: for an unknown column, a collision, or what is not a type; see ``list_columns``
    """
    for column in list_columns(table, column_types):
        converter_for(column)


class TableWriter:
    """
    Write rows to a table, used as a context manager.

    :param path: the local file
    :param output_format: ``parquet``, ``csv`` or ``csv.gz``
    :param table: the table's entry in the catalogue
    :param extracted_at: when the rows were extracted, with a time zone
    :param selection: the columns to keep
    :param footer: metadata for the footer of a Parquet file
    :param column_types: types that differ from the catalogue's, and columns for values inside a JSON column. The latter
        are kept always, since the user names them
    :raises ColumnTypesError: as ``check_column_types``
    """

    def __init__(
        self,
        path: Path,
        *,
        output_format: str,
        table: Table,
        extracted_at: datetime,
        selection: ColumnSelection,
        column_types: Mapping[str, str] | None = None,
        footer: Mapping[str, str] | None = None,
    ) -> None:
        #: The number of rows written so far.
        self.rows = 0
        #: How many values went to ``_extra``, by the API's key; complete when the writer is closed.
        self.extra_keys: Counter[str] = Counter()
        self._selection = selection
        self._columns = [
            (column, converter_for(column))
            for column in list_columns(table, column_types)
            if column.source or column.key in selection.keys
        ]
        self._extracted_at = pa.scalar(extracted_at.astimezone(UTC), _TIME)
        self._schema = pa.schema(
            [
                *((column.name, converter.column_type) for column, converter in self._columns),
                *([(EXTRA, pa.string())] if selection.has_extra else []),
                (EXTRACTED_AT, _TIME),
            ]
        )
        self._pending: list[Mapping[str, Any]] = []
        self._batches: list[pa.RecordBatch] = []
        self._sink: _ParquetSink | _CsvSink = (
            _ParquetSink(path, self._schema.with_metadata(footer))
            if output_format == "parquet"
            else _CsvSink(path, self._schema, compressed=output_format == "csv.gz")
        )

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc_type is None:
            self.close()
        else:
            self._sink.close()

    @property
    def columns(self) -> dict[str, str]:
        """The names of Arrow types by column, in the order of the table."""
        columns = {column.name: TEXT if column.type_name == JSON else column.type_name for column, _ in self._columns}
        return columns | ({EXTRA: TEXT} if self._selection.has_extra else {}) | {EXTRACTED_AT: TIME}

    def write(self, rows: Sequence[Mapping[str, Any]], raw_rows: Sequence[bytes] = ()) -> None:
        """
        Write the rows of a page.

        :param rows: the rows
        :param raw_rows: not used; for the interface that this class shares with ``JsonLinesWriter``
        """
        self.rows += len(rows)
        self._pending.extend(rows)
        if len(self._pending) >= _BATCH_ROWS:
            self._convert_pending()
        if sum(map(len, self._batches)) >= _ROW_GROUP_ROWS:
            table = pa.Table.from_batches(self._batches, self._schema)
            complete_rows = len(table) - len(table) % _ROW_GROUP_ROWS
            self._sink.write(table.slice(0, complete_rows))
            self._batches = table.slice(complete_rows).to_batches()

    def close(self) -> None:
        """Write the rows that are left, and complete the file."""
        try:
            if self._pending:
                self._convert_pending()
            batches, self._batches = self._batches, []
            if batches:
                self._sink.write(pa.Table.from_batches(batches, self._schema))
        finally:
            self._sink.close()

    def _convert_pending(self) -> None:
        rows, self._pending = self._pending, []
        self._batches.append(self._convert(rows))

    def _convert(self, rows: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
        extra = _Extra()
        objects = self._read_objects(rows, extra)
        keys = set().union(*rows)
        self._find_unknown_keys(rows, keys, objects, extra)
        arrays = []
        for column, converter in self._columns:
            key = column.source or column.key
            if "." not in key and key not in keys:
                # Many lists omit keys that none of their rows has.
                arrays.append(pa.nulls(len(rows), converter.column_type))
                continue
            values = _read_values(key, rows, objects)
            if column.source:
                values = [look_up(value, column.path) for value in values]
            array, misfits = converter.convert(values)
            for position in misfits:
                extra.add(position, column.key, values[position])
            arrays.append(array)
        self.extra_keys.update(extra.keys)
        if self._selection.has_extra:
            arrays.append(extra.to_array(len(rows)))
        arrays.append(pa.repeat(self._extracted_at, len(rows)))
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)

    def _read_objects(self, rows: Sequence[Mapping[str, Any]], extra: _Extra) -> dict[str, list[dict[str, Any]]]:
        """Return the objects that are flattened, by key; an empty one for what is not an object."""
        objects = {}
        for key in self._selection.object_keys:
            values = _read_values(key, rows, {})
            if not {dict}.issuperset(map(type, values)):
                for position, value in enumerate(values):
                    if isinstance(value, dict):
                        continue
                    values[position] = {}
                    if value not in (None, "") and self._selection.keeps_object(key):
                        extra.add(position, key, value)
            objects[key] = values
        return objects

    def _find_unknown_keys(
        self,
        rows: Sequence[Mapping[str, Any]],
        keys: Set[str],
        objects: Mapping[str, list[dict[str, Any]]],
        extra: _Extra,
    ) -> None:
        selection = self._selection
        if not selection.keeps_unknown:
            return
        if selection.keeps_all:
            for nested in selection.nested_tables:
                for position, row in enumerate(rows):
                    if not _has_nested_rows(value := row.get(nested.rows_key)):
                        extra.add(position, nested.rows_key, value)
        if unknown := set(filter(selection.keeps_unknown_key, keys - selection.known_keys)):
            for position, row in enumerate(rows):
                extra.add_all(position, {key: row[key] for key in row if key in unknown})
        for name, known_keys in selection.object_keys.items():
            unknown = set().union(*objects[name]) - known_keys if selection.keeps_unknown_in(name) else set()
            if unknown := {key for key in unknown if selection.keeps_unknown_key(f"{name}.{key}")}:
                for position, item in enumerate(objects[name]):
                    extra.add_all(position, {f"{name}.{key}": item[key] for key in item if key in unknown})


class _Extra:
    """What the rows of a page have that has no column, or does not fit its column."""

    def __init__(self) -> None:
        self._by_position: dict[int, dict[str, Any]] = {}

    def add(self, position: int, key: str, value: Any) -> None:
        self._by_position.setdefault(position, {})[key] = value

    def add_all(self, position: int, values: Mapping[str, Any]) -> None:
        if values:
            self._by_position.setdefault(position, {}).update(values)

    @property
    def keys(self) -> Iterator[str]:
        return chain.from_iterable(self._by_position.values())

    def to_array(self, rows: int) -> pa.Array:
        if not self._by_position:
            return pa.nulls(rows, pa.string())
        found = map(self._by_position.get, range(rows))
        return pa.array([None if values is None else dump_json(values) for values in found], pa.string())


class _ParquetSink:
    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(table, _ROW_GROUP_ROWS)

    def close(self) -> None:
        self._writer.close()


class _CsvSink:
    """CSV by RFC 4180. Null is an empty field, and empty text a quoted one."""

    def __init__(self, path: Path, schema: pa.Schema, *, compressed: bool) -> None:
        self._stack = ExitStack()
        file = open_to_write(path, compressed=compressed, stack=self._stack)
        self._schema = pa.schema([(field.name, _csv_type(field.type)) for field in schema])
        self._writer = self._stack.enter_context(pa_csv.CSVWriter(file, self._schema))

    def write(self, table: pa.Table) -> None:
        columns = [_to_csv(column) for column in table.columns]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))

    def close(self) -> None:
        self._stack.close()


def _csv_type(column_type: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_timestamp(column_type) else column_type


def _to_csv(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return times as text in ISO 8601, in UTC with a Z if they have a zone; other columns as they are."""
    if not pa.types.is_timestamp(column.type):
        return column
    # Arrow counts from 1970 in UTC whatever the zone is. Without one it needs no time zone database, which may be
    # missing where Airflow runs.
    in_utc = column.cast(pa.int64()).cast(pa.timestamp(column.type.unit))
    text = pc.replace_substring(in_utc.cast(pa.string()), " ", "T", max_replacements=1)
    return pc.binary_join_element_wise(text, "Z", "") if column.type.tz else text


def _has_nested_rows(value: Any) -> bool:
    """Return whether a nested table holds the whole value; an empty value holds nothing."""
    if isinstance(value, list):
        return {dict}.issuperset(map(type, value))
    return value in (None, "") or isinstance(value, dict)


def _read_values(key: str, rows: Sequence[Mapping[str, Any]], objects: Mapping[str, list[dict[str, Any]]]) -> list[Any]:
    """Return the values of a key, which may be one inside a flattened object."""
    name, _, inner = key.partition(".")
    items, key = (objects[name], inner) if inner else (rows, key)
    try:
        return list(map(itemgetter(key), items))
    except KeyError:
        return [item.get(key) for item in items]
