# SPDX-License-Identifier: Apache-2.0
"""The same object gives the same table whatever its format, and what cannot be one is explained."""

from __future__ import annotations

import csv
import errno
import gzip
import hashlib
import io
import json
import logging
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_chartmogul.api.resources import get_resource
from airflow_provider_chartmogul.exceptions import (
    ArchiveError,
    ColumnTypesError,
    ObjectChangedError,
    ObjectStorageError,
    SourceError,
    TableError,
    TaskCancelledError,
)
from airflow_provider_chartmogul.formats.archive import Archive, HashedFile
from airflow_provider_chartmogul.formats.csv_blocks import split_header
from airflow_provider_chartmogul.formats.parquet import write_parquet
from airflow_provider_chartmogul.runtime.cancellation import Cancellation
from airflow_provider_chartmogul.sources.row_files import ResourceOutput, RowFiles
from airflow_provider_chartmogul.storage.object_metadata import METADATA_KEY, encode_metadata
from airflow_provider_chartmogul.warehouse import local_tables
from airflow_provider_chartmogul.warehouse.local_tables import Column, LocalTable, fetch_tables
from airflow_provider_chartmogul.warehouse.source_objects import SourceObject

LOG = logging.getLogger("test")
EXTRACTED_AT = datetime(2026, 3, 1, tzinfo=UTC)
TIME = "timestamp[us, tz=UTC]"

EXPORT_FORMATS = ("csv", "csv.gz", "zip", "parquet")

Rows = list[dict[str, Any]]


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_csv", ".csv"), content)
    return buffer.getvalue()


def convert(text: bytes, output_format: str, folder: Path) -> bytes:
    """Return the object that a transfer makes of an export's CSV."""
    archive, path = folder / "archive.zip", folder / "converted"
    archive.write_bytes(zipped(activities_csv=text))
    with Archive(archive) as opened:
        if output_format == "zip":
            return archive.read_bytes()
        if output_format == "parquet":
            write_parquet(opened.read_csv(), path)
        else:
            with path.open("wb") as file:
                opened.write_csv(HashedFile(file)) if output_format == "csv" else opened.write_csv_gz(HashedFile(file))
    return path.read_bytes()


def source_of(folder: Path, content: bytes, output_format: str, **metadata: Any) -> SourceObject:
    path = folder / f"stored.{output_format}"
    path.write_bytes(content)
    described = {
        "resource": "activities",
        "table": "activities",
        "format": output_format,
        "exported_at": "2026-03-01T00:00:00+00:00",
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        **metadata,
    }
    return SourceObject(f"file://{path}", described)


def fetch(folder: Path, source: SourceObject, column_types: Mapping[str, str] | None = None) -> tuple[LocalTable, ...]:
    download = folder / "download"
    download.mkdir(exist_ok=True)
    return fetch_tables(source, download, column_types=column_types, cancellation=Cancellation(), log=LOG)


def fetch_one(
    folder: Path, content: bytes, output_format: str = "csv", column_types: Mapping[str, str] | None = None
) -> LocalTable:
    (table,) = fetch(folder, source_of(folder, content, output_format), column_types)
    return table


def rows_of(table: LocalTable) -> Rows:
    return [row for batch in table.record_batches() for row in batch.to_pylist()]


def csv_of(table: LocalTable) -> list[list[str]]:
    return list(csv.reader(io.StringIO(b"".join(table.csv_chunks()).decode(), newline="")))


# Exports


