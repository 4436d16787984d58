# SPDX-License-Identifier: Apache-2.0
"""
Fixtures with the wheel and the sdist, and with environments in which pip installed nothing but one of them.

The session that runs these tests has neither Airflow nor the package. Every command about them runs in one of the
environments, from a folder outside the project.
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

#: The modification time of the files in the archives.
EPOCH = 1_700_000_000


class ProgramError(Exception):
    """A program failed; the message is its output."""


@dataclass(frozen=True)
class Built:
    """The archives that ``build`` creates."""

    wheel: Path
    sdist: Path


@dataclass(frozen=True)
class Environment:
    """A virtual environment with a folder that is its Airflow home and working directory."""

    bin: Path
    home: Path

    def run(self, *command: str) -> str:
        """Run a program of the environment and return its output."""
        program, *arguments = command
        return run(
            str(self.bin / program),
            *arguments,
            cwd=self.home,
            AIRFLOW_HOME=str(self.home),
            AIRFLOW__CORE__LOAD_EXAMPLES="False",
            COLUMNS="200",
        )


def run(*command: str, cwd: Path, timeout: float | None = None, **environment: str) -> str:
    """
    Run a program without this process's Python and Airflow variables, and return its output.

    :param timeout: seconds until the program is killed; ``None`` waits until the test's own timeout
    """
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AIRFLOW", "PYTHON", "VIRTUAL_ENV", "SOURCE_DATE_EPOCH"))
    }
    process = subprocess.run(
        command,
        cwd=cwd,
        env={**inherited, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    if process.returncode != 0:
        raise ProgramError(process.stdout)
    return process.stdout


def build(tree: Path, folder: Path, *options: str) -> Built:
    """
    Build the project in ``tree`` and put its archives into ``folder``.

    :param options: ``--wheel``, ``--sdist`` or both; without them, ``build`` creates the sdist and, from it, the wheel
    """
    run(
        *(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), *options, str(tree)),
        cwd=folder.parent,
        SOURCE_DATE_EPOCH=str(EPOCH),
    )
    archives = {path.suffix: path for path in folder.iterdir()}
    return Built(archives.get(".whl", Path()), archives.get(".gz", Path()))


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(ROOT, tmp_path_factory.mktemp("built") / "dist")


@pytest.fixture(scope="session")
def unpacked(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the sdist as a user would: in another folder, at another time."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(built.sdist) as archive:
        archive.extractall(folder, filter="data")
    (tree,) = folder.iterdir()
    for path in tree.rglob("*"):
        os.utime(path, (EPOCH + 86_400, EPOCH + 86_400))
    return tree


@pytest.fixture(scope="session")
def environments(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Environment]]:
    """Install the wheel and the sdist with pip, each with its dependencies into an environment of its own."""
    folder = tmp_path_factory.mktemp("environments")

    def install(name: str, archive: Path) -> tuple[str, Environment]:
        venv, home = folder / name, folder / f"{name}-home"
        home.mkdir()
        run(sys.executable, "-m", "venv", str(venv), cwd=folder)
        environment = Environment(venv / "bin", home)
        # Compiling all of Airflow would take longer than the few commands that run.
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
