# SPDX-License-Identifier: Apache-2.0
"""
The test cases of ``tests/warehouse_cases.py`` and ``example_snowflake`` over fakesnow, and the order of the statements.

fakesnow implements Snowflake's protocol, PUT included, and runs its SQL in DuckDB. Not covered: Snowflake's locks,
permissions and type system, and that DDL commits a transaction; hence the check of the order.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AssetAlias

from airflow_provider_chartmogul.sandbox import Sandbox
from airflow_provider_chartmogul.transfers.object_storage_to_warehouse import ObjectStorageToWarehouseOperator
from airflow_provider_chartmogul.warehouse import snowflake
from tests.integration.task_runner import run_task
from tests.integration.test_dags import at, copy_example, run_states
from tests.integration.test_lineage import new_events
from tests.tables import Row, as_expected_rows, difference
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
    counts,
    objects,
)
from tests.warehouses.fakesnow_server import snowflake_server

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


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class RecordedStatements:
    """An ASGI application that remembers the statements in the requests that it passes on."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.statements: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/queries/v1/query-request"):
            await self._app(scope, receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        text = gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body
        self.statements.append(json.loads(text)["sqlText"])
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def replay() -> Any:
            return next(messages, None) or await receive()

        await self._app(scope, replay, send)


class Snowflake(WarehouseUnderTest):
    def __init__(self, hook: Any, recorded: RecordedStatements) -> None:
        self.parameters = {"warehouse_conn_id": "snowflake_default"}
        self._hook = hook
        self.recorded = recorded

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        # fakesnow returns a NULL of type TIMESTAMP_TZ as the first moment of 1970.
        return [tuple(None if value == EPOCH else value for value in row) for row in self._hook.get_records(sql)]

    def change(self, sql: str) -> None:
        self._hook.run(sql, autocommit=True)

    def tables(self) -> list[str]:
        return [name for name in super().tables() if name != "_chartmogul_lock"]

    def load(self, source: Any, **parameters: Any) -> dict[str, dict[str, Any]]:
        self.recorded.statements.clear()
        return super().load(source, **parameters)


@pytest.fixture(scope="session")
def recorded_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path, RecordedStatements]]:
    apps: list[RecordedStatements] = []

    def record(app: Any) -> RecordedStatements:
        apps.append(RecordedStatements(app))
        return apps[0]

    with (
        pytest.MonkeyPatch.context() as monkeypatch,
        snowflake_server(tmp_path_factory.mktemp("certificate"), record) as (port, certificate),
    ):
        _name_columns_of_wide_files(monkeypatch)
        yield port, certificate, apps[0]