@pytest.mark.parametrize("output_format", EXPORT_FORMATS)
@pytest.mark.parametrize(
    ("text", "columns", "rows"),
    [
        (b"a,b\n1,2\n", "ab", [("1", "2")]),
        (b"a,b\r\n1,2\n3,4\n", "ab", [("1", "2"), ("3", "4")]),
        (b"a,b\n1,2\r\n3,4\r\n", "ab", [("1", "2"), ("3", "4")]),
        (b"a,b\r1,2\r3,4", "ab", [("1", "2"), ("3", "4")]),
        (b"\xef\xbb\xbfa,b\n1,2\n", "ab", [("1", "2")]),
        (b"\n\r\na,b\n\n1,2\n\n", "ab", [("1", "2")]),
        (b'a,"b\nc"\n1,2\n', ["a", "b\nc"], [("1", "2")]),
        (b'a,"b\r\nc"\r\n1,"2\r\n3"\n', ["a", "b\r\nc"], [("1", "2\r\n3")]),
        (b'a,b\n,""\n"",x\n', "ab", [(None, None), (None, "x")]),
        (b'a,b\n5" pipe,x\n6" pipe,y\n7,z\n', "ab", [('5" pipe', "x"), ('6" pipe', "y"), ("7", "z")]),
        (b'a,b\n"say ""x, y""",2\n', "ab", [('say "x, y"', "2")]),
        ("a,b\nzoë,日本\n".encode(), "ab", [("zoë", "日本")]),
        (b"a,b\n", "ab", []),
        (b"a,b", "ab", []),
        (b"", "", []),
        (b"\n \r\n", "", []),
    ],
)
def test_export_is_the_same_table_in_every_format(
    output_format: str, text: bytes, columns: Iterable[str], rows: list[tuple[str, ...]], tmp_path: Path
) -> None:
    table = fetch_one(tmp_path, convert(text, output_format, tmp_path), output_format)
    assert table.columns == tuple(Column(name, "string") for name in columns)
    assert rows_of(table) == [dict(zip(columns, row, strict=True)) for row in rows]
    assert csv_of(table) == [["" if value is None else value for value in row] for row in rows]
    assert rows_of(table) == rows_of(table), "it can be read again"


@pytest.mark.parametrize("output_format", ["csv", "csv.gz", "zip"])
def test_column_without_a_name_gets_one(output_format: str, tmp_path: Path) -> None:
    content = convert(b"a,b,\n1,2,3\n", output_format, tmp_path)
    assert rows_of(fetch_one(tmp_path, content, output_format)) == [{"a": "1", "b": "2", "column_3": "3"}]


def test_column_without_a_name_gets_the_same_from_parquet(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table([["1"], ["3"]], names=["a", ""]), path)
    assert rows_of(fetch_one(tmp_path, path.read_bytes(), "parquet")) == [{"a": "1", "column_2": "3"}]


@pytest.mark.parametrize("header", [b"a,Type,type", b"a,a", b"column_2,"])
def test_names_that_differ_by_case_alone_are_an_error(header: bytes, tmp_path: Path) -> None:
    with pytest.raises(TableError, match="several columns named"):
        fetch_one(tmp_path, header + b"\n")


@pytest.mark.parametrize("output_format", EXPORT_FORMATS)
def test_dates_in_mixed_forms_are_moments_in_utc(output_format: str, tmp_path: Path) -> None:
    forms = (
        *("2020-05-06T01:00:00", "2020-05-06 01:00:00 +0000", "2020-05-06 01:00:00 UTC", "2020-05-06T01:00:00Z"),
        *("2020-05-06T03:00:00+02:00", "2020-05-06 01:00:00.000", "", "2020-05-06"),
    )
    text = "".join(f"{line}\n" for line in ("Date,n", *(f"{form},{number}" for number, form in enumerate(forms))))
    content = convert(text.encode(), output_format, tmp_path)
    table = fetch_one(tmp_path, content, output_format, {"date": TIME})
    assert table.columns == (Column("Date", TIME), Column("n", "string"))
    moment = datetime(2020, 5, 6, 1, tzinfo=UTC)
    moments = [moment] * 6 + [None, moment.replace(hour=0)]
    assert [row["Date"] for row in rows_of(table)] == moments
    texts = [value and value.strftime("%Y-%m-%dT%H:%M:%S.000000Z") for value in moments]
    assert [row[0] or None for row in csv_of(table)] == texts


def test_csv_quotes_text_and_leaves_null_empty(tmp_path: Path) -> None:
    types = {"i": "int64", "f": "float64", "b": "bool", "d": "date32", "t": TIME, "m": "decimal128(9, 2)", "n": "int64"}
    header = ",".join(("s", *types))
    table = fetch_one(
        tmp_path, f'{header}\n"a,""b""",1,1.5,true,2024-01-02,2024-01-02T03:04:05.6Z,1.50,\n'.encode(), "csv", types
    )
    assert b"".join(table.csv_chunks()) == (b'"a,""b""",1,1.5,true,2024-01-02,"2024-01-02T03:04:05.600000Z","1.50",\n')
    assert [column.type for column in table.columns] == ["string", *types.values()]


