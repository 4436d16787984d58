# SPDX-License-Identifier: Apache-2.0
"""
The interface that a load has to all warehouses.

A session connects, bulk-loads a local file into a staging table, and knows the warehouse's names, types, quotes and
locks. The statements that change the target table are in ``window_load.py`` and ``snapshot_load.py``, once for all
warehouses, in the SQL that they have in common: no ``MERGE``, no correlated subqueries other than by equality, no
``TRUNCATE``, no ``CREATE OR REPLACE``.
"""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_chartmogul.exceptions import LoadError, LockTimeoutError, TransferSettingsError
from airflow_provider_chartmogul.runtime.cancellation import Cancellation
from airflow_provider_chartmogul.runtime.task_log import TaskLog

if TYPE_CHECKING:
    from airflow_provider_chartmogul.warehouse.local_tables import LocalTable

#: Arrow's name for the type of a time with a time zone.
MOMENT = "timestamp[us, tz=UTC]"

#: Seconds between two attempts to get a lock that another load holds.
_LOCK_POLL_SECONDS = 0.5

#: The digits of Arrow's ``decimal128``.
_MAX_ARROW_DIGITS = 38

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*")
_NAME_PART = re.compile(r'"((?:[^"]|"")+)"|([^".]+)')


@dataclass(frozen=True)
class TableName:
    """
    A table, spelled as the warehouse's catalogue spells it.

    :param schema: its schema
    :param name: its name
    """

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True)
class StagedColumn:
    """
    A column of a staging table.

    :param source: its name in the object
    :param name: its name in the target table, and in the staging table
    :param staged_type: the SQL type of the staging table's column
    :param target_type: the SQL type of the target table's column
    """

    source: str
    name: str
    staged_type: str
    target_type: str


