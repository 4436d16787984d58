# SPDX-License-Identifier: Apache-2.0
"""The hooks of ``.pre-commit-config.yaml``, by git and pre-commit themselves, in a project of a few files."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.package.conftest import ROOT, ProgramError, run


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository with the hooks, whose ``.venv`` is this environment."""
    for name in (".pre-commit-config.yaml", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / ".gitignore").write_text(".venv\nhome\n")
    (tmp_path / "Makefile").write_text("lint:\n\t@echo linted\n")
    git(tmp_path, "init", "--quiet", "--initial-branch", "main")
    return tmp_path


def git(clone: Path, *command: str) -> str:
    identity = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.com")
    return run("git", *identity, *command, cwd=clone, PRE_COMMIT_HOME=str(clone / "home"))


def commit(clone: Path, name: str, content: str) -> str:
    (clone / name).write_text(content)
    git(clone, "add", "--all")
    return git(clone, "commit", "--message", "a change")


def install(clone: Path) -> None:
    run(".venv/bin/pre-commit", "install", cwd=clone, PRE_COMMIT_HOME=str(clone / "home"))


def test_a_commit_in_order_passes_and_a_push_is_linted(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    install(clone)
    said = commit(clone, "fine.py", '"""Fine."""\n')
    assert "Failed" not in said
    assert "linted" not in said
    remote = tmp_path_factory.mktemp("remote")
    git(remote, "init", "--quiet", "--bare")
    assert "make lint" in git(clone, "push", str(remote), "main")


@pytest.mark.parametrize(
    ("name", "content", "hook"),
    [
        ("a.txt", "text   \n", "no blanks at the ends of lines"),
        ("a.txt", "text", "one line feed at the end of a file"),
        ("a.py", "import os\n", "ruff check"),
        ("a.py", "a  =  1\n", "ruff format"),
        ("a.txt", "-----BEGIN " + "RSA PRIVATE KEY-----\n", "no private keys"),
        ("a.txt", "#" * 1_100_000 + "\n", "no large files"),
        ("a.yaml", "a: [\n", "YAML that can be read"),
        ("a.toml", "a = [\n", "TOML that can be read"),
    ],
)
def test_a_commit_out_of_order_is_stopped(clone: Path, name: str, content: str, hook: str) -> None:
    install(clone)
    with pytest.raises(ProgramError) as stopped:
        commit(clone, name, content)
    (line,) = [line for line in str(stopped.value).splitlines() if line.startswith(hook)]
    assert line.endswith("Failed"), str(stopped.value)