#: Reads a table in a fresh process, as a load does, and prints whether pandas was imported.
READ_TABLE = """
import sys
from pathlib import Path

imported = []

class PandasFinder:
    def find_spec(self, name, path=None, target=None):
        imported.extend([name] if name == "pandas" else [])

sys.meta_path.insert(0, PandasFinder())
from airflow_provider_chartmogul.formats.arrow_types import parse_types
from airflow_provider_chartmogul.formats.table_readers import open_table, to_csv, typed_batches

reader = open_table(Path(sys.argv[1]), sys.argv[2])
types = reader.types | parse_types({"at": "timestamp[us, tz=UTC]", "local": "timestamp[us]"})
for batch in typed_batches(reader, types, print, dict.fromkeys(types)):
    print(to_csv(batch).decode(), end="")
print(imported)
"""


@pytest.mark.parametrize("output_format", EXPORT_FORMATS)
def test_reading_a_table_does_not_import_pandas(output_format: str, tmp_path: Path) -> None:
    """Importing pandas would take more memory than the load itself."""
    path = tmp_path / "object"
    text = b'id,note,at,local\n1,,2024-01-31T10:00:00Z,2024-01-31 10:00:00\n2,"",,\n3,x y,2024-02-01T00:00:00Z,\n'
    path.write_bytes(convert(text, output_format, tmp_path))
    process = subprocess.run(
        [sys.executable, "-c", READ_TABLE, path, output_format], capture_output=True, text=True, timeout=120, check=True
    )
    *lines, imported = process.stdout.splitlines()
    assert lines == [
        '"1",,"2024-01-31T10:00:00.000000Z","2024-01-31T10:00:00.000000"',
        '"2",,,',
        '"3","x y","2024-02-01T00:00:00.000000Z",',
    ]
    assert imported == "[]"


@pytest.mark.parametrize("output_format", ["csv", "parquet"])
def test_nul_is_removed_with_a_warning(output_format: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = convert(b"a,b\n1,2\n3,x\0y\n4,\0\n", output_format, tmp_path)
    table = fetch_one(tmp_path, content, output_format)
    assert rows_of(table) == [{"a": "1", "b": "2"}, {"a": "3", "b": "xy"}, {"a": "4", "b": None}]
    (message,) = caplog.messages
    assert "NUL characters from column b of activities (first in row 2)" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a,b\n1,2\n1,2,3\n", r"2 columns: .*row 2: Expected 2 columns, got 3: 1,2,3"),
        (b"a,b\n1\n", r"row 1: Expected 2 columns, got 1: 1"),
        (b"a,b\n1,\xff\n", "invalid UTF8"),
        (b"a,\xff\n1,2\n", "header of the CSV cannot be read"),
        (b'a,b\n1,"2\n3,4\n', "ends inside a quoted field"),
        (b'a,"b\n1,2\n3,4\n', "a quote in it is not closed"),
        ("a,b\n1,2\n".encode("utf-16-le"), "NUL character in its name"),
    ],
)
def test_what_is_no_table_is_explained(text: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(TableError, match=message):
        rows_of(fetch_one(tmp_path, text))


def test_row_number_counts_earlier_blocks(tmp_path: Path) -> None:
    text = b"a,b\n" + b"1,22222222222222222222\n" * 100_000 + b"x\n"
    with pytest.raises(TableError, match="row 100001: Expected 2 columns, got 1: x"):
        rows_of(fetch_one(tmp_path, text))


@pytest.mark.parametrize("output_format", EXPORT_FORMATS)
def test_value_that_does_not_fit_names_column_row_and_value(output_format: str, tmp_path: Path) -> None:
    content = convert(b"date,n\n2024-01-01,1\nyesterday,2\n", output_format, tmp_path)
    table = fetch_one(tmp_path, content, output_format, {"date": TIME})
    with pytest.raises(ColumnTypesError, match="column 'date', row 2: 'yesterday' is not a value of type timestamp"):
        rows_of(table)


def test_column_types_of_a_missing_column_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ColumnTypesError, match="has no column 'mrr'; it has date, n"):
        fetch_one(tmp_path, b"date,n\n", "csv", {"DATE": TIME, "mrr": "int64"})
    assert fetch_one(tmp_path, b"", "csv", {"mrr": "int64"}).columns == ()


