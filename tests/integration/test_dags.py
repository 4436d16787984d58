# SPDX-License-Identifier: Apache-2.0
"""
Run whole DAGs with ``dag.test()``: templates, mapped tasks, open ends, and examples, on every supported Airflow.

``dag.test()`` defers without a triggerer and takes only a trigger's first event; ``tests/system`` runs a real Airflow.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from airflow_provider_chartmogul.api.resources import RESOURCES
from airflow_provider_chartmogul.sandbox import Sandbox
from tests.conftest import AIRFLOW_HOME
from tests.pages import DOCS, block_with, run
from tests.tables import difference, duckdb_rows

EXAMPLES = DOCS.parent / "example_dags"

HEAD = """
from datetime import datetime, timedelta, timezone
from airflow.providers.common.compat.sdk import DAG, task
from airflow_provider_chartmogul.operators.activities_export import CreateActivitiesExportOperator
from airflow_provider_chartmogul.sensors.activities_export import ActivitiesExportSensor
from airflow_provider_chartmogul.transfers.activities_export_to_object_storage import (
    ActivitiesExportToObjectStorageOperator,
)

"""


def run_dag(name: str, body: str, **test: Any) -> tuple[str, dict[str, list[str]]]:
    """Write a DAG file and run its DAG; return the run's state, and the states of each task's instances."""
    path = AIRFLOW_HOME / "dags" / f"{name}.py"
    head = f'DAG_ID = "{name}"\nSTART = dict(start_date=__import__("datetime").datetime(2024, 1, 1))\n'
    path.write_text(HEAD + head + textwrap.dedent(body))
    return run_states(_import(path).dag.test(**test))


def run_states(run: Any) -> tuple[str, dict[str, list[str]]]:
    """Return a run's state, and the states of each task's instances in the order of their map indexes."""
    states: dict[str, list[str]] = {}
    for instance in sorted(run.get_task_instances(), key=lambda ti: (ti.task_id, ti.map_index)):
        states.setdefault(instance.task_id, []).append(str(getattr(instance.state, "value", instance.state)))
    return str(getattr(run.state, "value", run.state)), states


def _import(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AIRFLOW_VAR_LAKE", f"file://{tmp_path}/lake")
    return tmp_path / "lake"


def copy_example(name: str) -> ModuleType:
    """Copy an example to the DAGs folder and import it from there."""
    path = AIRFLOW_HOME / "dags" / name
    path.write_text((EXAMPLES / name).read_text())
    return _import(path)


def at(dag: Any, moment: datetime) -> dict[str, datetime]:
    """Return the argument of ``dag.test()`` for a logical date, which Airflow 2 calls execution_date."""
    name = "logical_date" if "logical_date" in inspect.signature(dag.test).parameters else "execution_date"
    return {name: moment}


def names(lake: Path) -> list[str]:
    return sorted(str(p.relative_to(lake)) for p in lake.rglob("*") if p.is_file())


def test_templates_in_every_field(airflow_db: None, sandbox: Sandbox, lake: Path) -> None:
    state, _ = run_dag(
        "templates",
        """
        with DAG(DAG_ID, schedule=None, **START, params={
            "start": "2024-03-01", "end": "2024-03-02", "type": "churn", "conn": "chartmogul_default",
            "back": "P2D", "format": "zip", "exists": "fail",
        }) as dag:
            create = CreateActivitiesExportOperator(
                task_id="create",
                interval_start="{{ params.start }}",
                interval_end="{{ params.end }}",
                activity_type="{{ params.type }}",
                lookback="{{ params.back }}",
                chartmogul_conn_id="{{ params.conn }}",
            )
            wait = ActivitiesExportSensor(
                task_id="wait",
                export_id="{{ ti.xcom_pull('create') }}",
                chartmogul_conn_id="{{ params.conn }}",
            )
            create >> wait
            ActivitiesExportToObjectStorageOperator(
                task_id="move",
                export_id=wait.output,
                destination="{{ var.value.lake }}/{activity_type}/{interval_start:%Y-%m-%d}",
                output_format="{{ params.format }}",
                if_exists="{{ params.exists }}",
                chartmogul_conn_id="{{ params.conn }}",
            )
        """,
    )
    assert state == "success"
    assert sandbox.exports[0].params["start_date"] == "2024-02-28 00:00:00 +0000"
    assert names(lake) == ["churn/2024-02-28"]


def test_mapped_tasks_and_open_ends(airflow_db: None, sandbox: Sandbox, lake: Path) -> None:
    """Every window and type has its own index; ``None`` written in the DAG leaves an end open."""
    state, states = run_dag(
        "mapped",
        """
        with DAG(DAG_ID, schedule=None, **START) as dag:
            @task
            def windows():
                return [
                    {"interval_start": "2024-01-01", "interval_end": "2024-01-02"},
                    {"interval_start": "2024-01-02", "interval_end": "2024-01-03"},
                ]

            create = CreateActivitiesExportOperator.partial(task_id="create").expand_kwargs(windows())
            wait = ActivitiesExportSensor.partial(task_id="wait").expand(export_id=create.output)
            ActivitiesExportToObjectStorageOperator.partial(
                task_id="move", destination="{{ var.value.lake }}/{interval_start:%Y-%m-%d}.zip"
            ).expand(export_id=wait.output)

            CreateActivitiesExportOperator.partial(
                task_id="open_by_partial", interval_start=None, interval_end=None
            ).expand(activity_type=["churn", None])
            CreateActivitiesExportOperator.partial(task_id="open_by_list").expand_kwargs(
                [{"interval_start": None, "interval_end": "2019-01-01"}]
            )
        """,
    )
    assert state == "success", states
    assert {task: len(of_task) for task, of_task in states.items()} == {
        "windows": 1,
        "create": 2,
        "wait": 2,
        "move": 2,
        "open_by_partial": 2,
        "open_by_list": 1,
    }
    assert names(lake) == ["2024-01-01.zip", "2024-01-02.zip"]
    requested = [dict(export.params) for export in sandbox.exports]
    assert {} in requested, "all of history and all types, as written in the DAG"
    assert {"activity_type": "churn"} in requested
    assert {"end_date": "2019-01-01 00:00:00 +0000"} in requested


def test_none_from_xcom_does_not_export_all_of_history(airflow_db: None, sandbox: Sandbox) -> None:
    state, states = run_dag(
        "nothing",
        """
        with DAG(DAG_ID, schedule=None, **START, render_template_as_native_obj=True) as dag:
            @task
            def nothing():
                return None

            @task
            def windows():
                return [{"interval_start": None, "interval_end": "2024-01-03"}]

            empty = nothing()
            empty >> CreateActivitiesExportOperator(
                task_id="by_template",
                interval_start="{{ ti.xcom_pull('nothing') }}",
                interval_end="2024-01-02",
            )
            empty >> CreateActivitiesExportOperator(
                task_id="type_by_template",
                interval_start="2024-01-01",
                interval_end="2024-01-02",
                activity_type="{{ ti.xcom_pull('nothing') }}",
            )
            CreateActivitiesExportOperator.partial(task_id="mapped").expand_kwargs(windows())
        """,
    )
    assert state == "failed"
    assert states["by_template"] == states["mapped"] == states["type_by_template"] == ["failed"]
    assert sandbox.requests == [], "refused before any request"


def test_example_in_three_tasks(
    airflow_db: None, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_CHARTMOGUL_DESTINATION", f"file://{tmp_path}")
    dag = copy_example("example_activities_export.py").dag
    state, states = run_states(dag.test(**at(dag, datetime(2026, 2, 3, tzinfo=UTC))))
    assert state == "success", states
    assert names(tmp_path / "activities") == ["2026-02-02.zip"]
    (export,) = sandbox.exports
    assert export.params["start_date"] == "2026-02-02 00:00:00 +0000"
    assert export.params["end_date"] == "2026-02-03 00:00:00 +0000"


def test_load_after_mapped_export(
    airflow_db: None, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The load receives the metadata of all map indexes as one sequence."""
    monkeypatch.setenv("AIRFLOW_VAR_CHARTMOGUL_DESTINATION", f"file://{tmp_path}")
    monkeypatch.setenv("AIRFLOW_VAR_CHARTMOGUL_DUCKDB", str(tmp_path / "activities.duckdb"))
    dag = copy_example("example_mapped_load.py").dag
    state, states = run_states(dag.test(run_conf={"start": "2024-01-01", "end": "2024-04-01", "every": "month"}))
    assert (state, states) == (
        "success",
        {"windows": ["success"], "export": ["success"] * 3, "load": ["success"]},
    )
    rows = sandbox.expected_rows(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 4, 1, tzinfo=UTC))
    assert difference(duckdb_rows(tmp_path / "activities.duckdb", "activities_of_windows", list(rows[0])), rows) == []


