# SPDX-License-Identifier: Apache-2.0
"""Tests of the hooks in ``.pre-commit-config.yaml``, run by git and pre-commit in a small repository."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.package.conftest import ROOT, ProgramError, run


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Create a repository with the hooks, whose ``.venv`` links to this environment."""
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


def test_clean_commit_passes_and_push_runs_make_lint(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    install(clone)
    output = commit(clone, "fine.py", '"""Fine."""\n')
    assert "Failed" not in output
    assert "linted" not in output
    remote = tmp_path_factory.mktemp("remote")
    git(remote, "init", "--quiet", "--bare")
    assert "make lint" in git(clone, "push", str(remote), "main")


@pytest.mark.parametrize(
    ("name", "content", "hook"),
    [
        ("a.txt", "text   \n", "trailing whitespace"),
        ("a.txt", "text", "end of file"),
        ("a.py", "import os\n", "ruff check"),
        ("a.py", "a  =  1\n", "ruff format"),
        ("a.txt", "-----BEGIN " + "RSA PRIVATE KEY-----\n", "private keys"),
        ("a.txt", "#" * 1_100_000 + "\n", "large files"),
        ("a.yaml", "a: [\n", "YAML syntax"),
        ("a.toml", "a = [\n", "TOML syntax"),
    ],
)
def test_hook_rejects_commit(clone: Path, name: str, content: str, hook: str) -> None:
    install(clone)
    with pytest.raises(ProgramError) as rejected:
        commit(clone, name, content)
    (line,) = [line for line in str(rejected.value).splitlines() if line.startswith(hook)]
    assert line.endswith("Failed"), str(rejected.value)
