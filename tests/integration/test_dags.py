# SPDX-License-Identifier: Apache-2.0
"""
Whole DAGs by ``dag.test()``: templates, mapped tasks, ends left open, on every supported Airflow.

That defers without a triggerer, and takes a trigger's first event only; the real thing is in ``tests/system``.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from airflow_provider_chartmogul.sandbox import Sandbox
from tests.conftest import AIRFLOW_HOME
from tests.pages import DOCS, block_with, run

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
    """Write a DAG file, run its DAG; give the run's state, and the states of each task's instances."""
    path = AIRFLOW_HOME / "dags" / f"{name}.py"
    head = f'DAG_ID = "{name}"\nSTART = dict(start_date=__import__("datetime").datetime(2024, 1, 1))\n'
    path.write_text(HEAD + head + textwrap.dedent(body))
    module = _import(path)
    run = module.dag.test(**test)
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


def test_mapped_tasks_and_ends_left_open(airflow_db: None, sandbox: Sandbox, lake: Path) -> None:
    """Every window and type has its own index; a None that the DAG writes leaves an end open."""
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
    asked = [dict(made.params) for made in sandbox.exports]
    assert {} in asked, "all of history and all types, as the DAG says"
    assert {"activity_type": "churn"} in asked
    assert {"end_date": "2019-01-01 00:00:00 +0000"} in asked


def test_a_none_out_of_xcom_is_not_all_of_history(airflow_db: None, sandbox: Sandbox) -> None:
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
    assert sandbox.requests == [], "refused before a request"


def test_the_example_runs_by_dag_test(
    airflow_db: None, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_CHARTMOGUL_DESTINATION", f"file://{tmp_path}")
    source = Path(__file__).parents[2] / "example_dags" / "example_activities_export.py"
    path = AIRFLOW_HOME / "dags" / source.name
    path.write_text(source.read_text())
    module = _import(path)
    # Airflow 2 calls it execution_date; both give the run the day that ends there as its interval.
    import inspect

    name = "logical_date" if "logical_date" in inspect.signature(module.dag.test).parameters else "execution_date"
    from datetime import UTC, datetime

    run = module.dag.test(**{name: datetime(2026, 2, 3, tzinfo=UTC)})
    assert str(getattr(run.state, "value", run.state)) == "success"
    assert os.listdir(tmp_path / "activities")
    (made,) = sandbox.exports
    assert made.params["start_date"] != made.params["end_date"]


def test_the_test_that_the_documentation_shows(
    airflow_db: None, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = AIRFLOW_HOME / "dags"
    (folder / "chartmogul_daily.py").write_text(block_with(DOCS / "testing.md", "python", '"chartmogul_daily"'))
    monkeypatch.syspath_prepend(str(folder))
    source = block_with(DOCS / "testing.md", "python", "def test_a_day_is_exported")
    if importlib.util.find_spec("airflow.sdk") is None:
        source = source.replace("logical_date=", "execution_date=")  # as the comment there says
    try:
        run(source)["test_a_day_is_exported"](sandbox, monkeypatch, tmp_path)
    finally:
        sys.modules.pop("chartmogul_daily", None)
