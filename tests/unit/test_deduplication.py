# SPDX-License-Identifier: Apache-2.0
"""Rows that came twice: the last ones stay, and all other rows are left as they are."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_chartmogul.api.resources import Table, get_resource
from airflow_provider_chartmogul.formats.column_selection import ColumnSelection
from airflow_provider_chartmogul.formats.deduplication import keep_last_rows
from airflow_provider_chartmogul.formats.json_lines import JsonLinesWriter
from airflow_provider_chartmogul.formats.tables import TableWriter

CUSTOMERS = get_resource("customers").main_table
EVENTS = get_resource("subscription_events").main_table
LINE_ITEMS = get_resource("invoices").tables[1]
PLAN_GROUP_PLANS = get_resource("plan_group_plans").main_table

FORMATS = ["jsonl", "jsonl.gz", "parquet", "csv", "csv.gz"]

Row = dict[str, Any]


def write(path: Path, rows: list[Row], table: Table = CUSTOMERS, page_size: int = 200) -> None:
    """Write rows in the format that the file's name ends with."""
    output_format = path.name.partition(".")[2]
    selection = ColumnSelection(table)
    writer: JsonLinesWriter | TableWriter
    if output_format.startswith("jsonl"):
        writer = JsonLinesWriter(path, compressed=output_format == "jsonl.gz", selection=selection)
    else:
        extracted_at = datetime(2026, 3, 1, tzinfo=UTC)
        writer = TableWriter(
            path, output_format=output_format, table=table, extracted_at=extracted_at, selection=selection
        )
    with writer:
        for start in range(0, len(rows), page_size):
            page = rows[start : start + page_size]
            writer.write(page, [json.dumps(row).encode() for row in page])


def content(path: Path) -> Any:
    """What a file holds: the text, or a Parquet file's schema and rows."""
    if path.suffix == ".parquet":
        return pq.read_schema(path), pq.read_table(path).to_pylist()
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def check(
    folder: Path,
    output_format: str,
    rows: list[Row],
    kept: list[Row],
    counts: Any,
    table: Table = CUSTOMERS,
    key: tuple[str, ...] | None = None,
) -> None:
    """Check that a file with these rows is the file of the rows to keep afterwards."""
    path, expected = folder / f"rows.{output_format}", folder / f"expected.{output_format}"
    write(path, rows, table)
    write(expected, kept, table)
    assert keep_last_rows(path, output_format, key or table.primary_key, counts) == len(kept)
    assert content(path) == content(expected)
    assert {path, expected} == set(folder.iterdir())


@pytest.mark.parametrize("output_format", FORMATS)
def test_last_row_of_a_key_stays(tmp_path: Path, output_format: str) -> None:
    rows = [{"uuid": f"cus_{number % 5}", "mrr": number, "new": number} for number in range(20)]
    kept = [row for row in rows if row["uuid"] in ("cus_0", "cus_2", "cus_4") or row["mrr"] >= 15]
    check(tmp_path, output_format, rows, kept, {("cus_1",): 1, ("cus_3",): 1})


@pytest.mark.parametrize("output_format", ["parquet", "csv", "csv.gz"])
def test_last_nested_rows_of_a_parent_stay(tmp_path: Path, output_format: str) -> None:
    rows = [
        {"invoice_uuid": invoice, "uuid": uuid, "type": "subscription"}
        for invoice, uuid in [("a", "1"), ("a", "2"), ("b", "3"), ("c", "4"), ("a", "2"), ("a", "5"), ("c", "6")]
    ]
    counts = {("a",): 2, ("b",): 0, ("c",): 5}
    check(tmp_path, output_format, rows, [rows[3], *rows[4:]], counts, LINE_ITEMS, key=("invoice_uuid",))


@pytest.mark.parametrize("output_format", FORMATS)
def test_key_of_several_columns(tmp_path: Path, output_format: str) -> None:
    rows = [
        {"uuid": uuid, "plan_group_uuid": group, "name": name}
        for group, uuid, name in [("g", "p", "1"), ("g", "q", "2"), ("h", "p", "3"), ("g", "p", "4")]
    ]
    check(tmp_path, output_format, rows, rows[1:], {("g", "p"): 1}, PLAN_GROUP_PLANS)


