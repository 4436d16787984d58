# SPDX-License-Identifier: Apache-2.0
"""
Download objects, and read them as tables.

The same data gives the same columns, types and values in every format. pyarrow is imported inside functions only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from airflow_provider_chartmogul.api.resources import JSON, RESOURCES, TEXT, TIME, Resource
from airflow_provider_chartmogul.exceptions import (
    ColumnTypesError,
    ObjectChangedError,
    SourceError,
    TableError,
    TransferSettingsError,
)
from airflow_provider_chartmogul.formats.column_selection import EXTRA, EXTRACTED_AT, ColumnSelection
from airflow_provider_chartmogul.formats.columns import list_columns
from airflow_provider_chartmogul.formats.gzip_files import GZIP_ERRORS, open_to_read
from airflow_provider_chartmogul.formats.nested_rows import nested_rows
from airflow_provider_chartmogul.formats.parquet_footer import read_footer
from airflow_provider_chartmogul.runtime.cancellation import Cancellation
from airflow_provider_chartmogul.runtime.task_log import TaskLog
from airflow_provider_chartmogul.storage.object_metadata import METADATA_KEY, decode_metadata
from airflow_provider_chartmogul.warehouse.source_objects import ACTIVITIES, DESTINATION_HINT, SourceObject

if TYPE_CHECKING:
    import pyarrow as pa

#: Formats that are read as tables. JSON Lines are converted to tables first.
TABLE_FORMATS = ("csv", "csv.gz", "zip", "parquet")
JSON_FORMATS = ("jsonl", "jsonl.gz")

_CHANGED_OBJECT_REMEDY = (
    "Clear the transfer and the tasks after it, so that the object is written again and is what its metadata describes"
)

#: Rows of JSON Lines that are converted at a time.
_PAGE_ROWS = 200


@dataclass(frozen=True)
class Column:
    """
    A column of a table.

    :param name: its name; unique in its table, whatever the case
    :param type: the name of its Arrow type, such as ``string``, ``int64`` or ``timestamp[us, tz=UTC]``
    :param remedy: how to fix the error of a value that does not fit; ``None`` advises another type in ``column_types``
    """

    name: str
    type: str
    remedy: str | None = None


@dataclass(frozen=True)
class LocalTable:
    """
    A table on local disk.

    :param table: its name in the catalogue; ``activities`` for an export
    :param path: the file
    :param format: ``csv``, ``csv.gz``, ``zip`` or ``parquet``
    :param columns: the columns; none for an object without a header, which has no rows
    """

    table: str
    path: Path
    format: str
    columns: tuple[Column, ...]
    _mtime_ns: int = field(repr=False, compare=False)
    _log: TaskLog = field(repr=False, compare=False)
    _cancellation: Cancellation = field(repr=False, compare=False)

    def record_batches(self) -> Iterator[pa.RecordBatch]:
        """
        Iterate over the rows as Arrow batches with the types of ``columns``, in constant memory.

        Empty text is null. NUL characters are removed with a warning, since databases refuse them. May be called again.

        :raises ColumnTypesError: for a value that does not fit its column's type, naming column, row and value
        :raises TableError: if the file cannot be read as a table
        :raises ObjectChangedError: if the file was written to meanwhile
        :raises TaskCancelledError: if the task is cancelled
        """
        if not self.columns:
            return
        types = _import("arrow_types").parse_types({column.name: column.type for column in self.columns})
        readers = _import("table_readers")
        warned: set[str] = set()

        def warn(column: str, row: int) -> None:
            if column not in warned:
                warned.add(column)
                self._log.warning(
                    "Removed NUL characters from column %s of %s (first in row %d), since databases refuse them",
                    *(column, self.table, row),
                )

        remedies = {column.name: column.remedy for column in self.columns}
        for batch in readers.typed_batches(readers.open_table(self.path, self.format), types, warn, remedies):
            self._cancellation.check()
            yield batch
        # The file may be a hard link to a local object, which a program may have changed in place.
        if self.path.stat().st_mtime_ns != self._mtime_ns:
            raise ObjectChangedError(
                f"the object of {self.table} was written to while it was loaded. {_CHANGED_OBJECT_REMEDY}"
            )

    def csv_chunks(self) -> Iterator[bytes]:
        """
        Iterate over the rows as text of a CSV, for bulk loads, in constant memory.

        UTF-8 without a header; fields end in a comma, records in a line feed. Null is an empty field; all other text is
        in double quotes, which are doubled in it. Booleans are ``true`` and ``false``; dates and times are in ISO 8601,
        times in UTC, with a ``Z`` if their type has a time zone. Each chunk has whole records.

        :raises ChartMogulError: as ``record_batches``
        """
        to_csv = _import("table_readers").to_csv
        for batch in self.record_batches():
            yield to_csv(batch)


def fetch_tables(
    source: SourceObject,
    folder: Path,
    *,
    column_types: Mapping[str, str] | None,
    cancellation: Cancellation,
    log: TaskLog,
) -> tuple[LocalTable, ...]:
    """
    Download an object, and open it as one table, or as several for raw rows that contain others.

    :param source: the object
    :param folder: an existing folder for temporary files, in which nothing else is named like the object's tables
    :param column_types: names of Arrow types by column, whatever its case. They precede those that the transfer was
        given, which precede the catalogue's. Columns of an export are text unless a Parquet file says otherwise. For a
        resource with several tables they are those of the main one
    :return: the tables, the main one first
    :raises ObjectChangedError: if the object's size or checksum is not that of its metadata
    :raises ObjectStorageError: if it cannot be read
    :raises ColumnTypesError: for a type that Arrow does not have, and for a column that the object does not have
    :raises TableError: if it cannot be read as a table
    :raises SourceError: for a format that a load cannot read, and for an existing object that another transfer
        wrote
    :raises TransferSettingsError: if pyarrow is not installed
    :raises TaskCancelledError: if the task is cancelled
    """
    if source.format not in (*TABLE_FORMATS, *JSON_FORMATS):
        raise SourceError(
            f"{source.uri} has the format {source.format!r}; a load reads {', '.join((*TABLE_FORMATS, *JSON_FORMATS))}"
        )
    path = folder / f"object-{source.table}.{source.format}"
    sha256 = source.stored.download(path, cancellation)
    _check_content(source, path.stat().st_size, sha256)
    if source.sha256 is None:
        _check_kept_object(source, path)
    types = {**(source.metadata.get("column_types") or {}), **(column_types or {})}
    if source.format in TABLE_FORMATS:
        return (_open_table(source, source.table, path, source.format, types, column_types or {}, cancellation, log),)
    converted = _convert_json_lines(source, path, types, cancellation)
    path.unlink()
    main = RESOURCES[source.resource].main_table.name
    return tuple(
        _open_table(source, name, table_path, "parquet", types if name == main else {}, {}, cancellation, log)
        for name, table_path in converted.items()
    )


def _check_content(source: SourceObject, size: int, sha256: str) -> None:
    if source.bytes is not None and size != source.bytes:
        difference = f"it has {size} bytes instead of {source.bytes}"
    elif source.sha256 is not None and sha256 != source.sha256:
        difference = f"its SHA-256 is {sha256} instead of {source.sha256}"
    else:
        return
    raise ObjectChangedError(f"{source.uri} has changed since its transfer: {difference}. {_CHANGED_OBJECT_REMEDY}")


def _check_kept_object(source: SourceObject, path: Path) -> None:
    """
    Compare the metadata of an object that existed before its transfer with the metadata that it carries, if any.

    :param path: the object on local disk
    :raises SourceError: if a transfer kept the object of another one, whose rows are outside the window of the load
    """
    if source.format == "parquet":
        # Read the footer of the local file, since the object may have been replaced after its download.
        with path.open("rb") as file:
            carried = decode_metadata(read_footer(file, METADATA_KEY))
    else:
        carried = source.stored.read_metadata()
    if carried is None:
        return
    # Objects do not carry the keys whose value is None, nor the location.
    present = {"format": source.format, "modified_at": source.metadata.get("modified_at"), **carried}
    if (difference := source.difference_to(SourceObject(source.uri, present))) is not None:
        raise SourceError(
            f"{source.uri} was written by another transfer than the one that kept it: {difference}. {DESTINATION_HINT}"
        )


def _open_table(
    source: SourceObject,
    name: str,
    path: Path,
    table_format: str,
    column_types: Mapping[str, str],
    required: Mapping[str, str],
    cancellation: Cancellation,
    log: TaskLog,
) -> LocalTable:
    """
    Read a table's header, and decide the types of its columns.

    :param column_types: the types that were given, by column or key of the API
    :param required: the types among these whose columns must exist
    """
    own_types = _import("table_readers").open_table(path, table_format).types
    type_name, parse_types = _import("arrow_types").type_name, _import("arrow_types").parse_types
    declared, names = _declare_types(source, name, column_types)
    present = {column.casefold() for column in own_types}
    missing = [key for key in required if names.get(key, key).casefold() not in present]
    if own_types and missing:
        raise ColumnTypesError(
            f"column_types: {source.uri} has no column {missing[0]!r}; it has {', '.join(own_types)}"
            + (". Give it to the transfer as well, which creates the column" if "." in missing[0] else "")
        )
    parsed = parse_types(declared)
    return LocalTable(
        name,
        path,
        table_format,
        tuple(
            Column(column, type_name(parsed.get(column.casefold(), own_type))) for column, own_type in own_types.items()
        ),
        path.stat().st_mtime_ns,
        log,
        cancellation,
    )


def _declare_types(
    source: SourceObject, name: str, column_types: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return types by the case-folded name of the column, and names of columns by what ``column_types`` calls them."""
    if source.resource == ACTIVITIES:
        return {column.casefold(): column_type for column, column_type in column_types.items()}, {}
    table = next(table for table in RESOURCES[source.resource].tables if table.name == name)
    columns = list_columns(table, column_types)
    declared = {
        column.name.casefold(): TEXT if column.type_name == JSON and not column.source else column.type_name
        for column in columns
    }
    return declared | {EXTRA: TEXT, EXTRACTED_AT: TIME}, {column.key: column.name for column in columns}


