# SPDX-License-Identifier: Apache-2.0
"""
Fixture with a real Airflow for all tests of this folder, with the DAGs of ``example_dags/``.

It includes a sandbox for each account, a folder for the objects, a DuckDB file and a PostgreSQL server. The server has
Airflow's own database too, since SQLite allows one writer at a time, and ``airflow backfill create`` sometimes fails on
it while the scheduler is busy.
"""

from __future__ import annotations

import shutil
import time
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
from dev.real_airflow.rest import ApiError
from tests.postgres import postgres_server
from tests.tables import Row, duckdb_rows, postgres_rows

EXAMPLES = Path(__file__).parents[3] / "example_dags"
NAMES = ("accounts", "asset_load", "backfill", "daily", "duckdb", "full_refresh", "postgres")

#: Time limit for a run in seconds, for machines that are busy with other things.
RUN_SECONDS = 900.0


#: The marks of every module in this folder.
MARKS = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(3 * RUN_SECONDS)]


@dataclass(frozen=True)
class World:
    """
    The environment of the examples.

    :param chartmogul: the account of ``chartmogul_default``
    :param europe: an account of ``example_accounts``
    :param america: another account of ``example_accounts``
    :param lake: the folder for objects
    :param duckdb: the DuckDB file
    :param postgres: the URI of the PostgreSQL database
    """

    airflow: RealAirflow
    chartmogul: Sandbox
    europe: Sandbox
    america: Sandbox
    lake: Path
    duckdb: Path
    postgres: str

    def duckdb_rows(self, table: str, *more_columns: str) -> list[Row]:
        return duckdb_rows(self.duckdb, table, [*COLUMNS, *more_columns])

    def postgres_rows(self, table: str) -> list[Row]:
        return postgres_rows(self.postgres, f"chartmogul.{table}", COLUMNS)

    def unpause(self, *dag_ids: str) -> None:
        for dag_id in dag_ids:
            self.airflow.wait_for_dag(dag_id)
            self.airflow.unpause(dag_id)

    def scheduled_run(self, dag_id: str) -> dict[str, Any]:
        """Unpause a DAG with a schedule, wait until its scheduled run has succeeded, and return the run."""
        self.unpause(dag_id)
        run = self.wait_for_success(dag_id, self.airflow.wait_for_scheduled_run(dag_id, RUN_SECONDS))
        # Prevents another run at midnight.
        self.airflow.pause(dag_id)
        return run

    def wait_for_success(self, dag_id: str, run_id: str) -> dict[str, Any]:
        run = self.airflow.wait_for_run(dag_id, run_id, RUN_SECONDS)
        assert run["state"] == "success", self.states(dag_id, run_id)
        return run

    def states(self, dag_id: str, run_id: str, task_id: str | None = None) -> dict[tuple[str, int], str | None]:
        """Return the states of a run's task instances by task ID and map index."""
        return {
            (ti["task_id"], ti["map_index"]): ti["state"]
            for ti in self.airflow.task_instances(dag_id, run_id)
            if task_id in (None, ti["task_id"])
        }

    def asset_events(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the asset events of a run."""
        query = urlencode({"source_dag_id": dag_id, "source_run_id": run_id})
        deadline = time.monotonic() + RUN_SECONDS
        while True:
            try:
                events = self.airflow.request("GET", f"/api/v2/assets/events?{query}")["asset_events"]
            except ApiError as error:
                # Airflow 3.3 responds with 500 while a run that an event has created is queued, so has no start date.
                if error.status != 500 or time.monotonic() > deadline:
                    raise
                time.sleep(1)
            else:
                return list(events)

    def repeat_events(self, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Create asset events with the same assets and extras, in quick succession, and return them."""
        return [
            self.airflow.request(
                "POST", "/api/v2/assets/events", {"asset_id": event["asset_id"], "extra": event["extra"]}
            )
            for event in events
        ]

    def loads(self) -> list[tuple[datetime, set[str]]] | None:
        """
        Return when each load of ``example_asset_load`` started, and the URIs of the objects that it loaded.

        The result is ``None`` while a run is active.
        """
        loads = []
        for run in self.airflow.runs("example_asset_load"):
            if run["state"] not in FINISHED_RUN_STATES:
                return None
            assert run["state"] == "success", run
            tasks = {ti["task_id"]: ti for ti in self.airflow.task_instances("example_asset_load", run["dag_run_id"])}
            objects = self.airflow.xcom("example_asset_load", run["dag_run_id"], "published")
            loads.append(
                (datetime.fromisoformat(tasks["load"]["start_date"]), {metadata["uri"] for metadata in objects})
            )
        return loads


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("examples")
    dags, lake, database = folder / "dags", folder / "lake", folder / "activities.duckdb"
    dags.mkdir()
    for file in [EXAMPLES / f"example_{name}.py" for name in NAMES]:
        shutil.copy(file, dags)
    for file in (Path(__file__).parent / "dags").glob("*.py"):
        shutil.copy(file, dags)
    with ExitStack() as stack:
        chartmogul, europe, america = (
            # Exports take a few seconds, because Airflow sometimes fails a deferred task that resumes at once.
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
            # The DAG files do not change.
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
            # Every task would load OpenLineage's listener.
            "AIRFLOW__OPENLINEAGE__DISABLED": "True",
        }
        airflow = stack.enter_context(RealAirflow(folder / "airflow", dags, environment=environment))
        yield World(airflow, chartmogul, europe, america, lake, database, postgres)
