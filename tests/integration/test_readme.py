# SPDX-License-Identifier: Apache-2.0
"""What the README shows, run as it stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, BaseHook

from airflow_provider_chartmogul.client.settings import ConnectionSettings
from tests.pages import PAGES, README, block_with, blocks, run


def test_the_dag_is_one() -> None:
    source = block_with(README, "python", "DAG(")
    dag = run(source.replace("):\n    create", ") as dag:\n    create"))["dag"]
    assert sorted(dag.task_dict) == ["create", "move", "wait"]
    assert dag.task_dict["create"].downstream_task_ids == {"wait"}
    assert dag.task_dict["wait"].downstream_task_ids == {"move"}
    assert dag.task_dict["move"].on_failure_callback


def test_the_one_task_way_is_a_task_and_maps() -> None:
    with DAG("readme", schedule=None) as dag:
        run(*(source for source in blocks(README, "python") if "ActivitiesToObjectStorageOperator" in source))
    assert sorted(dag.task_dict) == ["activities", "backfill"]
    windows: Any = dag.task_dict["backfill"].expand_input.value
    assert len(windows) == 5 * 12 * 2
    assert windows[0] == {
        "interval_start": "2021-01-01T00:00:00+00:00",
        "interval_end": "2021-02-01T00:00:00+00:00",
        "activity_type": "new_biz",
    }


def test_the_test_with_the_sandbox_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    names = run(block_with(README, "python", "pytest"))
    fixture = names["chartmogul"].__wrapped__(monkeypatch)
    names["test_an_export_that_fails"](next(fixture))
    assert next(fixture, None) is None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_connection_gives_the_key_and_the_default_host(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line for block in blocks(page, "sh") for line in block.splitlines() if "AIRFLOW_CONN_" in line]
    assert len(lines) == (2 if page.name in ("README.md", "install.md") else 0)
    for line in lines:
        name, _, value = shlex.split(line)[1].partition("=")
        monkeypatch.setenv(name, value)
        connection = BaseHook.get_connection("chartmogul_default")
        settings = ConnectionSettings.from_connection(connection, connection.extra_dejson)
        assert (settings.base_url, settings.api_key) == ("https://api.chartmogul.com", "YOUR_API_KEY")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_is_one(page: Path) -> None:
    makefile = (README.parent / "Makefile").read_text()
    targets = set(re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(), re.MULTILINE))
    assert page != README or targets >= {"demo", "test", "up", "test-matrix", "docs"}
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_link_of_the_readme_leads_to_a_file_and_a_heading() -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)(?:#([^)]+))?\)", README.read_text())
    assert len(links) > 15
    for path, anchor in links:
        target = README.parent / path
        assert target.is_file(), path
        headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE) if path.endswith(".md") else []
        assert not anchor or anchor in {heading.lower().replace(" ", "-") for heading in headings}, anchor
