# SPDX-License-Identifier: Apache-2.0
"""What is in the wheel and in the sdist, whether others get the same bytes, and what PyPI would say."""

from __future__ import annotations

import ast
import email
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from tests.package.conftest import ROOT, Built, build, run


def version() -> str:
    """The version as it stands in the one place where it is written."""
    tree = ast.parse((ROOT / "airflow_provider_chartmogul" / "__init__.py").read_text())
    (found,) = [
        node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Constant)
        and [target.id for target in node.targets if isinstance(target, ast.Name)] == ["__version__"]
    ]
    return str(found)


def project_files() -> set[str]:
    """What belongs to the project: what git knows or would add; in an unpacked sdist, what is there."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode == 0:
        return {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}
    ignored = {line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines()} | {"PKG-INFO"}
    found = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
    return {str(path) for path in found if path.parts[0] not in ignored and "__pycache__" not in path.parts}


def test_the_wheel_is_the_package_and_nothing_else(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        names = set(archive.namelist())
    info = f"airflow_provider_chartmogul-{version()}.dist-info"
    package = {name for name in project_files() if name.startswith("airflow_provider_chartmogul/")}
    described = {f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")}
    assert names == package | described
    assert "airflow_provider_chartmogul/py.typed" in names


def test_the_sdist_is_the_project(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names == project_files() | {"PKG-INFO"}


def test_files_are_named_by_the_version_that_the_code_says(built: Built) -> None:
    assert built.wheel.name == f"airflow_provider_chartmogul-{version()}-py3-none-any.whl"
    assert built.sdist.name == f"airflow_provider_chartmogul-{version()}.tar.gz"


def test_the_metadata_is_whole(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        metadata = email.message_from_bytes(archive.read(name))
    assert metadata["Name"] == "airflow-provider-chartmogul"
    assert metadata["Version"] == version()
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == "<3.14,>=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    description = metadata.get_payload(decode=True)
    assert isinstance(description, bytes)
    assert description.decode() == (ROOT / "README.md").read_text()
    assert {"amazon", "google", "microsoft-azure", "parquet"} <= set(metadata.get_all("Provides-Extra", []))


def test_everyone_who_builds_it_gets_the_same_bytes(built: Built, unpacked: Path, tmp_path: Path) -> None:
    """From the project without an sdist between, and from the sdist, which makes itself again."""
    directly = build(ROOT, tmp_path / "directly", "--wheel")
    again = build(unpacked, tmp_path / "again", "--wheel", "--sdist")
    assert directly.wheel.read_bytes() == built.wheel.read_bytes()
    assert again.wheel.read_bytes() == built.wheel.read_bytes()
    assert again.sdist.read_bytes() == built.sdist.read_bytes()


def test_pypi_would_take_and_show_it(built: Built, tmp_path: Path) -> None:
    said = run(*(sys.executable, "-m", "twine", "check", "--strict", str(built.wheel), str(built.sdist)), cwd=tmp_path)
    assert said.count("PASSED") == 2


def test_pyroma_gives_ten_of_ten(unpacked: Path, tmp_path: Path) -> None:
    # All but one: the project publishes no e-mail address; SECURITY.md says how its maintainers are reached.
    said = run(
        *(sys.executable, "-m", "pyroma", "--min", "10", "--skip-tests", "AuthorEmail", str(unpacked)), cwd=tmp_path
    )
    assert "Final rating: 10/10" in said
