# SPDX-License-Identifier: Apache-2.0
"""``ChartMogulHook.iter_rows``, and the walk over the subscriptions of all customers, within the account's limits."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby, islice
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import task

from airflow_provider_chartmogul.api import retries
from airflow_provider_chartmogul.api.resources import RESOURCES
from airflow_provider_chartmogul.client.sync_client import SyncClient
from airflow_provider_chartmogul.exceptions import (
    AuthenticationError,
    ChartMogulError,
    InvalidResourceError,
    NotFoundError,
    RateLimitError,
    ServerError,
    TaskCancelledError,
)
from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook
from airflow_provider_chartmogul.runtime.cancellation import Cancellation
from airflow_provider_chartmogul.sandbox import Sandbox
from airflow_provider_chartmogul.sandbox.active_faults import AddedFault
from tests.integration.servers import RecordedRequest, Response, ScriptedServer, json_response

Row = dict[str, Any]

SNAPSHOTS = [name for name, resource in RESOURCES.items() if not resource.has_window]
SUBSCRIPTIONS = RESOURCES["subscriptions"]


def connect(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, *, requests_per_second: float = 10_000, max_connections: int = 20
) -> None:
    extra = {"requests_per_second": requests_per_second, "max_connections": max_connections}
    connection = {**json.loads(sandbox.connection_json), "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", json.dumps(connection))


def expected(sandbox: Sandbox, resource: str, **query_params: Any) -> list[Row]:
    return sandbox.rows(resource, RESOURCES[resource].build_query(query_params))


def open_client() -> SyncClient:
    """Return a client whose log a test can read."""
    return SyncClient(lambda refused: ChartMogulHook().settings, log=logging.getLogger(__name__))


@pytest.fixture(autouse=True)
def _short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the delays between retries."""
    monkeypatch.setattr(retries, "_MAX_BACKOFF_SECONDS", 0.05)


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """An account without limits whose pages have 20 rows."""
    with Sandbox(customers=60, page_size=20, requests_per_second=None, max_connections=None) as running:
        connect(running, monkeypatch)
        yield running


# Rows of any resource


@pytest.mark.parametrize("resource", SNAPSHOTS)
def test_rows_are_those_of_the_account(resource: str, sandbox: Sandbox) -> None:
    with ChartMogulHook() as hook:
        rows = list(hook.iter_rows(resource))
    assert rows == expected(sandbox, resource)
    assert rows, "there is nothing to compare"


def test_rows_in_a_task(sandbox: Sandbox) -> None:
    @task
    def count_by_status() -> dict[str, int]:
        with ChartMogulHook() as hook:
            return Counter(row["status"] for row in hook.iter_rows("customers"))

    assert count_by_status.function() == Counter(row["status"] for row in expected(sandbox, "customers"))


def test_query_params_filter_rows(sandbox: Sandbox) -> None:
    with ChartMogulHook() as hook:
        active = list(hook.iter_rows("customers", query_params={"status": "Active"}))
        enabled = list(hook.iter_rows("invoices", query_params={"with_disabled": None}))
    assert active == expected(sandbox, "customers", status="Active")
    assert {row["status"] for row in active} == {"Active"}
    assert enabled == expected(sandbox, "invoices", with_disabled=None) != expected(sandbox, "invoices")


def test_pages_are_read_while_rows_are_used(sandbox: Sandbox) -> None:
    with ChartMogulHook() as hook:
        rows = hook.iter_rows("invoices")
        assert sandbox.requests == []
        assert list(islice(rows, 21)) == expected(sandbox, "invoices")[:21]
        assert len(sandbox.requests) == 2


def test_customer_that_moves_during_the_walk_comes_twice(sandbox: Sandbox) -> None:
    with sandbox.faulty("customers:customer-moved;times=1"), ChartMogulHook() as hook:
        counted = Counter(row["uuid"] for row in hook.iter_rows("customers"))
    assert set(counted) == {row["uuid"] for row in expected(sandbox, "customers")}
    assert sorted(counted.values())[-2:] == [1, 2]


@pytest.mark.parametrize(
    ("resource", "query_params", "message"),
    [
        ("activities", None, "use ActivitiesToObjectStorageOperator"),
        ("metrics", None, "metrics need a window, .* use ChartMogulToObjectStorageOperator"),
        ("customer", None, "there is no resource 'customer'; there are account, data_sources, customers"),
        ("customers", {"state": "Active"}, "customers has no query parameter 'state'; it has data_source_uuid"),
        ("customers", {"cursor": "x"}, "customers has no query parameter 'cursor'"),
        ("subscriptions", {"status": "active"}, "none that can be given"),
    ],
)
def test_bad_input_is_refused_at_once(
    resource: str, query_params: dict[str, str] | None, message: str, sandbox: Sandbox
) -> None:
    with ChartMogulHook() as hook, pytest.raises(InvalidResourceError, match=message):
        hook.iter_rows(resource, query_params=query_params)
    assert sandbox.requests == []


