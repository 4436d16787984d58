# SPDX-License-Identifier: Apache-2.0
"""
One real Airflow for all tests of this folder, with the DAGs of ``example_dags/`` as users copy them.

Around it are a sandbox for each account, a folder for the objects, a DuckDB file and a PostgreSQL server. The server
holds Airflow's own database too: SQLite lets one process write at a time, and refuses ``airflow backfill create`` now
and then while a scheduler is busy.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psycopg
import pytest

from airflow_provider_chartmogul.sandbox import Sandbox
from airflow_provider_chartmogul.sandbox.company.activities import COLUMNS
from dev.real_airflow import FINISHED_RUN_STATES, RealAirflow
from tests.postgres import postgres_server
from tests.tables import Row, duckdb_rows, postgres_rows

EXAMPLES = Path(__file__).parents[3] / "example_dags"
NAMES = ("accounts", "asset_load", "backfill", "daily", "duckdb", "full_refresh", "postgres")

#: Seconds that a run may take. A machine that is busy with other things takes long, and that is no failure.
PATIENCE = 900.0


#: What each module of this folder is marked with.
MARKS = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(3 * PATIENCE)]


@dataclass(frozen=True)
class World:
    """What the examples run in."""

    airflow: RealAirflow
    #: The account of ``chartmogul_default``; the other two are those of ``example_accounts``.
    chartmogul: Sandbox
    europe: Sandbox
    america: Sandbox
    #: Where the objects go.
    lake: Path
    duckdb: Path
    postgres: str

    def duckdb_rows(self, table: str, *more_columns: str) -> list[Row]:
        return duckdb_rows(self.duckdb, table, [*COLUMNS, *more_columns])

    def postgres_rows(self, table: str) -> list[Row]:
        return postgres_rows(self.postgres, table, COLUMNS)

    def unpause(self, *dag_ids: str) -> None:
        for dag_id in dag_ids:
            self.airflow.wait_for_dag(dag_id)
            self.airflow.unpause(dag_id)

    def scheduled_run(self, dag_id: str) -> dict[str, Any]:
        """Unpause a DAG with a schedule; wait for the run that the scheduler makes, and that it ends well."""
        self.unpause(dag_id)
        run = self.success(dag_id, self.airflow.wait_for_scheduled_run(dag_id, PATIENCE))
        # Should it be midnight soon.
        self.airflow.pause(dag_id)
        return run

    def success(self, dag_id: str, run_id: str) -> dict[str, Any]:
        run = self.airflow.wait_for_run(dag_id, run_id, PATIENCE)
        assert run["state"] == "success", self.states(dag_id, run_id)
        return run

    def states(self, dag_id: str, run_id: str, task_id: str | None = None) -> dict[tuple[str, int], str | None]:
        """The states of a run's task instances by task and map index."""
        return {
            (ti["task_id"], ti["map_index"]): ti["state"]
            for ti in self.airflow.task_instances(dag_id, run_id)
            if task_id in (None, ti["task_id"])
        }

    def events_of(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """What a run has told of the asset."""
        of_the_run = urlencode({"source_dag_id": dag_id, "source_run_id": run_id})
        events: list[dict[str, Any]] = self.airflow.request("GET", f"/api/v2/assets/events?{of_the_run}")[
            "asset_events"
        ]
        return events

    def tell(self, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Make events of the same asset that say the same, as fast as Airflow takes them."""
        return [
            self.airflow.request(
                "POST", "/api/v2/assets/events", {"asset_id": event["asset_id"], "extra": event["extra"]}
            )
            for event in events
        ]

    def loads(self) -> list[tuple[datetime, set[str]]] | None:
        """When each run of the example began to load, and the objects that it has loaded; None while one goes on."""
        found = []
        for run in self.airflow.runs("example_asset_load"):
            if run["state"] not in FINISHED_RUN_STATES:
                return None
            assert run["state"] == "success", run
            (task,) = self.airflow.task_instances("example_asset_load", run["dag_run_id"])
            counts = self.airflow.xcom("example_asset_load", run["dag_run_id"], "load")
            found.append((datetime.fromisoformat(task["start_date"]), {one["uri"] for one in counts}))
        return found


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("examples")
    dags, lake, database = folder / "dags", folder / "lake", folder / "activities.duckdb"
    dags.mkdir()
    for file in [EXAMPLES / f"example_{name}.py" for name in NAMES]:
        shutil.copy(file, dags)
    for file in (EXAMPLES / "warehouse_loads.py", *(Path(__file__).parent / "dags").glob("*.py")):
        shutil.copy(file, dags)
    with ExitStack() as stack:
        chartmogul, europe, america = (
            # A wait of some seconds: Airflow takes a task that goes on at once for one that has ended, now and then.
            stack.enter_context(Sandbox(api_key=f"key-of-{seed}", seed=seed, customers=200, export_seconds=5))
            for seed in (1, 2, 3)
        )
        postgres = stack.enter_context(postgres_server())
        with psycopg.connect(postgres, autocommit=True) as connection:
            connection.execute("CREATE DATABASE airflow")
        airflow_db = postgres.replace("postgresql://", "postgresql+psycopg2://").rpartition("/")[0] + "/airflow"
        environment = {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": airflow_db,
            "AIRFLOW_CONN_CHARTMOGUL_DEFAULT": chartmogul.connection_uri,
            "AIRFLOW_CONN_CHARTMOGUL_EUROPE": europe.connection_uri,
            "AIRFLOW_CONN_CHARTMOGUL_AMERICA": america.connection_uri,
            "AIRFLOW_CONN_POSTGRES_DEFAULT": postgres,
            "AIRFLOW_VAR_CHARTMOGUL_DESTINATION": f"file://{lake}",
            "AIRFLOW_VAR_CHARTMOGUL_DUCKDB": str(database),
            # The files do not change.
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
            # OpenLineage's listener is loaded by each task anew.
            "AIRFLOW__OPENLINEAGE__DISABLED": "True",
        }
        airflow = stack.enter_context(RealAirflow(folder / "airflow", dags, environment=environment))
        yield World(airflow, chartmogul, europe, america, lake, database, postgres)
