# SPDX-License-Identifier: Apache-2.0
"""Tests of the package as users install it: with pip, into an empty environment."""

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

names = [module.name for module in pkgutil.walk_packages(package.__path__, "airflow_provider_chartmogul.")]
optional_dependencies = {
    "airflow_provider_chartmogul.formats.arrow_types": "pyarrow",
    "airflow_provider_chartmogul.formats.column_values": "pyarrow",
    "airflow_provider_chartmogul.formats.parquet": "pyarrow",
    "airflow_provider_chartmogul.formats.table_readers": "pyarrow",
    "airflow_provider_chartmogul.formats.tables": "pyarrow",
    "airflow_provider_chartmogul.lineage.openlineage": "openlineage",
}
for name in names:
    if name.endswith(".__main__"):
        continue
    try:
        importlib.import_module(name)
    except ImportError as error:
        if name not in optional_dependencies or optional_dependencies[name] not in str(error):
            raise
print(json.dumps({"file": package.__file__, "version": package.__version__, "modules": len(names)}))
"""


def test_every_module_can_be_imported(environment: Environment) -> None:
    """Some modules need packages that are not installed by default, and their error names the package."""
    result = json.loads(environment.run("python", "-W", "ignore", "-c", IMPORTS).splitlines()[-1])
    assert result["version"] == version()
    assert Path(result["file"]).is_relative_to(environment.bin.parent)
    sources = [path for path in (ROOT / "airflow_provider_chartmogul").rglob("*.py") if path.name != "__init__.py"]
    assert result["modules"] >= len(sources)


def test_dependencies_are_compatible(environment: Environment) -> None:
    assert "No broken requirements" in environment.run("python", "-m", "pip", "check")


def test_airflow_lists_the_provider(environment: Environment) -> None:
    listed = _json(environment.run("airflow", "providers", "list", "--output", "json"))
    (entry,) = [entry for entry in listed if entry["package_name"] == "airflow-provider-chartmogul"]
    assert entry["version"] == version()


def _json(output: str) -> list[dict[str, str]]:
    """Return the JSON in a command's output, which may begin with warnings of Airflow."""
    (line,) = [line for line in output.splitlines() if line.startswith("[{")]
    return list(json.loads(line))


def test_sandbox_runs_from_the_command_line(environment: Environment) -> None:
    output = environment.run("python", "-m", "airflow_provider_chartmogul.sandbox", "--help")
    assert output.startswith("usage: python -m airflow_provider_chartmogul.sandbox")
    assert "--export-seconds" in output


CORRECT_DAG = """
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
        task_id="transfer", export_id=wait.output, destination="s3://bucket/{interval_start:%Y}.parquet",
        column_types={"activity_mrr": "int64"},
    )
    ActivitiesToObjectStorageOperator.partial(
        task_id="backfill", destination="s3://bucket/{interval_start:%Y}.zip"
    ).expand_kwargs(split_interval(datetime(2021, 1, 1), "2026-01-01", "year", activity_types=["churn"]))
"""

#: Lines with a type error, and the code of mypy's error.
INCORRECT_LINES = {
    'CreateActivitiesExportOperator(task_id="create", activity_type=7)': "arg-type",
    'ActivitiesExportSensor(task_id="wait")': "call-arg",
    'ActivitiesExportToObjectStorageOperator(task_id="t", destination="s3://b/x.zip")': "call-arg",
    'ActivitiesToObjectStorageOperator(task_id="t", destination="s3://b/x.zip", column_types=["a"])': "arg-type",
    "ChartMogulHook().create_activities_export(start_date=1)": "arg-type",
    'ChartMogulHook().get_activities_export("e").no_such_thing': "attr-defined",
    'split_interval("2021-01-01", "2026-01-01", 7)': "arg-type",
}


def test_mypy_checks_dags_against_the_package(environments: dict[str, Environment], tmp_path: Path) -> None:
    """Run ``mypy --strict`` in a user's project. Without ``py.typed``, every name would be ``Any``."""
    (tmp_path / "dag.py").write_text(CORRECT_DAG + "".join(f"{line}\n" for line in INCORRECT_LINES))
    first = CORRECT_DAG.count("\n") + 1
    python = environments["wheel"].bin / "python"
    check = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(python), "--cache-dir=cache"]
    with pytest.raises(ProgramError) as failure:
        run(*check, "dag.py", cwd=tmp_path)
    errors = dict(re.findall(r"^dag\.py:(\d+): error: .*\[([\w-]+)\]$", str(failure.value), re.MULTILINE))
    expected = {str(first + number): code for number, code in enumerate(INCORRECT_LINES.values())}
    assert errors == expected, str(failure.value)
