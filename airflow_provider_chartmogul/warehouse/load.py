# SPDX-License-Identifier: Apache-2.0
"""Load the objects of one export or walk: stage all of them, then change the tables in one transaction."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow_provider_chartmogul.exceptions import LoadError
from airflow_provider_chartmogul.runtime.cancellation import Cancellation
from airflow_provider_chartmogul.runtime.task_log import TaskLog
from airflow_provider_chartmogul.warehouse.ledger import NAME as LEDGER_NAME
from airflow_provider_chartmogul.warehouse.ledger import Ledger, Load, check_same_table
from airflow_provider_chartmogul.warehouse.local_tables import LocalTable, fetch_tables
from airflow_provider_chartmogul.warehouse.session import TableName, WarehouseSession
from airflow_provider_chartmogul.warehouse.settings import LoadSettings
from airflow_provider_chartmogul.warehouse.snapshot_load import (
    check_not_empty,
    check_staged_snapshot,
    load_snapshot,
)
from airflow_provider_chartmogul.warehouse.source_objects import SourceBatch, SourceObject
from airflow_provider_chartmogul.warehouse.target import TableResult, Target, plan_target
from airflow_provider_chartmogul.warehouse.window_load import check_staged_window, load_window

#: Number of attempts at DDL: another load may change a table after its columns were read.
_MAX_DDL_ROUNDS = 3

#: Tolerated difference between the clocks of workers and stores.
_CLOCK_SKEW = timedelta(hours=1)


def load_batch(
    open_session: Callable[[], WarehouseSession],
    batch: SourceBatch,
    settings: LoadSettings,
    folder: Path,
    *,
    task_name: str,
    cancellation: Cancellation,
    log: TaskLog,
) -> dict[str, TableResult]:
    """
    Load the objects of one export or walk, all of them or none.

    :param open_session: connects to the warehouse; called when the objects are on local disk
    :param folder: an empty folder for temporary files
    :param task_name: identifies the task, so that a retry drops the staging tables that a killed try left behind, in
        warehouses where they are not temporary
    :return: the results by table
    :raises LoadError: if an object does not fit its table, or is from the future
    :raises LockTimeoutError: if another load keeps a table locked; no row has changed then
    :raises ChartMogulError: if an object cannot be read
    """
    _check_age(batch)
    local_tables: list[tuple[SourceObject, LocalTable]] = []
    for source in batch.objects:
        tables = fetch_tables(source, folder, column_types=settings.column_types, cancellation=cancellation, log=log)
        local_tables += [(source, table) for table in tables]
    with open_session() as session:
        targets: list[Target] = []
        try:
            for number, (source, local) in enumerate(local_tables):
                targets.append(plan_target(session, settings, source, local, staging_name(task_name, number)))
            _check_distinct(targets)
            staged_rows = [_stage(session, target) for target in targets]
            added = _define(session, targets)
            # Queried before the transaction, since nothing may fail the task after the commit.
            uris = [session.lineage_uri(target.table) for target in targets]
            results = _load_all(session, settings, targets, staged_rows)
        finally:
            for target in targets:
                _drop_staging(session, target, log)
    for target, result, uri in zip(targets, results, uris, strict=True):
        result.columns_added, result.uri = added[target.table], uri
        if result.skipped:
            log.info("Skipped %s, since table %s has a newer snapshot", target.source.uri, target.table)
        else:
            # The URI comes last, since Airflow's UI truncates long lines.
            log.info("Loaded into %s: %s, from %s", target.table, _describe(result), target.source.uri)
    return {target.name: result for target, result in zip(targets, results, strict=True)}


def _check_age(batch: SourceBatch) -> None:
    """
    Check that an object is not from the future. Later objects would count as older, and never be loaded.

    :raises LoadError: if it is
    """
    if batch.as_of > datetime.now(UTC) + _CLOCK_SKEW:
        raise LoadError(
            f"{batch.objects[0].uri} is dated {batch.as_of.isoformat()}, which is in the future: no later object would "
            "replace its rows until then. Check the clocks of the workers and of the storage, and transfer it again"
        )


def _describe(result: TableResult) -> str:
    """Return the numbers of rows as text; those that are usually zero only if they are not."""
    text = f"{result.inserted} rows inserted, {result.deleted} deleted"
    if result.outside:
        text += f", {result.outside} outside the window"
    if result.superseded:
        text += f", {result.superseded} superseded by newer loads"
    return text


def staging_name(task_name: str, number: int) -> str:
    """Return the name of a task's staging table, the same in each of its tries."""
    return f"_chartmogul_staging_{hashlib.sha256(task_name.encode()).hexdigest()[:20]}_{number}"


