# SPDX-License-Identifier: Apache-2.0
"""The test cases of ``tests/warehouse_cases.py``, over DuckDB and a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest
from airflow.providers.common.compat.lineage.hook import get_hook_lineage_collector
from airflow.providers.common.compat.sdk import AirflowFailException, Asset, AssetAlias
from airflow.providers.postgres.hooks import postgres as postgres_hooks

from airflow_provider_chartmogul.exceptions import LockTimeoutError
from airflow_provider_chartmogul.transfers.object_storage_to_warehouse import ObjectStorageToWarehouseOperator
from airflow_provider_chartmogul.warehouse import duckdb as duckdb_module
from airflow_provider_chartmogul.warehouse.duckdb import DuckDBSession
from tests.integration.task_runner import run_task
from tests.integration.test_lineage import alias_events, collector, new_events
from tests.postgres import postgres_server
from tests.warehouse_cases import (
    TABLE,
    Objects,
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
    "collector",
    "objects",
]

#: The drivers that Airflow's hook can use: it imports what it needs of psycopg 3 with SQLAlchemy 2 only.
DRIVERS = ["psycopg2", *(["psycopg"] if hasattr(postgres_hooks, "register_default_adapters") else [])]


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


@pytest.fixture(params=DRIVERS)
def postgres(request: pytest.FixtureRequest, server: str, monkeypatch: pytest.MonkeyPatch) -> Postgres:
    """PostgreSQL with each driver that Airflow's hook can use."""
    monkeypatch.setattr(postgres_hooks, "USE_PSYCOPG3", request.param == "psycopg", raising=False)
    monkeypatch.setenv("AIRFLOW_CONN_POSTGRES_TEST", server)
    warehouse = Postgres(server)
    warehouse.change("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    return warehouse


@pytest.mark.parametrize("encoding", ["UTF8", "LATIN1"])
def test_postgres_client_encoding_changes_no_letter(
    encoding: str, postgres: Postgres, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", encoding)
    name = "Zoë €, Łódź, 東京"
    postgres.load(objects.export(f'uuid,date,name\na,2024-01-02,"{name}"\n'))
    monkeypatch.delenv("PGCLIENTENCODING")
    assert postgres.rows("uuid, name") == [("a", name)]


def test_error_of_the_object_is_kept_by_each_driver(postgres: Postgres, objects: Objects) -> None:
    with pytest.raises(AirflowFailException, match="'not a date'"):
        postgres.load(objects.export("uuid,date\na,not a date\n"))
    postgres.change(f"CREATE TABLE {TABLE} (uuid TEXT, date TIMESTAMPTZ, amount NUMERIC)")
    with pytest.raises(AirflowFailException, match=r'numeric: "many" \(.*column amount: "many"\)'):
        postgres.load(objects.export("uuid,date,amount\na,2024-01-02,many\n"))
    postgres.load(objects.export("uuid,date,amount\na,2024-01-02,1.5\n"))
    assert set(postgres.activities()) == {"a"}


def test_type_may_be_an_enumeration(postgres: Postgres, objects: Objects) -> None:
    postgres.change(
        f"CREATE TYPE activity AS ENUM ('churn', 'new_biz');"
        f"CREATE TABLE {TABLE} (uuid TEXT, date TIMESTAMPTZ, type activity)"
    )
    postgres.load(objects.export([("new", "2", "churn")], as_of=41, activity_type="churn"))
    result = postgres.load(objects.export([("old", "2", "churn"), ("other", "2", "new_biz")], as_of=40))
    assert result[TABLE]["superseded"] == 1
    assert postgres.rows("uuid, type") == [("new", "churn"), ("other", "new_biz")]


def test_cursor_of_the_connection_does_not_matter(
    postgres: Postgres, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that are dictionaries lose columns of one name, and as tuples are their keys: each lock looks acquired."""
    cursor = "dictcursor" if getattr(postgres_hooks, "USE_PSYCOPG3", False) else "realdictcursor"
    monkeypatch.setenv("AIRFLOW_CONN_POSTGRES_TEST", f"{postgres.server}?cursor={cursor}")
    postgres.load(objects.export([("a", "2", "x")], as_of=41))
    postgres.load(objects.export([("b", "2", "x")], as_of=40))
    assert set(postgres.activities()) == {"a"}


def test_numbers_of_single_precision_are_refused(warehouse: WarehouseUnderTest, objects: Objects) -> None:
    warehouse.change(f"CREATE TABLE {TABLE} (uuid TEXT, date TIMESTAMP WITH TIME ZONE, amount REAL)")
    message = r"(?i)'amount' of table .* is (real|float), .*change its type to"
    export = objects.export("uuid,date,amount\n1,2024-01-02,123456789.01\n")
    for column_type in ("string", "float64", "int64", "decimal128(18, 2)"):
        with pytest.raises(AirflowFailException, match=message):
            warehouse.load(export, column_types={"amount": column_type})
    warehouse.load(objects.export("uuid,date,amount\n1,2024-01-02,1.5\n"), column_types={"amount": "float32"})
    assert warehouse.query(f"SELECT amount FROM {TABLE}") == [(1.5,)]


def test_constraint_of_a_column_is_explained(warehouse: WarehouseUnderTest, objects: Objects) -> None:
    warehouse.change(
        f"CREATE TABLE {TABLE} (uuid TEXT, date TIMESTAMP WITH TIME ZONE, mine TEXT NOT NULL, once TEXT UNIQUE)"
    )
    for content in ("uuid,date\na,2024-01-02\n", "uuid,date,mine\na,2024-01-02,\n"):
        with pytest.raises(
            AirflowFailException, match=r"'mine' of table .*activities is NOT NULL, .* drop the constraint"
        ):
            warehouse.load(objects.export(content))
    with pytest.raises(AirflowFailException, match=r"do not meet a constraint of .*Drop the constraint"):
        warehouse.load(objects.export("uuid,date,mine,once\na,2024-01-02,x,x\nb,2024-01-02,x,x\n"))
    warehouse.load(objects.export("uuid,date,mine,once\na,2024-01-02,x,x\nb,2024-01-02,x,y\n"))
    assert set(warehouse.activities()) == {"a", "b"}


@pytest.mark.parametrize(
    ("statement", "bytes_per_thread", "is_limited"),
    [
        ("SELECT 1", 64_000_000, True),
        (f"CREATE TABLE {TABLE} (uuid TEXT, date TIMESTAMP WITH TIME ZONE)", 64_000_000, True),
        (f"CREATE TABLE {TABLE} (uuid TEXT UNIQUE, date TIMESTAMP WITH TIME ZONE)", 64_000_000, False),
        (f"CREATE TABLE {TABLE} (uuid TEXT, date TIMESTAMPTZ); CREATE INDEX i ON {TABLE} (uuid)", 64_000_000, False),
        ("SELECT 1", 1 << 50, False),
    ],
    ids=["new table", "existing table", "unique column", "index", "more than DuckDB may use"],
)
def test_duckdb_inserts_with_little_memory(
    statement: str,
    bytes_per_thread: int,
    is_limited: bool,
    tmp_path: Path,
    objects: Objects,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An index must fit into memory until the commit, so DuckDB's limit stays as it is for a table with one."""
    limits: dict[str, str] = {}
    execute = DuckDBSession.execute

    def record(session: DuckDBSession, sql: str) -> int:
        [(limit,)] = session.query("SELECT current_setting('memory_limit')")
        limits[sql.split()[0]] = limit  # The last INSERT is that of the rows.
        return execute(session, sql)

    monkeypatch.setattr(DuckDBSession, "execute", record)
    monkeypatch.setattr(duckdb_module, "_INSERT_BYTES", bytes_per_thread)
    warehouse = DuckDB(tmp_path / "chartmogul.duckdb")
    warehouse.change(statement)
    warehouse.load(objects.export("uuid,date\na,2024-01-02\n"))
    assert (limits["INSERT"] != limits["BEGIN"]) == is_limited
    assert limits["COMMIT"] == limits["BEGIN"]
    assert set(warehouse.activities()) == {"a"}


@pytest.mark.parametrize(
    ("statement", "content"),
    [
        (f"SELECT uuid FROM {TABLE}", "uuid,date,new\na,2024-01-02,x\n"),
        (f"UPDATE {TABLE} SET uuid = uuid", "uuid,date\na,2024-01-02\n"),
    ],
    ids=["reader before DDL", "writer"],
)
def test_wait_for_other_connections_is_limited(
    statement: str, content: str, postgres: Postgres, objects: Objects
) -> None:
    postgres.load(objects.export("uuid,date\na,2024-01-02\n"))
    later = objects.export(content, as_of=41)
    with psycopg.connect(postgres.server) as connection:
        connection.execute(statement)
        with pytest.raises(LockTimeoutError, match=r"another connection kept the table locked .* \(lock_timeout\)"):
            postgres.load(later, lock_timeout=0.5)
    assert postgres.columns() == ["_loaded_at", "date", "uuid"]
    postgres.load(later, lock_timeout=0.5)
    assert set(postgres.activities()) == {"a"}


def test_load_is_reported_to_airflow(
    warehouse: WarehouseUnderTest, objects: Objects, server: str, collector: Any
) -> None:
    asset, alias, events = Asset("s3://lake/activities"), AssetAlias("tables"), new_events()
    export = objects.export([("a", "2", "x")])
    operator = ObjectStorageToWarehouseOperator(
        task_id="load", source=export, outlets=[asset, alias, {"other": 1}], **warehouse.parameters
    )
    run = run_task(operator, outlet_events=events)
    path = warehouse.parameters.get("duckdb_path")
    uri = f"file://{path}" if path else f"{server.replace('postgresql://test@', 'postgres://')}/public/{TABLE}"
    assert events[asset].extra == run.value
    assert alias_events(events, alias) == [(uri, run.value[TABLE])]
    collected = get_hook_lineage_collector().collected_assets
    assert [one.asset.uri for one in collected.inputs] == [export["uri"]]
    assert [one.asset.uri for one in collected.outputs] == [uri]
