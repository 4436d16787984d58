# SPDX-License-Identifier: Apache-2.0
"""The project's own papers: one version everywhere, a changelog that can be parsed, and workflows that do as we do."""

from __future__ import annotations

import re
import subprocess
from datetime import date
from typing import Any

import yaml
from packaging.version import Version

from airflow_provider_chartmogul import __version__
from airflow_provider_chartmogul.client.sync_client import USER_AGENT
from airflow_provider_chartmogul.get_provider_info import get_provider_info
from tests.unit.values import ROOT

CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]


def releases() -> list[tuple[str, str | None, dict[str, str]]]:
    """The changelog by release, newest first: its version, its day, and what stands there under each kind."""
    found = []
    for section in re.split(r"^## ", CHANGELOG, flags=re.MULTILINE)[1:]:
        heading, _, body = section.partition("\n")
        match = re.fullmatch(r"\[(Unreleased|\d+\.\d+\.\d+)\](?: - (\d{4}-\d\d-\d\d))?(?: \[YANKED\])?", heading)
        assert match is not None, f"no heading of Keep a Changelog: {heading!r}"
        first, *kinds = re.split(r"^### ", body, flags=re.MULTILINE)
        assert first.strip() == "", f"text outside of a kind: {first!r}"
        parts = [kind.partition("\n") for kind in kinds]
        assert len({name for name, _, _ in parts}) == len(parts)
        found.append((match[1], match[2], {name: text.strip() for name, _, text in parts}))
    return found


def test_the_changelog_is_in_the_form_of_keep_a_changelog() -> None:
    assert CHANGELOG.startswith("# Changelog\n")
    assert "https://keepachangelog.com/en/1.1.0/" in CHANGELOG
    names = [name for name, _, _ in releases()]
    assert names[0] == "Unreleased", "what comes next has a place"
    versions = [Version(name) for name in names[1:]]
    assert versions == sorted(set(versions), reverse=True)
    days = [date.fromisoformat(day or "") for _, day, _ in releases()[1:]]
    assert days == sorted(days, reverse=True)
    assert releases()[0][1] is None


def test_the_changelog_s_entries_are_lists_under_their_kinds() -> None:
    for name, _, kinds in releases():
        assert set(kinds) <= set(KINDS), name
        assert list(kinds) == sorted(kinds, key=KINDS.index), name
        assert kinds or name == "Unreleased", f"{name} changes nothing"
        for kind, text in kinds.items():
            assert re.fullmatch(r"(- \S.*\n?(  \S.*\n?)*)+", text), f"{name}, {kind}: not a list"


def test_the_version_is_the_newest_release_or_the_one_to_come() -> None:
    newest = next((Version(name) for name, _, _ in releases() if name != "Unreleased"), None)
    if newest != Version(__version__):
        assert newest is None or newest < Version(__version__)
        assert releases()[0][2], "a version to come has something new"


def test_the_version_is_written_once() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    written = subprocess.run(
        ["grep", "--recursive", "--files-with-matches", "--include=*.py", "--include=*.toml", "--include=*.cfg",
         "--fixed-strings", f'"{__version__}"', "airflow_provider_chartmogul", "pyproject.toml", "setup.cfg"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert written.stdout.split() == ["airflow_provider_chartmogul/__init__.py"]
    assert get_provider_info()["versions"] == [__version__]
    assert f"airflow-provider-chartmogul/{__version__}" == USER_AGENT


def workflow(name: str) -> dict[Any, Any]:
    found = yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text())
    assert isinstance(found, dict)
    return found


def test_the_targets_of_ci_are_those_of_make() -> None:
    said = subprocess.run([ROOT / ".ci" / "run", "--list"], capture_output=True, text=True, check=True).stdout
    # After a target may stand what make is told.
    listed = [line.split()[0] for line in said.splitlines()]
    assert {"lint", "test", "test-matrix", "test-package"} <= set(listed)
    makefile = (ROOT / "Makefile").read_text()
    assert [target for target in listed if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []


def test_the_workflow_runs_what_ci_lists() -> None:
    targets, run = (workflow("ci")["jobs"][name] for name in ("targets", "run"))
    assert [step["run"] for step in run["steps"] if "run" in step] == ['.ci/run "$TARGET"']
    assert run["strategy"]["matrix"] == {"target": "${{ fromJSON(needs.targets.outputs.targets) }}"}
    assert [step["run"].split()[1] for step in targets["steps"] if "run" in step] == ['"targets=$(.ci/run']


def test_workflows_may_do_no_more_than_they_must() -> None:
    rights = {}
    for name in ("ci", "publish"):
        found = workflow(name)
        assert found["permissions"] == {"contents": "read"}
        for job, described in found["jobs"].items():
            rights[job] = described.get("permissions", {})
            assert described["timeout-minutes"] <= 60
            for step in described["steps"]:
                # What others wrote of a commit, a branch or a tag is no program.
                assert "${{" not in step.get("run", "")
                if "uses" in step:
                    assert re.fullmatch(r"actions/[a-z-]+@v\d+|pypa/gh-action-pypi-publish@release/v1", step["uses"])
                if step.get("uses", "").startswith("actions/checkout@"):
                    assert step["with"]["persist-credentials"] is False
    assert rights == {"targets": {}, "run": {}, "build": {}, "publish": {"id-token": "write"}}


def test_only_a_tag_publishes_and_only_what_was_built() -> None:
    found = workflow("publish")
    # YAML 1.1 reads 'on' as a truth value.
    assert found[True] == {"push": {"tags": ["v*"]}}
    publish = found["jobs"]["publish"]
    assert publish["needs"] == "build"
    assert [step["uses"].partition("@")[0] for step in publish["steps"]] == [
        "actions/download-artifact",
        "pypa/gh-action-pypi-publish",
    ]


def test_what_contributors_are_told_to_type_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for paper in ("CONTRIBUTING.md", "SECURITY.md"):
        text = (ROOT / paper).read_text()
        for target in re.findall(r"\bmake ([a-z-]+)", "\n".join(re.findall(r"`+[^`]*`+", text))):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{paper}: make {target}"
        for address, _, anchor in (link.partition("#") for link in re.findall(r"\]\(([^)]+)\)", text)):
            if not address.startswith("http"):
                headings = re.findall(r"^#+ (.*)$", (ROOT / address).read_text(), re.MULTILINE)
                assert not anchor or anchor in {re.sub(r"\W+", "-", heading.lower()) for heading in headings}
