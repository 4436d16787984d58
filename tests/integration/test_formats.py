# SPDX-License-Identifier: Apache-2.0
"""
Every format has the same rows. Each is read by another reader than the package's own: gzip, csv and pyarrow.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import re
import shutil
import zipfile
from collections import namedtuple
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_chartmogul.exceptions import ArchiveError, InsufficientDiskSpaceError
from airflow_provider_chartmogul.formats import archive as archive_module
from airflow_provider_chartmogul.runtime import disk_space
from airflow_provider_chartmogul.sandbox import Sandbox
from tests.integration.servers import Response
from tests.integration.task_runner import TaskRun
from tests.integration.transfers import END, START, create_export, serve_export, transfer

ROWS = [["0042", "a,b", 'say "x"', "two\nlines", "Łódź", ""]] * 3 + [["", "", "", "", "", "x"]]
HEADER = ["id", "name", "quote", "text", "city", "empty"]


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
    Fixture("another file beside it", as_zip(("a.csv", as_csv(ROWS)), ("README.txt", b"hello")), HEADER, ROWS),
    Fixture("no suffix", as_zip(("activities", as_csv(ROWS))), HEADER, ROWS),
    Fixture("header only", as_zip(("a.csv", as_csv([]))), HEADER, []),
    Fixture(
        "header with CR LF, rows with LF", as_zip(("a.csv", b"a,b\r\n1,2\n3,\n")), ["a", "b"], [["1", "2"], ["3", ""]]
    ),
    Fixture(
        "header with LF, rows with CR LF", as_zip(("a.csv", b"a,b\n1,2\r\n3,\r\n")), ["a", "b"], [["1", "2"], ["3", ""]]
    ),
    Fixture(
        "carriage returns", as_zip(("a.csv", as_csv(ROWS, lineterminator="\r", quoting=csv.QUOTE_ALL))), HEADER, ROWS
    ),
    Fixture("byte order mark", as_zip(("a.csv", b"\xef\xbb\xbf" + as_csv(ROWS))), HEADER, ROWS),
    Fixture("blank lines", as_zip(("a.csv", b"\na,b\n\n1,2\n\n")), ["a", "b"], [["1", "2"]]),
    Fixture("one column", as_zip(("a.csv", b'a\n1\n""\n\n3\n')), ["a"], [["1"], [""], ["3"]]),
    Fixture(
        "bare quotes",
        as_zip(("a.csv", b'id,name\n1,5" pipe\n2,x\n3,y\n')),
        ["id", "name"],
        [["1", '5" pipe'], ["2", "x"], ["3", "y"]],
    ),
    Fixture(
        "two bare quotes",
        as_zip(("a.csv", b'id,name\n1,5" pipe\n2,x\n3,6" pipe\n')),
        ["id", "name"],
        [["1", '5" pipe'], ["2", "x"], ["3", '6" pipe']],
    ),
    Fixture("empty CSV", as_zip(("a.csv", b"")), [], []),
    Fixture("byte order mark alone", as_zip(("a.csv", b"\xef\xbb\xbf\r\n")), [], []),
    Fixture("no files", as_zip(), [], []),
]


def read_csv(data: bytes) -> list[list[str]]:
    return [row for row in csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")) if row][1:]


def read_parquet(data: bytes) -> list[list[str]]:
    table = pq.read_table(io.BytesIO(data))
    assert {str(field.type) for field in table.schema} <= {"string"}
    rows = [list(row.values()) for row in table.to_pylist()]
    assert not any("" in row for row in rows), "empty values are null"
    return [["" if value is None else value for value in row] for row in rows]


READERS: dict[str, Callable[[bytes], list[list[str]]]] = {
    "csv": read_csv,
    "csv.gz": lambda data: read_csv(gzip.decompress(data)),
    "parquet": read_parquet,
}


def transferred(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, **parameters: Any
) -> tuple[TaskRun, bytes]:
    with serve_export(lambda request: Response(200, content), monkeypatch):
        run = transfer("e-1", f"file://{tmp_path}/{name}", **parameters)
    return run, (tmp_path / name).read_bytes()


@pytest.mark.parametrize("inflate", ["isal", "zlib"])
@pytest.mark.parametrize("output_format", READERS)
@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda fixture: fixture.name)
def test_every_format_has_the_same_rows(
    fixture: Any, output_format: str, inflate: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if inflate == "zlib":
        import zlib

        monkeypatch.setattr(archive_module, "_zlib", zlib)
    assert (archive_module._zlib.__name__ == "zlib") == (inflate == "zlib")
    run, published = transferred(fixture.content, tmp_path, monkeypatch, f"out.{output_format}")

    assert READERS[output_format](published) == fixture.rows
    metadata = run.xcoms["object"]
    assert metadata["format"] == output_format
    assert metadata["rows"] == len(fixture.rows)
    assert metadata["columns"] == fixture.columns
    assert metadata["bytes"] == len(published)
    assert metadata["sha256"] == hashlib.sha256(published).hexdigest()


def test_zip_is_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for fixture in FIXTURES:
        _, published = transferred(fixture.content, tmp_path, monkeypatch, "out.zip")
        assert published == fixture.content


def test_csv_gz_has_the_compressed_bytes_of_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = FIXTURES[4].content
    _, published = transferred(content, tmp_path, monkeypatch, "out.csv.gz")
    assert published[10:-8] in content
    assert transferred(content, tmp_path, monkeypatch, "again.csv.gz")[1] == published, "the same bytes each time"


def test_export_of_the_sandbox(sandbox: Sandbox, tmp_path: Path) -> None:
    expected_rows = sandbox.expected_rows(START, END)
    for output_format, read in READERS.items():
        run = transfer(create_export(), f"file://{tmp_path}/x.{output_format}")
        assert run.xcoms["object"]["rows"] == len(expected_rows) > 0
        assert read((tmp_path / f"x.{output_format}").read_bytes()) == [list(row.values()) for row in expected_rows]


def test_columns_have_the_given_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = as_zip(("a.csv", b"code,mrr,day,at\n0042,7,2024-01-31,2024-01-31T10:00:00+00:00\n0043,,,\n"))
    types = {"mrr": "int64", "day": "date32", "at": "timestamp[us, tz=UTC]"}
    _, published = transferred(content, tmp_path, monkeypatch, "x.parquet", column_types=types)
    table = pq.read_table(io.BytesIO(published))
    assert [str(field.type) for field in table.schema] == ["string", "int64", "date32[day]", "timestamp[us, tz=UTC]"]
    assert table.column("code").to_pylist() == ["0042", "0043"]
    assert table.column("mrr").to_pylist() == [7, None]


def test_folder_of_windows_reads_as_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, value in enumerate(["1", "x", ""]):
        transferred(as_zip(("a.csv", f"a,b\n{value},2\n".encode())), tmp_path, monkeypatch, f"{number}.parquet")
    transferred(as_zip(("a.csv", b"a,b\n")), tmp_path, monkeypatch, "3.parquet")
    assert pq.read_table(tmp_path).column("a").to_pylist() == ["1", "x", None]


@pytest.mark.parametrize(
    ("content", "types", "message"),
    [
        (b"a,b\n1,2\n1,x\n", {"b": "int64"}, "column 'b', row 2: 'x' is not a value of type int64"),
        (b"a,b\n1,2\n", {"c": "int64"}, "column_types names the column 'c'; the export has a, b"),
    ],
)
def test_value_that_does_not_fit_its_type_is_located(
    content: bytes, types: dict[str, str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AirflowFailException) as raised:
        transferred(as_zip(("a.csv", content)), tmp_path, monkeypatch, "x.parquet", column_types=types)
    assert message in str(raised.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("types", [{"a": "integer"}, {"a": "timestamp[years]"}, {"a": "decimal128(x)"}, {"a": None}])
def test_unknown_type_is_refused_before_a_request(types: dict[str, Any], sandbox: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(AirflowFailException, match="not the name of an Arrow type"):
        transfer("e-1", f"file://{tmp_path}/x.parquet", column_types=types)
    assert sandbox.requests == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1,2\n3\n", "Expected 2 columns, got 1"),
        (b"a,a\n1,2\n", "several columns named 'a'"),
        (b"a,b\n\xff,2\n", "UTF8"),
        (b"a,\xff\n1,2\n", "header of the CSV is not UTF-8"),
        (b"x" * 200_000 + b",b\n1,2\n", "header cannot be read, or has more than 131072 bytes"),
        (b'"a,b\n1,2\n', "header cannot be read"),
        (b"a,b\n1," + b"x" * (5 << 20) + b"\n1,2\n", "row of more than 2 MiB"),
        (b"a,b\n1,2\n3," + b"x\n" * (5 << 20), "Expected 2 columns, got 1"),
        (b"x" * (8 << 20), "header cannot be read, or has more than 131072 bytes"),
    ],
)
def test_csv_that_is_not_a_table_is_a_permanent_error_for_parquet(
    content: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AirflowFailException) as raised:
        transferred(as_zip(("a.csv", content)), tmp_path, monkeypatch, "x.parquet")
    assert message in str(raised.value)
    assert "use csv or csv.gz instead of parquet" in str(raised.value)
    assert list(tmp_path.iterdir()) == []
    for read, output_format in ((bytes, "csv"), (gzip.decompress, "csv.gz")):
        _, published = transferred(as_zip(("a.csv", content)), tmp_path, monkeypatch, f"x.{output_format}")
        assert read(published) == content


@pytest.mark.parametrize("types", [None, {"a": "int64"}, {"no such column": "int64"}])
def test_damaged_archive_is_the_error_also_if_it_is_not_a_table(
    types: dict[str, str] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry downloads it again, while an error about the table is permanent."""
    content = as_zip(("a.csv", b"a,b\n1,2\nx\n" + b"3,4\n" * 3_000_000), compression=zipfile.ZIP_STORED)
    place = len(content) - 1000
    damaged = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    with pytest.raises(ArchiveError, match="bad CRC-32"):
        transferred(damaged, tmp_path, monkeypatch, "x.parquet", column_types=types)
    assert list(tmp_path.iterdir()) == []


