# SPDX-License-Identifier: Apache-2.0
"""Plan the table of a load: its existing and new columns, and their roles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, time
from typing import Any

from airflow_provider_chartmogul.api.resources import get_resource
from airflow_provider_chartmogul.exceptions import LoadError
from airflow_provider_chartmogul.warehouse.local_tables import Column, LocalTable
from airflow_provider_chartmogul.warehouse.session import MOMENT, StagedColumn, TableName, WarehouseSession
from airflow_provider_chartmogul.warehouse.settings import LoadSettings
from airflow_provider_chartmogul.warehouse.source_objects import ACTIVITIES, SourceObject

#: When a row was loaded; every table has it.
LOADED_AT = "_loaded_at"

#: When a row was first missing in a snapshot; tables with ``deletes="soft"`` have it.
DELETED_AT = "_deleted_at"


#: The alias of the staging table in all statements; not the name of a user's table, which some of them mention, too.
STAGED = "_chartmogul_staged_row"

#: Names of the Arrow types whose values fit into a number of single precision.
_SINGLE_PRECISION_TYPES = ("float32", "int8", "int16", "bool")


@dataclass
class TableResult:
    """
    The effect of loads on a table.

    :param inserted: rows that were inserted
    :param deleted: rows that were deleted, including those that were inserted again, or marked as deleted
    :param outside: rows of the objects that are outside their window, and were not loaded
    :param superseded: rows of the objects that were not loaded, since newer loads had made them obsolete
    :param skipped: snapshots that were not loaded, since a newer one was already loaded
    :param columns_added: columns that were added to the table
    :ivar uri: the URI of the table's asset; not part of the task's result
    """

    inserted: int = 0
    deleted: int = 0
    outside: int = 0
    superseded: int = 0
    skipped: int = 0
    columns_added: list[str] = field(default_factory=list)
    uri: str = ""

    def add(self, other: TableResult) -> None:
        """Add the effect of another load."""
        self.uri = other.uri
        for name, value in other.as_dict().items():
            setattr(self, name, getattr(self, name) + value)

    def as_dict(self) -> dict[str, Any]:
        """Return the task's result for the table."""
        return {name: value for name, value in asdict(self).items() if name != "uri"}


@dataclass(frozen=True)
class Target:
    """
    A table, and the object that is loaded into it.

    :param name: the table's name, as the user spells it
    :param table: the table
    :param staging: the staging table
    :param source: the object
    :param rows: its rows on local disk, with types that fit the table's
    :param columns: the object's columns in the table; empty if the object has no header
    :param required: all columns that the load needs the table to have, with their types
    :param account: the column that holds the account, if there is one
    :param date: the column with a row's date; for a window load
    :param uuid: the column that identifies a row; ``None`` without one
    :param type: the column with an activity's type; ``None`` if the table has none
    :param primary_key: the columns that identify a row of a snapshot
    """

    name: str
    table: TableName
    staging: TableName
    source: SourceObject
    rows: LocalTable
    columns: tuple[StagedColumn, ...]
    required: Mapping[str, str]
    account: str | None = None
    date: str | None = None
    uuid: str | None = None
    type: str | None = None
    primary_key: tuple[str, ...] = ()

    @property
    def is_window(self) -> bool:
        """Whether the object has a window; otherwise it is a snapshot."""
        return self.source.window is not None

    @property
    def loaded_at(self) -> str:
        return next(name for name in self.required if name.lower() == LOADED_AT)

    @property
    def deleted_at(self) -> str | None:
        return next((name for name in self.required if name.lower() == DELETED_AT), None)

    def type_of(self, column: str) -> str:
        """Return the SQL type of one of the table's columns."""
        return self.required[column]

    def insert_statement(self, session: WarehouseSession, loaded_at: datetime) -> str:
        """Return the statement that inserts all staged rows, to which a condition on ``STAGED`` can be added."""
        values = {}
        for column in self.columns:
            staged = f"{STAGED}.{session.quote(column.name)}"
            is_same = column.staged_type == column.target_type
            values[column.name] = staged if is_same else f"CAST({staged} AS {column.target_type})"
        if self.account is not None:
            values[self.account] = session.literal(self.source.conn_id)
        values[self.loaded_at] = session.moment(loaded_at, self.type_of(self.loaded_at))
        return (
            f"INSERT INTO {session.quote_table(self.table)} ({', '.join(map(session.quote, values))}) "
            f"SELECT {', '.join(values.values())} FROM {session.quote_table(self.staging)} {STAGED}"
        )

    def create_statements(self, session: WarehouseSession) -> tuple[list[str], list[str]]:
        """
        Return the DDL that gives the table its columns, and the names of those that are added to an existing table.

        :param session: the session, which reads the table's present columns
        """
        existing = session.columns(self.table)
        name = session.quote_table(self.table)
        missing = {
            column: sql_type
            for column, sql_type in self.required.items()
            if column.lower() not in {one.lower() for one in existing}
        }
        if not existing:
            columns = ", ".join(f"{session.quote(column)} {sql_type}" for column, sql_type in missing.items())
            return [f"CREATE TABLE IF NOT EXISTS {name} ({columns})"], []
        return [
            f"ALTER TABLE {name} ADD COLUMN IF NOT EXISTS {session.quote(column)} {sql_type}"
            for column, sql_type in missing.items()
        ], list(missing)