def test_page_is_retried_for_retry_seconds(sandbox: Sandbox) -> None:
    with sandbox.faulty("customers:503;skip=1"), ChartMogulHook(retry_seconds=0.2) as hook:
        rows = hook.iter_rows("customers")
        with pytest.raises(ServerError, match="503"):
            list(rows)
    assert 3 <= len(sandbox.requests) < 100


# Subscriptions


def test_subscriptions_keep_the_limits_of_the_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the rate nor the connections are exceeded once. (Half of the rate leaves room for a busy machine.)"""
    with Sandbox(customers=250) as sandbox:
        connect(sandbox, monkeypatch, requests_per_second=20, max_connections=20)
        with ChartMogulHook() as hook:
            hook.get_account()
            rows = list(hook.iter_rows("subscriptions"))
            hook.get_account()
        assert rows == expected(sandbox, "subscriptions")
        assert {request.status for request in sandbox.requests} == {200}
        customers = len(expected(sandbox, "customers"))
        assert len(sandbox.requests) == 2 + -(-customers // 200) + customers


def test_rows_of_a_customer_stay_together(sandbox: Sandbox) -> None:
    sandbox.page_size = 2
    with ChartMogulHook() as hook:
        rows = list(hook.iter_rows("subscriptions"))
    sandbox.page_size = 200
    assert rows == expected(sandbox, "subscriptions")
    assert max(Counter(row["customer_uuid"] for row in rows).values()) > 4
    groups = [customer for customer, _ in groupby(rows, key=lambda row: row["customer_uuid"])]
    assert len(groups) == len(set(groups))


def test_no_more_connections_than_the_connection_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parent's walk and get_account count, too."""
    running, most = 0, 0
    lock = threading.Lock()

    def respond(request: RecordedRequest) -> Response:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1
        if request.path.startswith("/v1/customers?"):
            number = int((re.findall(r"cursor=(\d+)", request.path) or ["0"])[0]) + 1
            rows = [{"uuid": f"cus_{number}_{row}"} for row in range(60)]
            return json_response({"entries": rows, "has_more": number < 4, "cursor": str(number)})
        return json_response({"entries": [{"uuid": request.path}], "has_more": False, "cursor": "x"})

    with ScriptedServer(respond) as server:
        monkeypatch.setenv(
            "AIRFLOW_CONN_CHARTMOGUL_DEFAULT", server.connection_json(requests_per_second=10_000, max_connections=3)
        )
        with ChartMogulHook() as hook:
            rows = list(hook.iter_rows("subscriptions"))
    assert len({row["uuid"] for row in rows}) == len(rows) == 240
    assert most == 3


@pytest.mark.parametrize(
    "fault",
    [
        "subscriptions:429;p=0.1;seed=1",
        "subscriptions:503;p=0.3;seed=1",
        "subscriptions:500;times=6;skip=10",
        "subscriptions:reset;p=0.2;seed=1",
        "subscriptions:half-json;p=0.1;seed=1",
        "subscriptions:html;times=30;skip=1",
        "customers:500;times=3;skip=1",
        "any:reset;p=0.2;seed=2",
    ],
)
def test_faults_cost_no_subscription(fault: str, sandbox: Sandbox) -> None:
    with sandbox.faulty(fault) as (added,), ChartMogulHook() as hook:
        assert list(hook.iter_rows("subscriptions")) == expected(sandbox, "subscriptions")
    assert added.hits


def test_restart_of_chartmogul_costs_no_subscription(sandbox: Sandbox) -> None:
    sandbox.requests_per_second = None
    with ChartMogulHook() as hook:
        rows = hook.iter_rows("subscriptions")
        received = list(islice(rows, 10))
        sandbox.stop()
        # Let all threads meet the closed port, and wait for their retries.
        threading.Timer(1.0, sandbox.start).start()
        received += rows
    assert received == expected(sandbox, "subscriptions")


