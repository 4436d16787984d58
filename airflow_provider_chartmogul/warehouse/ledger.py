# SPDX-License-Identifier: Apache-2.0
"""
The ledger records which loads a table's rows are from, so that an older object never overwrites a newer one.

``_chartmogul_loads``, in the target's schema, has one row for each load that no later one has replaced: the table, the
account, the type of an export, the query, the window, and the age of the object (``as_of``). A load only changes rows
that no newer load covers. Windows are never split or merged; each newer load becomes a condition on a row's date.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from airflow_provider_chartmogul.exceptions import LoadError
from airflow_provider_chartmogul.warehouse.session import MOMENT, TableName, WarehouseSession, parse_moment
from airflow_provider_chartmogul.warehouse.source_objects import SourceObject

NAME = "_chartmogul_loads"

_COLUMNS = {
    "table_name": "string",
    "resource": "string",
    "account": "string",
    "account_column": "string",
    "activity_type": "string",
    "query_params": "string",
    "window_start": MOMENT,
    "window_end": MOMENT,
    "as_of": MOMENT,
    "export_id": "string",
    "uri": "string",
    "sha256": "string",
    "loaded_at": MOMENT,
}


@dataclass(frozen=True)
class Load:
    """
    A load of an object into a table, as the ledger records it.

    :param resource: the table in the catalogue that the object holds, such as ``invoice_line_items``
    :param account: the Airflow connection of its ChartMogul account
    :param account_column: the column that holds the account; ``None`` if the whole table is of one account
    :param activity_type: the type of an export's activities; ``None`` for all
    :param query_params: the query parameters that the transfer was given, as JSON
    :param start: start of the window, inclusive; ``None`` for an open one, and for a snapshot
    :param end: end of the window, exclusive; ``None`` as for ``start``
    :param as_of: the time whose state the object shows
    """

    resource: str
    account: str | None
    account_column: str | None
    activity_type: str | None
    query_params: str
    start: datetime | None
    end: datetime | None
    as_of: datetime

    @classmethod
    def of(cls, source: SourceObject, resource: str, account_column: str | None) -> Load:
        """
        Return the load of an object.

        :param resource: the table in the catalogue; raw rows of invoices hold several
        """
        start, end = source.window or (None, None)
        return cls(
            resource,
            source.conn_id,
            account_column,
            source.activity_type,
            json.dumps(source.query_params, sort_keys=True, default=str),
            start,
            end,
            source.as_of,
        )

    def overlaps(self, other: Load) -> bool:
        """Return whether two windows have a moment in common."""
        return (self.start is None or other.end is None or self.start < other.end) and (
            other.start is None or self.end is None or other.start < self.end
        )

    def newer(self, loads: Sequence[Load]) -> list[Load]:
        """Return the loads of the same account that are newer than this one."""
        return [
            other
            for other in loads
            if other.as_of > self.as_of and (self.account_column is None or other.account == self.account)
        ]


class Ledger:
    """
    The ledger's rows of one table.

    :param session: the warehouse
    :param table: the table
    """

    def __init__(self, session: WarehouseSession, table: TableName) -> None:
        self._session = session
        self._table = table
        self.name = ledger_of(session, table)

    def create_statements(self) -> list[str]:
        """Return the DDL that creates the ledger; empty if it exists."""
        if self._session.columns(self.name):
            return []
        columns = ", ".join(
            f"{self._column(name)} {self._session.sql_type(arrow_type)}" for name, arrow_type in _COLUMNS.items()
        )
        return [f"CREATE TABLE IF NOT EXISTS {self._session.quote_table(self.name)} ({columns})"]

    def _column(self, name: str) -> str:
        return self._session.quote(self._session.fold(name))

    def read(self) -> list[Load]:
        """Return the loads whose rows may be in the table."""
        session = self._session
        texts = ("resource", "account", "account_column", "activity_type", "query_params")
        columns = [self._column(name) for name in texts]
        columns += [session.as_text(self._column(name)) for name in ("window_start", "window_end", "as_of")]
        rows = session.query(
            f"SELECT {', '.join(columns)} FROM {session.quote_table(self.name)} WHERE {self._of_table}"
        )
        return [
            Load(
                resource=resource,
                account=account,
                account_column=account_column,
                activity_type=activity_type,
                query_params=query_params,
                start=parse_moment(start),
                end=parse_moment(end),
                as_of=_required_moment(as_of),
            )
            for resource, account, account_column, activity_type, query_params, start, end, as_of in rows
        ]

    def discard_statements(self) -> list[str]:
        """Return the statement that deletes the ledger's rows of a table that no longer exists."""
        session, loaded_at, name = self._session, self._column("loaded_at"), self._session.quote_table(self.name)
        if not session.columns(self.name):
            return []
        found = session.query(f"SELECT DISTINCT {session.as_text(loaded_at)} FROM {name} WHERE {self._of_table}")
        moments = ", ".join(session.moment(parse_moment(text)) for (text,) in found if text is not None)
        return [f"DELETE FROM {name} WHERE {self._of_table} AND {loaded_at} IN ({moments})"] if moments else []

    @property
    def _of_table(self) -> str:
        return f"{self._column('table_name')} = {self._session.literal(self._table.name)}"

    def record(self, load: Load, source: SourceObject, loaded_at: datetime) -> None:
        """Add a load, and delete those that it replaces: not newer, and inside its window, account and type."""
        session = self._session
        conditions = [self._of_table, f"{self._column('as_of')} <= {session.moment(load.as_of)}"]
        if load.account_column is not None:
            conditions.append(self._equals("account", load.account))
        if load.activity_type is not None:
            conditions.append(self._equals("activity_type", load.activity_type))
        if load.start is not None:
            conditions.append(f"{self._column('window_start')} >= {session.moment(load.start)}")
        if load.end is not None:
            conditions.append(f"{self._column('window_end')} <= {session.moment(load.end)}")
        name = session.quote_table(self.name)
        session.execute(f"DELETE FROM {name} WHERE {' AND '.join(conditions)}")
        values = {
            "table_name": self._table.name,
            "resource": load.resource,
            "account": load.account,
            "account_column": load.account_column,
            "activity_type": load.activity_type,
            "query_params": load.query_params,
            "window_start": load.start,
            "window_end": load.end,
            "as_of": load.as_of,
            "export_id": source.export_id,
            "uri": source.uri,
            "sha256": source.sha256,
            "loaded_at": loaded_at,
        }
        literals = [
            session.moment(value)  # type: ignore[arg-type]
            if _COLUMNS[key] == MOMENT
            else session.literal(value)  # type: ignore[arg-type]
            for key, value in values.items()
        ]
        session.execute(f"INSERT INTO {name} ({', '.join(map(self._column, values))}) VALUES ({', '.join(literals)})")

    def _equals(self, column: str, value: str | None) -> str:
        name = self._column(column)
        return f"{name} IS NULL" if value is None else f"{name} = {self._session.literal(value)}"