class WarehouseSession(ABC):
    """
    A connection to a warehouse for the loads of one batch, used as a context manager.

    Its time zone is UTC, and each statement outside ``transaction()`` is committed at once.

    :param schema: the schema for table names without one; ``None`` uses the connection's
    :param lock_timeout: how long to wait for another load of the same table, in seconds
    :param cancellation: ends waiting when the task is cancelled
    :param log: the task's log
    """

    #: The warehouse's name in messages.
    label: ClassVar[str]
    #: The longest name of a table or column, in bytes of UTF-8.
    max_name_bytes: ClassVar[int] = 255
    #: SQL types by the name of an Arrow type. ``decimal128(p, s)`` becomes ``DECIMAL(p, s)``.
    types: ClassVar[Mapping[str, str]]

    def __init__(self, schema: str | None, *, lock_timeout: float, cancellation: Cancellation, log: TaskLog) -> None:
        self.schema = schema
        self.lock_timeout = lock_timeout
        self.cancellation = cancellation
        self.log = log

    # Connection

    def __enter__(self) -> WarehouseSession:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def open(self) -> None:
        """
        Connect, with UTC as the time zone.

        :raises LockTimeoutError: if another process keeps the database locked for longer than ``lock_timeout``
        """

    @abstractmethod
    def close(self) -> None:
        """Disconnect; a transaction that has not been committed is rolled back."""

    @abstractmethod
    def execute(self, sql: str) -> int:
        """
        Execute a statement, and return the number of rows that it changed.

        :raises LoadError: if a value does not fit its column, or a row does not meet a constraint
        """

    def insert(self, sql: str, table: TableName) -> int:
        """
        Execute the statement that inserts staged rows into a table, and return their number.

        :raises LoadError: as ``execute``
        """
        return self.execute(sql)

    @abstractmethod
    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Execute a query and return its rows. Times must be cast to text, which ``parse_moment`` reads."""

    @abstractmethod
    def lineage_uri(self, table: TableName) -> str:
        """Return the URI of a table's asset, without credentials."""

    # Names, values and types

    @abstractmethod
    def fold(self, name: str) -> str:
        """Return how the catalogue spells a name that a user writes without quotes."""

    @abstractmethod
    def find_table(self, schema: str | None, name: str) -> TableName:
        """
        Return a table's schema and name as the catalogue spells them, or those that a new table would get.

        :param schema: ``None`` for the schema that the connection uses for this name
        """

    @abstractmethod
    def columns(self, table: TableName) -> dict[str, str]:
        """Return the SQL types of a table's columns by name, in order; empty if the table does not exist."""

    @abstractmethod
    def is_view(self, table: TableName) -> bool:
        """Return whether the name is that of a view."""

    def resolve_table(self, text: str) -> TableName:
        """
        Return the table for a name that a user wrote.

        :param text: ``name`` or ``schema.name``. Names are folded as in SQL, unless they are in double quotes or could
            not be written without
        :raises TransferSettingsError: for anything else, for a name that is too long, and for a schema that
            contradicts ``schema``
        """
        parts = [self._fold_part(match) for match in _NAME_PART.finditer(text)]
        if not 1 <= len(parts) <= 2 or ".".join(match[0] for match in _NAME_PART.finditer(text)) != text:
            raise TransferSettingsError(f"table {text!r} is not a name, or a schema and a name with a dot between them")
        schema = self.schema and self._fold_text(self.schema)
        if len(parts) == 2 and schema is not None and schema != parts[0]:
            raise TransferSettingsError(
                f"table {text!r} names another schema than schema={self.schema!r}: give one of them"
            )
        for name in (*parts, *([schema] if schema else [])):
            # PostgreSQL truncates it, so two names could mean the same table.
            if len(name.encode()) > self.max_name_bytes:
                raise TransferSettingsError(
                    f"{name!r} has {len(name.encode())} bytes; names in {self.label} have at most {self.max_name_bytes}"
                )
        return self.find_table(parts[0] if len(parts) == 2 else schema, parts[-1])

    def _fold_part(self, match: re.Match[str]) -> str:
        quoted, plain = match.groups()
        return quoted.replace('""', '"') if quoted else self.fold_identifier(plain)

    def _fold_text(self, text: str) -> str:
        match = _NAME_PART.fullmatch(text)
        return self._fold_part(match) if match else text

    def fold_identifier(self, name: str) -> str:
        """Return a name as the catalogue spells it; one that needs quotes stays as it is."""
        return self.fold(name) if _IDENTIFIER.fullmatch(name) else name

    def new_column_name(self, name: str) -> str:
        """Return the name that a new column gets: folded as if it was written without quotes, and not too long."""
        encoded = self.fold_identifier(name).encode()
        return encoded[: self.max_name_bytes].decode(errors="ignore")

    def quote(self, name: str) -> str:
        """Return a name in quotes."""
        return '"' + name.replace('"', '""') + '"'

    def quote_table(self, table: TableName) -> str:
        """Return a table's full name in quotes."""
        return f"{self.quote(table.schema)}.{self.quote(table.name)}"

    def literal(self, value: str | None) -> str:
        """Return a text as a literal."""
        return "NULL" if value is None else "'" + value.replace("'", "''") + "'"

    def moment(self, value: datetime | None, sql_type: str | None = None) -> str:
        """
        Return a moment as a literal.

        :param sql_type: the type of the column that it is compared with; ``None`` for a moment with a time zone
        """
        sql_type = sql_type or self.types[MOMENT]
        if value is None:
            return f"CAST(NULL AS {sql_type})"
        utc = value.astimezone(UTC)
        text = utc.isoformat() if self.is_moment(sql_type) else utc.replace(tzinfo=None).isoformat()
        if self.is_date(sql_type) and utc.time() == utc.min.time():
            return f"CAST('{utc.date().isoformat()}' AS {sql_type})"
        # A bound that is not midnight is compared as a time.
        return f"CAST('{text}' AS {self.types['timestamp[us]'] if self.is_date(sql_type) else sql_type})"

    def as_text(self, expression: str) -> str:
        """Return an expression as text, in a form that ``datetime.fromisoformat`` reads if it is a moment."""
        return f"CAST({expression} AS {self.types['string']})"

    def sql_type(self, arrow_type: str) -> str:
        """
        Return the SQL type of a new column.

        :param arrow_type: the name of an Arrow type
        :raises TransferSettingsError: for a type that the warehouse does not have
        """
        name = re.sub(r"\s*,\s*", ", ", arrow_type.strip())
        if (decimal := re.fullmatch(r"decimal(?:32|64|128)?\((\d+)(?:, (\d+))?\)", name)) is not None:
            return f"DECIMAL({decimal[1]}, {decimal[2] or 0})"
        if (zoned := re.fullmatch(r"timestamp\[(?:s|ms|us|ns)(, tz=.*)?\]", name)) is not None:
            name = MOMENT if zoned[1] else "timestamp[us]"
        if name not in self.types:
            raise TransferSettingsError(
                f"{arrow_type!r} has no type in {self.label}: give another in column_types, such as "
                f"{', '.join(sorted(self.types))}"
            )
        return self.types[name]

    def is_moment(self, sql_type: str) -> bool:
        """Return whether a type of the catalogue is a time with a time zone."""
        return bool(re.search("with time zone|timestamptz|timestamp_[lt]tz|timestamp_tz", sql_type, re.IGNORECASE))

    def is_time(self, sql_type: str) -> bool:
        """Return whether a type of the catalogue is a date and time, with or without a time zone."""
        return sql_type.lower().startswith(("timestamp", "datetime"))

    def is_date(self, sql_type: str) -> bool:
        """Return whether a type of the catalogue is a date without a time."""
        return sql_type.lower() == "date"

    def is_single_precision(self, sql_type: str) -> bool:
        """Return whether a type of the catalogue is a number with single precision."""
        return sql_type.lower() == "real"

    def is_integer(self, sql_type: str) -> bool:
        """Return whether a type of the catalogue is a whole number."""
        return sql_type.lower() in ("tinyint", "smallint", "integer", "int", "bigint", "hugeint")

    def decimal_type(self, sql_type: str) -> str | None:
        """Return the Arrow type of a decimal number with a fixed scale; ``None`` for other types of the catalogue."""
        match = re.fullmatch(r"(?:decimal|numeric|number)\((\d+), ?(\d+)\)", sql_type.lower())
        if match is None or not int(match[2]) <= int(match[1]) <= _MAX_ARROW_DIGITS:
            return None
        return f"decimal128({match[1]}, {match[2]})"

    # Loading

    @abstractmethod
    def define(self, statements: Sequence[str], tables: Sequence[TableName]) -> None:
        """
        Execute DDL, one load at a time.

        :param statements: statements that can be executed again (``IF NOT EXISTS``)
        :param tables: the tables that they create or change
        """

    @abstractmethod
    def stage(self, rows: LocalTable, staging: TableName, columns: Sequence[StagedColumn]) -> None:
        """
        Create a staging table, and fill it with a local file's rows.

        :raises LoadError: if a value does not fit its column's type, naming both
        """

    @abstractmethod
    def staging_table(self, target: TableName, name: str) -> TableName:
        """Return where a staging table for a target is created."""

    def drop_staging(self, staging: TableName) -> None:
        """Drop a staging table, if it exists."""
        self.execute(f"DROP TABLE IF EXISTS {self.quote_table(staging)}")

    def define_columns(self, columns: Sequence[StagedColumn]) -> str:
        """Return the names and types of a staging table's columns, for its DDL."""
        return ", ".join(f"{self.quote(column.name)} {column.staged_type}" for column in columns)

    @contextmanager
    def transaction(self, tables: Sequence[TableName]) -> Iterator[None]:
        """
        Run statements in a transaction, during which no other load of these tables runs.

        :raises LockTimeoutError: if another load keeps one of them locked for longer than ``lock_timeout``
        """
        self.execute("BEGIN")
        try:
            self.lock(tables)
            yield
            self.cancellation.check()
        except BaseException:
            self.rollback()
            raise
        self.execute("COMMIT")

    @abstractmethod
    def lock(self, tables: Sequence[TableName]) -> None:
        """Lock the tables against other loads until the transaction ends; wait while another load has locked them."""

    def rollback(self) -> None:
        """Roll back the transaction, if the connection still works."""
        try:
            self.execute("ROLLBACK")
        except Exception as error:
            # The error that caused it is more important, and without a connection the warehouse rolls back by itself.
            self.log.warning("Rolling back failed (%s); closing the connection rolls back", error)

    def wait_for(self, acquire: Callable[[], bool], what: str) -> None:
        """
        Call a function until it returns true.

        :param acquire: tries to get a lock
        :param what: what is locked, for the error
        :raises LockTimeoutError: if it does not within ``lock_timeout``
        :raises TaskCancelledError: if the task is cancelled
        """
        deadline = time.monotonic() + self.lock_timeout
        waiting = False
        while not acquire():
            if not waiting:
                self.log.info("%s is locked by another load; waiting up to %.0f s", what, self.lock_timeout)
                waiting = True
            if time.monotonic() >= deadline:
                raise LockTimeoutError(
                    f"{what} was locked by another load or connection for {self.lock_timeout:g} s (lock_timeout). "
                    "Nothing was loaded; the next try waits again"
                )
            self.cancellation.sleep(min(_LOCK_POLL_SECONDS, max(0.01, deadline - time.monotonic())))


def parse_moment(text: str | None) -> datetime | None:
    """Parse a time that a session returned as text."""
    if text is None:
        return None
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def null_error(table: str, column: str) -> LoadError:
    """Return the error for a row without a value for a column that may not be NULL."""
    return LoadError(
        f"column {column!r} of table {table} is NOT NULL, and the object has no value for it: drop the constraint, or "
        "give the column a default if the object lacks the column"
    )


def constraint_error(place: str, message: str) -> LoadError:
    """
    Return the error for rows that do not meet another constraint.

    :param place: what has the constraint, such as ``table public.activities``
    :param message: the warehouse's own message
    """
    return LoadError(f"the rows do not meet a constraint of {place}: {message}. Drop the constraint")