def _name_columns_of_wide_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let fakesnow load CSV files of more than ten columns, whose first column DuckDB does not call ``column0``."""
    from fakesnow import copy_into
    from fakesnow.transforms.stage import file_path

    read_expression = copy_into.ReadCSV.read_expression

    def read_with_names(self: Any, url: str) -> Any:
        with gzip.open(file_path(url), "rt", newline="") as file:
            width = len(next(csv.reader(file)))
        expression = read_expression(self, url)
        expression.append("expressions", self.make_eq("names", [f"column{number}" for number in range(width)]))
        return expression

    monkeypatch.setattr(copy_into.ReadCSV, "read_expression", read_with_names)


@pytest.fixture
def warehouse(
    recorded_server: tuple[int, Path, RecordedStatements], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Snowflake:
    from airflow.providers.snowflake.hooks.snowflake import SnowflakeHook

    port, certificate, recorded = recorded_server
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    database = "db_" + hashlib.sha256(str(tmp_path).encode()).hexdigest()[:20]
    connection = {
        "conn_type": "snowflake",
        "login": "fake",
        "password": "snow",
        "schema": "public",
        "extra": {
            **{"account": "fakesnow", "database": database, "host": "localhost", "port": port},
            # The certificate has no server that would tell whether it has been revoked.
            "insecure_mode": True,
            "session_parameters": {"CLIENT_OUT_OF_BAND_TELEMETRY_ENABLED": False},
        },
    }
    monkeypatch.setenv("AIRFLOW_CONN_SNOWFLAKE_DEFAULT", json.dumps(connection))
    return Snowflake(SnowflakeHook("snowflake_default"), recorded)


def test_ddl_comes_before_one_transaction_that_begins_with_the_lock(warehouse: Snowflake, objects: Objects) -> None:
    """DDL commits a transaction in Snowflake."""
    warehouse.load(objects.export("uuid,date\na,2024-01-02\n"))
    warehouse.load(objects.export("uuid,date,type\na,2024-01-02,x\nb,2024-01-03,x\n", as_of=41))
    kinds = [_kind(statement) for statement in warehouse.recorded.statements]
    # The connector requests PUT more than once.
    changes = [kind for kind, _ in groupby(kind for kind in kinds if kind != "SELECT")]
    assert changes == [
        *("CREATE OR REPLACE TRANSIENT TABLE _STAGING", "PUT", "COPY INTO _STAGING"),
        "ALTER TABLE CHARTMOGUL_ACTIVITIES",
        "BEGIN",
        "UPDATE _CHARTMOGUL_LOCK",
        *("DELETE FROM _CHARTMOGUL_LOADS", "INSERT INTO _CHARTMOGUL_LOADS"),
        *("DELETE FROM CHARTMOGUL_ACTIVITIES", "INSERT INTO CHARTMOGUL_ACTIVITIES"),
        "COMMIT",
        "DROP TABLE IF EXISTS _STAGING",
    ]


def test_failure_inside_the_transaction_rolls_it_back(warehouse: Snowflake, objects: Objects) -> None:
    warehouse.load(objects.snapshot("plans", [{"uuid": "p"}]))
    with pytest.raises(AirflowFailException, match="allow_empty=True"):
        warehouse.load(objects.snapshot("plans", [], as_of=41))
    kinds = [_kind(statement) for statement in warehouse.recorded.statements]
    assert "COMMIT" not in kinds
    assert kinds[kinds.index("BEGIN") + 1] == "UPDATE _CHARTMOGUL_LOCK"
    assert kinds[-2:] == ["ROLLBACK", "DROP TABLE IF EXISTS _STAGING"]
    assert warehouse.query("SELECT loads FROM _chartmogul_lock") == [(1,)]
    assert len(warehouse.query("SELECT * FROM _chartmogul_loads")) == 1


def test_many_rows_are_put_in_several_files(
    warehouse: Snowflake, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snowflake, "_FILE_BYTES", 1 << 16)
    text = "uuid,date,note\n" + "".join(f"{n},2024-01-02,{'x' * 100}\n" for n in range(20_000))
    assert counts(warehouse.load(objects.export(text))) == {"inserted": 20_000}
    puts = [statement for statement in warehouse.recorded.statements if statement.startswith("PUT")]
    assert len(puts) > 3
    assert warehouse.query(f"SELECT count(*), count(DISTINCT uuid) FROM {TABLE}") == [(20_000, 20_000)]


def test_asset_of_a_table_names_the_account_of_the_connection(warehouse: Snowflake, objects: Objects) -> None:
    alias, events = AssetAlias("tables"), new_events()
    operator = ObjectStorageToWarehouseOperator(
        task_id="load", source=objects.export([("a", "2", "x")]), outlets=[alias], **warehouse.parameters
    )
    run_task(operator, outlet_events=events)
    [event] = events[alias].asset_alias_events
    assert re.fullmatch(r"snowflake://fakesnow/DB_\w+/PUBLIC/CHARTMOGUL_ACTIVITIES", event.dest_asset_key.uri)


def test_example_loads_the_rows_of_its_window(
    airflow_db: None, warehouse: Snowflake, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_CHARTMOGUL_DESTINATION", f"file://{tmp_path}")
    dag = copy_example("example_snowflake.py").dag
    # A failure ends the run instead of being retried.
    for dag_task in dag.tasks:
        dag_task.retries = 0
    end = datetime(2026, 2, 3, tzinfo=UTC)
    # The day before, and the lookback of seven days.
    start = end - timedelta(days=8)

    def load_and_compare() -> list[Row]:
        state, states = run_states(dag.test(**at(dag, end)))
        assert (state, states) == ("success", {"export": ["success"], "load": ["success"]})
        expected_rows = sandbox.expected_rows(start, end)
        columns = list(expected_rows[0])
        loaded = as_expected_rows(columns, warehouse.query(f"SELECT {', '.join(columns)} FROM {TABLE}"))
        assert difference(loaded, expected_rows) == []
        return loaded

    first = load_and_compare()
    edited = {**first[0], "description": "edited"}
    sandbox.amend(removed=[row["uuid"] for row in first[:2]], added=[edited])
    second = load_and_compare()
    assert len(second) == len(first) - 1
    assert warehouse.tables() == ["_chartmogul_loads", TABLE]


def _kind(statement: str) -> str:
    """Return the beginning of a statement, up to the name of the table that it changes."""
    names = re.findall(r'"([^"]+)"', statement)
    verb = re.match(r"(?:[A-Z]+ )*[A-Z]+", statement)
    assert verb is not None
    if verb[0].startswith(("SELECT", "PUT", "BEGIN", "COMMIT", "ROLLBACK")):
        return verb[0].partition(" ")[0]
    name = "_STAGING" if "_STAGING_" in names[1] else names[1]
    return f"{verb[0]} {name}"
