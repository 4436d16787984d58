# SPDX-License-Identifier: Apache-2.0
"""
Airflow's own commands: what ``airflow providers`` says of this package, and its tasks run by ``airflow dags test`` and
``airflow tasks test``, each in a process of its own.
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

#: Commands, one after another, each in a fork of a process that has loaded Airflow.
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
    """Run Airflow's commands, one after another; give all that they printed."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, *commands],
        env={**os.environ, "COLUMNS": "200"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


@cache
def providers() -> dict[str, Any]:
    """What each command of ``airflow providers`` says, by its first word."""
    printed = run_commands(*(f"providers {command} --output json" for command in COMMANDS))
    said: dict[str, Any] = {}
    for part in printed.split("command providers ")[1:]:
        heading, _, text = part.partition("\n")
        # Logs may come before, and Airflow says in words that there is nothing.
        answers = [line for line in text.splitlines() if line.startswith("[{")]
        said[heading.split()[0]] = json.loads(answers[-1]) if answers else []
    return said


def ours(command: str) -> list[dict[str, Any]]:
    return [entry for entry in providers()[command] if "chartmogul" in json.dumps(entry)]


def test_the_provider_is_listed_with_its_version() -> None:
    (entry,) = ours("list")
    assert (entry["package_name"], entry["version"]) == (PACKAGE, __version__)
    assert "ChartMogul" in entry["description"]


def test_all_of_its_metadata_is_shown() -> None:
    shown = json.dumps(providers()["get"])
    for kind in ("hooks", "operators", "sensors", "triggers"):
        for entry in INFO[kind]:
            for module in entry["python-modules"]:
                assert module in shown
    for entry in INFO["transfers"]:
        assert entry["python-module"] in shown
    assert "https://dev.chartmogul.com/" in shown


def test_its_hook_is_found_by_its_connection_type() -> None:
    (entry,) = ours("hooks")
    assert entry["connection_type"] == "chartmogul"
    assert entry["class"] == "airflow_provider_chartmogul.hooks.chartmogul.ChartMogulHook"
    assert entry["conn_id_attribute_name"] == "chartmogul_conn_id"
    assert entry["package_name"] == PACKAGE
    assert entry["hook_name"] == "ChartMogul"


def test_its_trigger_is_found() -> None:
    (entry,) = ours("triggers")
    assert entry["class"] == "airflow_provider_chartmogul.triggers.activities_export"


def test_it_promises_no_link() -> None:
    """ChartMogul has no page for an export whose address is known, so that there is none to lead to."""
    assert ours("links") == []
    assert "extra-links" not in INFO


def test_its_form_is_found() -> None:
    """Airflow 3.0 and 3.1 draw the forms of providers with packages that a plain installation lacks."""
    from_metadata = "conn-fields" in (Path(airflow.__path__[0]) / "provider.yaml.schema.json").read_text()
    drawn = from_metadata or find_spec("flask_appbuilder") is not None
    assert [entry["field_behaviours"] for entry in ours("behaviours")] == (["chartmogul"] if drawn else [])
    fields = sorted(entry["connection_parameter_name"].rpartition("__")[2] for entry in ours("widgets"))
    assert fields == (["max_connections", "requests_per_second", "timeout"] if drawn else [])


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
    # 'tasks test' runs a task alone, for which there is no export but the one of the variable.
    move = ActivitiesExportToObjectStorageOperator(
        task_id="move",
        export_id="{{ ti.xcom_pull('wait') or var.value.export_id }}",
        destination="{{ var.value.lake }}/three/{interval_start:%Y-%m-%d}.zip",
    )
    wait >> move
    # Airflow 2's 'tasks test' does not render templates anew when it goes on after a deferral.
    lake = os.environ["AIRFLOW_VAR_LAKE"]
    ActivitiesToObjectStorageOperator(task_id="all", destination=lake + "/one/{export_id}.csv.gz", **window)
"""


def test_its_tasks_run_by_tasks_test_and_by_dags_test(
    airflow_db: None, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the commands return says little (Airflow 3's is 0 for a failed task); what they leave is looked at."""
    (AIRFLOW_HOME / "dags" / "commands.py").write_text(DAG_FILE)
    monkeypatch.setenv("AIRFLOW_VAR_LAKE", f"file://{tmp_path}")
    monkeypatch.setenv("AIRFLOW_VAR_EXPORT_ID", create_export())
    # Long enough that the tasks defer.
    sandbox.export_seconds = 2

    said = run_commands("tasks test commands move 2024-05-01", "tasks test commands all 2024-05-01")

    assert len(sandbox.exports) == 2, "one by hand, one by the task"
    assert sandbox.exports[1].params["end_date"] == "2024-01-03 00:00:00 +0000", "the template was rendered"
    # 'tasks test' of Airflow 3.0 leaves a task alone once its trigger has fired, and its commands write at DEBUG what a
    # task asks of them, to mask a secret too. Both can go when 3.0 does.
    is_3_0 = airflow.__version__.startswith("3.0.")
    one = [f"one/{sandbox.exports[1].id}.csv.gz"] if not is_3_0 else []
    assert objects(tmp_path) == [*one, "three/2024-01-01.zip"], said
    assert not is_3_0 or "Trigger completed" in said

    # The connection is in Airflow's database now, where Airflow 3.3's own asynchronous lookup does not find it.
    monkeypatch.delenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT")
    run_commands(f"connections add chartmogul_default --conn-uri {sandbox.connection_uri}")
    said = run_commands("dags test commands 2024-05-02")
    run_commands("connections delete chartmogul_default")

    assert len(sandbox.exports) == 4
    made = Counter(path.partition("/")[0] for path in objects(tmp_path))
    assert made == {"one": 1 + len(one), "three": 1}, said
    if is_3_0:
        said = "\n".join(line for line in said.splitlines() if "msg=MaskSecret(" not in line)
    assert sandbox.api_key not in said
    assert "X-Amz-Signature" not in said


def objects(lake: Path) -> list[str]:
    return sorted(str(path.relative_to(lake)) for path in lake.rglob("*") if path.is_file())
