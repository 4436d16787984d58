# SPDX-License-Identifier: Apache-2.0
"""
Load into a DuckDB file, which only one process can open at a time.

DuckDB itself reads the Arrow batches into a temporary table; a staging table in the file would be compressed and
written twice. While another process has the file open, opening it is retried.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_chartmogul.exceptions import LoadError, TransferSettingsError
from airflow_provider_chartmogul.warehouse.session import (
    StagedColumn,
    TableName,
    WarehouseSession,
    constraint_error,
    null_error,
)

if TYPE_CHECKING:
    import pyarrow

    from airflow_provider_chartmogul.warehouse.local_tables import LocalTable

#: The name under which DuckDB reads an object's rows.
_ROWS = "chartmogul_rows"

#: Seconds after its last change for which an invalid file may be one that another process is still creating.
_CREATION_SECONDS = 10.0

#: Memory that each of DuckDB's threads gets for an insert, in bytes.
_INSERT_BYTES = 64_000_000

#: The units of DuckDB's settings, each 1,024 times the one before.
_MEMORY_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")

#: DuckDB's message about a missing value.
_NOT_NULL = re.compile(r"NOT NULL constraint failed: (.+)\.(.+)")

#: Locks by path, since DuckDB's own lock only excludes other processes.
_OPEN_FILES: dict[str, threading.Lock] = {}


class DuckDBSession(WarehouseSession):
    """
    A connection to a DuckDB file, which is created if it does not exist.

    :param path: the file
    """

    label = "DuckDB"
    types = {  # noqa: RUF012
        "string": "VARCHAR",
        "large_string": "VARCHAR",
        "int8": "SMALLINT",
        "int16": "SMALLINT",
        "int32": "INTEGER",
        "int64": "BIGINT",
        "float": "DOUBLE",
        "double": "DOUBLE",
        "float32": "DOUBLE",
        "float64": "DOUBLE",
        "bool": "BOOLEAN",
        "date32": "DATE",
        "timestamp[us]": "TIMESTAMP",
        "timestamp[us, tz=UTC]": "TIMESTAMP WITH TIME ZONE",
    }

    def __init__(self, path: str, schema: str | None, **options: Any) -> None:
        super().__init__(schema, **options)
        self.path = Path(path)
        self._connection: Any = None
        self._lock: threading.Lock | None = None

    def open(self) -> None:
        try:
            import duckdb
        except ImportError as error:
            raise TransferSettingsError(
                "duckdb_path needs duckdb, which is not installed on this worker: "
                f"pip install 'airflow-provider-chartmogul[duckdb]' ({error})"
            ) from error
        self.path.parent.mkdir(parents=True, exist_ok=True)
        path = str(self.path.resolve())
        lock = _OPEN_FILES.setdefault(path, threading.Lock())
        self.wait_for(lambda: lock.acquire(blocking=False), path)
        self._lock = lock

        def connect() -> bool:
            try:
                self._connection = duckdb.connect(path)
            except duckdb.IOException as error:
                if "lock" in str(error).lower() or self._is_being_created(error):
                    return False
                raise
            return True

        try:
            self.wait_for(connect, path)
            self._connection.execute("SET TimeZone = 'UTC'")
        except BaseException:
            self.close()
            raise

    def _is_being_created(self, error: Exception) -> bool:
        """Return whether another process may be writing the first bytes of the file, which is not valid until then."""
        with contextlib.suppress(OSError):
            age = time.time() - self.path.stat().st_mtime
            return "not a valid DuckDB database" in str(error) and age < _CREATION_SECONDS
        return False

    def close(self) -> None:
        try:
            if self._connection is not None:
                self._connection.close()
        finally:
            self._connection = None
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    def execute(self, sql: str) -> int:
        rows = self._run(sql).fetchall()
        return rows[0][0] if len(rows) == 1 and len(rows[0]) == 1 and isinstance(rows[0][0], int) else 0

    def insert(self, sql: str, table: TableName) -> int:
        # An index must fit into memory until the commit.
        if not self.query(f"SELECT 1 FROM duckdb_tables() WHERE {self._is_named(table)} AND index_count > 0"):
            self._limit_memory()
        rows = self.execute(sql)
        self.execute("RESET memory_limit")
        return rows

    def _limit_memory(self) -> None:
        """
        Allow DuckDB little more memory than it uses now, and never more than before.

        By default it uses up to 80 % of the machine's memory: for rows that it has not written yet, and to keep the
        blocks that it has written. With the limit it drops those, so an insert of 2 million activities takes 200 MB
        less, and one of 1.2 GB of text 2 GB less, in the same time.
        """
        [(used, limit, threads)] = self.query(
            "SELECT sum(memory_usage_bytes)::BIGINT, current_setting('memory_limit'), current_setting('threads') "
            "FROM duckdb_memory()"
        )
        number, unit = limit.split()
        needed = used + threads * _INSERT_BYTES
        if needed < float(number) * 1024 ** _MEMORY_UNITS.index(unit):
            self.execute(f"SET memory_limit = '{needed}B'")

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        return list(self._run(sql).fetchall())

    def _run(self, sql: str) -> Any:
        import duckdb

        try:
            return self._connection.execute(sql)
        except duckdb.ConstraintException as error:
            message = str(error).partition("\n")[0]
            if (missing := _NOT_NULL.search(message)) is not None:
                raise null_error(*missing.groups()) from error
            raise constraint_error("the table", message) from error
        except (duckdb.DataError, duckdb.InvalidInputException) as error:
            raise LoadError(str(error).partition("\n")[0]) from error

    def lineage_uri(self, table: TableName) -> str:
        return f"file://{self.path.resolve()}"

    def fold(self, name: str) -> str:
        return name

    def find_table(self, schema: str | None, name: str) -> TableName:
        if schema is None:
            [(schema,)] = self.query("SELECT current_schema()")
        table = TableName(schema, name)
        found = self.query(f"SELECT schema_name, table_name FROM duckdb_tables() WHERE {self._is_named(table)}")
        return TableName(*found[0]) if found else table

    def columns(self, table: TableName) -> dict[str, str]:
        return dict(
            self.query(
                f"SELECT column_name, data_type FROM duckdb_columns() WHERE {self._is_named(table)} "
                "ORDER BY column_index"
            )
        )

    def is_view(self, table: TableName) -> bool:
        return bool(self.query(f"SELECT 1 FROM duckdb_views() WHERE {self._is_named(table, 'view_name')}"))

    def _is_named(self, table: TableName, name_column: str = "table_name") -> str:
        """Return a condition on a row of DuckDB's catalogue."""
        # DuckDB compares names without case, even in quotes.
        return (
            "database_name = current_database() "
            f"AND lower(schema_name) = lower({self.literal(table.schema)}) "
            f"AND lower({name_column}) = lower({self.literal(table.name)})"
        )

    def is_single_precision(self, sql_type: str) -> bool:
        return sql_type.lower() == "float"

    def define(self, statements: Sequence[str], tables: Sequence[TableName]) -> None:
        for schema in sorted({table.schema for table in tables}):
            self.execute(f"CREATE SCHEMA IF NOT EXISTS {self.quote(schema)}")
        for statement in statements:
            self.execute(statement)

    def staging_table(self, target: TableName, name: str) -> TableName:
        return TableName("temp", name)

    def stage(self, rows: LocalTable, staging: TableName, columns: Sequence[StagedColumn]) -> None:
        import pyarrow

        self.drop_staging(staging)
        name = self.quote(staging.name)
        batches = _Batches(rows.record_batches())
        if (first := next(batches, None)) is None:
            self.execute(f"CREATE TEMPORARY TABLE {name} ({self.define_columns(columns)})")
            return
        reader = pyarrow.RecordBatchReader.from_batches(first.schema, itertools.chain([first], batches))
        self._connection.register(_ROWS, reader)
        # Staging takes less memory if rows may change their order; the insert from there takes less if they may not.
        self.execute("SET preserve_insertion_order = false")
        try:
            selected = ", ".join(
                f"CAST({self.quote(column.source)} AS {column.staged_type}) AS {self.quote(column.name)}"
                for column in columns
            )
            self.execute(f"CREATE TEMPORARY TABLE {name} AS SELECT {selected} FROM {_ROWS}")
        except Exception as error:
            # DuckDB replaces an error of the batches with one of its own.
            raise batches.error or error from error
        finally:
            self.execute("SET preserve_insertion_order = true")
            self._connection.unregister(_ROWS)

    def lock(self, tables: Sequence[TableName]) -> None:
        """Do nothing, since opening the file has locked it."""


class _Batches:
    """
    An iterator over batches that saves the error raised by their producer.

    :ivar error: the error; ``None`` if there was none
    """

    def __init__(self, batches: Iterator[pyarrow.RecordBatch]) -> None:
        self.error: Exception | None = None
        self._batches = batches

    def __iter__(self) -> _Batches:
        return self

    def __next__(self) -> pyarrow.RecordBatch:
        try:
            return next(self._batches)
        except StopIteration:
            raise
        except Exception as error:
            self.error = error
            raise
