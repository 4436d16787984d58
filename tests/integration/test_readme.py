# SPDX-License-Identifier: Apache-2.0
"""What the README shows, run as it stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_chartmogul.connection import ConnectionSettings

README = (Path(__file__).parents[2] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_dag_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = [block for block in blocks("python") if "DAG(" in block]
    names: dict[str, Any] = {}
    exec(compile(source.replace("):\n    create", ") as dag:\n    create"), "README.md", "exec"), names)
    dag = names["dag"]
    assert sorted(dag.task_dict) == ["create", "move", "wait"]
    assert dag.task_dict["create"].downstream_task_ids == {"wait"}
    assert dag.task_dict["wait"].downstream_task_ids == {"move"}
    assert dag.task_dict["move"].on_failure_callback


def test_the_test_with_the_sandbox_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = [block for block in blocks("python") if "pytest" in block]
    names: dict[str, Any] = {}
    exec(compile(source, "README.md", "exec"), names)
    fixture = names["chartmogul"].__wrapped__(monkeypatch)
    names["test_an_export_that_fails"](next(fixture))
    assert next(fixture, None) is None


def test_every_connection_gives_the_key_and_the_default_host(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line for block in blocks("sh") for line in block.splitlines() if "AIRFLOW_CONN_" in line]
    assert len(lines) == 2
    for line in lines:
        name, _, value = shlex.split(line)[1].partition("=")
        monkeypatch.setenv(name, value)
        connection = BaseHook.get_connection("chartmogul_default")
        settings = ConnectionSettings.from_connection(connection, connection.extra_dejson)
        assert (settings.base_url, settings.api_key) == ("https://api.chartmogul.com", "YOUR_API_KEY")


def test_every_make_target_is_one() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    targets = set(re.findall(r"`?make ([a-z-]+)", README))
    assert {"demo", "test", "up", "test-matrix"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