@pytest.mark.parametrize("output_format", FORMATS)
@pytest.mark.parametrize("value", [7, "7"])
def test_identifier_and_its_text_are_the_same_key(tmp_path: Path, output_format: str, value: Any) -> None:
    rows = [{"id": 7, "event_type": "a"}, {"id": 77}, {"id": "7", "event_type": "b"}]
    check(tmp_path, output_format, rows, rows[1:], {(value,): 1}, EVENTS)


@pytest.mark.parametrize("output_format", FORMATS)
@pytest.mark.parametrize("value", ['ev,"1"\n', 2**70, "\ud800", 1.5, -(10.0**20)])
def test_last_row_stays_if_the_identifier_does_not_fit_its_column(
    tmp_path: Path, output_format: str, value: Any
) -> None:
    rows = [
        {"id": value, "event_type": "a", "external_id": 'a,"b"\n', "new": 1},
        {"id": None, "event_type": "none"},
        {"id": "another", "event_type": "other"},
        {"id": value, "event_type": "b"},
    ]
    check(tmp_path, output_format, rows, rows[1:], {(value,): 1}, EVENTS)


@pytest.mark.parametrize("output_format", FORMATS)
def test_key_of_several_columns_of_which_one_does_not_fit(tmp_path: Path, output_format: str) -> None:
    rows = [
        {"uuid": uuid, "plan_group_uuid": "g", "name": name}
        for uuid, name in [(True, "1"), ("q", "2"), (None, "3"), (True, "4")]
    ]
    check(tmp_path, output_format, rows, rows[1:], {("g", True): 1}, PLAN_GROUP_PLANS)


@pytest.mark.parametrize("output_format", FORMATS)
def test_rows_with_quotes_and_line_ends_stay_as_they_are(tmp_path: Path, output_format: str) -> None:
    texts = ['a"b', 'line\nline "\r\n\n', '","', "", '""', "x" * 200_000, "\n" * 500, "é\u2028\x85\x0c"]
    rows: list[Row] = [{"uuid": f"{text}{number}", "name": text} for number, text in enumerate(texts)]
    changed = [{**row, "mrr": 1} for row in rows[:3]]
    counts = {(row["uuid"],): 1 for row in changed}
    check(tmp_path, output_format, [*rows, *changed], [*rows[3:], *changed], counts)


@pytest.mark.parametrize("output_format", FORMATS)
def test_without_rows_to_remove_the_file_stays(tmp_path: Path, output_format: str) -> None:
    for rows in ([], [{"uuid": "a"}, {"uuid": None}, {}]):
        path = tmp_path / f"rows.{output_format}"
        write(path, rows)
        before = path.read_bytes()
        assert keep_last_rows(path, output_format, ("uuid",), {("a",): 1, ("b",): 1}) == len(rows)
        assert path.read_bytes() == before


def test_rows_of_several_row_groups(tmp_path: Path) -> None:
    rows = [{"uuid": f"cus_{number % 15_000}", "mrr": number} for number in range(30_000)]
    repeated = {f"cus_{number}" for number in range(0, 10_000, 2)}
    kept = [row for number, row in enumerate(rows) if number >= 15_000 or row["uuid"] not in repeated]
    check(tmp_path, "parquet", rows, kept, {(uuid,): 1 for uuid in repeated})


keys = st.text(st.sampled_from('ab",\n\r'), max_size=3)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(FORMATS), st.lists(keys, max_size=12), st.dictionaries(keys, st.integers(0, 3)))
def test_last_rows_stay_whatever_the_keys_are(output_format: str, uuids: list[str], counts: dict[str, int]) -> None:
    rows = [{"uuid": uuid, "mrr": number} for number, uuid in enumerate(uuids)]
    left = Counter(uuids)
    kept = []
    for row in rows:
        if left[row["uuid"]] <= counts.get(str(row["uuid"]), len(rows)):
            kept.append(row)
        left[row["uuid"]] -= 1
    with TemporaryDirectory() as folder:
        check(Path(folder), output_format, rows, kept, {(uuid,): count for uuid, count in counts.items()})
