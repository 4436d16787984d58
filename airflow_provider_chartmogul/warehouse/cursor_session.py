# SPDX-License-Identifier: Apache-2.0
"""Sessions of warehouses that are reached through the cursor of an official provider's hook."""

from __future__ import annotations

from abc import abstractmethod
from importlib import import_module
from typing import Any

from airflow_provider_chartmogul.exceptions import TransferSettingsError
from airflow_provider_chartmogul.warehouse.session import WarehouseSession


class CursorSession(WarehouseSession):
    """
    A session with the cursor of a hook's connection.

    :param conn_id: the Airflow connection
    """

    def __init__(self, conn_id: str, schema: str | None, **options: Any) -> None:
        super().__init__(schema, **options)
        self.conn_id = conn_id
        self._connection: Any = None
        self._cursor: Any = None

    @abstractmethod
    def _connect(self) -> Any:
        """Return a new connection of the hook."""

    @abstractmethod
    def _prepare(self) -> None:
        """Create the cursor, and set the session's time zone and formats."""

    @abstractmethod
    def _explain(self, error: Exception) -> Exception:
        """Return an error of this package for refused rows and for a lock timeout, and any other error unchanged."""

    def open(self) -> None:
        self._connection = self._connect()
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def execute(self, sql: str) -> int:
        self._run(sql)
        return max(0, int(self._cursor.rowcount or 0))

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        self._run(sql)
        return [tuple(row) for row in self._cursor.fetchall()]

    def _run(self, sql: str) -> None:
        try:
            self._cursor.execute(sql)
        except Exception as error:
            if (explained := self._explain(error)) is error:
                raise
            raise explained from error


def import_hook(conn_type: str, module: str, class_name: str) -> Any:
    """
    Import a hook of an official provider, which is optional.

    :param conn_type: the type of its connections, and the extra that installs it
    :raises TransferSettingsError: if the provider is not installed
    """
    try:
        return getattr(import_module(module), class_name)
    except ImportError as error:
        raise TransferSettingsError(
            f"a connection of type {conn_type} needs Airflow's provider for it, which is not installed on this worker: "
            f"pip install 'airflow-provider-chartmogul[{conn_type}]' ({error})"
        ) from error