def _convert_json_lines(
    source: SourceObject, path: Path, column_types: Mapping[str, str], cancellation: Cancellation
) -> dict[str, Path]:
    """Write the tables of raw rows as Parquet files, as the transfer would have done; return them by name."""
    writer_class = _import("tables").TableWriter
    resource: Resource = RESOURCES[source.resource]
    main, *nested = resource.tables
    selection = source.metadata.get("column_selection") or {}
    paths = {table.name: path.with_name(f"{table.name}.parquet") for table in resource.tables}
    with ExitStack() as stack:
        writers = {
            table.name: stack.enter_context(
                writer_class(
                    paths[table.name],
                    output_format="parquet",
                    table=table,
                    extracted_at=source.as_of,
                    selection=ColumnSelection(
                        table,
                        selection.get("columns"),
                        selection.get("exclude_columns"),
                        other_tables=[other for other in resource.tables if other is not table],
                    ),
                    column_types=column_types if table is main else None,
                )
            )
            for table in resource.tables
        }
        for rows in _read_json_lines(path, source):
            cancellation.check()
            for table in nested:
                writers[table.name].write([item for row in rows for item in nested_rows(row, table)])
            writers[main.name].write(rows)
    return paths


def _read_json_lines(path: Path, source: SourceObject) -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    number = 0
    with open_to_read(path, compressed=source.format.endswith(".gz")) as file:
        try:
            for line in file:
                number += 1
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError("it is not an object")
                rows.append(row)
                if len(rows) == _PAGE_ROWS:
                    yield rows
                    rows = []
        except GZIP_ERRORS as error:
            raise TableError(f"{source.uri} is damaged: {error}") from error
        except ValueError as error:
            raise TableError(f"{source.uri}, line {number}: {error}") from error
    yield rows


def _import(module: str) -> ModuleType:
    """Import a module of ``formats`` that needs pyarrow, which is optional."""
    try:
        return import_module(f"airflow_provider_chartmogul.formats.{module}")
    except ImportError as error:
        raise TransferSettingsError(
            "a load needs pyarrow, which is not installed on this worker: "
            f"pip install 'airflow-provider-chartmogul[parquet]' ({error})"
        ) from error