def test_customer_deleted_during_the_walk_is_skipped(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with sandbox.faulty("subscriptions:404;times=3;skip=5"):
        rows = [row for page in open_client().iter_pages(SUBSCRIPTIONS, {}) for row in page.rows]
    gone = {request.path.split("/")[3] for request in sandbox.requests if request.status == 404}
    assert len(gone) == 3
    assert rows == [row for row in expected(sandbox, "subscriptions") if row["customer_uuid"] not in gone]
    assert re.search(r"Skipped 3 of the \d+ customers, which were deleted during the walk", caplog.text)


def test_404_for_many_customers_is_an_error(sandbox: Sandbox) -> None:
    with sandbox.faulty("subscriptions:404;times=4;skip=5"), pytest.raises(NotFoundError):
        list(open_client().iter_pages(SUBSCRIPTIONS, {}))


def test_404_for_all_customers_is_an_error(sandbox: Sandbox) -> None:
    with sandbox.faulty("subscriptions:404"), ChartMogulHook() as hook, pytest.raises(NotFoundError):
        list(hook.iter_rows("subscriptions"))


def test_no_customers_have_no_subscriptions(monkeypatch: pytest.MonkeyPatch) -> None:
    with Sandbox(customers=0) as sandbox:
        connect(sandbox, monkeypatch)
        with ChartMogulHook() as hook:
            assert list(hook.iter_rows("subscriptions")) == []


def test_429_pauses_all_threads(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unlike retries, a pause holds back the threads that have not been refused."""
    monkeypatch.setattr(retries, "_MAX_BACKOFF_SECONDS", 2.0)
    with sandbox.faulty("subscriptions:429;times=1;skip=30"), ChartMogulHook() as hook:
        assert list(hook.iter_rows("subscriptions")) == expected(sandbox, "subscriptions")
    refused = next(request.started for request in sandbox.requests if request.status == 429)
    # The pause is half a second at least. Requests that the other 19 connections have sent by then still arrive.
    during_pause = [request for request in sandbox.requests if refused < request.started < refused + 0.5]
    assert len(during_pause) <= 19


@pytest.mark.parametrize(("place", "status"), [("subscriptions", 403), ("customers", 403), ("subscriptions", 402)])
def test_refusal_ends_the_walk(place: str, status: int, sandbox: Sandbox) -> None:
    with (
        sandbox.faulty(f"{place}:{status};skip=1"),
        ChartMogulHook() as hook,
        pytest.raises(ChartMogulError, match=f"ChartMogul responded with {status}"),
    ):
        list(hook.iter_rows("subscriptions"))
    assert requests_end(sandbox)


def requests_end(sandbox: Sandbox) -> bool:
    """Return whether requests end: those that are under way still arrive, but others do not follow."""
    count = -1
    for _ in range(120):
        if len(sandbox.requests) == count:
            return True
        count = len(sandbox.requests)
        time.sleep(0.5)
    return False


def test_abandoned_iterator_sends_no_more_requests(sandbox: Sandbox) -> None:
    with ChartMogulHook() as hook:
        rows = hook.iter_rows("subscriptions")
        next(rows)
        rows.close()  # type: ignore[attr-defined]
    assert requests_end(sandbox)


def test_exception_in_the_middle_sends_no_more_requests(sandbox: Sandbox) -> None:
    """As when Airflow ends a task at its timeout, by an exception wherever the task is."""

    def use(rows: Iterator[Row]) -> None:
        next(rows)
        raise ZeroDivisionError

    with ChartMogulHook() as hook, pytest.raises(ZeroDivisionError):
        use(hook.iter_rows("subscriptions"))
    assert requests_end(sandbox)


@contextmanager
def cancelled_by(fault: AddedFault) -> Iterator[Cancellation]:
    """Return a cancellation that another thread sets once the fault has occurred."""
    cancellation = Cancellation()

    def cancel() -> None:
        while not fault.hits:
            time.sleep(0.01)
        cancellation.cancel()

    thread = threading.Thread(target=cancel, daemon=True)
    thread.start()
    yield cancellation
    thread.join(60)


@pytest.mark.parametrize("fault", ["subscriptions:stall;skip=30", "subscriptions:503;skip=30", "customers:503;skip=1"])
def test_cancellation_does_not_wait_for_the_server(fault: str, sandbox: Sandbox) -> None:
    with sandbox.faulty(fault) as (added,), ChartMogulHook() as hook:
        with cancelled_by(added) as cancellation, pytest.raises(TaskCancelledError):
            list(hook.client.iter_pages(SUBSCRIPTIONS, {}, cancellation=cancellation))
        assert requests_end(sandbox)


def test_cancellation_ends_a_long_pause(sandbox: Sandbox) -> None:
    with (
        sandbox.faulty("subscriptions:429;retry_after=3000;skip=30;times=1") as (added,),
        ChartMogulHook() as hook,
        cancelled_by(added) as cancellation,
        pytest.raises(TaskCancelledError),
    ):
        list(hook.client.iter_pages(SUBSCRIPTIONS, {}, cancellation=cancellation))


def test_retry_after_beyond_the_retries_ends_the_walk(sandbox: Sandbox) -> None:
    with (
        sandbox.faulty("subscriptions:429;retry_after=3000;skip=30;times=1"),
        ChartMogulHook() as hook,
        pytest.raises(RateLimitError),
    ):
        list(hook.iter_rows("subscriptions"))


def test_changed_key_is_looked_up_once_for_all_threads(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    rows = (row for page in open_client().iter_pages(SUBSCRIPTIONS, {}) for row in page.rows)
    received = list(islice(rows, 10))
    sandbox.api_key = "another-key"
    connect(sandbox, monkeypatch)
    received += rows
    assert received == expected(sandbox, "subscriptions")
    assert caplog.text.count("the connection has another one; using that") == 1


def test_revoked_key_ends_the_walk(sandbox: Sandbox) -> None:
    with ChartMogulHook() as hook:
        rows = hook.iter_rows("subscriptions")
        next(rows)
        sandbox.api_key = "another-key"
        with pytest.raises(AuthenticationError):
            list(rows)
    assert requests_end(sandbox)
