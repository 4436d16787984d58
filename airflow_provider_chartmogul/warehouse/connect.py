# SPDX-License-Identifier: Apache-2.0
"""Create the session for the warehouse that an operator's parameters name."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from airflow_provider_chartmogul.exceptions import TransferSettingsError
from airflow_provider_chartmogul.warehouse.session import WarehouseSession
from airflow_provider_chartmogul.warehouse.settings import is_name

#: Module and class by the type of the Airflow connection.
_SESSIONS = {"postgres": ("postgres", "PostgresSession"), "snowflake": ("snowflake", "SnowflakeSession")}


def check_destination(warehouse_conn_id: str | None, duckdb_path: str | None) -> None:
    """
    Check that exactly one warehouse is given.

    :raises TransferSettingsError: for none, for two, and for one that a template left empty
    """
    if (warehouse_conn_id is None) == (duckdb_path is None):
        raise TransferSettingsError(
            f"give either warehouse_conn_id (a connection of type {', '.join(_SESSIONS)}) or duckdb_path, not "
            + ("both" if duckdb_path is not None else "neither")
        )
    for name, value in (("warehouse_conn_id", warehouse_conn_id), ("duckdb_path", duckdb_path)):
        # Otherwise "None" would be a file in the worker's folder.
        if value is not None and not is_name(value):
            raise TransferSettingsError(f"{name} cannot be {value!r}: check the template that it is from")


def new_session(
    warehouse_conn_id: str | None, duckdb_path: str | None, schema: str | None, **options: Any
) -> WarehouseSession:
    """
    Return a session that is not open yet.

    :param warehouse_conn_id: the Airflow connection of the warehouse
    :param duckdb_path: the file of a DuckDB database, instead of a connection
    :param schema: the schema of tables whose name has none
    :param options: the other parameters of ``WarehouseSession``
    :raises TransferSettingsError: for a connection of another type
    :raises AirflowNotFoundException: if there is no such connection
    """
    check_destination(warehouse_conn_id, duckdb_path)
    if duckdb_path is not None:
        module, class_name, place = "duckdb", "DuckDBSession", duckdb_path
    else:
        from airflow.providers.common.compat.sdk import BaseHook

        assert warehouse_conn_id is not None
        conn_type = BaseHook.get_connection(warehouse_conn_id).conn_type
        if conn_type not in _SESSIONS:
            raise TransferSettingsError(
                f"connection {warehouse_conn_id!r} is of type {conn_type!r}; warehouse_conn_id takes connections of "
                f"type {', '.join(_SESSIONS)}, and duckdb_path the path of a DuckDB file"
            )
        (module, class_name), place = _SESSIONS[conn_type], warehouse_conn_id
    session_class = getattr(import_module(f"airflow_provider_chartmogul.warehouse.{module}"), class_name)
    session: WarehouseSession = session_class(place, schema, **options)
    return session
