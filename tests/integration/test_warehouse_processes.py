# SPDX-License-Identifier: Apache-2.0
"""
Loads in processes of their own: two at a time, one that waits for another, and one that is killed by SIGKILL.

The moments of the kills are drawn with a fixed seed, over the length of a load that is not disturbed.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_chartmogul.exceptions import LockTimeoutError
from airflow_provider_chartmogul.runtime.cancellation import Cancellation
from airflow_provider_chartmogul.warehouse.connect import new_session
from airflow_provider_chartmogul.warehouse.session import TableName, WarehouseSession
from tests.integration.loading import load
from tests.integration.test_warehouse import DuckDB, Postgres
from tests.postgres import postgres_server
from tests.warehouse_cases import TABLE, Objects, WarehouseUnderTest, day, objects

__all__ = ["objects"]

#: For each warehouse; the variable WAREHOUSE_KILLS gives another number.
KILLS = int(os.environ.get("WAREHOUSE_KILLS", "8"))

#: The number of rows of a large export, whose load takes long enough to be killed in its middle.
ROWS = 20_000

SCHEMAS = {"duckdb": "main", "postgres": "public"}

Start = Callable[..., tuple[Any, Any]]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres_server() as uri:
        yield uri


@pytest.fixture(params=["duckdb", "postgres"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def warehouse(kind: str, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WarehouseUnderTest:
    if kind == "duckdb":
        return DuckDB(tmp_path / "chartmogul.duckdb")
    postgres = Postgres(server)
    postgres.change("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    monkeypatch.setenv("AIRFLOW_CONN_POSTGRES_TEST", server)
    return postgres


@pytest.fixture
def start(warehouse: WarehouseUnderTest, server: str) -> Start:
    """Return what starts a load in a process, and gives the process and the pipe for its result."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.integration.loading"])
    environment = {"AIRFLOW_CONN_POSTGRES_TEST": server, "AIRFLOW_HOME": os.environ["AIRFLOW_HOME"]}

    def start(source: Any, barrier: Any = None, **parameters: Any) -> tuple[Any, Any]:
        receiving, sending = context.Pipe(duplex=False)
        arguments = (source, {**warehouse.parameters, **parameters}, environment, sending, barrier)
        process = context.Process(target=load, args=arguments)
        process.start()
        sending.close()
        return process, receiving

    return start


def result_of(process: Any, receiving: Any) -> str:
    result = receiving.recv() if receiving.poll(240) else "no result within 240 s"
    process.join(60)
    return str(result)


def test_two_loads_of_one_table(kind: str, warehouse: WarehouseUnderTest, objects: Objects, start: Start) -> None:
    """The second waits, under another spelling of the name, whichever it is."""
    older = objects.export([(f"u{n}", "9", "x") for n in range(500)], (day(1), day(20)), as_of=20)
    newer = objects.export([(f"u{n}", "10", "x") for n in range(250, 750)], (day(5), day(24)), as_of=24)
    expected = {f"u{n}": "2024-01-10" for n in range(250, 750)}
    for _ in range(3):
        barrier = multiprocessing.get_context("forkserver").Barrier(2)
        running = [
            start(older, barrier, table=TABLE),
            start(newer, barrier, table=f"{SCHEMAS[kind].upper()}.{TABLE.upper()}"),
        ]
        assert [result_of(*one) for one in running] == ["done", "done"]
        assert warehouse.activities() == expected
    assert warehouse.tables() == ["_chartmogul_loads", TABLE]


def test_loads_of_two_tables_create_one_ledger(warehouse: WarehouseUnderTest, objects: Objects, start: Start) -> None:
    barrier = multiprocessing.get_context("forkserver").Barrier(2)
    running = [start(objects.export([("a", "9", "x")]), barrier, table=table) for table in ("one", "two")]
    assert [result_of(*one) for one in running] == ["done", "done"]
    assert len(warehouse.query("SELECT * FROM _chartmogul_loads")) == 2


def hold(warehouse: WarehouseUnderTest) -> WarehouseSession:
    parameters: Mapping[str, Any] = warehouse.parameters
    return new_session(
        parameters.get("warehouse_conn_id"),
        parameters.get("duckdb_path"),
        None,
        lock_timeout=60,
        cancellation=Cancellation(),
        log=Log(),
    )


class Log:
    def info(self, message: str, *_: Any) -> None: ...

    warning = info


@pytest.mark.parametrize("is_same_process", [True, False], ids=["same process", "other process"])
def test_wait_for_another_load_is_limited(
    is_same_process: bool, kind: str, warehouse: WarehouseUnderTest, objects: Objects, start: Start
) -> None:
    export = objects.export([("a", "2", "x")])
    warehouse.load(export)
    later = objects.export([("b", "2", "x")], as_of=41)
    with hold(warehouse) as session, session.transaction([TableName(SCHEMAS[kind], TABLE)]):
        if is_same_process:
            with pytest.raises(LockTimeoutError, match="locked by another load"):
                warehouse.load(later, lock_timeout=0.5)
        else:
            assert result_of(*start(later, lock_timeout=0.5)).startswith("LockTimeoutError: ")
    assert set(warehouse.activities()) == {"a"}
    warehouse.load(later, lock_timeout=0.5)
    assert set(warehouse.activities()) == {"b"}


def large_export(objects: Objects, name: str, as_of: int) -> dict[str, Any]:
    rows = "".join(f"u{n},{day(2 + n % 25).isoformat()},x,{name}\n" for n in range(ROWS))
    return objects.export(f"uuid,date,type,name\n{rows}", as_of=as_of, file_format="csv.gz")


def test_killed_load_leaves_the_old_rows_or_the_new_ones(
    warehouse: WarehouseUnderTest, objects: Objects, start: Start
) -> None:
    exports = {f"export {number}": large_export(objects, f"export {number}", 40 + number) for number in (0, 1)}
    warehouse.load(exports["export 0"])
    began = time.monotonic()
    assert result_of(*start(exports["export 0"])) == "done"
    length = time.monotonic() - began
    drawn = random.Random(1)
    for number in range(KILLS):
        # Later exports are newer, so that each may replace the one before it.
        name = f"export {number + 1}"
        process, receiving = start(large_export(objects, name, 41 + number))
        process.join(drawn.uniform(0, 1.1 * length))
        process.kill()
        process.join(60)
        receiving.close()
        found = warehouse.query(f"SELECT name, count(*), count(DISTINCT uuid) FROM {TABLE} GROUP BY name")
        assert len(found) == 1, f"{name}: {found}"
        assert found[0][1:] == (ROWS, ROWS)
        ledger = warehouse.query("SELECT count(*) FROM _chartmogul_loads")
        assert ledger == [(1,)]
    # A load that is not killed removes what killed ones left.
    warehouse.load(large_export(objects, "last", 100))
    assert warehouse.query(f"SELECT DISTINCT name FROM {TABLE}") == [("last",)]
    assert warehouse.tables() == ["_chartmogul_loads", TABLE]