TIMES = {
    "2020-05-06T01:00:00": "2020-05-06T01:00:00+00:00",
    "2020-05-06 01:00:00": "2020-05-06T01:00:00+00:00",
    "2020-05-06 01:00": "2020-05-06T01:00:00+00:00",
    "2020-05-06 01:00:00 +0000": "2020-05-06T01:00:00+00:00",
    "2020-05-06 01:00:00 -0230": "2020-05-06T03:30:00+00:00",
    "2020-05-06 01:00:00 +02": "2020-05-05T23:00:00+00:00",
    "2020-05-06 01:00:00 UTC": "2020-05-06T01:00:00+00:00",
    "2020-05-06T01:00:00.500 GMT": "2020-05-06T01:00:00.500000+00:00",
    "2020-05-06": "2020-05-06T00:00:00+00:00",
    "2020-05-06T01:00:00Z": "2020-05-06T01:00:00+00:00",
    "2020-05-06T01:00:00.000Z": "2020-05-06T01:00:00+00:00",
    "2020-05-06T01:00:00+02:00": "2020-05-05T23:00:00+00:00",
    "2020-05-06T01:00:00.000+00:00": "2020-05-06T01:00:00+00:00",
    "": None,
}


@pytest.mark.parametrize(
    "arrow_type", ["timestamp[us, tz=UTC]", "timestamp[ms, tz=Europe/Berlin]", "timestamp[us]", "timestamp[ns, tz=UTC]"]
)
def test_all_forms_of_times_become_one_instant(
    arrow_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone and mixed; a time without a zone is in UTC."""
    expected = [at and datetime.fromisoformat(at) for at in TIMES.values()]

    def instants(*texts: str) -> list[datetime | None]:
        content = as_zip(("a.csv", b"date,x\n" + "".join(f"{text},1\n" for text in texts).encode()))
        _, published = transferred(content, tmp_path, monkeypatch, "x.parquet", column_types={"date": arrow_type})
        column = pq.read_table(io.BytesIO(published)).column("date")
        assert str(column.type) == arrow_type
        return [at and at.replace(tzinfo=at.tzinfo or UTC) for at in column.cast(pa.timestamp("us", "UTC")).to_pylist()]

    assert instants(*TIMES) == expected
    for text, at in zip(TIMES, expected, strict=True):
        assert instants(text) == [at]


@pytest.mark.parametrize(
    "text", ["yesterday", "2020-13-01", "2020-05-06T25:00:00Z", "2020-05-06 01:00:00 CEST", "06.05.2020", "1588726800"]
)
def test_text_that_is_not_a_time_is_located(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = as_zip(("a.csv", f"date\n2020-05-06\n{text}\n".encode()))
    with pytest.raises(AirflowFailException, match=f"column 'date', row 2: '{re.escape(text)}' is not a value of type"):
        transferred(content, tmp_path, monkeypatch, "x.parquet", column_types={"date": "timestamp[us, tz=UTC]"})


def test_export_without_a_header_is_a_parquet_file_without_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with types for its columns, which another window of the same table has."""
    run, published = transferred(
        as_zip(("a.csv", b"")), tmp_path, monkeypatch, "x.parquet", column_types={"date": "timestamp[us, tz=UTC]"}
    )
    table = pq.read_table(io.BytesIO(published))
    assert (table.num_rows, table.num_columns) == (0, 0)
    assert (run.xcoms["object"]["rows"], run.xcoms["object"]["columns"]) == (0, [])


@pytest.mark.parametrize("output_format", READERS)
def test_several_tables_are_a_permanent_error(
    output_format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = as_zip(("one.csv", b"a\n1\n"), ("two.csv", b"a\n1\n"))
    with pytest.raises(AirflowFailException, match=r"one\.csv, two\.csv.*output_format='zip'"):
        transferred(content, tmp_path, monkeypatch, f"x.{output_format}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("output_format", [*READERS, "zip"])
def test_full_disk_is_an_error_before_anything_is_written(
    output_format: str, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda path: usage(10, 0, 10))
    with pytest.raises(InsufficientDiskSpaceError, match="download_dir"):
        transfer(create_export(), f"file://{tmp_path}/x.{output_format}")
    assert list(tmp_path.iterdir()) == []


def test_parquet_without_pyarrow_names_what_to_install(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.delitem(sys.modules, "airflow_provider_chartmogul.formats.parquet", raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(AirflowFailException, match=r"pip install 'airflow-provider-chartmogul\[parquet\]'"):
        transfer("e-1", f"file://{tmp_path}/x.parquet")


def test_leftovers_of_a_killed_process_are_removed_by_the_next(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed in the middle of a transfer leaves hidden names only."""
    import os
    import signal
    import subprocess
    import sys
    import time

    temporary, lake = tmp_path / "temporary", tmp_path / "lake"
    temporary.mkdir()
    lake.mkdir()
    script = (
        "import sys, time\nfrom pathlib import Path\n"
        "from airflow_provider_chartmogul.runtime.temporary_files import hidden_file, temporary_folder\n"
        "with temporary_folder(sys.argv[1]) as f, hidden_file(Path(sys.argv[2]) / 'x.zip') as h:\n"
        "    (f / 'archive.zip').write_bytes(b'half'); h.write_bytes(b'half')\n"
        "    print('ready', flush=True); time.sleep(600)\n"
    )
    command = [sys.executable, "-c", script, str(temporary), str(lake)]
    killed = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert killed.stdout is not None
    assert killed.stdout.readline().strip() == "ready"
    transfer(create_export(), f"file://{lake}/x.zip", download_dir=str(temporary))
    assert len(list(temporary.iterdir())) == 1, "another process is using it"
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert all(path.name.startswith(".") for path in [*temporary.iterdir(), *lake.iterdir()] if path.name != "x.zip")
    time.sleep(0.1)

    transfer(create_export(), f"file://{lake}/x.zip", download_dir=str(temporary))

    assert os.listdir(temporary) == []
    assert os.listdir(lake) == ["x.zip"]
    shutil.rmtree(tmp_path)
