# SPDX-License-Identifier: Apache-2.0
"""The test cases of ``tests/warehouse_cases.py``, over DuckDB and a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest

from tests.postgres import postgres_server
from tests.warehouse_cases import (
    TestAccounts,
    TestColumns,
    TestOrderOfLoads,
    TestRefusedObjects,
    TestSameTableFromEveryFormat,
    TestSnapshotLoads,
    TestSpellings,
    TestWindowLoads,
    WarehouseUnderTest,
    objects,
)

__all__ = [
    "TestAccounts",
    "TestColumns",
    "TestOrderOfLoads",
    "TestRefusedObjects",
    "TestSameTableFromEveryFormat",
    "TestSnapshotLoads",
    "TestSpellings",
    "TestWindowLoads",
    "objects",
]


class DuckDB(WarehouseUnderTest):
    def __init__(self, path: Path) -> None:
        self.path = path
        self.parameters = {"duckdb_path": str(path)}

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        self.path.parent.mkdir(exist_ok=True)
        with duckdb.connect(str(self.path)) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            return connection.execute(sql).fetchall()

    def change(self, sql: str) -> None:
        self.query(sql)


class Postgres(WarehouseUnderTest):
    def __init__(self, server: str) -> None:
        self.server = server
        self.parameters = {"warehouse_conn_id": "postgres_test"}

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.server, options="-c TimeZone=UTC") as connection:
            return connection.execute(sql).fetchall()

    def change(self, sql: str) -> None:
        with psycopg.connect(self.server) as connection:
            connection.execute(sql)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres_server() as uri:
        yield uri


@pytest.fixture(params=["duckdb", "postgres"])
def warehouse(
    request: pytest.FixtureRequest, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> WarehouseUnderTest:
    if request.param == "duckdb":
        return DuckDB(tmp_path / "new" / "chartmogul.duckdb")
    postgres = Postgres(server)
    postgres.change("DROP SCHEMA public CASCADE; CREATE SCHEMA public; DROP SCHEMA IF EXISTS reporting CASCADE")
    monkeypatch.setenv("AIRFLOW_CONN_POSTGRES_TEST", server)
    return postgres
