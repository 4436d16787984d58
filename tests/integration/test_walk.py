# SPDX-License-Identifier: Apache-2.0
"""Walks over real sockets: whatever goes wrong in the middle, no row is lost, doubled or changed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import requests

from airflow_provider_chartmogul.api import retries
from airflow_provider_chartmogul.api.resources import RESOURCES
from airflow_provider_chartmogul.exceptions import (
    ChartMogulError,
    InvalidRequestError,
    NotFoundError,
    PaginationError,
    PermissionDeniedError,
    RequestFailedError,
    ServerError,
)
from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook
from airflow_provider_chartmogul.sandbox import Sandbox

Row = dict[str, Any]

PAGED = [name for name, resource in RESOURCES.items() if resource.is_paged]
#: All but customers' subscriptions, whose cursors are of another kind.
WITH_KEYSETS = [name for name in PAGED if name != "subscriptions"]
SNAPSHOTS = [name for name, resource in RESOURCES.items() if not resource.has_window]


@pytest.fixture(scope="module")
def account() -> Iterator[Sandbox]:
    """A small account whose pages have three rows, so that every resource has several pages."""
    as_of = datetime(2024, 7, 1, tzinfo=UTC)
    with Sandbox(customers=10, as_of=as_of, page_size=3, requests_per_second=None, max_connections=None) as running:
        yield running


@pytest.fixture
def sandbox(account: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    extra = {"requests_per_second": 10_000, "max_connections": 8}
    connection = {**json.loads(account.connection_json), "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", json.dumps(connection))
    monkeypatch.setattr(retries, "_MAX_BACKOFF_SECONDS", 0.005)
    return account


def walk(resource: str, *, retry_seconds: float = 60.0) -> list[Row]:
    """Return the rows of a walk, after checking that their bytes say the same."""
    entry = RESOURCES[resource]
    rows: list[Row] = []
    with ChartMogulHook() as hook:
        for page in hook.client.iter_pages(
            entry, entry.build_query(None), include_raw_rows=True, retry_seconds=retry_seconds
        ):
            assert [json.loads(raw) for raw in page.raw_rows] == page.rows
            rows += page.rows
    return rows


def expected(sandbox: Sandbox, resource: str) -> list[Row]:
    return sandbox.rows(resource, RESOURCES[resource].build_query(None))


def walk_by_hand(sandbox: Sandbox, resource: str) -> list[Row]:
    """Return what the sandbox sends, by another way than the package's."""
    entry = RESOURCES[resource]
    parents = [""]
    if entry.parent is not None:
        parents = [row["uuid"] for row in expected(sandbox, entry.parent)]
    rows: list[Row] = []
    for parent in parents:
        query = entry.build_query(None)
        while True:
            url = f"{sandbox.url}/v1{entry.path.replace('{uuid}', parent)}"
            body = requests.get(url, params=query, auth=(sandbox.api_key, ""), timeout=60).json()
            rows += [{entry.parent_key: parent, **row} if parent else row for row in body[entry.rows_key or ""]]
            if not body["has_more"]:
                break
            query["cursor"] = body["cursor"]
    return rows


@pytest.mark.parametrize("resource", SNAPSHOTS)
def test_walk_returns_all_rows(resource: str, sandbox: Sandbox) -> None:
    assert walk(resource) == expected(sandbox, resource)


@pytest.mark.parametrize("resource", PAGED)
@pytest.mark.parametrize(
    "fault",
    [
        *(f"{status};times=1" for status in (408, 429, 503, 500)),
        "500;times=6",
        "html;times=1",
        "half-json;times=1",
        "interrupt;at=40;times=1",
        "reset;times=1",
        "reset;when=after;times=6",
    ],
)
def test_failed_request_in_the_middle_costs_no_row(resource: str, fault: str, sandbox: Sandbox) -> None:
    with sandbox.faulty(f"{resource}:{fault};skip=1") as (added,):
        assert walk(resource) == expected(sandbox, resource)
    assert added.hits


@pytest.mark.parametrize("resource", WITH_KEYSETS)
@pytest.mark.parametrize(
    "fault",
    [
        "empty-page;times=1",
        "empty-page;times=1;skip=1",
        "empty-page;times=9;skip=1",
        "short-page;rows=2;times=1;skip=1",
        "short-page;rows=1",
    ],
)
def test_empty_and_short_pages_cost_no_row(resource: str, fault: str, sandbox: Sandbox) -> None:
    with sandbox.faulty(f"{resource}:{fault}") as (added,):
        assert walk(resource) == expected(sandbox, resource)
    assert added.hits


@pytest.mark.parametrize("resource", WITH_KEYSETS)
def test_repeated_row_comes_twice_and_unchanged(resource: str, sandbox: Sandbox) -> None:
    """It stays for the one who knows which is the last: the operator drops the first one."""
    with sandbox.faulty(f"{resource}:repeated-row"):
        rows = walk(resource)
    counted = Counter(json.dumps(row) for row in rows)
    assert list(counted) == [json.dumps(row) for row in expected(sandbox, resource)]
    assert set(counted.values()) == {1, 2}


