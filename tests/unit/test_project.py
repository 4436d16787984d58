# SPDX-License-Identifier: Apache-2.0
"""Tests of the project's metadata: a single version, the changelog's format, the CI workflows, CONTRIBUTING."""

from __future__ import annotations

import re
import shutil
import subprocess
from datetime import date
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.version import Version

from airflow_provider_chartmogul import __version__
from airflow_provider_chartmogul.client.guarded_session import USER_AGENT
from airflow_provider_chartmogul.get_provider_info import get_provider_info
from tests.unit.values import ROOT

CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]


def releases() -> list[tuple[str, str | None, dict[str, str]]]:
    """Return the changelog's releases, newest first: version, date, and the text by kind of change."""
    found = []
    for section in re.split(r"^## ", CHANGELOG, flags=re.MULTILINE)[1:]:
        heading, _, body = section.partition("\n")
        match = re.fullmatch(r"\[(Unreleased|\d+\.\d+\.\d+)\](?: - (\d{4}-\d\d-\d\d))?(?: \[YANKED\])?", heading)
        assert match is not None, f"not a heading of Keep a Changelog: {heading!r}"
        first, *kinds = re.split(r"^### ", body, flags=re.MULTILINE)
        assert first.strip() == "", f"text outside a kind of change: {first!r}"
        parts = [kind.partition("\n") for kind in kinds]
        assert len({name for name, _, _ in parts}) == len(parts)
        found.append((match[1], match[2], {name: text.strip() for name, _, text in parts}))
    return found


def test_changelog_follows_keep_a_changelog() -> None:
    assert CHANGELOG.startswith("# Changelog\n")
    assert "https://keepachangelog.com/en/1.1.0/" in CHANGELOG
    names = [name for name, _, _ in releases()]
    assert names[0] == "Unreleased"
    versions = [Version(name) for name in names[1:]]
    assert versions == sorted(set(versions), reverse=True)
    days = [date.fromisoformat(day or "") for _, day, _ in releases()[1:]]
    assert days == sorted(days, reverse=True)
    assert releases()[0][1] is None


def test_changelog_entries_are_lists_by_kind_of_change() -> None:
    for name, _, kinds in releases():
        assert set(kinds) <= set(KINDS), name
        assert list(kinds) == sorted(kinds, key=KINDS.index), name
        assert kinds or name == "Unreleased", f"{name} has no entries"
        for kind, text in kinds.items():
            assert re.fullmatch(r"(- \S.*\n?(  \S.*\n?)*)+", text), f"{name}, {kind}: not a list"


def test_version_is_released_or_unreleased_with_entries() -> None:
    newest = next((Version(name) for name, _, _ in releases() if name != "Unreleased"), None)
    if newest != Version(__version__):
        assert newest is None or newest < Version(__version__)
        assert releases()[0][2], "the unreleased version has no entries"


def test_version_is_defined_in_one_file() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    search = subprocess.run(
        ["grep", "--recursive", "--files-with-matches", "--include=*.py", "--include=*.toml", "--include=*.cfg",
         "--fixed-strings", f'"{__version__}"', "airflow_provider_chartmogul", "pyproject.toml", "setup.cfg"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert search.stdout.split() == ["airflow_provider_chartmogul/__init__.py"]
    assert get_provider_info()["versions"] == [__version__]
    assert f"airflow-provider-chartmogul/{__version__}" == USER_AGENT


def workflow(name: str) -> dict[Any, Any]:
    content = yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text())
    assert isinstance(content, dict)
    return content


def test_ci_targets_are_make_targets() -> None:
    process = subprocess.run([ROOT / ".ci" / "run", "--list"], capture_output=True, text=True, check=True)
    # A variable for make may follow the target.
    listed = [line.split()[0] for line in process.stdout.splitlines()]
    assert {"lint", "test", "test-matrix", "test-package"} <= set(listed)
    makefile = (ROOT / "Makefile").read_text()
    assert [target for target in listed if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("test-storage", "node is not installed; the tests' Azure emulator needs Node.js with npm."),
        ("test-browser", "Chromium is not installed; the tests of the Airflow UI run in it."),
    ],
)
def test_missing_program_is_reported_before_anything_is_installed(target: str, message: str, tmp_path: Path) -> None:
    make = shutil.which("make")
    assert make is not None
    shutil.copy(ROOT / "Makefile", tmp_path)
    process = subprocess.run(
        [make, target], cwd=tmp_path, env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=60
    )
    assert process.returncode != 0
    assert process.stderr.splitlines()[0] == message
    assert [path.name for path in tmp_path.iterdir()] == ["Makefile"]


