# SPDX-License-Identifier: Apache-2.0
"""Tests that README, metadata, constraints and test matrix agree on the supported Airflow and Python versions."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

import noxfile

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

#: The Airflow versions that `make test-matrix` tests, with their Pythons: ``{"2.11": {"3.11", "3.12"}, …}``.
MATRIX = {airflow.name: set(airflow.pythons) for airflow in noxfile.MATRIX if not airflow.lowest}
PYTHONS = set.union(*MATRIX.values())


def in_order(versions: set[str]) -> list[str]:
    return sorted(versions, key=Version)


def table() -> dict[str, set[str]]:
    """Return the README's table of versions in the form of ``MATRIX``."""
    _, _, below = README.partition("| Airflow | Python |\n|---|---|\n")
    found = {}
    for row in below.partition("\n\n")[0].splitlines():
        airflow, pythons = (cell.strip() for cell in row.strip("|").split("|"))
        first, _, last = airflow.partition(" to ")
        major, minor = map(int, first.split("."))
        for number in range(minor, int((last or first).split(".")[1]) + 1):
            found[f"{major}.{number}"] = {python.strip() for python in pythons.split(",")}
    return found


def test_readme_lists_the_tested_versions() -> None:
    assert table() == MATRIX


def test_readme_names_the_versions_with_system_tests() -> None:
    (versions,) = re.findall(r"scheduler and\s+triggerer on ([\d., and]+\d)", README)
    newest = in_order(set(MATRIX))[-1]
    # `make test` runs the system tests on the newest version.
    tested = {airflow.name for airflow in noxfile.MATRIX if airflow.system} | {newest}
    assert re.findall(r"\d+\.\d+", versions) == in_order(tested)


def test_metadata_declares_the_tested_versions() -> None:
    prefix = "Programming Language :: Python :: "
    assert {c.removeprefix(prefix) for c in PROJECT["classifiers"] if re.fullmatch(prefix + r"3\.\d+", c)} == PYTHONS
    allowed = SpecifierSet(PROJECT["requires-python"])
    assert {f"3.{minor}" for minor in range(30) if f"3.{minor}.1" in allowed} == PYTHONS
    (airflow,) = [r for r in map(Requirement, PROJECT["dependencies"]) if r.name == "apache-airflow"]
    assert {minor for minor in MATRIX if airflow.specifier.contains(f"{minor}.9")} == set(MATRIX)
    oldest = in_order(set(MATRIX))[0]
    assert str(airflow.specifier) == f">={oldest}", "the lowest allowed version is not the oldest tested one"


def test_make_test_uses_the_newest_airflow() -> None:
    (pinned,) = re.findall(r"^apache-airflow==(\d+\.\d+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    (declared,) = re.findall(r"^AIRFLOW := (\d+\.\d+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert pinned == declared == in_order(set(MATRIX))[-1]


def test_matrix_covers_every_python() -> None:
    """A machine that has every Python runs each session on the session's first one."""
    assert {airflow.pythons[0] for airflow in noxfile.MATRIX} == PYTHONS


@pytest.mark.parametrize("test", noxfile.INDEPENDENT_OF_AIRFLOW)
def test_tests_left_out_of_the_matrix_exist(test: str) -> None:
    path, _, name = test.partition("::")
    assert (ROOT / path).is_file()
    assert not name or f"\ndef {name}(" in (ROOT / path).read_text()


def test_matrix_matches_installed_airflows_metadata() -> None:
    installed = metadata("apache-airflow")
    allowed = SpecifierSet(installed["Requires-Python"])
    minor = ".".join(installed["Version"].split(".")[:2])
    assert {python for python in PYTHONS if f"{python}.0" in allowed} == MATRIX[minor]