def test_types_of_a_parquet_file_stay_unless_the_load_says_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    write_parquet(iter([b"date,mrr\n2024-01-01,5\n"]), path, {"mrr": "int64"})
    table = fetch_one(tmp_path, path.read_bytes(), "parquet")
    assert table.columns == (Column("date", "string"), Column("mrr", "int64"))
    table = fetch_one(tmp_path, path.read_bytes(), "parquet", {"mrr": "float64", "date": "date32"})
    assert rows_of(table) == [{"date": date(2024, 1, 1), "mrr": 5.0}]
    assert table.columns == (Column("date", "date32"), Column("mrr", "float64"))


def test_several_csvs_in_an_archive_are_one_table(tmp_path: Path) -> None:
    content = zipped(a_csv=b"a,b\n1,2\n", b_csv=b"B,c\n3,4\n", readme=b"not a CSV")
    assert rows_of(fetch_one(tmp_path, content, "zip")) == [
        {"a": "1", "b": "2", "c": None},
        {"a": None, "b": "3", "c": "4"},
    ]


def test_archive_without_files_has_no_columns(tmp_path: Path) -> None:
    assert fetch_one(tmp_path, zipped(), "zip").columns == ()


def test_damaged_files_are_named(tmp_path: Path) -> None:
    text = b"a,b\n" + b"".join(b"%d,%d\n" % (n, n * n) for n in range(10_000))
    with pytest.raises(TableError, match="damaged"):
        rows_of(fetch_one(tmp_path, gzip.compress(text)[:-1000], "csv.gz"))
    with pytest.raises(TableError, match="cannot be read"):
        fetch_one(tmp_path, b"PAR1 no", "parquet")
    archive = bytearray(zipped(a_csv=text))
    archive[500] ^= 1
    with pytest.raises(ArchiveError):
        rows_of(fetch_one(tmp_path, bytes(archive), "zip"))


# The object


@pytest.mark.parametrize("changed", [b"a,b\n1,3\n", b"a,b\n1,22\n"])
def test_object_that_has_changed_is_an_error(changed: bytes, tmp_path: Path) -> None:
    source = source_of(tmp_path, b"a,b\n1,2\n", "csv")
    (tmp_path / "stored.csv").write_bytes(changed)
    with pytest.raises(ObjectChangedError, match=r"stored\.csv has changed since its transfer: it.*Clear the transfer"):
        fetch(tmp_path, source)


def test_local_object_is_not_copied(tmp_path: Path) -> None:
    source = source_of(tmp_path, b"a,b\n1,2\n", "csv")
    stored = tmp_path / "stored.csv"
    (tmp_path / "link.csv").symlink_to("stored.csv")
    for number, uri in enumerate((source.uri, f"file://{tmp_path / 'link.csv'}")):
        folder = tmp_path / str(number)
        folder.mkdir()
        (table,) = fetch(folder, SourceObject(uri, source.metadata))
        assert table.path.samefile(stored)
        assert not table.path.is_symlink()
        # The transfer replaces an object; the load reads the old one to its end.
        stored.with_name("new").write_bytes(b"a,b\n3,4\n")
        stored.with_name("new").replace(stored)
        assert rows_of(table) == [{"a": "1", "b": "2"}]
        table.path.unlink()
        assert stored.read_bytes() == b"a,b\n3,4\n"
        stored.write_bytes(b"a,b\n1,2\n")


def test_local_object_on_another_disk_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: Any) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", link)
    (table,) = fetch(tmp_path, source_of(tmp_path, b"a,b\n1,2\n", "csv"))
    (tmp_path / "stored.csv").write_bytes(b"changed")
    assert rows_of(table) == [{"a": "1", "b": "2"}]


