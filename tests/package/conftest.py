# SPDX-License-Identifier: Apache-2.0
"""
Wheel and sdist, and environments that hold nothing but what pip makes of one of them.

None of this knows Airflow or the package: whatever is asked of them is asked in those environments, from a folder that
is not the project's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: When everything in the archives is said to have been made.
EPOCH = 1_700_000_000


class ProgramError(Exception):
    """A program ended with an error; the text is what it printed."""


@dataclass(frozen=True)
class Built:
    """What ``build`` makes of the project."""

    wheel: Path
    sdist: Path


@dataclass(frozen=True)
class Environment:
    """An environment, and a folder with an Airflow home to run things in."""

    bin: Path
    home: Path

    def run(self, *command: str) -> str:
        """Run one of its programs; give what it printed."""
        program, *arguments = command
        return run(
            str(self.bin / program),
            *arguments,
            cwd=self.home,
            AIRFLOW_HOME=str(self.home),
            AIRFLOW__CORE__LOAD_EXAMPLES="False",
            COLUMNS="200",
        )


def run(*command: str, cwd: Path, **environment: str) -> str:
    """Run a program without what this one's environment says of Python and Airflow; give what it printed."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AIRFLOW", "PYTHON", "VIRTUAL_ENV", "SOURCE_DATE_EPOCH"))
    }
    done = subprocess.run(
        command, cwd=cwd, env={**kept, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode != 0:
        raise ProgramError(done.stdout)
    return done.stdout


def build(tree: Path, folder: Path, *what: str) -> Built:
    """Build a folder's project; without ``what``, its sdist and, from that, its wheel."""
    run(
        *(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), *what, str(tree)),
        cwd=folder.parent,
        SOURCE_DATE_EPOCH=str(EPOCH),
    )
    found = {path.suffix: path for path in folder.iterdir()}
    return Built(found.get(".whl", Path()), found.get(".gz", Path()))


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(ROOT, tmp_path_factory.mktemp("built") / "dist")


@pytest.fixture(scope="session")
def unpacked(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist as its user has it: elsewhere, at another time."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(built.sdist) as archive:
        archive.extractall(folder, filter="data")
    (tree,) = folder.iterdir()
    for path in tree.rglob("*"):
        os.utime(path, (EPOCH + 86_400, EPOCH + 86_400))
    return tree


@pytest.fixture(scope="session")
def environments(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Environment]]:
    """One with the wheel and one with the sdist, each by pip, with all that the metadata asks for."""
    folder = tmp_path_factory.mktemp("environments")

    def install(name: str, archive: Path) -> tuple[str, Environment]:
        venv, home = folder / name, folder / f"{name}-home"
        home.mkdir()
        run(sys.executable, "-m", "venv", str(venv), cwd=folder)
        environment = Environment(venv / "bin", home)
        # Compiling all of Airflow for a handful of commands would take longer than they do.
        environment.run(
            *("python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"),
            *("--constraint", str(ROOT / "constraints.txt"), str(archive)),
        )
        return name, environment

    with ThreadPoolExecutor(2) as pool:
        yield dict(pool.map(install, ("wheel", "sdist"), (built.wheel, built.sdist)))


@pytest.fixture(params=["wheel", "sdist"])
def environment(request: pytest.FixtureRequest, environments: dict[str, Environment]) -> Environment:
    return environments[request.param]