def _check_distinct(targets: Sequence[Target]) -> None:
    seen: dict[TableName, str] = {}
    for target in targets:
        if target.table.name.lower() == LEDGER_NAME:
            raise LoadError(f"table {target.table} records the loads of the tables in its schema: give another table")
        if (other := seen.setdefault(target.table, target.rows.table)) != target.rows.table:
            raise LoadError(
                f"{other} and {target.rows.table} would both be loaded into table {target.table}: put {{table}} into "
                "the parameter table"
            )


def _stage(session: WarehouseSession, target: Target) -> int:
    """Load an object's rows into its staging table, check them, and return their number."""
    if not target.columns:
        return 0
    session.stage(target.rows, target.staging, target.columns)
    return check_staged_window(session, target) if target.is_window else check_staged_snapshot(session, target)


def _define(session: WarehouseSession, targets: Sequence[Target]) -> dict[TableName, list[str]]:
    """Create the tables, their new columns and the ledger; return the columns added to existing tables."""
    added: dict[TableName, list[str]] = {target.table: [] for target in targets}
    for _ in range(_MAX_DDL_ROUNDS):
        statements: dict[str, TableName] = {}
        for target in targets:
            ledger = Ledger(session, target.table)
            statements |= dict.fromkeys(ledger.create_statements(), ledger.name)
            statements |= dict.fromkeys(_discard_loads(session, target, ledger), ledger.name)
            ddl, columns = target.create_statements(session)
            statements |= dict.fromkeys(ddl, target.table)
            added[target.table] += columns
        if not statements:
            return added
        session.define(list(statements), sorted(set(statements.values()), key=str))
    return added


def _discard_loads(session: WarehouseSession, target: Target, ledger: Ledger) -> list[str]:
    """Return the statement that deletes the loads of a table that has been dropped."""
    if session.columns(target.table):
        return []
    statements = ledger.discard_statements()
    # Another load may have created the table meanwhile, and be among them.
    return [] if statements and session.columns(target.table) else statements


def _load_all(
    session: WarehouseSession, settings: LoadSettings, targets: Sequence[Target], staged_rows: Sequence[int]
) -> list[TableResult]:
    """Change all tables of a batch in one transaction."""
    results: list[TableResult] = []
    loaded_at = datetime.now(UTC)
    has_main = any(rows for rows in staged_rows[:1])
    with session.transaction([target.table for target in targets]):
        for target, rows in zip(targets, staged_rows, strict=True):
            ledger = Ledger(session, target.table)
            load = Load.of(target.source, target.rows.table, target.account)
            loads = ledger.read()
            check_same_table(load, loads, target.table)
            if target.is_window:
                ledger.record(load, target.source, loaded_at)
                result = load_window(session, target, load, loads, rows, loaded_at)
            elif load.newer(loads):
                result = TableResult(skipped=1)
            else:
                if not has_main:
                    check_not_empty(session, target, settings, rows)
                ledger.record(load, target.source, loaded_at)
                result = load_snapshot(session, target, load, rows, loaded_at)
            results.append(result)
    return results


def _drop_staging(session: WarehouseSession, target: Target, log: TaskLog) -> None:
    try:
        session.drop_staging(target.staging)
    except Exception as error:
        log.warning("Dropping staging table %s failed (%s); the next try of this task drops it", target.staging, error)