def test_object_that_is_written_to_during_its_load_is_an_error(tmp_path: Path) -> None:
    (table,) = fetch(tmp_path, source_of(tmp_path, b"a,b\n1,2\n", "csv"))
    batches = table.record_batches()
    next(batches)
    moment = table.path.stat().st_mtime_ns
    (tmp_path / "stored.csv").write_bytes(b"a,b\n1,3\n")
    os.utime(tmp_path / "stored.csv", ns=(moment, moment + 1_000_000))
    with pytest.raises(ObjectChangedError, match=r"was written to while it was loaded\. Clear the transfer"):
        list(batches)


def test_object_that_is_gone_is_an_error(tmp_path: Path) -> None:
    source = source_of(tmp_path, b"a\n", "csv")
    (tmp_path / "stored.csv").unlink()
    with pytest.raises(ObjectStorageError, match="could not read"):
        fetch(tmp_path, source)


def test_object_that_existed_before_is_compared_by_its_size(tmp_path: Path) -> None:
    source = source_of(tmp_path, b"a\n1\n", "csv", sha256=None)
    assert rows_of(*fetch(tmp_path, source)) == [{"a": "1"}]


def error_of(read: Callable[[], object]) -> str:
    """Return the message of a TableError; empty without one."""
    try:
        read()
    except TableError as error:
        return str(error)
    return ""


@given(
    st.lists(st.sampled_from(["a", '"q"', '"q\nr"', '"\n"', '5"x', "", '""', '"say ""x"""']), min_size=1, max_size=6),
    # In a table of one column, an unclosed field of nothing but line ends cannot be distinguished from a closed one.
    st.text('a"\n\r,', max_size=6).filter(lambda end: end.rstrip() != '"'),
)
def test_unclosed_field_becomes_no_parquet(rows: list[str], end: str) -> None:
    """pyarrow itself closes the field without an error."""
    text = "\r\n".join(["c", *rows, end]).encode()
    is_incomplete = "inside a quoted field" in error_of(lambda: list(split_header(iter([text]))[1]))
    with tempfile.TemporaryDirectory() as folder:
        error = error_of(lambda: write_parquet(iter([text]), Path(folder, "x.parquet")))
    assert error or not is_incomplete
    assert is_incomplete or "inside a quoted field" not in error


KEPT = {"sha256": None, "exported_at": None, "modified_at": "2026-03-02T00:00:00+00:00"}


@pytest.mark.parametrize(
    ("written", "kept", "difference"),
    [
        ({}, {}, None),
        ({"interval_start": "2026-01-01T00:00:00Z"}, {"interval_start": "2026-01-01T01:00:00+01:00"}, None),
        ({"interval_start": "2026-01-01"}, {"interval_start": "2026-01-02"}, "window is 2026-01-02"),
        ({"interval_end": "2026-01-01"}, {}, "window is open to open for one of them"),
        ({}, {"activity_type": "churn"}, "activity_type is 'churn' for one of them, and None for another"),
        ({"chartmogul_conn_id": "a"}, {"chartmogul_conn_id": "b"}, "chartmogul_conn_id is 'b'"),
    ],
)
def test_kept_object_of_another_transfer_is_an_error(
    written: dict[str, str], kept: dict[str, str], difference: str | None, tmp_path: Path
) -> None:
    metadata = {"resource": "activities", "table": "activities", "exported_at": "2026-03-01T00:00:00Z", **written}
    path = tmp_path / "written.parquet"
    write_parquet(iter([b"a\n1\n"]), path, None, {METADATA_KEY: encode_metadata(metadata)})
    source = source_of(tmp_path, path.read_bytes(), "parquet", **{**KEPT, **kept})
    if difference is None:
        assert rows_of(*fetch(tmp_path, source)) == [{"a": "1"}]
    else:
        with pytest.raises(SourceError, match=f"stored.parquet was written by another transfer .*{difference}"):
            fetch(tmp_path, source)


def test_unknown_format_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="has the format 'xlsx'; a load reads csv"):
        fetch(tmp_path, source_of(tmp_path, b"", "xlsx"))


def test_cancelled_load_stops(tmp_path: Path) -> None:
    cancellation = Cancellation()
    (table,) = fetch_tables(
        source_of(tmp_path, b"a\n1\n", "csv"), tmp_path, column_types=None, cancellation=cancellation, log=LOG
    )
    cancellation.cancel()
    with pytest.raises(TaskCancelledError):
        rows_of(table)
    with pytest.raises(TaskCancelledError):
        fetch_tables(
            source_of(tmp_path, b"a\n1\n", "csv"), tmp_path, column_types=None, cancellation=cancellation, log=LOG
        )