@pytest.mark.parametrize("resource", PAGED)
def test_no_request_follows_the_last_page(resource: str, sandbox: Sandbox) -> None:
    """Every last page has a cursor; behind it there are empty pages, for subscriptions with one more cursor each."""
    seen = len(sandbox.requests)
    walk(resource)
    cursors = [request.query.get("cursor") for request in sandbox.requests[seen:]]
    path = f"{sandbox.url}/v1{RESOURCES[resource].path}"
    if RESOURCES[resource].parent is None:
        last = requests.get(
            path, params={"cursor": cursors[-1], "with_disabled": "true"}, auth=(sandbox.api_key, ""), timeout=60
        ).json()
        assert last["cursor"], "there is something behind it"
        assert last["cursor"] not in cursors
        assert len(cursors) == -(-len(expected(sandbox, resource)) // 3)
    else:
        parents = [row["uuid"] for row in expected(sandbox, str(RESOURCES[resource].parent))]
        rows = Counter(row[RESOURCES[resource].parent_key] for row in expected(sandbox, resource))
        assert len(cursors) == -(-len(parents) // 3) + sum(max(1, -(-rows[parent] // 3)) for parent in parents)


@pytest.mark.parametrize("resource", WITH_KEYSETS)
@pytest.mark.parametrize("skip", [0, 1])
def test_stuck_cursor_ends_the_walk(resource: str, skip: int, sandbox: Sandbox) -> None:
    with (
        sandbox.faulty(f"{resource}:stuck-cursor;skip={skip}") as (added,),
        pytest.raises(PaginationError, match=r"repeats an earlier one|has no cursor: the walk would never end"),
    ):
        walk(resource)
    if RESOURCES[resource].parent is None:
        assert added.hits == 2 - skip


@pytest.mark.parametrize("resource", WITH_KEYSETS)
def test_endless_empty_pages_end_the_walk(resource: str, sandbox: Sandbox) -> None:
    with sandbox.faulty(f"{resource}:empty-page;skip=1"), pytest.raises(PaginationError, match="pages were empty"):
        walk(resource)


@pytest.mark.parametrize("resource", PAGED)
@pytest.mark.parametrize("fault", ["new-key;skip=1", "new-key;p=0.5;seed=3", "other-types;skip=1", "blank-amounts"])
def test_new_keys_and_other_types_arrive_as_they_are(resource: str, fault: str, sandbox: Sandbox) -> None:
    # A fault that hits by chance would hit others in the second walk.
    steady = fault.partition(";")[0]
    with sandbox.faulty(f"{resource}:{steady}"):
        assert walk(resource) == walk_by_hand(sandbox, resource)
    with sandbox.faulty(f"{resource}:{fault}"):
        rows = walk(resource)
    before = expected(sandbox, resource)
    assert len(rows) == len(before)
    key = RESOURCES[resource].main_table.primary_key
    assert [[row[name] for name in key] for row in rows] == [[row[name] for name in key] for row in before]


@pytest.mark.parametrize("resource", SNAPSHOTS)
@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, InvalidRequestError),
        (402, RequestFailedError),
        (403, PermissionDeniedError),
        (404, NotFoundError),
        (422, InvalidRequestError),
    ],
)
def test_refusal_ends_the_walk_with_chartmoguls_words(
    resource: str, status: int, error: type[ChartMogulError], sandbox: Sandbox
) -> None:
    faults = [f"{resource}:{status}"]
    if resource == "notes":
        faults.append(f"customer_notes:{status}")
    with sandbox.faulty(*faults), pytest.raises(error, match=f"ChartMogul responded with {status}: "):
        walk(resource)


@pytest.mark.parametrize("resource", PAGED)
def test_outage_that_outlasts_the_retries_ends_the_walk(resource: str, sandbox: Sandbox) -> None:
    with sandbox.faulty(f"{resource}:503;skip=1"), pytest.raises(ServerError, match="503"):
        walk(resource, retry_seconds=0.05)


def test_notes_come_by_their_older_path(sandbox: Sandbox) -> None:
    with sandbox.faulty("notes:404"):
        assert walk("notes") == sandbox.rows("customer_notes")


@pytest.mark.parametrize("resource", [name for name in WITH_KEYSETS if RESOURCES[name].parent is None])
def test_rows_that_are_created_and_deleted_during_the_walk(resource: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row that is there all the time comes once."""
    with Sandbox(customers=10, page_size=3, requests_per_second=None) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", sandbox.connection_uri + "?requests_per_second=10000")
        before = expected(sandbox, resource)
        with sandbox.faulty(f"{resource}:row-created;times=1", f"{resource}:row-deleted;times=1"):
            rows = walk(resource)
        after = expected(sandbox, resource)
    stayed = [row for row in before if row in after]
    assert len(stayed) == len(before) - 1
    assert [row for row in rows if row in before] == stayed