def test_snapshots_of_all_resources(airflow_db: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_CHARTMOGUL_DESTINATION", f"file://{tmp_path}")
    with Sandbox(customers=20, page_size=10) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", sandbox.connection_uri)
        module = copy_example("example_resources.py")
        state, states = run_states(module.dag.test(**at(module.dag, datetime(2026, 2, 3, tzinfo=UTC))))
        assert (state, states) == ("success", {"snapshot": ["success"] * len(module.RESOURCES)})
        (day,) = (tmp_path / "snapshots").iterdir()
        tables = {table.name for name in module.RESOURCES for table in RESOURCES[name].tables}
        assert {path.name for path in day.iterdir()} == {f"{table}.parquet" for table in tables}
        customers = [row["uuid"] for row in sandbox.rows("customers")]
        assert sorted(pq.read_table(day / "customers.parquet")["uuid"].to_pylist()) == sorted(customers)


def test_dag_of_the_start_page_loads_an_account(
    airflow_db: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = block_with(DOCS / "start.md", "python", '"chartmogul_account"')
    path = AIRFLOW_HOME / "dags" / "chartmogul_account.py"
    path.write_text(source.replace("/tmp/chartmogul", str(tmp_path)).replace("\n):\n", "\n) as dag:\n"))
    dag = _import(path).dag
    today = datetime(2026, 2, 1, tzinfo=UTC)
    with Sandbox(customers=20, as_of=today) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", sandbox.connection_uri)
        # The second run replaces what the first has loaded.
        for _ in range(2):
            state, states = run_states(dag.test())
            assert state == "success", states
        expected = {
            "activities": sandbox.expected_rows(None, today),
            "customers": sandbox.rows("customers"),
            "plans": sandbox.rows("plans"),
        }
    with duckdb.connect(str(tmp_path / "first_day.duckdb"), read_only=True) as connection:
        for table, rows in expected.items():
            loaded = [uuid for (uuid,) in connection.execute(f"SELECT uuid FROM chartmogul_{table}").fetchall()]
            assert sorted(loaded) == sorted(row["uuid"] for row in rows), table


def test_test_in_the_documentation_passes(
    airflow_db: None, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = AIRFLOW_HOME / "dags"
    (folder / "chartmogul_daily.py").write_text(block_with(DOCS / "testing.md", "python", '"chartmogul_daily"'))
    monkeypatch.syspath_prepend(str(folder))
    source = block_with(DOCS / "testing.md", "python", "def test_a_day_is_exported")
    if importlib.util.find_spec("airflow.sdk") is None:
        source = source.replace("logical_date=", "execution_date=")  # as its comment says
    try:
        run(source)["test_a_day_is_exported"](sandbox, monkeypatch, tmp_path)
    finally:
        sys.modules.pop("chartmogul_daily", None)