# Resources

INVOICES: Rows = [
    {
        "uuid": f"inv_{number}",
        "date": "2024-01-02T00:00:00.000Z",
        "currency": "USD" if number else "",
        "line_items": [{"uuid": f"li_{number}_{n}", "amount_in_cents": n, "prorated": True} for n in range(number)],
        "transactions": [],
        "disabled": None,
        "new_key": {"x": number},
    }
    for number in range(3)
]


def objects_of(resource: str, output_format: str, rows: Rows, folder: Path, **settings: Any) -> list[SourceObject]:
    """Write rows as a transfer does, and return the objects."""
    output = ResourceOutput(get_resource(resource), output_format, **settings)
    files = RowFiles(folder, output, EXTRACTED_AT)
    from airflow_provider_chartmogul.api.pagination import Page

    with files.open():
        files.write(Page(rows, [json.dumps(row).encode() for row in rows]))
    return [
        SourceObject(
            f"file://{file.path}",
            {
                "resource": resource,
                "table": name,
                "format": output_format,
                "extracted_at": EXTRACTED_AT.isoformat(),
                "sha256": file.sha256,
                "column_selection": output.column_selection,
                "column_types": settings.get("column_types"),
            },
        )
        for name, file in files.finish(LOG).items()
    ]


def tables_of(sources: Iterable[SourceObject], folder: Path, **parameters: Any) -> dict[str, tuple[Any, Rows]]:
    download = folder / "download"
    download.mkdir()
    tables = [
        table
        for source in sources
        for table in fetch_tables(
            source, download, cancellation=Cancellation(), log=LOG, **{"column_types": None, **parameters}
        )
    ]
    return {table.table: (table.columns, rows_of(table)) for table in tables}


@pytest.mark.parametrize(
    "selection", [{}, {"columns": ["currency", "amount_in_cents"]}, {"exclude_columns": ["date", "_extra"]}]
)
def test_resource_is_the_same_tables_in_every_format(selection: dict[str, Any], tmp_path: Path) -> None:
    by_format = {}
    for output_format in ("parquet", "csv", "csv.gz", "jsonl", "jsonl.gz"):
        folder = tmp_path / output_format
        folder.mkdir()
        by_format[output_format] = tables_of(
            objects_of("invoices", output_format, INVOICES, folder, **selection), folder
        )
    first = by_format["parquet"]
    assert list(first) == ["invoices", "invoice_line_items", "invoice_transactions"]
    for tables in by_format.values():
        assert tables == first
    columns, rows = first["invoices"]
    assert [row["uuid"] for row in rows] == ["inv_0", "inv_1", "inv_2"]
    assert rows[0]["currency"] is None
    assert len(first["invoice_line_items"][1]) == 3
    assert Column("_extracted_at", TIME) in columns
    if not selection:
        assert rows[0]["date"] == datetime(2024, 1, 2, tzinfo=UTC)
        assert rows[1]["_extra"] == '{"new_key":{"x":1}}'


def test_types_that_the_transfer_was_given_hold_in_every_format(tmp_path: Path) -> None:
    rows = [{"uuid": "c", "mrr": 5, "attributes": {"custom": {"CAC": 7}}}]
    types = {"mrr": "float64", "attributes.custom.CAC": "int32"}
    by_format = {}
    for output_format in ("parquet", "csv"):
        folder = tmp_path / output_format
        folder.mkdir()
        sources = objects_of("customers", output_format, rows, folder, column_types=types)
        by_format[output_format] = tables_of(sources, folder)["customers"]
    assert by_format["csv"] == by_format["parquet"]
    assert {Column("mrr", "float64"), Column("attributes_custom_cac", "int32")} < set(by_format["csv"][0])
    assert by_format["csv"][1][0]["attributes_custom_cac"] == 7


