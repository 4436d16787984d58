# SPDX-License-Identifier: Apache-2.0
"""
Load a snapshot: all rows of a table, as of one moment.

The snapshot's rows replace the table's. With ``deletes="soft"``, a row that the snapshot lacks stays, and
``_deleted_at`` gets the time of the first snapshot that lacked it. A row that returns has no ``_deleted_at``.
"""

from __future__ import annotations

from datetime import datetime

from airflow_provider_chartmogul.exceptions import LoadError
from airflow_provider_chartmogul.warehouse.ledger import Load
from airflow_provider_chartmogul.warehouse.session import WarehouseSession
from airflow_provider_chartmogul.warehouse.settings import LoadSettings
from airflow_provider_chartmogul.warehouse.target import STAGED, TableResult, Target


def check_staged_snapshot(session: WarehouseSession, target: Target) -> int:
    """
    Check the staged rows of a snapshot, and return their number.

    :raises LoadError: for a row without its key, and for two rows of one key
    """
    staging, uri = session.quote_table(target.staging), target.source.uri
    key = [session.quote(name) for name in target.primary_key]
    counts = "".join(f", count({name})" for name in key)
    [(rows, *filled)] = session.query(f"SELECT count(*){counts} FROM {staging}")
    for name, count in zip(target.primary_key, filled, strict=True):
        if count < rows:
            raise LoadError(
                f"{rows - count} of the {rows} rows of {uri} have no value in column {name!r}, which identifies them"
            )
    if key:
        names = ", ".join(key)
        for *values, count in session.query(
            f"SELECT {names}, count(*) FROM {staging} GROUP BY {names} HAVING count(*) > 1 LIMIT 1"
        ):
            raise LoadError(
                f"{', '.join(target.primary_key)} does not identify the rows of {uri}: {count} of them have "
                f"{', '.join(map(repr, values))}"
            )
    return int(rows)


def check_not_empty(session: WarehouseSession, target: Target, settings: LoadSettings, staged_rows: int) -> None:
    """
    Check that a snapshot without rows does not replace rows, unless ``allow_empty`` is set.

    :raises LoadError: if it would
    """
    if staged_rows or settings.allow_empty:
        return
    conditions = _of_account(session, target)
    if target.deleted_at is not None:
        conditions.append(f"{session.quote(target.deleted_at)} IS NULL")
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    if session.query(f"SELECT 1 FROM {session.quote_table(target.table)}{where} LIMIT 1"):
        raise LoadError(
            f"{target.source.uri} has no rows, and table {target.table} has some. ChartMogul may show an empty list to "
            "an API key that may not see the resource: check the key, or set allow_empty=True if the list is really "
            "empty"
        )


def load_snapshot(
    session: WarehouseSession, target: Target, load: Load, staged_rows: int, loaded_at: datetime
) -> TableResult:
    """
    Replace the rows of a table by those of a snapshot; runs in the transaction of its batch.

    :param load: the load; no newer one has been loaded
    :param staged_rows: the number of rows in the staging table
    :param loaded_at: when the rows are loaded
    """
    table, staging = session.quote_table(target.table), session.quote_table(target.staging)
    of_account = _of_account(session, target)
    result = TableResult()
    replaced = list(of_account)
    if target.deleted_at is not None and target.primary_key:
        deleted_at = session.quote(target.deleted_at)
        vanished = [*of_account, f"{deleted_at} IS NULL"]
        in_snapshot = "1 = 0"
        if staged_rows:
            outer = session.quote(target.table.name)
            key = " AND ".join(f"{STAGED}.{name} = {outer}.{name}" for name in map(session.quote, target.primary_key))
            in_snapshot = f"EXISTS (SELECT 1 FROM {staging} {STAGED} WHERE {key})"
            vanished.append(f"NOT {in_snapshot}")
        moment = session.moment(load.as_of, target.type_of(target.deleted_at))
        result.deleted += session.execute(f"UPDATE {table} SET {deleted_at} = {moment} WHERE {' AND '.join(vanished)}")
        replaced.append(in_snapshot)
    result.deleted += session.execute(f"DELETE FROM {table} WHERE {' AND '.join(replaced) or '1 = 1'}")
    if staged_rows:
        result.inserted = session.insert(target.insert_statement(session, loaded_at), target.table)
    return result


def _of_account(session: WarehouseSession, target: Target) -> list[str]:
    if target.account is None:
        return []
    return [f"{session.quote(target.account)} = {session.literal(target.source.conn_id)}"]
