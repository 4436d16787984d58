# SPDX-License-Identifier: Apache-2.0
"""Write the rows of a resource to local files, one per table, each row once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from importlib import import_module
from pathlib import Path
from textwrap import shorten
from types import ModuleType
from typing import Any

from airflow_provider_chartmogul.api.pagination import Page
from airflow_provider_chartmogul.api.resources import Resource, Table
from airflow_provider_chartmogul.exceptions import TransferSettingsError
from airflow_provider_chartmogul.formats.archive import sha256_of
from airflow_provider_chartmogul.formats.column_selection import ColumnSelection
from airflow_provider_chartmogul.formats.deduplication import keep_last_rows
from airflow_provider_chartmogul.formats.json_lines import JsonLinesWriter
from airflow_provider_chartmogul.formats.nested_rows import nested_rows
from airflow_provider_chartmogul.runtime.task_log import TaskLog
from airflow_provider_chartmogul.storage.delivery import LocalFile

#: Output formats, by suffix of the destination.
FORMATS = {
    ".jsonl": "jsonl",
    ".jsonl.gz": "jsonl.gz",
    ".parquet": "parquet",
    ".csv": "csv",
    ".csv.gz": "csv.gz",
}

#: Formats that hold the rows as they came, nested tables included.
RAW_FORMATS = ("jsonl", "jsonl.gz")


class ResourceOutput:
    """
    What the objects of a resource contain: its tables, and their columns.

    :param output_format: one of the values of ``FORMATS``
    :param columns: the columns to keep; ``None`` keeps all
    :param exclude_columns: the columns to leave out
    :param column_types: Arrow types of the main table's columns
    :raises InvalidResourceError: for a column that the resource does not have
    :raises ColumnTypesError: for a type that Arrow does not have
    :raises TransferSettingsError: for ``column_types`` of a raw format, and if pyarrow is not installed
    """

    def __init__(
        self,
        resource: Resource,
        output_format: str,
        *,
        columns: Sequence[str] | None = None,
        exclude_columns: Sequence[str] | None = None,
        column_types: Mapping[str, str] | None = None,
    ) -> None:
        self.resource = resource
        self.output_format = output_format
        self.is_raw = output_format in RAW_FORMATS
        #: The tables, the main one first; in raw formats only the main one, whose rows contain the others.
        self.tables = resource.tables[:1] if self.is_raw else resource.tables
        #: Whether no column is left out, so that the log may show the summary of all.
        self.keeps_all_columns = columns is None and not exclude_columns
        #: ``columns`` or ``exclude_columns``, as the user gave it.
        self.column_selection = (
            {"columns": columns}
            if columns is not None
            else {"exclude_columns": exclude_columns}
            if exclude_columns is not None
            else None
        )
        self._column_types = column_types
        self._selections = {
            table.name: ColumnSelection(
                table,
                columns,
                exclude_columns,
                other_tables=[other for other in resource.tables if other is not table],
            )
            for table in self.tables
        }
        #: Whether rows are written as the bytes of the response.
        self.needs_raw_rows = self.is_raw and self._selections[resource.main_table.name].keeps_all
        if not self.is_raw:
            _import_tables().check_column_types(resource.main_table, column_types)
        elif column_types:
            raise TransferSettingsError(f"column_types are for tables, and have no meaning for {output_format}")

    def open_writer(
        self, table: Table, path: Path, extracted_at: datetime, footer: Mapping[str, str] | None = None
    ) -> Any:
        """
        Open a file for the rows of a table, as a context manager with ``write(rows, raw_rows)``.

        :param footer: metadata for the footer of a Parquet file
        """
        selection = self._selections[table.name]
        if self.is_raw:
            return JsonLinesWriter(path, compressed=self.output_format == "jsonl.gz", selection=selection)
        return _import_tables().TableWriter(
            path,
            output_format=self.output_format,
            table=table,
            extracted_at=extracted_at,
            selection=selection,
            column_types=self._column_types if table is self.resource.main_table else None,
            footer=footer,
        )


class RowFiles:
    """
    The local files of a resource, one per table, filled in one pass over all of its pages.

    :param folder: where the files are created
    :param extracted_at: when the walk began
    :param footers: metadata for the footers of Parquet files, by table
    """

    def __init__(
        self,
        folder: Path,
        output: ResourceOutput,
        extracted_at: datetime,
        footers: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self._folder = folder
        self._output = output
        self._extracted_at = extracted_at
        self._footers = footers or {}
        self._resource = output.resource
        self._nested = output.tables[1:]
        self._writers: dict[str, Any] = {}
        self._seen_key_hashes: set[int] = set()
        #: For each key that came more than once, the number of nested rows of its last row, by table.
        self._repeated_keys: dict[tuple[Any, ...], dict[str, int]] = {}

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Open the files for ``write``."""
        with contextlib.ExitStack() as stack:
            for table in self._output.tables:
                writer = self._output.open_writer(
                    table, self._path(table), self._extracted_at, self._footers.get(table.name)
                )
                self._writers[table.name] = stack.enter_context(writer)
            yield

    def write(self, page: Page) -> None:
        """Write a page's nested rows to their own files, and the rows to that of the main table."""
        if not page.rows:
            return
        for row in page.rows:
            self._remember_key(row)
        for table in self._nested:
            nested = [item for row in page.rows for item in nested_rows(row, table)]
            self._writers[table.name].write(nested, raw_rows=[])
        self._writers[self._resource.main_table.name].write(page.rows, page.raw_rows)

    def finish(self, log: TaskLog) -> dict[str, LocalFile]:
        """
        Return the complete files by table, after ``open`` has ended.

        A row that came twice, such as a customer that moved between pages, is kept once, as it came last.
        """
        files = {}
        for table in self._output.tables:
            writer = self._writers[table.name]
            path = self._path(table)
            rows = writer.rows
            if self._repeated_keys:
                key, counts = self._rows_to_keep(table)
                rows = keep_last_rows(path, self._output.output_format, key, counts)
            column_types = getattr(writer, "columns", None)
            columns = tuple(column_types) if column_types is not None else None
            files[table.name] = LocalFile(path, sha256_of(path), rows, columns, column_types)
            if extra_keys := getattr(writer, "extra_keys", None):
                log.warning(
                    "Table %s: some rows have keys that this version does not know, or values that do not fit their "
                    "column; these are in the column _extra: %s",
                    table.name,
                    shorten(", ".join(map(ascii, sorted(extra_keys))), 500, placeholder=" …"),
                )
        if self._repeated_keys:
            log.info("%d rows came more than once during the walk; kept the last of each", len(self._repeated_keys))
        return files

    def _path(self, table: Table) -> Path:
        return self._folder / f"{table.name}.{self._output.output_format}"

    def _remember_key(self, row: Mapping[str, Any]) -> None:
        """Remember the row's key by its hash. A collision is harmless: ``keep_last_rows`` compares the keys."""
        key = tuple(row.get(name) for name in self._resource.main_table.primary_key)
        if not key or not all(part and isinstance(part, (str, int, float)) for part in key):
            return
        if (digest := hash(key)) in self._seen_key_hashes:
            self._repeated_keys[key] = {table.name: len(nested_rows(row, table)) for table in self._nested}
        self._seen_key_hashes.add(digest)

    def _rows_to_keep(self, table: Table) -> tuple[tuple[str, ...], dict[tuple[Any, ...], int]]:
        """Return a table's key for ``keep_last_rows``, and how many of the last rows to keep per repeated key."""
        if table is self._resource.main_table:
            return table.primary_key, dict.fromkeys(self._repeated_keys, 1)
        return (table.parent_key,), {key: counts[table.name] for key, counts in self._repeated_keys.items()}


def _import_tables() -> ModuleType:
    """Import the module that needs pyarrow, which is optional, only where tables are written."""
    try:
        return import_module("airflow_provider_chartmogul.formats.tables")
    except ImportError as error:
        raise TransferSettingsError(
            "tables need pyarrow, which is not installed on this worker: "
            f"pip install 'airflow-provider-chartmogul[parquet]' ({error})"
        ) from error
