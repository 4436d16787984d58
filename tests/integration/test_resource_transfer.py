# SPDX-License-Identifier: Apache-2.0
"""Transfers of resources: every row of the account arrives, once and unchanged, whatever goes wrong on the way."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow.parquet as pq
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_provider_chartmogul.api.resources import RESOURCES
from airflow_provider_chartmogul.exceptions import ChartMogulError, PaginationError
from airflow_provider_chartmogul.sandbox import Sandbox
from airflow_provider_chartmogul.transfers.chartmogul_to_object_storage import ChartMogulToObjectStorageOperator
from tests.integration.servers import Response, ScriptedServer, json_response
from tests.integration.task_runner import TaskRun, render, run_task
from tests.resource_rows import csv_text, table_rows, table_values

SNAPSHOTS = [name for name, resource in RESOURCES.items() if not resource.has_window]
PAGED = [name for name in SNAPSHOTS if RESOURCES[name].is_paged]


@pytest.fixture
def sandbox(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """An account of 250 customers without limits, so that walks have more than one page and take no time."""
    sandbox.requests_per_second = None
    connect(sandbox, monkeypatch)
    return sandbox


@pytest.fixture
def small_account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """An account of 30 customers in pages of 20, so that walks are short and have more than one page."""
    with Sandbox(customers=30, page_size=20, requests_per_second=None) as running:
        connect(running, monkeypatch)
        yield running


def connect(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {**json.loads(sandbox.connection_json), "extra": {"requests_per_second": 10_000}}
    monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", json.dumps(connection))


def transfer(resource: str, destination: object, *, try_number: int = 1, context: Any = None, **kwargs: Any) -> TaskRun:
    task = ChartMogulToObjectStorageOperator(task_id="t", resource=resource, destination=str(destination), **kwargs)
    return run_task(task, try_number=try_number, **(context or {}))


def expected(sandbox: Sandbox, resource: str, **query: str) -> list[dict[str, Any]]:
    return sandbox.rows(resource, {**RESOURCES[resource].build_query(None), **query})


def json_rows(path: Path) -> list[dict[str, Any]]:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in data.splitlines()]


# Every row arrives


@pytest.mark.parametrize("resource", SNAPSHOTS)
def test_raw_rows_are_those_of_the_account(resource: str, sandbox: Sandbox, tmp_path: Path) -> None:
    run = transfer(resource, tmp_path / "x.jsonl.gz")
    rows = expected(sandbox, resource)
    assert rows, "nothing to compare"
    assert json_rows(tmp_path / "x.jsonl.gz") == rows
    assert run.xcoms["object"]["rows"] == len(rows)


@pytest.mark.parametrize("resource", SNAPSHOTS)
def test_tables_have_the_values_of_the_account(resource: str, sandbox: Sandbox, tmp_path: Path) -> None:
    for suffix in ("parquet", "csv.gz"):
        transfer(resource, f"{tmp_path}/{{table}}.{suffix}")
    rows = expected(sandbox, resource)
    for table in RESOURCES[resource].tables:
        values = table_values(table_rows(rows, table), table)
        columns = list(table.column_types)
        parquet = pq.read_table(tmp_path / f"{table.name}.parquet")
        assert parquet.select(columns).to_pylist() == values
        assert parquet.column("_extra").null_count == len(values)
        with gzip.open(tmp_path / f"{table.name}.csv.gz", "rt", newline="") as file:
            text = list(csv.DictReader(file))
        assert [{name: row[name] for name in columns} for row in text] == [
            {name: csv_text(value) for name, value in row.items()} for row in values
        ]


@pytest.mark.parametrize("resource", SNAPSHOTS)
def test_schema_is_the_same_without_rows(resource: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Sandbox(requests_per_second=None, customers=0) as empty, Sandbox(requests_per_second=None) as full:
        schemas = []
        for sandbox in (empty, full):
            connect(sandbox, monkeypatch)
            transfer(resource, f"{tmp_path}/{{table}}.parquet")
            tables = RESOURCES[resource].tables
            schemas.append([pq.read_schema(tmp_path / f"{table.name}.parquet") for table in tables])
    assert schemas[0] == schemas[1]


@pytest.mark.parametrize("resource", PAGED)
def test_requests_are_a_page_of_200_rows_each(resource: str, sandbox: Sandbox, tmp_path: Path) -> None:
    before = len(sandbox.requests)
    transfer(resource, tmp_path / "x.jsonl")
    if RESOURCES[resource].parent is None:
        rows = len(expected(sandbox, resource))
        assert len(sandbox.requests) - before == max(1, -(-rows // 200))


# Whatever goes wrong on the way

FAULTS = [
    "{}:429;times=1;skip=1",
    "{}:503;times=1;skip=1",
    "{}:500;times=6;skip=1",
    "{}:half-json;times=1;skip=1",
    "{}:reset;times=1;skip=1",
    "{}:empty-page;times=2;skip=1",
    "{}:short-page;rows=7;times=2;skip=1",
    "{}:repeated-row;skip=1",
]


@pytest.mark.usefixtures("short_backoff")
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("resource", ["customers", "invoices", "subscription_events", "contacts", "notes"])
def test_fault_in_the_middle_of_a_walk_costs_no_row(
    resource: str, fault: str, small_account: Sandbox, tmp_path: Path
) -> None:
    with small_account.faulty(fault.format(resource)):
        transfer(resource, tmp_path / "x.jsonl")
    rows = expected(small_account, resource)
    assert len(rows) > 20, "a walk of one page"
    received = json_rows(tmp_path / "x.jsonl")
    assert sorted(map(json.dumps, received)) == sorted(map(json.dumps, rows))


def test_customer_that_moves_during_the_walk_is_there_once(sandbox: Sandbox, tmp_path: Path) -> None:
    with sandbox.faulty("customers:customer-moved;times=1"):
        for suffix in ("jsonl", "parquet"):
            transfer("customers", tmp_path / f"x.{suffix}")
    rows = expected(sandbox, "customers")
    uuids = [row["uuid"] for row in json_rows(tmp_path / "x.jsonl")]
    assert sorted(uuids) == sorted(row["uuid"] for row in rows)
    assert len(pq.read_table(tmp_path / "x.parquet")) == len(rows)


def test_stuck_cursor_ends_the_walk(sandbox: Sandbox, tmp_path: Path) -> None:
    with sandbox.faulty("customers:stuck-cursor"), pytest.raises(PaginationError, match="its cursor repeats"):
        transfer("customers", tmp_path / "x.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_new_keys_and_other_types_are_kept(sandbox: Sandbox, tmp_path: Path) -> None:
    with sandbox.faulty("subscription_events:new-key", "subscription_events:other-types"):
        transfer("subscription_events", tmp_path / "x.jsonl")
        transfer("subscription_events", tmp_path / "x.parquet")
    raw = json_rows(tmp_path / "x.jsonl")
    columns = RESOURCES["subscription_events"].main_table.columns
    new = set(raw[0]).difference(columns)
    assert new, "the fault adds a key"
    extra = [json.loads(value or "{}") for value in pq.read_table(tmp_path / "x.parquet").column("_extra").to_pylist()]
    assert [{key: row[key] for key in new} for row in raw] == [{key: row[key] for key in new} for row in extra]


def test_key_without_access_is_named(sandbox: Sandbox, tmp_path: Path) -> None:
    with sandbox.faulty("contacts:403"), pytest.raises(AirflowFailException, match="403"):
        transfer("contacts", tmp_path / "x.jsonl")


def test_notes_come_by_their_older_path(sandbox: Sandbox, tmp_path: Path) -> None:
    with sandbox.faulty("notes:404"):
        transfer("notes", tmp_path / "x.jsonl")
    assert json_rows(tmp_path / "x.jsonl") == sandbox.rows("customer_notes")


@pytest.mark.usefixtures("short_backoff")
def test_outage_longer_than_max_failure_seconds_fails_and_publishes_nothing(sandbox: Sandbox, tmp_path: Path) -> None:
    with sandbox.faulty("customers:503;skip=1"), pytest.raises(ChartMogulError, match="503"):
        transfer("customers", tmp_path / "x.jsonl", max_failure_seconds=0.2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "body", [{"customers": []}, {"entries": [], "cursor": None}, {"entries": [[]], "has_more": False}]
)
def test_response_that_is_no_page_is_an_error(
    body: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptedServer(lambda request: json_response(body)) as server:
        monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", server.connection_json())
        with pytest.raises(PaginationError, match="is not a page of customers"):
            transfer("customers", tmp_path / "x.jsonl")


# What the task reports


def test_metadata_of_several_tables(sandbox: Sandbox, tmp_path: Path) -> None:
    run = transfer("invoices", f"{tmp_path}/{{resource}}/{{table}}.parquet", query_params={"with_disabled": None})
    objects = run.xcoms["objects"]
    assert list(objects) == ["invoices", "invoice_line_items", "invoice_transactions"]
    assert run.value == objects["invoices"]["uri"] == f"file://{tmp_path}/invoices/invoices.parquet"
    assert run.xcoms["object"] == objects["invoices"]
    metadata = objects["invoice_line_items"]
    assert (metadata["resource"], metadata["table"]) == ("invoices", "invoice_line_items")
    assert metadata["query_params"] == {"with_disabled": None}
    assert metadata["extracted_at"]
    assert metadata["columns"][-2:] == ["_extra", "_extracted_at"]
    assert metadata["rows"] == len(pq.read_table(tmp_path / "invoices" / "invoice_line_items.parquet"))


def test_extracted_at_names_the_object(sandbox: Sandbox, tmp_path: Path) -> None:
    run = transfer("plans", f"{tmp_path}/{{table}}/{{extracted_at:%Y}}/{{extracted_at}}.jsonl")
    extracted_at = datetime.fromisoformat(run.xcoms["object"]["extracted_at"])
    assert run.value == f"file://{tmp_path}/plans/{extracted_at:%Y}/{extracted_at:%Y%m%dT%H%M%SZ}.jsonl"


@pytest.mark.parametrize("if_exists", ["reuse", "skip", "fail"])
def test_existing_object_ends_the_task_before_a_request(if_exists: str, sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "plans.parquet").write_bytes(b"there")
    before = len(sandbox.requests)
    destination = f"{tmp_path}/{{table}}.parquet"
    if if_exists == "reuse":
        run = transfer("plans", destination, if_exists=if_exists)
        assert run.xcoms["object"]["bytes"] == 5
        assert run.xcoms["object"]["extracted_at"] is None
        assert run.xcoms["object"]["modified_at"]
    else:
        with pytest.raises(
            AirflowSkipException if if_exists == "skip" else AirflowFailException, match="already exists"
        ):
            transfer("plans", destination, if_exists=if_exists)
    assert len(sandbox.requests) == before
    assert (tmp_path / "plans.parquet").read_bytes() == b"there"


def test_existing_object_fails_a_retry_too_before_any_table_is_replaced(sandbox: Sandbox, tmp_path: Path) -> None:
    for table in RESOURCES["invoices"].tables:
        (tmp_path / f"{table.name}.parquet").write_bytes(b"there")
    with pytest.raises(AirflowFailException, match="nothing was written"):
        transfer("invoices", f"{tmp_path}/{{table}}.parquet", if_exists="fail", try_number=2)
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {b"there"}


def test_iterator_of_columns_counts_for_every_table(sandbox: Sandbox, tmp_path: Path) -> None:
    transfer("invoices", f"{tmp_path}/{{table}}.csv", exclude_columns=iter(["description"]))
    header = (tmp_path / "invoice_line_items.csv").read_text().splitlines()[0]
    assert "description" not in header.split(",")


def test_columns_that_must_not_leave_chartmogul(sandbox: Sandbox, tmp_path: Path) -> None:
    excluded = ["name", "email"]
    transfer("customers", tmp_path / "x.jsonl", exclude_columns=excluded)
    transfer("customers", tmp_path / "x.parquet", exclude_columns=excluded)
    transfer("customers", tmp_path / "y.parquet", columns=["mrr"])
    rows = expected(sandbox, "customers")
    assert json_rows(tmp_path / "x.jsonl") == [
        {key: value for key, value in row.items() if key not in excluded} for row in rows
    ]
    assert not set(excluded).intersection(pq.read_schema(tmp_path / "x.parquet").names)
    assert pq.read_table(tmp_path / "y.parquet").column("mrr").to_pylist() == [row["mrr"] for row in rows]


# Bad input


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"resource": "activities"}, "use ActivitiesToObjectStorageOperator"),
        ({"resource": "customer"}, "there is no resource 'customer'; there are account"),
        ({"resource": "customers", "interval_start": "2024-01-01"}, "no window: remove interval_start"),
        ({"resource": "customers", "lookback": "P1D"}, "no window: remove lookback"),
        ({"resource": "customers", "metrics_timezone": "Europe/Berlin"}, "no window: remove metrics_timezone"),
    ],
)
def test_literal_that_makes_no_sense_is_refused_at_parse(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ChartMogulToObjectStorageOperator(task_id="t", destination="s3://b/x.jsonl", **kwargs)


def test_unknown_resource_of_a_mapped_task_is_refused_at_parse() -> None:
    with pytest.raises(ValueError, match="there is no resource 'nope'"):
        ChartMogulToObjectStorageOperator.partial(task_id="t", resource="nope")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"query_params": {"stauts": "Active"}}, "customers has no query parameter 'stauts'; it has data_source_uuid"),
        ({"query_params": {"cursor": "x"}}, "customers has no query parameter 'cursor'"),
        ({"destination": "s3://b/{interval_start}.jsonl"}, r"use \{extracted_at\} in the destination"),
        ({"destination": "s3://b/{activity_type}.jsonl"}, "unknown placeholder"),
        ({"destination": "s3://b/x.zip"}, "has none of the suffixes .jsonl"),
        ({"destination": "s3://b/x.jsonl", "output_format": "csv"}, "says jsonl and output_format says csv"),
        ({"resource": "invoices", "destination": "s3://b/x.parquet"}, r"put \{table\} into the destination"),
        ({"resource": "invoices", "destination": "s3://b/{table:.7}.csv"}, "gives several tables of invoices the"),
        ({"exclude_columns": ["phone"]}, "customers has no column 'phone'"),
        ({"exclude_columns": ["uuid"]}, "identifies a row"),
        ({"destination": "s3://b/x.parquet", "column_types": {"phone": "int64"}}, "phone"),
        ({"column_types": {"mrr": "int64"}}, "have no meaning for jsonl"),
        ({"partition_length": "P1D"}, "no window: remove partition_length"),
    ],
)
def test_bad_input_fails_before_any_request(kwargs: dict[str, Any], message: str, sandbox: Sandbox) -> None:
    task = ChartMogulToObjectStorageOperator(task_id="t", resource="customers", destination="s3://b/x.jsonl")
    before = len(sandbox.requests)
    with pytest.raises(AirflowFailException, match=message):
        run_task(render(task, **kwargs))
    assert len(sandbox.requests) == before


@pytest.mark.parametrize("status", [401, 402, 403])
def test_refused_request_shows_chartmogul_s_message(
    status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = json.dumps({"code": status, "message": "not on this plan", "param": None}).encode()
    with ScriptedServer(lambda request: Response(status, body)) as server:
        monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", server.connection_json())
        with pytest.raises((AirflowFailException, ChartMogulError), match=f"{status}: not on this plan"):
            transfer("tasks", tmp_path / "x.jsonl")


def test_snapshot_in_a_backfill_is_refused_unless_allowed(sandbox: Sandbox, tmp_path: Path) -> None:
    backfill = {"dag_run": SimpleNamespace(run_type="backfill")}
    with pytest.raises(AirflowFailException, match=r"a DAG of their own, .* set allow_backfill=True"):
        transfer("plans", tmp_path / "x.jsonl", context=backfill)
    transfer("plans", tmp_path / "x.jsonl", context=backfill, allow_backfill=True)
    assert (tmp_path / "x.jsonl").exists()


# Metrics


def window(start: str, end: str) -> dict[str, Any]:
    return {"interval_start": start, "interval_end": end}


@pytest.mark.parametrize(
    ("interval", "zone", "start", "end", "dates"),
    [
        ("day", "UTC", "2024-01-30", "2024-02-02", ["2024-01-30", "2024-01-31", "2024-02-01"]),
        ("day", "Europe/Berlin", "2024-03-30T23:00Z", "2024-04-01T22:00Z", ["2024-03-31", "2024-04-01"]),
        ("day", "Europe/Berlin", "2024-10-26T22:00Z", "2024-10-28T23:00Z", ["2024-10-27", "2024-10-28"]),
        ("week", "UTC", "2024-01-07", "2024-01-21", ["2024-01-13", "2024-01-20"]),
        # Berlin's clocks change on 2024-03-31 and 2024-10-27.
        ("week", "Europe/Berlin", "2024-03-23T23:00Z", "2024-04-06T22:00Z", ["2024-03-30", "2024-04-06"]),
        ("week", "Europe/Berlin", "2024-10-19T22:00Z", "2024-11-02T23:00Z", ["2024-10-26", "2024-11-02"]),
        ("month", "UTC", "2024-01-01", "2024-03-01", ["2024-01-31", "2024-02-29"]),
        ("month", "Europe/Berlin", "2024-02-29T23:00Z", "2024-04-30T22:00Z", ["2024-03-31", "2024-04-30"]),
        ("month", "Europe/Berlin", "2024-09-30T22:00Z", "2024-11-30T23:00Z", ["2024-10-31", "2024-11-30"]),
    ],
)
def test_metrics_have_each_period_once(
    interval: str, zone: str, start: str, end: str, dates: list[str], sandbox: Sandbox, tmp_path: Path
) -> None:
    kwargs = {"query_params": {"interval": interval}, "metrics_timezone": zone, **window(start, end)}
    run = transfer("metrics", tmp_path / "{interval_start:%Y}.parquet", **kwargs)
    table = pq.read_table(tmp_path / f"{start[:4]}.parquet")
    assert [str(value) for value in table.column("date").to_pylist()] == dates
    assert run.xcoms["object"]["interval_start"].startswith(start[:10])


@pytest.mark.parametrize(("month", "day"), [(4, 2), (10, 30)])
def test_lookback_of_metrics_is_whole_days_where_clocks_change(
    month: int, day: int, sandbox: Sandbox, tmp_path: Path
) -> None:
    """The run's own day and the lookback of a week have different offsets from UTC."""
    berlin = ZoneInfo("Europe/Berlin")
    start = datetime(2024, month, day, tzinfo=berlin)
    interval = {"data_interval_start": start, "data_interval_end": datetime(2024, month, day + 1, tzinfo=berlin)}
    kwargs = {"lookback": timedelta(days=7), "metrics_timezone": "Europe/Berlin", "context": interval}
    run = transfer("metrics", tmp_path / "metrics.parquet", **kwargs)
    dates = pq.read_table(tmp_path / "metrics.parquet").column("date").to_pylist()
    assert dates == [start.date() - timedelta(days=number) for number in range(7, -1, -1)]
    first = datetime.fromisoformat(run.xcoms["object"]["interval_start"]).astimezone(berlin)
    assert first.replace(tzinfo=None) == datetime.combine(dates[0], datetime.min.time())


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (window("2024-01-01T12:00", "2024-01-03"), "interval_start is 2024-01-01T12:00:00.*not the start of a day"),
        (window("2024-01-01", "2024-01-03T01:00"), "interval_end is 2024-01-03T01:00:00"),
        (
            {**window("2024-01-02", "2024-02-01"), "query_params": {"interval": "month"}},
            "interval_start is Tuesday, 2024-01-02",
        ),
        ({**window("2024-01-01", "2024-02-01"), "query_params": {"interval": "hour"}}, "interval cannot be 'hour'"),
        ({"interval_start": None, "interval_end": "2024-02-01"}, "need both ends"),
        ({**window("2024-01-01", "2024-02-01"), "metrics_timezone": "Mars"}, "metrics_timezone"),
    ],
)
def test_window_that_is_no_whole_period_is_an_error(kwargs: dict[str, Any], message: str, sandbox: Sandbox) -> None:
    before = len(sandbox.requests)
    with pytest.raises(AirflowFailException, match=message):
        transfer("metrics", "file:///tmp/x.parquet", **kwargs)
    assert len(sandbox.requests) == before


def test_weeks_start_as_the_account_says(sandbox: Sandbox) -> None:
    kwargs = {**window("2024-01-01", "2024-01-15"), "query_params": {"interval": "week"}}
    with pytest.raises(AirflowFailException, match=r"interval_start is Monday, 2024-01-01.*weeks start on sunday"):
        transfer("metrics", "file:///tmp/x.parquet", **kwargs)
