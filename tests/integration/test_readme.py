# SPDX-License-Identifier: Apache-2.0
"""Run the README's code, and check its commands, links and figures."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import DAG, BaseHook

from airflow_provider_chartmogul.client.settings import ConnectionSettings
from tests.pages import DOCS, PAGES, README, block_with, commands, run, table_with

#: Shown in the README and on the page about connections.
CONNECTION_PAGES = ("README.md", "install.md", "examples.md", "start.md")


def test_dag_has_one_task() -> None:
    source = block_with(README, "python", "DAG(").replace("\n):\n", "\n) as dag:\n")
    dag = run(source)["dag"]
    assert list(dag.task_dict) == ["export"]
    assert dag.task_dict["export"].retries == 5


def test_three_tasks_run_in_order() -> None:
    with DAG("readme", schedule=None) as dag:
        run(block_with(README, "python", "CreateActivitiesExportOperator"))
    assert dag.task_dict["create"].downstream_task_ids == {"wait"}
    assert dag.task_dict["wait"].downstream_task_ids == {"transfer"}


def test_example_test_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    run(block_with(README, "python", "Sandbox"))["test_export_is_created"](monkeypatch)


def test_readme_has_at_most_170_lines() -> None:
    assert len(README.read_text().splitlines()) <= 170


def test_figures_are_those_of_the_benchmarks() -> None:
    costs = (DOCS / "costs.md").read_text()
    rows = table_with(README, "this package")
    assert len(rows) >= 3
    for row in rows:
        figures = re.findall(r"\d[\d,.]*", " ".join((row["hand-written script"], row["this package"])))
        assert len(figures) == 4, row
        for figure in figures:
            assert re.search(rf"(?<![\d,.]){re.escape(figure)}(?![\d,.]*\d)", costs), f"docs/costs.md has no {figure}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_environment_variables_connect(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line for line in commands(page) if "AIRFLOW_CONN_" in line]
    assert bool(lines) == (page.name in CONNECTION_PAGES)
    for line in lines:
        name, _, value = shlex.split(line)[1].partition("=")
        monkeypatch.setenv(name, value)
        connection = BaseHook.get_connection("chartmogul_default")
        settings = ConnectionSettings.from_connection(connection)
        if page.name in ("examples.md", "start.md"):
            assert settings.base_url == "http://127.0.0.1:8765"
        else:
            assert (settings.base_url, settings.api_key) == ("https://api.chartmogul.com", "YOUR_API_KEY")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_exist(page: Path) -> None:
    makefile = (README.parent / "Makefile").read_text()
    targets = set(re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(), re.MULTILINE))
    assert page != README or targets >= {"demo", "test", "up", "test-matrix", "docs"}
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_links_lead_to_files_and_headings() -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)(?:#([^)]+))?\)", README.read_text())
    assert len(links) > 15
    for path, anchor in links:
        target = README.parent / path
        assert target.is_file(), path
        headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE) if path.endswith(".md") else []
        assert not anchor or anchor in {heading.lower().replace(" ", "-") for heading in headings}, anchor


def test_every_class_in_the_table_exists() -> None:
    rows = table_with(README, "module")
    assert len(rows) >= 8
    for row in rows:
        name, module = (row[column].strip("`") for column in ("class", "module"))
        assert hasattr(import_module(f"airflow_provider_chartmogul.{module}"), name)
