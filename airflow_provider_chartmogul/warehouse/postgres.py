# SPDX-License-Identifier: Apache-2.0
"""
Load into PostgreSQL through the official provider's hook, with psycopg 2 or 3.

``COPY FROM STDIN`` loads the rows into a temporary table with the target's types, so that PostgreSQL's own error names
the row, the column and the value that does not fit. Loads of one table wait for each other by an advisory lock on the
table's name as the catalogue spells it; it ends with the transaction, so that a connection pool cannot keep it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow_provider_chartmogul.exceptions import LoadError, LockTimeoutError, TransferSettingsError
from airflow_provider_chartmogul.warehouse.cursor_session import CursorSession, import_hook
from airflow_provider_chartmogul.warehouse.session import StagedColumn, TableName, constraint_error, null_error

if TYPE_CHECKING:
    from airflow_provider_chartmogul.warehouse.local_tables import LocalTable

_READ_BYTES = 1 << 20

#: SQLSTATE codes.
_LOCK_NOT_AVAILABLE, _NOT_NULL_VIOLATION = "55P03", "23502"

#: The largest ``lock_timeout`` of the server, in milliseconds.
_MAX_LOCK_TIMEOUT = 2**31 - 1


class PostgresSession(CursorSession):
    """A connection to PostgreSQL."""

    label = "PostgreSQL"
    max_name_bytes = 63
    types = {  # noqa: RUF012
        "string": "TEXT",
        "large_string": "TEXT",
        "int8": "SMALLINT",
        "int16": "SMALLINT",
        "int32": "INTEGER",
        "int64": "BIGINT",
        "float": "DOUBLE PRECISION",
        "double": "DOUBLE PRECISION",
        "float32": "DOUBLE PRECISION",
        "float64": "DOUBLE PRECISION",
        "bool": "BOOLEAN",
        "date32": "DATE",
        "timestamp[us]": "TIMESTAMP",
        "timestamp[us, tz=UTC]": "TIMESTAMP WITH TIME ZONE",
    }

    def _connect(self) -> Any:
        hook = import_hook("postgres", "airflow.providers.postgres.hooks.postgres", "PostgresHook")
        return hook(postgres_conn_id=self.conn_id).get_conn()

    def _prepare(self) -> None:
        self._connection.autocommit = True
        self._cursor = self._new_cursor()
        if self._is_psycopg2:
            self._connection.set_client_encoding("UTF8")
        else:
            self.execute("SET client_encoding TO 'UTF8'")
        for setting in ("TimeZone = 'UTC'", "DateStyle = 'ISO, MDY'", "standard_conforming_strings = on"):
            self.execute(f"SET {setting}")

    def _new_cursor(self) -> Any:
        # The connection's extra may name a cursor whose rows are dictionaries.
        if hasattr(self._connection, "set_client_encoding"):
            return self._connection.cursor(cursor_factory=import_module("psycopg2.extensions").cursor)
        return self._connection.cursor(row_factory=import_module("psycopg.rows").tuple_row)

    @property
    def _is_psycopg2(self) -> bool:
        return hasattr(self._cursor, "copy_expert")

    def _explain(self, error: Exception) -> Exception:
        state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or ""
        diagnosis = getattr(error, "diag", None)
        message = getattr(diagnosis, "message_primary", None) or str(error)
        if state == _LOCK_NOT_AVAILABLE:
            return LockTimeoutError(
                f"another connection kept the table locked for {self.lock_timeout:g} s (lock_timeout): {message}. "
                "Nothing was loaded; the next try waits again"
            )
        # SQLSTATE class 23 is "integrity constraint violation".
        if state.startswith("23"):
            table = f"{getattr(diagnosis, 'schema_name', None)}.{getattr(diagnosis, 'table_name', None)}"
            if state == _NOT_NULL_VIOLATION:
                return null_error(table, str(getattr(diagnosis, "column_name", None)))
            return constraint_error(f"table {table}", message)
        # SQLSTATE class 22 is "data exception".
        if not state.startswith("22"):
            return error
        where = getattr(diagnosis, "context", None) or ""
        return LoadError(f"{message} ({where})" if where else message)

    def lineage_uri(self, table: TableName) -> str:
        server = self._connection.info
        return f"postgres://{server.host}:{server.port}/{server.dbname}/{table.schema}/{table.name}"

    def fold(self, name: str) -> str:
        return name.lower()

    def find_table(self, schema: str | None, name: str) -> TableName:
        if schema is not None:
            return TableName(schema, name)
        for (found,) in self.query(
            "SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            f"WHERE c.oid = to_regclass({self.literal(self.quote(name))})"
        ):
            return TableName(found, name)
        [(current,)] = self.query("SELECT current_schema()")
        if current is None:
            raise TransferSettingsError(
                "no schema of this connection's search_path exists: give one as schema, or create it"
            )
        return TableName(current, name)

    def columns(self, table: TableName) -> dict[str, str]:
        return dict(
            self.query(
                "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
                f"WHERE attrelid = to_regclass({self.literal(self.quote_table(table))}) "
                "AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
            )
        )

    def is_view(self, table: TableName) -> bool:
        return bool(
            self.query(
                f"SELECT 1 FROM pg_class WHERE oid = to_regclass({self.literal(self.quote_table(table))}) "
                "AND relkind IN ('v', 'm')"
            )
        )

    def define(self, statements: Sequence[str], tables: Sequence[TableName]) -> None:
        # If two sessions create the same table at the same time, one fails even with IF NOT EXISTS.
        with self.transaction(tables):
            for schema in sorted({table.schema for table in tables}):
                if not self.query(f"SELECT 1 FROM pg_namespace WHERE nspname = {self.literal(schema)}"):
                    self.execute(f"CREATE SCHEMA IF NOT EXISTS {self.quote(schema)}")
            for statement in statements:
                self.execute(statement)

    def staging_table(self, target: TableName, name: str) -> TableName:
        return TableName("pg_temp", name)

    def stage(self, rows: LocalTable, staging: TableName, columns: Sequence[StagedColumn]) -> None:
        self.drop_staging(staging)
        names = ", ".join(self.quote(column.name) for column in columns)
        self.execute(f"CREATE TEMPORARY TABLE {self.quote(staging.name)} ({self.define_columns(columns)})")
        copy = f"COPY {self.quote_table(staging)} ({names}) FROM STDIN (FORMAT csv, ENCODING 'UTF8')"
        file = _ChunkFile(rows.csv_chunks())
        try:
            if self._is_psycopg2:
                self._cursor.copy_expert(copy, file, _READ_BYTES)
            else:
                with self._cursor.copy(copy) as sink:
                    while chunk := file.read(_READ_BYTES):
                        sink.write(chunk)
        except Exception as error:
            # psycopg 2 replaces an error of the file with one of its own.
            raise file.error or self._explain(error) from error
        self.execute(f"ANALYZE {self.quote_table(staging)}")

    def lock(self, tables: Sequence[TableName]) -> None:
        # Each statement must see what the load before this one has committed, whatever the server's default is.
        self.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
        # Other connections may have locked the table, too. 0 would wait for ever.
        self.execute(f"SET LOCAL lock_timeout = {min(max(1, int(1000 * self.lock_timeout)), _MAX_LOCK_TIMEOUT)}")
        for table in sorted(set(tables), key=str):
            key = int.from_bytes(hashlib.sha256(f"chartmogul:{table}".encode()).digest()[:8], "big", signed=True)

            def acquire(key: int = key) -> bool:
                return bool(self.query(f"SELECT pg_try_advisory_xact_lock({key})")[0][0])

            self.wait_for(acquire, str(table))


class _ChunkFile:
    """
    A file over chunks, for COPY.

    :ivar error: the error raised by the chunks' producer; ``None`` if there was none
    """

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.error: Exception | None = None
        self._chunks = chunks
        self._left = memoryview(b"")

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes; empty at the end."""
        try:
            while not self._left:
                self._left = memoryview(next(self._chunks))
        except StopIteration:
            return b""
        except Exception as error:
            self.error = error
            raise
        data, self._left = bytes(self._left[:size]), self._left[size:]
        return data
