# SPDX-License-Identifier: Apache-2.0
"""What the README shows, run as it stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import requests
from airflow.providers.common.compat.sdk import DAG, BaseHook

from airflow_provider_chartmogul.connection import ConnectionSettings
from airflow_provider_chartmogul.sandbox import Sandbox

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


def test_the_one_task_way_is_a_task_and_maps() -> None:
    names: dict[str, Any] = {}
    with DAG("readme", schedule=None) as dag:
        for source in blocks("python"):
            if "ActivitiesToObjectStorageOperator" in source:
                exec(compile(source, "README.md", "exec"), names)
    assert sorted(dag.task_dict) == ["activities", "backfill"]
    windows = dag.task_dict["backfill"].expand_input.value
    assert len(windows) == 5 * 12 * 2
    assert windows[0] == {
        "interval_start": "2021-01-01T00:00:00+00:00",
        "interval_end": "2021-02-01T00:00:00+00:00",
        "activity_type": "new_biz",
    }


def test_every_block_of_python_is_python() -> None:
    for source in blocks("python"):
        compile(source, "README.md", "exec")


def test_the_test_with_the_sandbox_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = [block for block in blocks("python") if "pytest" in block]
    names: dict[str, Any] = {}
    exec(compile(source, "README.md", "exec"), names)
    fixture = names["chartmogul"].__wrapped__(monkeypatch)
    names["test_an_export_that_fails"](next(fixture))
    assert next(fixture, None) is None


def test_the_bad_day_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, Any] = {}
    for source in blocks("python"):
        if "pytest" in source or "faulty(" in source:
            exec(compile(source, "README.md", "exec"), names)
    fixture = names["chartmogul"].__wrapped__(monkeypatch)
    names["test_a_bad_day"](next(fixture))
    assert next(fixture, None) is None


def test_what_is_typed_at_the_admin_address_is_answered() -> None:
    lines = [shlex.split(line) for block in blocks("sh") for line in block.splitlines() if "127.0.0.1:8766" in line]
    assert len(lines) == 6
    with Sandbox(customers=1) as sandbox:
        for curl, *options, url in lines:
            given = dict(zip(options[::2], options[1::2], strict=True))
            method = given.get("-X") or ("POST" if "-d" in given else "GET")
            url = url.replace("http://127.0.0.1:8766", sandbox.admin_url)
            reply = requests.request(method, url, data=given.get("-d"), timeout=60)
            assert (curl, reply.ok) == ("curl", True), reply.text
        assert (sandbox.outcome, sandbox.export_seconds) == ("failed", 60)


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
