# SPDX-License-Identifier: Apache-2.0
"""
Imports: a DAG file loads no heavy package, ``api`` and ``client`` settings load no Airflow, folders import one way.

Each module is imported in a process of its own, after the classes of Airflow that every DAG file imports.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import airflow_provider_chartmogul
from tests.unit.values import ROOT, run_python

DAG_FILE_MODULES = [
    "airflow_provider_chartmogul.hooks.chartmogul",
    "airflow_provider_chartmogul.operators.activities_export",
    "airflow_provider_chartmogul.sensors.activities_export",
    "airflow_provider_chartmogul.triggers.activities_export",
    "airflow_provider_chartmogul.transfers.activities_export_to_object_storage",
    "airflow_provider_chartmogul.transfers.activities_to_object_storage",
    "airflow_provider_chartmogul.transfers.chartmogul_to_object_storage",
    "airflow_provider_chartmogul.transfers.object_storage_to_warehouse",
    "airflow_provider_chartmogul.intervals",
]

HEAVY = {
    *("requests", "urllib3", "aiohttp", "httpx", "pyarrow", "pandas", "numpy"),
    *("fsspec", "upath", "s3fs", "gcsfs", "adlfs", "boto3", "botocore", "aiobotocore"),
    *("duckdb", "psycopg", "psycopg2", "snowflake"),
    *("flask", "flask_appbuilder", "wtforms", "isal", "sqlalchemy"),
}

#: Bottom first: a folder imports only what stands above it in this list, and nothing on its own level.
FOLDERS = [
    {"__init__"},
    {"exceptions"},
    {"runtime"},
    {"api"},
    {"get_provider_info", "sandbox", "client"},
    {"intervals", "formats"},
    {"storage"},
    {"warehouse"},
    {"lineage"},
    {"hooks"},
    {"sources"},
    {"triggers"},
    {"operators"},
    {"sensors"},
    {"transfers"},
    {"check"},
    {"__main__"},
]

PACKAGE = Path(airflow_provider_chartmogul.__path__[0])

#: Modules that can be used, and tested, without Airflow.
WITHOUT_AIRFLOW = [
    *(
        "api.account",
        "api.exports",
        "api.pagination",
        "api.query_params",
        "api.redaction",
        "api.requests",
        "api.responses",
        "api.retries",
    ),
    *("client.rate_limit", "client.settings"),
]


LOADER = """
import json, os, sys
# What every DAG file loads: Airflow's own classes.
from airflow.providers.common.compat.sdk import (
    DAG, AirflowFailException, AirflowNotFoundException, AirflowSensorTimeout, AirflowSkipException,
    AirflowTaskTimeout, BaseHook, BaseOperator, BaseSensorOperator, PokeReturnValue, mask_secret)
from airflow.triggers.base import BaseTrigger

before = set(sys.modules)
for module in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        __import__(module)
        print("added", module, json.dumps(sorted(set(sys.modules) - before)), flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, module
"""


@cache
def added_modules() -> dict[str, list[str]]:
    """Return the modules that each module adds to those that a DAG file has loaded."""
    lines = [line.split(" ", 2) for line in run_python(LOADER, *DAG_FILE_MODULES).splitlines()]
    return {line[1]: json.loads(line[2]) for line in lines if line[0] == "added"}


def loaded_by(module: str) -> tuple[set[str], set[str]]:
    """Return the top-level packages that a module adds, and the modules of this package among them."""
    added = added_modules()[module]
    return {name.partition(".")[0] for name in added}, {name for name in added if name.startswith("airflow_provider_")}


@pytest.mark.parametrize("module", DAG_FILE_MODULES)
def test_dag_file_loads_no_heavy_package(module: str) -> None:
    packages, ours = loaded_by(module)
    assert module in ours
    assert packages & HEAVY == set()


@pytest.mark.parametrize("module", DAG_FILE_MODULES)
def test_dag_file_loads_no_module_that_transfers(module: str) -> None:
    _, ours = loaded_by(module)
    transferring = {
        "storage",
        "formats",
        "warehouse",
        "lineage",
        "sandbox",
        "sync_client",
        "async_client",
        "shared_client",
    }
    assert {name for name in ours if transferring.intersection(name.split("."))} == set()


def test_provider_info_loads_no_other_module() -> None:
    """Every Airflow process reads it when it starts."""
    printed = run_python(
        "import sys, __future__, typing\n"
        "before = set(sys.modules)\n"
        "from airflow_provider_chartmogul.get_provider_info import get_provider_info\n"
        "get_provider_info()\n"
        "print(*sorted(set(sys.modules) - before))\n"
    )
    assert printed.split() == ["airflow_provider_chartmogul", "airflow_provider_chartmogul.get_provider_info"]


@pytest.mark.parametrize("name", WITHOUT_AIRFLOW)
def test_api_and_settings_import_no_airflow(name: str) -> None:
    printed = run_python(
        f"import sys, airflow_provider_chartmogul.{name}\n"
        "packages = {module.partition('.')[0] for module in sys.modules}\n"
        "print(sorted(packages & {'airflow', 'requests', 'aiohttp', 'pendulum', 'socket', 'http', 'ssl'}))\n"
    )
    assert set(json.loads(printed.replace("'", '"'))) <= {"socket"}  # email.utils of old Pythons loads it


def sources() -> Iterator[Path]:
    yield from sorted(PACKAGE.rglob("*.py"))


def test_imports_between_folders_go_one_way() -> None:
    level = {folder: number for number, folders in enumerate(FOLDERS) for folder in folders}
    wrong = []
    for path in sources():
        folder = folder_of(path.relative_to(PACKAGE).with_suffix("").parts)
        for imported in re.findall(r"(?:from|import) airflow_provider_chartmogul\.([\w.]+)", path.read_text()):
            target = folder_of(tuple(imported.split(".")))
            if target != folder and level[target] >= level[folder]:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {imported}")
    assert wrong == []


def folder_of(parts: tuple[str, ...]) -> str:
    return parts[0]


def test_files_begin_with_the_license() -> None:
    for path in [*sources(), *sorted((ROOT / "tests" / "unit").glob("*.py"))]:
        text = path.read_text()
        assert not text or text.startswith("# SPDX-License-Identifier: Apache-2.0\n"), path
