# SPDX-License-Identifier: Apache-2.0
"""Tests of the wheel's and the sdist's content, of reproducible builds, and of PyPI's checks."""

from __future__ import annotations

import ast
import email
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.package.conftest import ROOT, Built, build, run


def version() -> str:
    """Return the version from the source code, without importing it."""
    tree = ast.parse((ROOT / "airflow_provider_chartmogul" / "__init__.py").read_text())
    (value,) = [
        node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Constant)
        and [target.id for target in node.targets if isinstance(target, ast.Name)] == ["__version__"]
    ]
    return str(value)


def project_files() -> set[str]:
    """Return the project's files: those that git tracks or would add, or in an unpacked sdist, all of them."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode == 0:
        return {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}
    ignored = {line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines()} | {"PKG-INFO"}
    paths = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
    return {str(path) for path in paths if path.parts[0] not in ignored and "__pycache__" not in path.parts}


def test_wheel_contains_only_the_package(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        names = set(archive.namelist())
    info = f"airflow_provider_chartmogul-{version()}.dist-info"
    package = {name for name in project_files() if name.startswith("airflow_provider_chartmogul/")}
    metadata = {f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")}
    assert names == package | metadata
    assert "airflow_provider_chartmogul/py.typed" in names


def test_sdist_contains_the_project(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names == project_files() | {"PKG-INFO"}


def test_archive_names_have_the_version(built: Built) -> None:
    assert built.wheel.name == f"airflow_provider_chartmogul-{version()}-py3-none-any.whl"
    assert built.sdist.name == f"airflow_provider_chartmogul-{version()}.tar.gz"


def test_metadata_is_complete(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        metadata = email.message_from_bytes(archive.read(name))
    assert metadata["Name"] == "airflow-provider-chartmogul"
    assert metadata["Version"] == version()
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == "<3.14,>=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert {"amazon", "google", "microsoft-azure", "parquet"} <= set(metadata.get_all("Provides-Extra", []))


@pytest.mark.parametrize("archive", ["wheel", "sdist"])
def test_long_description_has_no_relative_link_or_picture(archive: str, built: Built) -> None:
    """PyPI shows it under another URL, where a relative link leads nowhere."""
    text = long_description(built, archive)
    targets = re.findall(r"\]\(([^)]*)\)|(?:src|href|srcset)\s*=\s*[\"']?([^\"'\s>]+)", text)
    links = [link or attribute for link, attribute in targets]
    assert "https://chartmogul.com/" in links
    assert [link for link in links if not link.startswith("https://")] == []


@pytest.mark.parametrize("archive", ["wheel", "sdist"])
def test_long_description_is_the_readme(archive: str, built: Built) -> None:
    readme = (ROOT / "README.md").read_text()
    picture = re.search(r"^!\[.*\]\(docs/.*\)\n\n", readme, re.MULTILINE)
    assert picture is not None
    text_of_links = re.sub(r"\[([^\]]*)\]\((?!http)[^)]*\)", r"\1", readme.replace(picture[0], ""))
    assert long_description(built, archive).strip() == text_of_links.strip()


def long_description(built: Built, archive: str) -> str:
    if archive == "wheel":
        with zipfile.ZipFile(built.wheel) as wheel:
            (name,) = [name for name in wheel.namelist() if name.endswith("/METADATA")]
            content = wheel.read(name)
    else:
        with tarfile.open(built.sdist) as sdist:
            (member,) = [member for member in sdist.getmembers() if member.name.endswith("/PKG-INFO")]
            file = sdist.extractfile(member)
            assert file is not None
            content = file.read()
    description = email.message_from_bytes(content).get_payload(decode=True)
    assert isinstance(description, bytes)
    return description.decode()


def test_builds_are_reproducible(built: Built, unpacked: Path, tmp_path: Path) -> None:
    """Building from the project without an sdist, and from the unpacked sdist, yields the same bytes."""
    directly = build(ROOT, tmp_path / "directly", "--wheel")
    again = build(unpacked, tmp_path / "again", "--wheel", "--sdist")
    assert directly.wheel.read_bytes() == built.wheel.read_bytes()
    assert again.wheel.read_bytes() == built.wheel.read_bytes()
    assert again.sdist.read_bytes() == built.sdist.read_bytes()


def test_archives_pass_twine_check(built: Built, tmp_path: Path) -> None:
    check = ("twine", "check", "--strict", str(built.wheel), str(built.sdist))
    assert run(sys.executable, "-m", *check, cwd=tmp_path).count("PASSED") == 2


def test_pyroma_rates_ten_of_ten(unpacked: Path, tmp_path: Path) -> None:
    # The project publishes no e-mail address. SECURITY.md describes how to contact its maintainers.
    check = ("pyroma", "--min", "10", "--skip-tests", "AuthorEmail", str(unpacked))
    assert "Final rating: 10/10" in run(sys.executable, "-m", *check, cwd=tmp_path)
