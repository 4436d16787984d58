# SPDX-License-Identifier: Apache-2.0
"""
Tests of Airflow's commands: ``airflow providers`` lists this package, and ``airflow dags test`` and ``airflow tasks
test`` run its tasks, each in a new process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import airflow
import pytest

from airflow_provider_chartmogul import __version__
from airflow_provider_chartmogul.get_provider_info import get_provider_info
from airflow_provider_chartmogul.sandbox import Sandbox
from tests.conftest import AIRFLOW_HOME
from tests.integration.transfers import create_export

INFO = get_provider_info()
PACKAGE = INFO["package-name"]

#: Runs commands one after another, each in a fork of a process that has already imported Airflow.
PROGRAM = """
import os, sys
from airflow.__main__ import main

for command in sys.argv[1:]:
    print("command", command, flush=True)
    child = os.fork()
    if child == 0:
        sys.argv = ["airflow", *command.split()]
        main()
        sys.stdout.flush()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, command
"""

COMMANDS = ("list", f"get {PACKAGE} --full", "hooks", "triggers", "links", "behaviours", "widgets")


def run_commands(*commands: str) -> str:
    """Run Airflow's commands one after another and return their output."""
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, *commands],
        env={**os.environ, "COLUMNS": "200"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600,
    )  # fmt: skip
    assert process.returncode == 0, process.stdout
    return process.stdout


@cache
def providers() -> dict[str, Any]:
    """Return the JSON that each command of ``airflow providers`` prints, by the command's first word."""
    output = run_commands(*(f"providers {command} --output json" for command in COMMANDS))
    results: dict[str, Any] = {}
    for part in output.split("command providers ")[1:]:
        heading, _, text = part.partition("\n")
        # Log lines may precede the JSON, and Airflow prints a sentence in place of an empty list.
        json_lines = [line for line in text.splitlines() if line.startswith("[{")]
        results[heading.split()[0]] = json.loads(json_lines[-1]) if json_lines else []
    return results


def entries(command: str) -> list[dict[str, Any]]:
    """Return this package's entries in the output of a command of ``airflow providers``."""
    return [entry for entry in providers()[command] if "chartmogul" in json.dumps(entry)]


def test_provider_is_listed_with_its_version() -> None:
    (entry,) = entries("list")
    assert (entry["package_name"], entry["version"]) == (PACKAGE, __version__)
    assert "ChartMogul" in entry["description"]


def test_all_metadata_is_shown() -> None:
    shown = json.dumps(providers()["get"])
    for kind in ("hooks", "operators", "sensors", "triggers"):
        for entry in INFO[kind]:
            for module in entry["python-modules"]:
                assert module in shown
    for entry in INFO["transfers"]:
        assert entry["python-module"] in shown
    assert "https://dev.chartmogul.com/" in shown


def test_hook_is_listed_with_its_connection_type() -> None:
    (entry,) = entries("hooks")
    assert entry["connection_type"] == "chartmogul"
    assert entry["class"] == "airflow_provider_chartmogul.hooks.chartmogul.ChartMogulHook"
    assert entry["conn_id_attribute_name"] == "chartmogul_conn_id"
    assert entry["package_name"] == PACKAGE
    assert entry["hook_name"] == "ChartMogul"


def test_trigger_is_listed() -> None:
    (entry,) = entries("triggers")
    assert entry["class"] == "airflow_provider_chartmogul.triggers.activities_export"


def test_provider_has_no_extra_links() -> None:
    """ChartMogul has no page for an export with a known URL."""
    assert entries("links") == []
    assert "extra-links" not in INFO


def test_connection_form_is_listed() -> None:
    """Airflow 3.0 and 3.1 need packages for the forms of providers that a plain installation lacks."""
    from_metadata = "conn-fields" in (Path(airflow.__path__[0]) / "provider.yaml.schema.json").read_text()
    has_forms = from_metadata or find_spec("flask_appbuilder") is not None
    assert [entry["field_behaviours"] for entry in entries("behaviours")] == (["chartmogul"] if has_forms else [])
    fields = sorted(entry["connection_parameter_name"].rpartition("__")[2] for entry in entries("widgets"))
    assert fields == (["max_connections", "requests_per_second", "timeout"] if has_forms else [])


