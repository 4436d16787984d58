# SPDX-License-Identifier: Apache-2.0
"""
Load an export, or metrics: replace the table's rows inside the window by the object's.

Rows that a newer load covers are neither deleted nor inserted. If the table has an activity under the same UUID at
another date, that row is deleted, so that the activity moves; unless a newer load covers it, and then the object's row
is obsolete and not inserted.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from airflow_provider_chartmogul.exceptions import LoadError
from airflow_provider_chartmogul.warehouse.ledger import Load, conditions_of
from airflow_provider_chartmogul.warehouse.session import WarehouseSession
from airflow_provider_chartmogul.warehouse.source_objects import DESTINATION_HINT
from airflow_provider_chartmogul.warehouse.target import STAGED, TableResult, Target


def check_staged_window(session: WarehouseSession, target: Target) -> int:
    """
    Check the staged rows of a window load, and return their number.

    :raises LoadError: for a row without a date or a UUID, for two rows of one UUID, and for a row of another type than
        that of the export
    """
    staging, uri = session.quote_table(target.staging), target.source.uri
    assert target.date is not None
    columns = [target.date, *([target.uuid] if target.uuid is not None else [])]
    counts = ", ".join(f"count({session.quote(column)})" for column in columns)
    [(rows, *filled)] = session.query(f"SELECT count(*), {counts} FROM {staging}")
    for column, count in zip(columns, filled, strict=True):
        if count < rows:
            raise LoadError(f"{rows - count} of the {rows} rows of {uri} have no value in column {column!r}")
    if target.uuid is not None:
        uuid = session.quote(target.uuid)
        for value, count in session.query(
            f"SELECT {uuid}, count(*) FROM {staging} GROUP BY {uuid} HAVING count(*) > 1 LIMIT 1"
        ):
            raise LoadError(
                f"column {target.uuid!r} does not identify the rows of {uri}: {count} of them have {value!r}. Give "
                "another uuid_column, or None to only replace windows"
            )
    if (activity_type := target.source.activity_type) is not None:
        assert target.type is not None
        type_name, literal = session.quote(target.type), session.literal(activity_type)
        for (value,) in session.query(
            f"SELECT {type_name} FROM {staging} WHERE {type_name} <> {literal} OR {type_name} IS NULL LIMIT 1"
        ):
            raise LoadError(
                f"{uri} is an export of type {activity_type!r}, but has a row with {value!r} in column "
                f"{target.type!r}: nothing was loaded, since the load only replaces activities of that type. Give "
                "the name of the column with the type as type_column"
            )
    return int(rows)


def load_window(
    session: WarehouseSession, target: Target, load: Load, loads: Sequence[Load], staged_rows: int, loaded_at: datetime
) -> TableResult:
    """
    Replace the window of an object; runs in the transaction of its batch.

    :param load: the load
    :param loads: the table's loads before this one
    :param staged_rows: the number of rows in the staging table
    :param loaded_at: when the rows are loaded
    :raises LoadError: if the table lacks a column with the type, and for an object that existed before its transfer and
        has no row inside the window
    """
    assert target.date is not None
    table, staging = session.quote_table(target.table), session.quote_table(target.staging)
    newer = load.newer(loads)
    if target.type is None and any(other.activity_type is not None for other in newer):
        raise LoadError(
            f"table {target.table} was loaded from exports of one type, but has no column with the type: give its name "
            "as type_column"
        )
    condition = _Conditions(session, target, load, newer)
    result = TableResult(deleted=session.execute(f"DELETE FROM {table} WHERE {condition.replaced()}"))
    if not staged_rows:
        return result

    loadable = condition.loadable()
    has_moves = target.uuid is not None and bool(session.query(f"SELECT 1 FROM {table} LIMIT 1"))
    if has_moves:
        result.deleted += session.execute(f"DELETE FROM {table} WHERE {condition.moved()}")
    insert = f"{target.insert_statement(session, loaded_at)} WHERE {loadable}"
    if has_moves and newer:
        # A row that still has the same UUID is covered by a newer load.
        insert += f" AND NOT {condition.is_in_table()}"
    result.inserted = session.insert(insert, target.table)
    inside = result.inserted
    if newer:
        [(inside,)] = session.query(f"SELECT count(*) FROM {staging} {STAGED} WHERE {condition.staged_inside()}")
    result.superseded, result.outside = inside - result.inserted, staged_rows - inside
    if not inside and target.source.metadata.get("modified_at") is not None:
        raise LoadError(
            f"{target.source.uri} existed before its transfer, and none of its {staged_rows} rows is inside the "
            f"window: it seems to be of another window, and would empty this one. {DESTINATION_HINT}"
        )
    return result


class _Conditions:
    """
    The conditions of a window load's statements.

    :param newer: the newer loads of the table
    """

    def __init__(self, session: WarehouseSession, target: Target, load: Load, newer: Sequence[Load]) -> None:
        self._session = session
        self._target = target
        self._load = load
        self._newer = newer
        self._overlapping = [other for other in newer if other.overlaps(load)]
        self._table = session.quote_table(target.table)
        self._staging = session.quote_table(target.staging)

    def replaced(self) -> str:
        """Return the condition that the object replaces a row of the table."""
        parts = [self._inside(""), *self._of_account("")]
        if self._load.activity_type is not None:
            type_name = self._session.quote(self._target.type or "")
            parts.append(f"{type_name} = {self._session.literal(self._load.activity_type)}")
        if self._overlapping:
            parts.append(f"NOT {self._covered('', self._overlapping)}")
        return " AND ".join(parts)

    def staged_inside(self) -> str:
        """Return the condition that a staged row is in the window."""
        return self._inside(f"{STAGED}.")

    def loadable(self) -> str:
        """Return the condition that a staged row is in the window, and no newer load covers it."""
        parts = [self.staged_inside()]
        if self._overlapping:
            parts.append(f"NOT {self._covered(f'{STAGED}.', self._overlapping)}")
        return " AND ".join(parts)

    def moved(self) -> str:
        """Return the condition that a row of the table has the UUID of a loadable row, and no newer load covers it."""
        uuid = self._session.quote(self._target.uuid or "")
        uuids = f"SELECT {STAGED}.{uuid} FROM {self._staging} {STAGED} WHERE {self.loadable()}"
        parts = [f"{uuid} IN ({uuids})", *self._of_account("")]
        if self._newer:
            parts.append(f"NOT {self._covered('', self._newer)}")
        return " AND ".join(parts)

    def is_in_table(self) -> str:
        """Return the condition that a staged row's UUID is in the table."""
        uuid = self._session.quote(self._target.uuid or "")
        same = [f"table_row.{uuid} = {STAGED}.{uuid}", *self._of_account("table_row.")]
        return f"EXISTS (SELECT 1 FROM {self._table} table_row WHERE {' AND '.join(same)})"

    def _inside(self, prefix: str) -> str:
        moment, sql_type = self._moment(prefix)
        parts = []
        if self._load.start is not None:
            parts.append(f"{moment} >= {self._session.moment(self._load.start, sql_type)}")
        if self._load.end is not None:
            parts.append(f"{moment} < {self._session.moment(self._load.end, sql_type)}")
        return " AND ".join(parts) or "1 = 1"

    def _of_account(self, prefix: str) -> list[str]:
        if self._target.account is None:
            return []
        account = self._session.literal(self._target.source.conn_id)
        return [f"{prefix}{self._session.quote(self._target.account)} = {account}"]

    def _covered(self, prefix: str, loads: Sequence[Load]) -> str:
        """Return the condition that at least one of the loads covers a row."""
        type_name = None
        if self._target.type is not None:
            staged_columns = {column.name for column in self._target.columns}
            is_missing = bool(prefix) and self._target.type not in staged_columns
            type_name = "NULL" if is_missing else prefix + self._session.quote(self._target.type)
        return conditions_of(self._session, loads, *self._moment(prefix), type_name)

    def _moment(self, prefix: str) -> tuple[str, str]:
        """Return the expression of a row's date, and its SQL type."""
        date = self._target.date or ""
        sql_type = self._target.type_of(date)
        if prefix:
            sql_type = next((column.staged_type for column in self._target.columns if column.name == date), sql_type)
        return prefix + self._session.quote(date), sql_type
