# SPDX-License-Identifier: Apache-2.0
"""
The formats that warehouses load: from every fixture, the same rows out of each.

Each is read by another reader than the package's own: gzip, csv, and pyarrow.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import shutil
import zipfile
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_chartmogul.exceptions import ArchiveError, ChartMogulError, InsufficientDiskSpaceError
from airflow_provider_chartmogul.formats import archive as archive_module
from airflow_provider_chartmogul.runtime import disk_space
from airflow_provider_chartmogul.sandbox import Sandbox
from tests.integration.servers import Response
from tests.integration.task_runner import TaskRun
from tests.integration.transfers import END, START, create_export, serve_export, transfer

ROWS = [["0042", "a,b", 'say "x"', "two\nlines", "Łódź", ""]] * 3 + [["", "", "", "", "", "x"]]
HEADER = ["id", "name", "said", "text", "city", "empty"]


def as_csv(rows: list[list[str]], header: list[str] | None = HEADER, **form: Any) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, **form).writerows(([header] if header else []) + rows)
    return text.getvalue().encode()


def as_zip(*members: tuple[str, bytes], compression: int = zipfile.ZIP_DEFLATED, zip64: bool = False) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as opened:
        for name, content in members:
            with opened.open(name, "w", force_zip64=zip64) as member:
                member.write(content)
    return buffer.getvalue()


Fixture = namedtuple("Fixture", "name content columns rows")
LARGE = [[str(n).zfill(7), f"customer {n}", "", 'a "quoted" thing', "x" * (n % 50), ""] for n in range(30_000)]
FIXTURES = [
    Fixture("quotes and line feeds", as_zip(("a.csv", as_csv(ROWS))), HEADER, ROWS),
    Fixture("Unix line ends", as_zip(("a.csv", as_csv(ROWS, lineterminator="\n"))), HEADER, ROWS),
    Fixture("all quoted", as_zip(("a.csv", as_csv(ROWS, quoting=csv.QUOTE_ALL))), HEADER, ROWS),
    Fixture("no line end at the end", as_zip(("a.csv", as_csv(ROWS).rstrip(b"\r\n"))), HEADER, ROWS),
    Fixture("large", as_zip(("a.csv", as_csv(LARGE))), HEADER, LARGE),
    Fixture("stored", as_zip(("a.csv", as_csv(LARGE)), compression=zipfile.ZIP_STORED), HEADER, LARGE),
    Fixture("Zip64", as_zip(("a.csv", as_csv(ROWS)), zip64=True), HEADER, ROWS),
    Fixture("a file beside it", as_zip(("a.csv", as_csv(ROWS)), ("README.txt", b"hello")), HEADER, ROWS),
    Fixture("no name for a CSV", as_zip(("activities", as_csv(ROWS))), HEADER, ROWS),
    Fixture("header only", as_zip(("a.csv", as_csv([]))), HEADER, []),
    Fixture("nothing in it", as_zip(("a.csv", b"")), [], []),
    Fixture("no file at all", as_zip(), [], []),
]


def read_csv(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode(), newline="")))[1:]


def read_parquet(data: bytes) -> list[list[str]]:
    table = pq.read_table(io.BytesIO(data))
    assert {str(field.type) for field in table.schema} <= {"string"}
    return [list(row.values()) for row in table.to_pylist()]


READERS: dict[str, Callable[[bytes], list[list[str]]]] = {
    "csv": read_csv,
    "csv.gz": lambda data: read_csv(gzip.decompress(data)),
    "parquet": read_parquet,
}


def moved(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, **told: Any
) -> tuple[TaskRun, bytes]:
    with serve_export(lambda request: Response(200, content), monkeypatch):
        ran = transfer("e-1", f"file://{tmp_path}/{name}", **told)
    return ran, (tmp_path / name).read_bytes()


@pytest.mark.parametrize("inflate", ["isal", "zlib"])
@pytest.mark.parametrize("output_format", READERS)
@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda fixture: fixture.name)
def test_every_format_gives_the_same_rows(
    fixture: Any, output_format: str, inflate: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if inflate == "zlib":
        import zlib

        monkeypatch.setattr(archive_module, "_zlib", zlib)
    assert (archive_module._zlib.__name__ == "zlib") == (inflate == "zlib")
    ran, published = moved(fixture.content, tmp_path, monkeypatch, f"out.{output_format}")

    assert READERS[output_format](published) == fixture.rows
    facts = ran.xcoms["object"]
    assert facts["format"] == output_format
    assert facts["rows"] == len(fixture.rows)
    assert facts["columns"] == fixture.columns
    assert facts["bytes"] == len(published)
    assert facts["sha256"] == hashlib.sha256(published).hexdigest()


def test_the_zip_is_byte_for_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for fixture in FIXTURES:
        _, published = moved(fixture.content, tmp_path, monkeypatch, "out.zip")
        assert published == fixture.content


def test_csv_gz_is_the_members_own_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = FIXTURES[4].content
    _, published = moved(content, tmp_path, monkeypatch, "out.csv.gz")
    assert published[10:-8] in content
    assert moved(content, tmp_path, monkeypatch, "again.csv.gz")[1] == published, "the same bytes each time"


def test_a_real_export_of_the_sandbox(sandbox: Sandbox, tmp_path: Path) -> None:
    expected_rows = sandbox.expected_rows(START, END)
    for output_format, read in READERS.items():
        ran = transfer(create_export(), f"file://{tmp_path}/x.{output_format}")
        assert ran.xcoms["object"]["rows"] == len(expected_rows) > 0
        assert read((tmp_path / f"x.{output_format}").read_bytes()) == [list(row.values()) for row in expected_rows]


def test_types_of_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = as_zip(("a.csv", b"code,mrr,day,at\n0042,7,2024-01-31,2024-01-31T10:00:00+00:00\n0043,,,\n"))
    types = {"mrr": "int64", "day": "date32", "at": "timestamp[us, tz=UTC]"}
    _, published = moved(content, tmp_path, monkeypatch, "x.parquet", column_types=types)
    table = pq.read_table(io.BytesIO(published))
    assert [str(field.type) for field in table.schema] == ["string", "int64", "date32[day]", "timestamp[us, tz=UTC]"]
    assert table.column("code").to_pylist() == ["0042", "0043"]
    assert table.column("mrr").to_pylist() == [7, None]


def test_a_folder_of_windows_reads_as_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, value in enumerate(["1", "x", ""]):
        moved(as_zip(("a.csv", f"a,b\n{value},2\n".encode())), tmp_path, monkeypatch, f"{number}.parquet")
    moved(as_zip(("a.csv", b"a,b\n")), tmp_path, monkeypatch, "3.parquet")
    assert pq.read_table(tmp_path).column("a").to_pylist() == ["1", "x", ""]


@pytest.mark.parametrize(
    ("content", "types", "says"),
    [
        (b"a,b\n1,2\n1,x\n", {"b": "int64"}, "column 'b', row 2: 'x' is not a value of type int64"),
        (b"a,b\n1,2\n", {"c": "int64"}, "column_types names the column 'c'; the export has a, b"),
    ],
)
def test_what_does_not_fit_its_type_names_the_place(
    content: bytes, types: dict[str, str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AirflowFailException) as raised:
        moved(as_zip(("a.csv", content)), tmp_path, monkeypatch, "x.parquet", column_types=types)
    assert says in str(raised.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("types", [{"a": "integer"}, {"a": "timestamp[years]"}, {"a": "decimal128(x)"}, {"a": None}])
def test_what_is_no_type_is_refused_before_a_request(types: dict[str, Any], sandbox: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(AirflowFailException, match="not the name of an Arrow type"):
        transfer("e-1", f"file://{tmp_path}/x.parquet", column_types=types)
    assert sandbox.requests == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a,b\n1,2\n3\n", "Expected 2 columns, got 1"),
        (b"a,a\n1,2\n", "several columns named 'a'"),
        (b"a,b\n\xff,2\n", "UTF8"),
        (b"a,\xff\n1,2\n", "header of the CSV is not UTF-8"),
        (b"x" * 200_000 + b",b\n1,2\n", "header of the CSV cannot be read"),
    ],
)
def test_what_is_no_table_is_said_for_parquet(
    content: bytes, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ChartMogulError) as raised:
        moved(as_zip(("a.csv", content)), tmp_path, monkeypatch, "x.parquet")
    assert says in str(raised.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("output_format", READERS)
def test_lines_that_end_in_carriage_returns_alone_are_lines(
    output_format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = as_zip(("a.csv", as_csv(ROWS, lineterminator="\r", quoting=csv.QUOTE_ALL)))
    ran, published = moved(content, tmp_path, monkeypatch, f"x.{output_format}")
    assert READERS[output_format](published) == ROWS
    facts = ran.xcoms["object"]
    assert facts["columns"] == HEADER
    assert facts["rows"] == len(ROWS)


@pytest.mark.parametrize("output_format", READERS)
def test_several_tables_are_no_table(output_format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = as_zip(("one.csv", b"a\n1\n"), ("two.csv", b"a\n1\n"))
    with pytest.raises(ArchiveError, match=r"one\.csv, two\.csv"):
        moved(content, tmp_path, monkeypatch, f"x.{output_format}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("output_format", [*READERS, "zip"])
def test_a_disk_that_is_too_small_is_said_before_anything_is_written(
    output_format: str, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda path: usage(10, 0, 10))
    with pytest.raises(InsufficientDiskSpaceError, match="download_dir"):
        transfer(create_export(), f"file://{tmp_path}/x.{output_format}")
    assert list(tmp_path.iterdir()) == []


def test_parquet_without_pyarrow_says_what_to_install(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.delitem(sys.modules, "airflow_provider_chartmogul.formats.parquet", raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(AirflowFailException, match=r"pip install 'airflow-provider-chartmogul\[parquet\]'"):
        transfer("e-1", f"file://{tmp_path}/x.parquet")


def test_a_killed_ones_scratch_is_removed_by_the_next(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that dies by SIGKILL in the middle of a transfer leaves hidden names only, and not for long."""
    import os
    import signal
    import subprocess
    import sys
    import time

    scratch, lake = tmp_path / "scratch", tmp_path / "lake"
    scratch.mkdir()
    lake.mkdir()
    script = (
        "import sys, time\nfrom pathlib import Path\n"
        "from airflow_provider_chartmogul.runtime.temporary_files import hidden_file, temporary_folder\n"
        "with temporary_folder(sys.argv[1]) as f, hidden_file(Path(sys.argv[2]) / 'x.zip') as h:\n"
        "    (f / 'archive.zip').write_bytes(b'half'); h.write_bytes(b'half')\n"
        "    print('ready', flush=True); time.sleep(600)\n"
    )
    command = [sys.executable, "-c", script, str(scratch), str(lake)]
    killed = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert killed.stdout is not None
    assert killed.stdout.readline().strip() == "ready"
    transfer(create_export(), f"file://{lake}/x.zip", download_dir=str(scratch))
    assert len(list(scratch.iterdir())) == 1, "what another is working on is left alone"
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert all(path.name.startswith(".") for path in [*scratch.iterdir(), *lake.iterdir()] if path.name != "x.zip")
    time.sleep(0.1)

    transfer(create_export(), f"file://{lake}/x.zip", download_dir=str(scratch))

    assert os.listdir(scratch) == []
    assert os.listdir(lake) == ["x.zip"]
    shutil.rmtree(tmp_path)
