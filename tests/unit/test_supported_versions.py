# SPDX-License-Identifier: Apache-2.0
"""What is said of the versions of Airflow and Python, in four places and by Airflow itself, is one and the same."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

import noxfile

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

#: What `make test-matrix` tries, and on which of Pythons it may: ``2.11`` to ``{"3.11", "3.12"}``.
MATRIX = {airflow.name: set(airflow.pythons) for airflow in noxfile.MATRIX if not airflow.lowest}
PYTHONS = set.union(*MATRIX.values())


def in_order(versions: set[str]) -> list[str]:
    return sorted(versions, key=Version)


def table() -> dict[str, set[str]]:
    """The README's, a row for each minor version of Airflow."""
    _, _, below = README.partition("| Airflow | Python |\n|---|---|\n")
    found = {}
    for row in below.partition("\n\n")[0].splitlines():
        airflow, pythons = (cell.strip() for cell in row.strip("|").split("|"))
        first, _, last = airflow.partition(" to ")
        major, minor = map(int, first.split("."))
        for number in range(minor, int((last or first).split(".")[1]) + 1):
            found[f"{major}.{number}"] = {python.strip() for python in pythons.split(",")}
    return found


def test_the_readme_says_what_the_matrix_tries() -> None:
    assert table() == MATRIX


def test_the_readme_names_the_versions_with_system_tests() -> None:
    (said,) = re.findall(r"scheduler and\s+triggerer on ([\d., and]+\d)", README)
    newest = in_order(set(MATRIX))[-1]
    # `make test` has them for the newest.
    tried = {airflow.name for airflow in noxfile.MATRIX if airflow.system} | {newest}
    assert re.findall(r"\d+\.\d+", said) == in_order(tried)


def test_the_metadata_say_what_the_matrix_tries() -> None:
    prefix = "Programming Language :: Python :: "
    assert {c.removeprefix(prefix) for c in PROJECT["classifiers"] if re.fullmatch(prefix + r"3\.\d+", c)} == PYTHONS
    allowed = SpecifierSet(PROJECT["requires-python"])
    assert {f"3.{minor}" for minor in range(30) if f"3.{minor}.1" in allowed} == PYTHONS
    (airflow,) = [r for r in map(Requirement, PROJECT["dependencies"]) if r.name == "apache-airflow"]
    assert {minor for minor in MATRIX if airflow.specifier.contains(f"{minor}.9")} == set(MATRIX)
    oldest = in_order(set(MATRIX))[0]
    assert str(airflow.specifier) == f">={oldest}", "the floor is the oldest that is tried"


def test_make_test_takes_the_newest() -> None:
    (pinned,) = re.findall(r"^apache-airflow==(\d+\.\d+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    (made,) = re.findall(r"^AIRFLOW := (\d+\.\d+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert pinned == made == in_order(set(MATRIX))[-1]


def test_the_matrix_covers_every_python() -> None:
    """On a machine that has them all, each session takes its first."""
    assert {airflow.pythons[0] for airflow in noxfile.MATRIX} == PYTHONS


def test_what_the_matrix_leaves_out_is_there() -> None:
    assert [path for path in noxfile.THE_SAME_ON_ALL if not (ROOT / path).is_file()] == []


def test_this_airflow_says_of_itself_what_we_say_of_it() -> None:
    installed = metadata("apache-airflow")
    allowed = SpecifierSet(installed["Requires-Python"])
    minor = ".".join(installed["Version"].split(".")[:2])
    assert {python for python in PYTHONS if f"{python}.0" in allowed} == MATRIX[minor]