def test_workflow_runs_the_listed_ci_targets() -> None:
    targets, run = (workflow("ci")["jobs"][name] for name in ("targets", "run"))
    assert [step["run"] for step in run["steps"] if "run" in step] == ['.ci/run "$TARGET"']
    assert run["strategy"]["matrix"] == {"target": "${{ fromJSON(needs.targets.outputs.targets) }}"}
    assert [step["run"].split()[1] for step in targets["steps"] if "run" in step] == ['"targets=$(.ci/run']


def test_workflows_have_minimal_permissions() -> None:
    permissions = {}
    for name in ("ci", "publish"):
        content = workflow(name)
        assert content["permissions"] == {"contents": "read"}
        for job_name, job in content["jobs"].items():
            permissions[job_name] = job.get("permissions", {})
            assert job["timeout-minutes"] <= 60
            for step in job["steps"]:
                # An expression in a script would run text from commits, branches or tags.
                assert "${{" not in step.get("run", "")
                if "uses" in step:
                    assert re.fullmatch(r"actions/[a-z-]+@v\d+|pypa/gh-action-pypi-publish@release/v1", step["uses"])
                if step.get("uses", "").startswith("actions/checkout@"):
                    assert step["with"]["persist-credentials"] is False
    assert permissions == {"targets": {}, "run": {}, "build": {}, "publish": {"id-token": "write"}}


def test_only_tags_publish_and_only_the_built_archives() -> None:
    content = workflow("publish")
    # YAML 1.1 reads 'on' as a boolean.
    assert content[True] == {"push": {"tags": ["v*"]}}
    publish = content["jobs"]["publish"]
    assert publish["needs"] == "build"
    assert [step["uses"].partition("@")[0] for step in publish["steps"]] == [
        "actions/download-artifact",
        "pypa/gh-action-pypi-publish",
    ]


def test_registry_lists_the_classes_of_each_module() -> None:
    """The file for Airflow's provider registry names classes, Airflow's own metadata names modules."""
    registry = yaml.safe_load((ROOT / ".airflow-registry.yaml").read_text())
    info = get_provider_info()
    assert (registry["package-name"], registry["display-name"]) == (info["package-name"], info["name"])
    for kind in ("hooks", "operators", "sensors", "triggers", "transfers"):
        listed = [entry["module"].rpartition(".") for entry in registry[kind]]
        assert all(entry["description"] for entry in registry[kind])
        for module, _, name in listed:
            assert getattr(import_module(module), name).__module__ == module
        modules = {
            module for entry in info[kind] for module in entry.get("python-modules", [entry.get("python-module")])
        }
        assert {module for module, _, _ in listed} == modules, kind


def test_issue_forms_ask_for_no_secret_and_name_existing_commands() -> None:
    forms = {path.stem: path.read_text() for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")}
    assert set(forms) == {"account", "bug", "config", "feature"}
    assert "Never paste an API key or a signed URL" in " ".join(forms["bug"].split())
    for module in re.findall(r"python -m ([\w.]+)", " ".join(forms.values())):
        assert find_spec(f"{module}.__main__") is not None
    for page in re.findall(r"\b[\w/]+\.md\b", " ".join(forms.values())):
        assert (ROOT / page).exists(), page


def test_documented_make_targets_and_links_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for page in ("CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md", ".github/pull_request_template.md"):
        text = (ROOT / page).read_text()
        for target in re.findall(r"\bmake ([a-z-]+)", "\n".join(re.findall(r"`+[^`]*`+", text))):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{page}: make {target}"
        for address, _, anchor in (link.partition("#") for link in re.findall(r"\]\(([^)]+)\)", text)):
            if not address.startswith("http"):
                headings = re.findall(r"^#+ (.*)$", (ROOT / address).read_text(), re.MULTILINE)
                assert not anchor or anchor in {re.sub(r"\W+", "-", heading.lower()) for heading in headings}
