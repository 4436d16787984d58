# SPDX-License-Identifier: Apache-2.0
"""
Load into Snowflake through the official provider's hook.

PUT uploads compressed CSV files to the staging table's own stage, and COPY INTO loads them into that table, so a load
needs no bucket, no named stage and no integration. DDL commits a transaction in Snowflake, so all of it comes first.

Snowflake has no advisory locks, and each statement of a transaction sees what others have committed before it. So a
load begins by updating the only row of the table ``_CHARTMOGUL_LOCK`` in the target's schema, which another load of
this schema cannot update until the first one ends.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_chartmogul.exceptions import LoadError, TransferSettingsError
from airflow_provider_chartmogul.formats.gzip_files import open_to_write
from airflow_provider_chartmogul.warehouse.cursor_session import CursorSession, import_hook
from airflow_provider_chartmogul.warehouse.session import StagedColumn, TableName

if TYPE_CHECKING:
    from airflow_provider_chartmogul.warehouse.local_tables import LocalTable

LOCK_TABLE = "_CHARTMOGUL_LOCK"

#: Bytes of text in one file. Snowflake loads files in parallel, and recommends 100 to 250 MB each, compressed.
_FILE_BYTES = 256 << 20

#: Seconds that one statement waits for a lock. Between two statements, the task checks whether it was cancelled.
_LOCK_WAIT_SECONDS = 10

#: Snowflake's error number for a lock that was not released in time, or for which too many statements wait.
_LOCKED = 625

_SESSION_PARAMETERS = {
    "TIMEZONE": "UTC",
    # Snowflake's own defaults, which an administrator may have changed: names in quotes are exact, and times are read
    # in ISO 8601.
    "QUOTED_IDENTIFIERS_IGNORE_CASE": False,
    "TIMESTAMP_INPUT_FORMAT": "AUTO",
    "DATE_INPUT_FORMAT": "AUTO",
    "TIMESTAMP_TZ_OUTPUT_FORMAT": 'YYYY-MM-DD"T"HH24:MI:SS.FF6TZH:TZM',
    "AUTOCOMMIT": True,
    "LOCK_TIMEOUT": _LOCK_WAIT_SECONDS,
}

#: Text is read literally, although a backslash is an escape character by default. UTF-8 is the default.
_FILE_FORMAT = (
    "TYPE = CSV COMPRESSION = GZIP FIELD_OPTIONALLY_ENCLOSED_BY = '\"' ESCAPE_UNENCLOSED_FIELD = NONE NULL_IF = () "
    "EMPTY_FIELD_AS_NULL = TRUE"
)


class SnowflakeSession(CursorSession):
    """
    A connection to Snowflake.

    :param conn_id: the Airflow connection, with a database and a warehouse
    """

    label = "Snowflake"
    types = {  # noqa: RUF012
        "string": "VARCHAR",
        "large_string": "VARCHAR",
        "int8": "NUMBER(38, 0)",
        "int16": "NUMBER(38, 0)",
        "int32": "NUMBER(38, 0)",
        "int64": "NUMBER(38, 0)",
        "float": "FLOAT",
        "double": "FLOAT",
        "float32": "FLOAT",
        "float64": "FLOAT",
        "bool": "BOOLEAN",
        "date32": "DATE",
        "timestamp[us]": "TIMESTAMP_NTZ",
        "timestamp[us, tz=UTC]": "TIMESTAMP_TZ",
    }

    def _connect(self) -> Any:
        hook = import_hook("snowflake", "airflow.providers.snowflake.hooks.snowflake", "SnowflakeHook")
        own = hook.get_connection(self.conn_id).extra_dejson.get("session_parameters") or {}
        return hook(snowflake_conn_id=self.conn_id, session_parameters={**own, **_SESSION_PARAMETERS}).get_conn()

    def _prepare(self) -> None:
        self._cursor = self._connection.cursor()
        [(database,)] = self.query("SELECT CURRENT_DATABASE()")
        if database is None:
            raise TransferSettingsError(
                f"connection {self.conn_id!r} has no database: set one in its extra, or as the user's default"
            )

    def _explain(self, error: Exception) -> Exception:
        # SQLSTATE class 22 is "data exception".
        if str(getattr(error, "sqlstate", None) or "").startswith("22"):
            return LoadError(str(getattr(error, "raw_msg", None) or error))
        return error

    def lineage_uri(self, table: TableName) -> str:
        [(database,)] = self.query("SELECT CURRENT_DATABASE()")
        return f"snowflake://{self._connection.account}/{database}/{table.schema}/{table.name}"

    def fold(self, name: str) -> str:
        return name.upper()

    def find_table(self, schema: str | None, name: str) -> TableName:
        if schema is None:
            [(schema,)] = self.query("SELECT CURRENT_SCHEMA()")
        if schema is None:
            raise TransferSettingsError(f"connection {self.conn_id!r} has no schema: give one as schema")
        return TableName(schema, name)

    def columns(self, table: TableName) -> dict[str, str]:
        found = self.query(
            "SELECT column_name, data_type, numeric_precision, numeric_scale FROM information_schema.columns "
            f"WHERE table_schema = {self.literal(table.schema)} AND table_name = {self.literal(table.name)} "
            "ORDER BY ordinal_position"
        )
        return {
            name: f"NUMBER({precision}, {scale})"
            if data_type == "NUMBER"
            else "VARCHAR"
            if data_type == "TEXT"
            else data_type
            for name, data_type, precision, scale in found
        }

    def is_view(self, table: TableName) -> bool:
        return bool(
            self.query(
                "SELECT 1 FROM information_schema.views "
                f"WHERE table_schema = {self.literal(table.schema)} AND table_name = {self.literal(table.name)}"
            )
        )

    def is_integer(self, sql_type: str) -> bool:
        return sql_type.upper().replace(" ", "").endswith(",0)")

    def define(self, statements: Sequence[str], tables: Sequence[TableName]) -> None:
        self._create_schemas(tables)
        for statement in statements:
            self.execute(statement)

    def _create_schemas(self, tables: Sequence[TableName]) -> None:
        # A role that may not create schemas could not execute CREATE SCHEMA IF NOT EXISTS either.
        for schema in sorted({table.schema for table in tables}):
            if not self.query(f"SELECT 1 FROM information_schema.schemata WHERE schema_name = {self.literal(schema)}"):
                self.execute(f"CREATE SCHEMA IF NOT EXISTS {self.quote(schema)}")

    def staging_table(self, target: TableName, name: str) -> TableName:
        return TableName(target.schema, name.upper())

    def stage(self, rows: LocalTable, staging: TableName, columns: Sequence[StagedColumn]) -> None:
        self._create_schemas([staging])
        # Dropping the table drops its stage, too. It is transient, since it needs no fail-safe.
        self.execute(f"CREATE OR REPLACE TRANSIENT TABLE {self.quote_table(staging)} ({self.define_columns(columns)})")
        stage = f"@{self.quote(staging.schema)}.{self.quote('%' + staging.name)}"
        with tempfile.TemporaryDirectory(dir=rows.path.parent) as folder:
            has_rows = False
            for path in _write_files(rows.csv_chunks(), Path(folder)):
                has_rows = True
                uri = f"file://{path}".replace("\\", "\\\\").replace("'", "\\'")
                self.execute(f"PUT '{uri}' {stage} AUTO_COMPRESS = FALSE SOURCE_COMPRESSION = GZIP OVERWRITE = TRUE")
                path.unlink()
        if has_rows:
            names = ", ".join(self.quote(column.name) for column in columns)
            self.execute(
                f"COPY INTO {self.quote_table(staging)} ({names}) FROM {stage} FILE_FORMAT = ({_FILE_FORMAT}) "
                "ON_ERROR = ABORT_STATEMENT"
            )

    @contextmanager
    def transaction(self, tables: Sequence[TableName]) -> Iterator[None]:
        for schema in sorted({table.schema for table in tables}):
            lock = TableName(schema, LOCK_TABLE)
            if not self.columns(lock):
                self.execute(f"CREATE TABLE IF NOT EXISTS {self.quote_table(lock)} AS SELECT 0 AS LOADS")
        with super().transaction(tables):
            yield

    def lock(self, tables: Sequence[TableName]) -> None:
        for schema in sorted({table.schema for table in tables}):
            lock = self.quote_table(TableName(schema, LOCK_TABLE))
            self.wait_for(partial(self._try_lock, lock), f"schema {schema}")

    def _try_lock(self, lock: str) -> bool:
        try:
            self.execute(f"UPDATE {lock} SET LOADS = LOADS + 1")
        except Exception as error:
            if getattr(error, "errno", None) != _LOCKED:
                raise
            return False
        return True


def _write_files(chunks: Iterator[bytes], folder: Path) -> Iterator[Path]:
    """Write text to compressed files of a limited size, and yield each when it is complete."""
    number = 0
    chunk = next(chunks, None)
    while chunk is not None:
        path = folder / f"rows-{number}.csv.gz"
        size = 0
        with ExitStack() as stack:
            file = open_to_write(path, compressed=True, stack=stack)
            while chunk is not None and size < _FILE_BYTES:
                file.write(chunk)
                size += len(chunk)
                chunk = next(chunks, None)
        yield path
        number += 1