@pytest.mark.parametrize("output_format", ["jsonl", "csv", "parquet"])
def test_types_that_the_load_is_given_come_first(output_format: str, tmp_path: Path) -> None:
    sources = objects_of("customers", output_format, [{"uuid": "c", "mrr": 5, "customer-since": None}], tmp_path)
    columns, rows = tables_of(sources, tmp_path, column_types={"mrr": "float64", "customer-since": "date32"})[
        "customers"
    ]
    assert {Column("mrr", "float64"), Column("customer_since", "date32")} < set(columns)
    assert rows[0]["mrr"] == 5.0


def test_column_inside_json_is_made_of_raw_rows(tmp_path: Path) -> None:
    rows = [{"uuid": "c", "attributes": {"custom": {"CAC": 7}}}]
    sources = objects_of("customers", "jsonl", rows, tmp_path)
    columns, found = tables_of(sources, tmp_path, column_types={"attributes.custom.CAC": "int64"})["customers"]
    assert Column("attributes_custom_cac", "int64") in columns
    assert found[0]["attributes_custom_cac"] == 7


def test_column_inside_json_that_a_table_lacks_is_an_error(tmp_path: Path) -> None:
    sources = objects_of("customers", "csv", [{"uuid": "c"}], tmp_path)
    with pytest.raises(ColumnTypesError, match=r"no column 'attributes\.custom\.CAC'.*Give it to the transfer as well"):
        tables_of(sources, tmp_path, column_types={"attributes.custom.CAC": "int64"})


@pytest.mark.parametrize(
    ("line", "message"), [(b"{", "line 2"), (b"[]", "line 2: it is not an object"), (b"\xff", "line 2")]
)
def test_broken_line_is_named(line: bytes, message: str, tmp_path: Path) -> None:
    source = source_of(tmp_path, b'{"uuid":"p"}\n' + line + b"\n", "jsonl", resource="plans", table="plans")
    with pytest.raises(TableError, match=message):
        fetch(tmp_path, source)


def test_raw_rows_without_rows_are_a_table_with_columns(tmp_path: Path) -> None:
    (table,) = fetch(tmp_path, source_of(tmp_path, b"", "jsonl", resource="plans", table="plans"))
    assert rows_of(table) == []
    assert Column("uuid", "string") in table.columns


# Blocks of a CSV

FIELDS = st.sampled_from([b"", b"a", b"b c", b'""', b'"x,y"', b'"l\nl"', b'"q""q"', b'5" p', b'"\r\n"', b"x" * 50])
RECORDS = st.lists(st.tuples(FIELDS, FIELDS).map(b",".join), min_size=1, max_size=30)


@given(records=RECORDS, end=st.sampled_from([b"\n", b"\r\n", b"\r"]), chunk=st.integers(1, 40))
def test_blocks_end_where_records_end(records: list[bytes], end: bytes, chunk: int) -> None:
    text = b"a,b" + end + b"".join(record + end for record in records)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("airflow_provider_chartmogul.formats.csv_blocks._BLOCK_BYTES", 16)
        monkeypatch.setattr("airflow_provider_chartmogul.formats.csv_blocks.MAX_HEADER_BYTES", 8)
        chunks = (text[start : start + chunk] for start in range(0, len(text), chunk))
        names, blocks = split_header(chunks)
        read = list(blocks)
    assert names == ("a", "b")
    assert b"".join(read) == text[len(b"a,b" + end) :]
    starts = {len(b"".join(record + end for record in records[:number])) for number in range(len(records) + 1)}
    position = 0
    for block in read:
        position += len(block)
        # A record may end at the carriage return of its line end.
        assert position in starts or position + 1 in starts


def test_record_longer_than_many_blocks(tmp_path: Path) -> None:
    long = b"x\n" * 1_000_000
    table = fetch_one(tmp_path, b'a,b\n1,"' + long + b'"\n2,y\n')
    assert rows_of(table) == [{"a": "1", "b": long.decode()}, {"a": "2", "b": "y"}]


def test_formats_of_transfers_can_all_be_loaded() -> None:
    from airflow_provider_chartmogul.sources import activities_export, row_files

    loadable = {*local_tables.TABLE_FORMATS, *local_tables.JSON_FORMATS}
    assert {*activities_export.FORMATS.values(), *row_files.FORMATS.values()} == loadable