class _Columns:
    """The existing and new columns of a table, with names compared without case."""

    def __init__(self, session: WarehouseSession, existing: Mapping[str, str]) -> None:
        self._session = session
        self._existing = existing
        self.required: dict[str, str] = {}

    def name(self, column: str) -> str:
        """Return the name that a column has or gets in the table."""
        if column in self._existing:
            return column
        new = self._session.new_column_name(column)
        known = {name.lower(): name for name in (*self.required, *self._existing)}
        return known.get(new.lower(), new)

    def find(self, column: str) -> str | None:
        """Return a column's name in the table as it is; ``None`` if it has none."""
        name = self.name(column)
        return name if name in self._existing else None

    def require(self, column: str, arrow_type: str) -> str:
        """Return the name of a column that the table is to have, with this type if it is new."""
        name = self.name(column)
        self.required[name] = self._existing.get(name) or self._session.sql_type(arrow_type)
        return name


def plan_target(
    session: WarehouseSession, settings: LoadSettings, source: SourceObject, local: LocalTable, staging_name: str
) -> Target:
    """
    Decide which columns a table needs for an object.

    :param local: the object's rows on local disk
    :param staging_name: the name of the task's staging table
    :raises LoadError: if the object lacks a column, or has one that the load fills itself
    """
    name = settings.table.replace("{table}", local.table)
    table = session.resolve_table(name)
    if session.is_view(table):
        raise LoadError(f"{table} is a view, which may hide rows from the load: give the name of a table as table")
    columns = _Columns(session, session.columns(table))
    filled_columns = [LOADED_AT, *([DELETED_AT] if settings.deletes == "soft" else [])]
    if settings.account_column is not None:
        if not source.conn_id:
            raise LoadError(
                f"the metadata of {source.uri} has no chartmogul_conn_id, so that account_column cannot be filled: "
                "transfer the object again, or add the key to the metadata that source gets"
            )
        filled_columns.append(settings.account_column)
    for column in local.columns:
        if column.name.lower() in {name.lower() for name in filled_columns}:
            raise LoadError(
                f"{source.uri} has a column {column.name!r} of its own, which the load would fill: "
                + (
                    "give another name as account_column"
                    if column.name.lower() == (settings.account_column or "").lower()
                    else "leave it out of the object"
                )
            )
    if source.window is not None:
        roles = _plan_window(columns, settings, source, local)
    else:
        roles = _plan_snapshot(columns, settings, local, source)
    staged = _stage_columns(session, table, columns, local, source, roles.get("date"))
    rows = replace(local, columns=tuple(_fit_type(session, table, column, staged) for column in local.columns))
    account = None
    if settings.account_column is not None:
        account = columns.require(settings.account_column, "string")
    columns.require(LOADED_AT, MOMENT)
    in_order = [*(column.name for column in staged), *columns.required]
    target = Target(
        name,
        table,
        session.staging_table(table, staging_name),
        source,
        rows,
        staged,
        {column: columns.required[column] for column in in_order},
        account,
        **roles,
    )
    if target.date is not None:
        _check_date_type(session, target, local, settings)
    return target


def _plan_window(columns: _Columns, settings: LoadSettings, source: SourceObject, local: LocalTable) -> dict[str, Any]:
    names = {column.name.lower() for column in local.columns}
    is_export = source.resource == ACTIVITIES
    date_column = settings.date_column if is_export else "date"
    uuid_column = settings.uuid_column if is_export else None
    for parameter, name, advice in (
        ("date_column", date_column, ""),
        ("uuid_column", uuid_column, ", or None to only replace windows"),
        ("type_column", settings.type_column if source.activity_type is not None else None, ""),
    ):
        if local.columns and name is not None and name.lower() not in names:
            raise LoadError(
                f"{source.uri} has no column {name!r}; it has {', '.join(column.name for column in local.columns)}. "
                f"Give the name of that column as {parameter}{advice}"
            )
    declared = {column.name.lower(): column.type for column in local.columns}
    date_type = declared.get(date_column.lower(), "string")
    date = columns.require(date_column, "date32" if date_type.startswith("date") or not is_export else MOMENT)
    uuid = None if uuid_column is None else columns.require(uuid_column, declared.get(uuid_column.lower(), "string"))
    type_name = None
    if is_export:
        has_type = source.activity_type is not None or settings.type_column.lower() in names
        type_name = columns.require(settings.type_column, "string") if has_type else columns.find(settings.type_column)
    return {"date": date, "uuid": uuid, "type": type_name}


