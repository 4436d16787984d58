# SPDX-License-Identifier: Apache-2.0
"""The local files of a resource: each row once, nested rows in their own table, and no value lost."""

from __future__ import annotations

import csv
import gzip
import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from airflow_provider_chartmogul.api.pagination import Page
from airflow_provider_chartmogul.api.resources import get_resource
from airflow_provider_chartmogul.sources.row_files import FORMATS, ResourceOutput, RowFiles

Row = dict[str, Any]


def write(folder: Path, resource: str, output_format: str, pages: list[list[Row]]) -> dict[str, list[Row]]:
    """Write pages, and return the rows of each file; those of a table without the columns that are empty."""
    output = ResourceOutput(get_resource(resource), output_format)
    files = RowFiles(folder, output, datetime(2026, 3, 1, tzinfo=UTC))
    with files.open():
        for rows in pages:
            raw_rows = [json.dumps(row).encode() for row in rows] if output.needs_raw_rows else []
            files.write(Page(rows, raw_rows))
    written = {name: (file.path, file.rows) for name, file in files.finish(logging.getLogger("test")).items()}
    rows_by_table = {name: read(path, output_format) for name, (path, _) in written.items()}
    assert {name: len(rows) for name, rows in rows_by_table.items()} == {
        name: rows for name, (_, rows) in written.items()
    }
    return rows_by_table


def read(path: Path, output_format: str) -> list[Row]:
    if output_format == "parquet":
        rows = pq.read_table(path).to_pylist()
    else:
        text = (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode()
        if output_format.startswith("jsonl"):
            return [json.loads(line) for line in text.splitlines()]
        rows = list(csv.DictReader(text.splitlines()))
    return [
        {name: row[name] for name in row if row[name] not in (None, "") and name != "_extracted_at"} for row in rows
    ]


@pytest.mark.parametrize("output_format", FORMATS.values())
@pytest.mark.parametrize("identifier", ["evt_1", 2**64, 1.5])
def test_row_is_kept_once_if_its_identifier_does_not_fit_its_column(
    output_format: str, identifier: Any, tmp_path: Path
) -> None:
    pages = [
        [{"id": identifier, "event_type": "old"}, {"id": 1, "event_type": "one"}],
        [{"id": identifier, "event_type": "new"}, {"id": "evt_2", "event_type": "two"}],
    ]
    rows = write(tmp_path, "subscription_events", output_format, pages)["subscription_events"]
    assert [row["event_type"] for row in rows] == ["one", "new", "two"]
    if not output_format.startswith("jsonl"):
        assert json.loads(rows[1]["_extra"]) == {"id": identifier}


def test_all_of_the_nested_rows_are_those_of_the_last_row(tmp_path: Path) -> None:
    pages = [
        [{"uuid": "a", "line_items": [{"uuid": "1"}, {"uuid": "2"}], "transactions": []}],
        [{"uuid": "b", "line_items": [{"uuid": "3", "invoice_uuid": "b"}], "transactions": {"uuid": "t"}}],
        [{"uuid": "a", "line_items": [{"uuid": "4"}]}],
    ]
    rows = write(tmp_path, "invoices", "parquet", pages)
    assert rows == {
        "invoices": [{"uuid": "b"}, {"uuid": "a"}],
        "invoice_line_items": [{"invoice_uuid": "b", "uuid": "3"}, {"invoice_uuid": "a", "uuid": "4"}],
        "invoice_transactions": [{"invoice_uuid": "b", "uuid": "t"}],
    }


def test_nested_values_that_are_not_rows_stay_with_their_row(tmp_path: Path) -> None:
    pages = [
        [
            {"uuid": "a", "line_items": ["seat", {"uuid": "1"}], "transactions": None},
            {"uuid": "b", "line_items": "none", "transactions": ""},
        ]
    ]
    rows = write(tmp_path, "invoices", "parquet", pages)
    assert rows["invoice_line_items"] == [{"invoice_uuid": "a", "uuid": "1"}]
    assert [json.loads(row["_extra"]) for row in rows["invoices"]] == [
        {"line_items": ["seat", {"uuid": "1"}]},
        {"line_items": "none"},
    ]


def test_page_without_raw_rows_is_refused(tmp_path: Path) -> None:
    files = RowFiles(tmp_path, ResourceOutput(get_resource("plans"), "jsonl"), datetime(2026, 3, 1, tzinfo=UTC))
    with pytest.raises(ValueError, match="1 rows, but 0 raw rows"), files.open():
        files.write(Page([{"uuid": "a"}], []))