DAG_FILE = """
import os
from datetime import datetime

from airflow.providers.common.compat.sdk import DAG
from airflow_provider_chartmogul.operators.activities_export import CreateActivitiesExportOperator
from airflow_provider_chartmogul.sensors.activities_export import ActivitiesExportSensor
from airflow_provider_chartmogul.transfers.activities_export_to_object_storage import (
    ActivitiesExportToObjectStorageOperator,
)
from airflow_provider_chartmogul.transfers.activities_to_object_storage import ActivitiesToObjectStorageOperator

with DAG("commands", schedule=None, start_date=datetime(2024, 1, 1)):
    window = {"interval_start": "2024-01-01", "interval_end": "{{ '2024-01-03' }}"}
    create = CreateActivitiesExportOperator(task_id="create", **window)
    wait = ActivitiesExportSensor(task_id="wait", export_id=create.output)
    # 'tasks test' runs this task alone, with the export in the variable.
    transfer = ActivitiesExportToObjectStorageOperator(
        task_id="transfer",
        export_id="{{ ti.xcom_pull('wait') or var.value.export_id }}",
        destination="{{ var.value.lake }}/three/{interval_start:%Y-%m-%d}.zip",
    )
    wait >> transfer
    # 'tasks test' of Airflow 2 does not render templates again when it resumes a deferred task.
    lake = os.environ["AIRFLOW_VAR_LAKE"]
    ActivitiesToObjectStorageOperator(task_id="all", destination=lake + "/one/{export_id}.csv.gz", **window)
"""


def test_tasks_run_with_tasks_test_and_dags_test(
    airflow_db: None, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The objects are checked, since Airflow 3's exit code is 0 even after a failed task."""
    (AIRFLOW_HOME / "dags" / "commands.py").write_text(DAG_FILE)
    monkeypatch.setenv("AIRFLOW_VAR_LAKE", f"file://{tmp_path}")
    monkeypatch.setenv("AIRFLOW_VAR_EXPORT_ID", create_export())
    # Exports take long enough for the tasks to be deferred.
    sandbox.export_seconds = 2

    output = run_commands("tasks test commands transfer 2024-05-01", "tasks test commands all 2024-05-01")

    assert len(sandbox.exports) == 2, "one by the test and one by the task"
    assert sandbox.exports[1].params["end_date"] == "2024-01-03 00:00:00 +0000", "the template was not rendered"
    # 'tasks test' of Airflow 3.0 does not resume a task after its trigger has fired, and logs every request of a task
    # at DEBUG, even one to mask a secret. Remove this with the support for Airflow 3.0.
    is_3_0 = airflow.__version__.startswith("3.0.")
    one = [f"one/{sandbox.exports[1].id}.csv.gz"] if not is_3_0 else []
    assert objects(tmp_path) == [*one, "three/2024-01-01.zip"], output
    assert not is_3_0 or "Trigger completed" in output

    # The connection is in Airflow's database now, where Airflow 3.3's own asynchronous lookup does not find it.
    monkeypatch.delenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT")
    run_commands(f"connections add chartmogul_default --conn-uri {sandbox.connection_uri}")
    output = run_commands("dags test commands 2024-05-02")
    run_commands("connections delete chartmogul_default")

    assert len(sandbox.exports) == 4
    counts = Counter(path.partition("/")[0] for path in objects(tmp_path))
    assert counts == {"one": 1 + len(one), "three": 1}, output
    if is_3_0:
        output = "\n".join(line for line in output.splitlines() if "msg=MaskSecret(" not in line)
    assert sandbox.api_key not in output
    assert "X-Amz-Signature" not in output


def objects(lake: Path) -> list[str]:
    return sorted(str(path.relative_to(lake)) for path in lake.rglob("*") if path.is_file())