def _plan_snapshot(
    columns: _Columns, settings: LoadSettings, local: LocalTable, source: SourceObject
) -> dict[str, Any]:
    declared = {column.name: column.type for column in local.columns}
    [table] = [table for table in get_resource(source.resource).tables if table.name == local.table]
    primary_key = tuple(
        columns.require(name, declared.get(name) or table.column_types[name]) for name in table.primary_key
    )
    if missing := [name for name in table.primary_key if local.columns and name not in declared]:
        raise LoadError(f"{source.uri} has no column {missing[0]!r}, which identifies the rows of {table.name}")
    if settings.deletes == "soft":
        columns.require(DELETED_AT, MOMENT)
    return {"primary_key": primary_key}


def _stage_columns(
    session: WarehouseSession,
    table: TableName,
    columns: _Columns,
    local: LocalTable,
    source: SourceObject,
    date: str | None,
) -> tuple[StagedColumn, ...]:
    staged: dict[str, StagedColumn] = {}
    for column in local.columns:
        name = columns.require(column.name, column.type) if columns.name(column.name) != date else date
        if name in staged:
            raise LoadError(
                f"{source.uri} has the columns {staged[name].source!r} and {column.name!r}, which are the same "
                f"column, {name!r}, in {session.label}: leave one out of the object"
            )
        target_type = columns.required[name]
        if session.is_single_precision(target_type) and column.type not in _SINGLE_PRECISION_TYPES:
            raise LoadError(
                f"column {name!r} of table {table} is {target_type}, which keeps about six digits of a number: change "
                f"its type to {session.sql_type('float64')} or DECIMAL, or leave the column out of the object"
            )
        # A time with an offset must not lose it on the way into a column without a time zone.
        is_plain_time = session.is_time(target_type) and not session.is_moment(target_type)
        staged_type = session.sql_type(MOMENT) if is_plain_time else target_type
        staged[name] = StagedColumn(column.name, name, staged_type, target_type)
    return tuple(staged.values())


def _fit_type(session: WarehouseSession, table: TableName, column: Column, staged: Sequence[StagedColumn]) -> Column:
    """Return a column with the type of the table, where the warehouse would round, cut or parse its values itself."""
    [one] = [one for one in staged if one.source == column.name]
    lossless = _lossless_type(session, column.type, one.staged_type)
    remedy = (
        f"column {one.name!r} of table {table} is {one.target_type}: change its type, or leave the column out of the "
        "object"
    )
    return replace(column, type=lossless, remedy=remedy) if lossless != column.type else column


def _lossless_type(session: WarehouseSession, own_type: str, staged_type: str) -> str:
    """
    Return the Arrow type whose values a column of the staging table stores without rounding or parsing them.

    :param own_type: the name of the Arrow type that the column has in the object
    """
    if own_type == "string" and session.is_moment(staged_type):
        return MOMENT
    if session.is_date(staged_type) and own_type.startswith(("string", "timestamp")):
        return "date32"
    is_exact = own_type == "string" or own_type.startswith("decimal")
    if session.is_integer(staged_type) and (is_exact or own_type in ("float32", "float64")):
        return "int64"
    return (session.decimal_type(staged_type) if is_exact else None) or own_type


def _check_date_type(session: WarehouseSession, target: Target, local: LocalTable, settings: LoadSettings) -> None:
    assert target.date is not None
    sql_type = target.type_of(target.date)
    declared = {column.name.lower(): column for column in local.columns}
    column: Column | None = declared.get(target.date.lower())
    is_export = target.source.resource == ACTIVITIES
    holds_times = is_export and (column is None or not column.type.startswith("date"))
    if is_export and not holds_times and any(bound and bound.time() != time() for bound in target.source.window or ()):
        raise LoadError(
            f"column {target.date!r} of {target.source.uri} has dates without times, but its window begins or ends "
            "inside a day in UTC, so that the window's rows cannot be told from others of that day: load it with "
            "times, or export whole days"
        )
    if session.is_date(sql_type) and holds_times:
        raise LoadError(
            f"column {target.date!r} of table {target.table} is {sql_type}, which would lose the time of activities: "
            f"change its type to {session.sql_type(MOMENT)}"
        )
    if not session.is_time(sql_type) and not session.is_date(sql_type):
        raise LoadError(
            f"column {target.date!r} of table {target.table} is {sql_type}, which cannot be compared with "
            f"windows: change its type to {session.sql_type(MOMENT)}, or give another date_column"
        )
