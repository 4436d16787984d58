# SPDX-License-Identifier: Apache-2.0
"""JSON Lines: rows as the bytes that came, compressed or not."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isal import igzip

from airflow_provider_chartmogul.api.resources import get_resource
from airflow_provider_chartmogul.formats import gzip_files
from airflow_provider_chartmogul.formats.column_selection import ColumnSelection
from airflow_provider_chartmogul.formats.json_lines import JsonLinesWriter
from airflow_provider_chartmogul.formats.json_text import dump_json

CUSTOMERS = get_resource("customers").main_table
ALL = ColumnSelection(CUSTOMERS)

#: Each is what ChartMogul could send: with spaces, escapes and numbers that Python would write in another form.
PAGES = [
    [b'{"uuid": "cus_1",  "mrr":1.50e2}', '{"name":"Zoë","currency-sign":"€"}'.encode()],
    [],
    [rb'{"uuid":"cus_2","name":"\u00e9\/\ud800"}'],
]


def write(path: Path, pages: list[list[bytes]], selection: ColumnSelection = ALL) -> int:
    with JsonLinesWriter(path, compressed=path.suffix == ".gz", selection=selection) as writer:
        for page in pages:
            writer.write([json.loads(raw) for raw in page], page)
    return writer.rows


def test_rows_are_written_as_the_bytes_that_came(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    assert write(path, PAGES) == 3
    assert path.read_bytes() == b"".join(raw + b"\n" for page in PAGES for raw in page)


def test_compressed_file_holds_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    assert write(path, PAGES) == 3
    assert gzip.decompress(path.read_bytes()) == b"".join(raw + b"\n" for page in PAGES for raw in page)


@pytest.mark.parametrize("library", [igzip, gzip])
def test_same_rows_give_the_same_compressed_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: ModuleType
) -> None:
    monkeypatch.setattr(gzip_files, "_gzip", library)
    write(tmp_path / "first.jsonl.gz", PAGES)
    tomorrow = time.time() + 86400
    monkeypatch.setattr(time, "time", lambda: tomorrow)
    write(tmp_path / "second.jsonl.gz", PAGES)
    content = (tmp_path / "first.jsonl.gz").read_bytes()
    assert content == (tmp_path / "second.jsonl.gz").read_bytes()
    assert gzip.decompress(content) == b"".join(raw + b"\n" for page in PAGES for raw in page)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_no_rows_make_an_empty_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    assert write(path, []) == 0
    content = path.read_bytes()
    assert (gzip.decompress(content) if path.suffix == ".gz" else content) == b""


def test_selected_columns_are_written_without_the_others(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write(path, PAGES, ColumnSelection(CUSTOMERS, exclude_columns=["mrr"]))
    first, second, third = path.read_bytes().splitlines()
    assert first == b'{"uuid":"cus_1"}'
    assert second == PAGES[0][1]
    assert third == rb'{"uuid":"cus_2","name":"\u00e9/\ud800"}', "half of a surrogate pair stays an escape sequence"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(json_values)
def test_json_text_is_one_line_that_reads_back_to_the_same_value(value: Any) -> None:
    text = dump_json(value)
    assert json.loads(text) == value
    assert not {"\n", "\r"} & set(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, 2.0, None, True]}, '{"a":[1,2.0,null,true]}'),
        ("Zoë €", '"Zoë €"'),
        ({"Zoë": "\ud800"}, r'{"Zo\u00eb":"\ud800"}'),
        ([1e999, {"a": -1e999}, [1e999 - 1e999]], '["Infinity",{"a":"-Infinity"},["NaN"]]'),
    ],
)
def test_json_text_is_compact_and_valid(value: Any, text: str) -> None:
    assert dump_json(value) == text