def ledger_of(session: WarehouseSession, table: TableName) -> TableName:
    """Return the ledger of a table: in the table's schema."""
    return session.find_table(table.schema, session.fold(NAME))


def check_same_table(load: Load, loads: Sequence[Load], target: TableName) -> None:
    """
    Check that a table is loaded from one resource and query, and from one account unless it has an account column.

    :param loads: the table's rows in the ledger
    :raises LoadError: if the table holds something else
    """
    for other in loads:
        if other.resource != load.resource:
            raise LoadError(
                f"table {target} was loaded from {other.resource}, and this object holds {load.resource}: give it a "
                "table of its own, for example with {table} in the parameter table"
            )
        if (other.account_column or "").lower() != (load.account_column or "").lower():
            was, now = other.account_column, load.account_column
            raise LoadError(
                f"table {target} was loaded with account_column={was!r}, and this load has account_column={now!r}: use "
                "the same, or load into another table"
            )
        if load.account_column is None and other.account != load.account:
            raise LoadError(
                f"table {target} was loaded from the account of connection {other.account!r}, and this object is from "
                f"{load.account!r}: give each account a table of its own, or start a new table with an account_column"
            )
        if other.account == load.account and other.query_params != load.query_params:
            raise LoadError(
                f"table {target} was loaded with query_params {other.query_params}, and this object has "
                f"{load.query_params}: each would delete the rows of the other. Give each query a table of its own"
            )


def _required_moment(text: str | None) -> datetime:
    moment = parse_moment(text)
    if moment is None:
        raise LoadError(f"{NAME} has a row without as_of: delete that row if it was added by hand")
    return moment


def conditions_of(
    session: WarehouseSession, loads: Sequence[Load], moment: str, moment_type: str, type_column: str | None
) -> str:
    """
    Return the condition that at least one of the loads covers a row.

    :param loads: the loads, at least one
    :param moment: the expression of the row's date
    :param moment_type: the expression's SQL type
    :param type_column: the expression of the row's type; ``None`` if the table has no types
    """
    clauses = []
    for load in loads:
        parts = []
        if load.start is not None:
            parts.append(f"{moment} >= {session.moment(load.start, moment_type)}")
        if load.end is not None:
            parts.append(f"{moment} < {session.moment(load.end, moment_type)}")
        if load.activity_type is not None:
            # Without COALESCE, the condition and its negation would both be NULL for a row without a type. The cast
            # to text is for a user's column that is an enumeration, which has no empty value.
            parts.append(f"COALESCE({session.as_text(str(type_column))}, '') = {session.literal(load.activity_type)}")
        clauses.append(" AND ".join(parts) or "1 = 1")
    return _any_of(clauses)


def _any_of(clauses: Sequence[str]) -> str:
    """Join conditions by OR, as a balanced tree: DuckDB limits the depth of an expression."""
    if len(clauses) == 1:
        return f"({clauses[0]})"
    middle = len(clauses) // 2
    return f"({_any_of(clauses[:middle])} OR {_any_of(clauses[middle:])})"
