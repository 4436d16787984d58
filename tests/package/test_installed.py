# SPDX-License-Identifier: Apache-2.0
"""The package as users have it: installed by pip into an environment that held nothing."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from tests.package.conftest import ROOT, Environment, ProgramError, run
from tests.package.test_archives import version

IMPORTS = """
import importlib, json, pathlib, pkgutil
import airflow_provider_chartmogul as package

found = [module.name for module in pkgutil.walk_packages(package.__path__, "airflow_provider_chartmogul.")]
needs = {
    "airflow_provider_chartmogul.formats.parquet": "pyarrow",
    "airflow_provider_chartmogul.lineage.openlineage": "openlineage",
}
for name in found:
    if name.endswith(".__main__"):
        continue
    try:
        importlib.import_module(name)
    except ImportError as error:
        if needs.get(name, "nothing") not in str(error):
            raise
        del needs[name]
print(json.dumps({"file": package.__file__, "version": package.__version__, "modules": len(found)}))
"""


def test_every_module_is_imported(environment: Environment) -> None:
    """But for the two that need what an extra or the user brings, and say so."""
    found = json.loads(environment.run("python", "-W", "ignore", "-c", IMPORTS).splitlines()[-1])
    assert found["version"] == version()
    assert Path(found["file"]).is_relative_to(environment.bin.parent)
    sources = [path for path in (ROOT / "airflow_provider_chartmogul").rglob("*.py") if path.name != "__init__.py"]
    assert found["modules"] >= len(sources)


def test_its_dependencies_agree(environment: Environment) -> None:
    assert "No broken requirements" in environment.run("python", "-m", "pip", "check")


def test_airflow_lists_the_provider_and_its_connection_type(environment: Environment) -> None:
    listed = _json(environment.run("airflow", "providers", "list", "--output", "json"))
    (ours,) = [entry for entry in listed if entry["package_name"] == "airflow-provider-chartmogul"]
    assert ours["version"] == version()


def _json(said: str) -> list[dict[str, str]]:
    """The JSON among the lines, before which Airflow may have warned of something."""
    (line,) = [line for line in said.splitlines() if line.startswith("[{")]
    return list(json.loads(line))


def test_the_sandbox_starts_as_the_documentation_says(environment: Environment) -> None:
    said = environment.run("python", "-m", "airflow_provider_chartmogul.sandbox", "--help")
    assert said.startswith("usage: python -m airflow_provider_chartmogul.sandbox")
    assert "--export-seconds" in said


RIGHT = """
from datetime import datetime, timedelta

from airflow.sdk import DAG
from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook
from airflow_provider_chartmogul.intervals import split_interval
from airflow_provider_chartmogul.operators.activities_export import CreateActivitiesExportOperator
from airflow_provider_chartmogul.sensors.activities_export import ActivitiesExportSensor
from airflow_provider_chartmogul.transfers.activities_export_to_object_storage import (
    ActivitiesExportToObjectStorageOperator,
)
from airflow_provider_chartmogul.transfers.activities_to_object_storage import ActivitiesToObjectStorageOperator


def status(export_id: str) -> str:
    with ChartMogulHook() as hook:
        return hook.get_activities_export(export_id).status.value


with DAG("typed", schedule=None):
    create = CreateActivitiesExportOperator(task_id="create", interval_start=None, lookback=timedelta(days=7))
    wait = ActivitiesExportSensor(task_id="wait", export_id=create.output, poke_interval=timedelta(minutes=1))
    ActivitiesExportToObjectStorageOperator(
        task_id="move", export_id=wait.output, destination="s3://bucket/{interval_start:%Y}.parquet",
        column_types={"activity_mrr": "int64"},
    )
    ActivitiesToObjectStorageOperator.partial(
        task_id="backfill", destination="s3://bucket/{interval_start:%Y}.zip"
    ).expand_kwargs(split_interval(datetime(2021, 1, 1), "2026-01-01", "year", activity_types=["churn"]))
"""

#: What a type checker must tell a user of, and what it says.
WRONG = {
    'CreateActivitiesExportOperator(task_id="create", activity_type=7)': "arg-type",
    'ActivitiesExportSensor(task_id="wait")': "call-arg",
    'ActivitiesExportToObjectStorageOperator(task_id="m", destination="s3://b/x.zip")': "call-arg",
    'ActivitiesToObjectStorageOperator(task_id="m", destination="s3://b/x.zip", column_types=["a"])': "arg-type",
    "ChartMogulHook().create_activities_export(start_date=1)": "arg-type",
    'ChartMogulHook().get_activities_export("e").no_such_thing': "attr-defined",
    'split_interval("2021-01-01", "2026-01-01", 7)': "arg-type",
}


def test_a_dag_is_type_checked_against_it(environments: dict[str, Environment], tmp_path: Path) -> None:
    """In the user's own project, with ``mypy --strict``; without ``py.typed`` all of it would be ``Any``."""
    (tmp_path / "dag.py").write_text(RIGHT + "".join(f"{line}\n" for line in WRONG))
    first = RIGHT.count("\n") + 1
    python = environments["wheel"].bin / "python"
    check = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(python), "--cache-dir=cache"]
    with pytest.raises(ProgramError) as refused:
        run(*check, "dag.py", cwd=tmp_path)
    errors = dict(re.findall(r"^dag\.py:(\d+): error: .*\[([\w-]+)\]$", str(refused.value), re.MULTILINE))
    assert errors == {str(first + number): code for number, code in enumerate(WRONG.values())}, str(refused.value)
