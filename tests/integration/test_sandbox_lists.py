# SPDX-License-Identifier: Apache-2.0
"""The sandbox's lists over real sockets: pages, cursors, filters and faults, and ChartMogul's official client."""

from __future__ import annotations

import base64
import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import chartmogul
import pytest
import requests

from airflow_provider_chartmogul.sandbox import Sandbox
from tests.pages import DOCS, block_with, run

AUTH = ("sandbox-api-key", "")
TIMEOUT = 60.0
AS_OF = datetime(2024, 7, 1, tzinfo=UTC)

ROOTS = {
    "customers": "entries",
    "contacts": "entries",
    "plans": "plans",
    "plan_groups": "plan_groups",
    "invoices": "invoices",
    "subscription_events": "subscription_events",
    "notes": "entries",
    "customer_notes": "entries",
    "opportunities": "entries",
    "tasks": "entries",
}
WALKED = sorted(ROOTS)

Row = dict[str, Any]
Get = Callable[..., requests.Response]


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(customers=20, as_of=AS_OF, page_size=7, requests_per_second=None, max_connections=None) as running:
        yield running


@pytest.fixture
def get(sandbox: Sandbox) -> Iterator[Get]:
    with requests.Session() as session:
        session.auth = AUTH
        session.trust_env = False
        yield lambda path, **query: session.get(f"{sandbox.url}/v1/{path}", params=query, timeout=TIMEOUT)


def page(get: Get, path: str, **query: Any) -> Row:
    response = get(path, **query)
    assert response.status_code == 200, response.text
    return dict(response.json())


def walk(get: Get, resource: str, path: str | None = None, **query: Any) -> list[Row]:
    """Return the rows of a list, page by page, until `has_more` is false. A cursor that stays the same fails."""
    rows: list[Row] = []
    cursors: set[str] = set()
    while True:
        body = page(get, path or resource, **query)
        rows += body[ROOTS.get(resource, "entries")]
        if not body["has_more"]:
            return rows
        assert body["cursor"] not in cursors
        cursors.add(body["cursor"])
        query["cursor"] = body["cursor"]


def identities(resource: str, rows: list[Row]) -> list[Any]:
    key = {"subscription_events": "id", "tasks": "task_uuid"}.get(resource, "uuid")
    return [row[key] for row in rows]


def test_account_and_data_sources(sandbox: Sandbox, get: Get) -> None:
    assert page(get, "account") == sandbox.rows("account")[0]
    query = {"include": "churn_recognition"}
    assert page(get, "account", **query) == sandbox.rows("account", query)[0]
    assert page(get, "data_sources") == {"data_sources": sandbox.rows("data_sources")}
    assert [row["system"] for row in page(get, "data_sources", system="Google Sheets")["data_sources"]] == [
        "Google Sheets"
    ]


# Pages


@pytest.mark.parametrize("resource", WALKED)
def test_walk_returns_all_rows(sandbox: Sandbox, get: Get, resource: str) -> None:
    rows = walk(get, resource)
    assert rows == sandbox.rows(resource)
    paths = [request for request in sandbox.requests if request.path == f"/v1/{resource}"]
    assert len(paths) == -(-len(rows) // 7)
    assert paths[0].query == {}


@pytest.mark.parametrize("resource", WALKED)
def test_last_page_has_cursor_for_empty_page(get: Get, resource: str) -> None:
    body = page(get, resource)
    while body["has_more"]:
        body = page(get, resource, cursor=body["cursor"])
    assert body["cursor"]
    assert page(get, resource, cursor=body["cursor"]) == {ROOTS[resource]: [], "cursor": None, "has_more": False}


@pytest.mark.parametrize(
    ("resource", "keys"),
    [
        ("customers", ["entries", "current_page", "total_pages", "has_more", "per_page", "page", "cursor"]),
        ("contacts", ["entries", "cursor", "has_more"]),
        ("plans", ["plans", "current_page", "total_pages", "cursor", "has_more"]),
        ("plan_groups", ["plan_groups", "current_page", "total_pages", "cursor", "has_more"]),
        ("invoices", ["invoices", "total_pages", "current_page", "cursor", "has_more"]),
        ("subscription_events", ["subscription_events", "meta", "cursor", "has_more"]),
        ("notes", ["entries", "cursor", "has_more"]),
    ],
)
def test_keys_of_first_and_later_pages(sandbox: Sandbox, get: Get, resource: str, keys: list[str]) -> None:
    sandbox.page_size = 2
    first = page(get, resource)
    assert list(first) == keys
    assert list(page(get, resource, cursor=first["cursor"])) == [ROOTS[resource], "cursor", "has_more"]


def test_metadata_of_first_pages(sandbox: Sandbox, get: Get) -> None:
    customers = page(get, "customers")
    assert (customers["total_pages"], customers["per_page"], customers["page"]) == (
        -(-len(sandbox.rows("customers")) // 7),
        7,
        1,
    )
    none = page(get, "customers", external_id="unknown")
    assert none == {
        "entries": [],
        "current_page": 1,
        "total_pages": 1,
        "has_more": False,
        "per_page": 7,
        "page": 1,
        "cursor": None,
    }
    meta = page(get, "subscription_events")["meta"]
    assert set(meta) == {"next_key", "prev_key", "before_key", "page", "total_pages"}
    assert meta["next_key"] == sandbox.rows("subscription_events")[6]["id"]


def decode(cursor: str) -> str:
    return base64.b64decode(cursor).decode()


def test_cursors_contain_time_and_identity(sandbox: Sandbox, get: Get) -> None:
    customers = sandbox.rows("customers")
    first = page(get, "customers", per_page=1)
    since = customers[0]["customer-since"].removesuffix("+00:00")
    assert decode(first["cursor"]) == f"{since}.000000000Z&{customers[0]['id']}"
    last = page(get, "customers", status=customers[-1]["status"].replace(" ", "_"))
    assert decode(last["cursor"]) == f"&{last['entries'][-1]['id']}"
    note = page(get, "notes", per_page=1)
    time_text, uuid = decode(note["cursor"]).split("&")
    assert uuid == note["entries"][0]["uuid"]
    assert time_text[:23] == note["entries"][0]["created_at"].removesuffix("Z")
    assert len(time_text) == len("2023-12-15T12:25:56.950817000Z")


def test_per_page(sandbox: Sandbox, get: Get) -> None:
    assert Sandbox().page_size == 200
    sandbox.page_size = 200
    assert len(page(get, "invoices")["invoices"]) == 200
    assert len(page(get, "invoices", per_page=3)["invoices"]) == 3
    assert len(page(get, "invoices", per_page=500)["invoices"]) == 200


def test_deprecated_page_parameter(sandbox: Sandbox, get: Get) -> None:
    rows = sandbox.rows("contacts")
    assert page(get, "contacts", page=2)["entries"] == rows[7:14]
    assert page(get, "customers", page=2, per_page=3)["current_page"] == 2


@pytest.mark.parametrize(
    ("path", "query", "param"),
    [
        ("customers", {"cursor": "x"}, "cursor"),
        ("customers", {"cursor": "MjAyNCY="}, "cursor"),
        ("invoices", {"per_page": "0"}, "per_page"),
        ("invoices", {"per_page": "many"}, "per_page"),
        ("invoices", {"page": "-1"}, "page"),
        ("metrics/all", {"end-date": "2024-01-01"}, "start-date"),
        ("metrics/all", {"start-date": "2024-01-01", "end-date": "x"}, "end-date"),
        ("metrics/all", {"start-date": "2024-01-02", "end-date": "2024-01-01"}, "end-date"),
        ("metrics/all", {"start-date": "2024-01-01", "end-date": "2024-01-01", "interval": "hour"}, "interval"),
    ],
)
def test_400_for_malformed_parameter(get: Get, path: str, query: dict[str, str], param: str) -> None:
    response = get(path, **query)
    assert (response.status_code, response.json()["param"]) == (400, param)


def test_walk_survives_deletion_of_cursor_row(sandbox: Sandbox, get: Get) -> None:
    expected = sandbox.rows("invoices")
    first = page(get, "invoices")
    sandbox.lists.delete_row("invoices", first["invoices"][-1]["uuid"])
    assert walk(get, "invoices", cursor=first["cursor"]) == expected[7:]


# Filters


@pytest.mark.parametrize(
    ("resource", "parameter", "key"),
    [
        ("customers", "external_id", "external_id"),
        ("customers", "data_source_uuid", "data_source_uuid"),
        ("customers", "system", "billing-system-type"),
        *(("contacts", name, name) for name in ("customer_uuid", "data_source_uuid", "email", "customer_external_id")),
        *(("plans", name, name) for name in ("data_source_uuid", "external_id")),
        *(("invoices", name, name) for name in ("customer_uuid", "external_id")),
        *(
            ("subscription_events", name, name)
            for name in ("data_source_uuid", "customer_external_id", "subscription_external_id", "event_type")
        ),
        *(("notes", name, name) for name in ("customer_uuid", "type")),
        *(("opportunities", name, name) for name in ("customer_uuid", "owner", "pipeline", "pipeline_stage")),
        *(("tasks", name, name) for name in ("customer_uuid", "assignee")),
    ],
)
def test_filter_by_value(sandbox: Sandbox, get: Get, resource: str, parameter: str, key: str) -> None:
    rows = sandbox.rows(resource)
    value = rows[len(rows) // 2][key]
    expected = [row for row in rows if row[key] == value]
    assert walk(get, resource, **{parameter: value}) == expected
    assert walk(get, resource, **{parameter: "unknown"}) == []


def test_other_filters(sandbox: Sandbox, get: Get) -> None:
    rows = {resource: sandbox.rows(resource) for resource in WALKED}
    leads = walk(get, "customers", status="New_Lead")
    assert leads == [row for row in rows["customers"] if row["status"] == "New Lead"]
    author = walk(get, "notes", author_email="ben@example.com")
    assert author == [row for row in rows["notes"] if "(ben@example.com)" in row["author"]]
    contact = next(row["associated_object_uuid"] for row in rows["notes"] if row["associated_object"] == "contact")
    assert [row["associated_object_uuid"] for row in walk(get, "notes", contact_uuid=contact)] == [contact]
    for completed in (True, False):
        tasks = walk(get, "tasks", completed=str(completed).lower())
        assert tasks == [row for row in rows["tasks"] if (row["completed_at"] is not None) == completed]
    day = rows["tasks"][10]["due_date"][:10]
    after, before = walk(get, "tasks", due_date_on_or_after=day), walk(get, "tasks", due_date_on_or_before=day)
    assert len(after) + len(before) == len(rows["tasks"]) + sum(row["due_date"][:10] == day for row in rows["tasks"])
    day = rows["opportunities"][10]["estimated_close_date"]
    closing = walk(get, "opportunities", estimated_close_date_on_or_after=day, estimated_close_date_on_or_before=day)
    assert closing == [row for row in rows["opportunities"] if row["estimated_close_date"] == day]
    source = rows["customers"][0]["data_source_uuid"]
    customers = {row["uuid"] for row in rows["customers"] if row["data_source_uuid"] == source}
    invoices = walk(get, "invoices", data_source_uuid=source)
    assert invoices == [row for row in rows["invoices"] if row["customer_uuid"] in customers]
    everything = {"validation_type": "all", "with_disabled": "true"}
    assert walk(get, "invoices", **everything) == sandbox.rows("invoices", everything)


# Lists below other rows


def test_plans_of_plan_groups(sandbox: Sandbox, get: Get) -> None:
    groups = walk(get, "plan_groups")
    for group in groups:
        plans = walk(get, "plans", f"plan_groups/{group['uuid']}/plans", per_page=1)
        assert len(plans) == group["plans_count"]
        assert [{"plan_group_uuid": group["uuid"], **plan} for plan in plans] == [
            row for row in sandbox.rows("plan_group_plans") if row["plan_group_uuid"] == group["uuid"]
        ]
    assert get("plan_groups/plg_unknown/plans").status_code == 404


def test_subscriptions_of_customers(sandbox: Sandbox, get: Get) -> None:
    customers = sandbox.rows("customers")
    rows = [
        {"customer_uuid": customer["uuid"], **row}
        for customer in customers
        for row in walk(get, "subscriptions", f"customers/{customer['uuid']}/subscriptions", per_page=3)
    ]
    assert rows == sandbox.rows("subscriptions")
    path = f"customers/{customers[0]['uuid']}/subscriptions"
    first = page(get, path, per_page=1)
    assert list(first) == ["entries", "has_more", "per_page", "page", "cursor"]
    assert decode(first["cursor"]) == "subscriptions_next_page=2"
    behind = page(get, path, cursor=base64.b64encode(b"subscriptions_next_page=900").decode())
    assert (behind["entries"], behind["has_more"]) == ([], False)
    assert decode(behind["cursor"]) == "subscriptions_next_page=901"
    assert get(path, cursor="x").status_code == 400


def test_404_for_subscriptions_of_unknown_or_deleted_customer(sandbox: Sandbox, get: Get) -> None:
    customer = sandbox.rows("customers")[0]["uuid"]
    path = f"customers/{customer}/subscriptions"
    assert get(path).status_code == 200
    sandbox.lists.delete_row("customers", customer)
    assert get(path).status_code == get("customers/cus_unknown/subscriptions").status_code == 404
    assert customer not in {row["customer_uuid"] for row in sandbox.rows("subscriptions")}
    created = sandbox.lists.create_row("customers")
    assert page(get, f"customers/{created['uuid']}/subscriptions")["entries"] == []


def test_metrics(sandbox: Sandbox, get: Get) -> None:
    query = {"start-date": "2024-01-01", "end-date": "2024-03-31", "interval": "month"}
    body = page(get, "metrics/all", **query)
    assert body["entries"] == sandbox.rows("metrics", query)
    assert body["summary"]["current-mrr"] == body["entries"][-1]["mrr"]
    paths = {
        **{name: name for name in ("mrr", "arr", "arpa", "asp", "ltv", "customer-churn-rate", "mrr-churn-rate")},
        "customer-count": "customers",
    }
    for path, name in paths.items():
        entries = page(get, f"metrics/{path}", **query)["entries"]
        assert [entry[name] for entry in entries] == [entry[name] for entry in body["entries"]]
    mrr = page(get, "metrics/mrr", **query)["entries"]
    parts = ("mrr-new-business", "mrr-expansion", "mrr-contraction", "mrr-churn", "mrr-reactivation")
    assert mrr[0]["mrr"] + sum(mrr[1][part] for part in parts) == mrr[1]["mrr"]
    assert get("metrics/users", **query).status_code == 404


# Faults


@pytest.mark.parametrize("resource", WALKED)
@pytest.mark.parametrize(
    "fault",
    [
        *(f"{status};times=2" for status in (429, 500, 503)),
        "half-json;times=1",
        "interrupt;at=100;times=1",
        "reset;times=1",
        "empty-page;skip=1;times=1",
        "empty-page;times=2",
        "short-page;rows=2;times=1",
        "short-page",
    ],
)
def test_walk_with_faults_returns_all_rows(sandbox: Sandbox, resource: str, fault: str) -> None:
    sandbox.page_size = 20 if resource in ("invoices", "subscription_events") else 3
    expected = sandbox.rows(resource)
    with requests.Session() as session:
        session.auth = AUTH

        def get_again(path: str, **query: Any) -> requests.Response:
            while True:
                # A failed connection, an interrupted body, and truncated JSON.
                with contextlib.suppress(requests.RequestException):
                    response = session.get(f"{sandbox.url}/v1/{path}", params=query, timeout=TIMEOUT)
                    if response.status_code == 200 and response.json():
                        return response

        with sandbox.faulty(f"{resource}:{fault}") as (added,):
            assert walk(get_again, resource) == expected
        assert added.hits


@pytest.mark.parametrize("resource", WALKED)
def test_repeated_rows(sandbox: Sandbox, get: Get, resource: str) -> None:
    sandbox.page_size = 2
    expected = identities(resource, sandbox.rows(resource)[:4])
    first = page(get, resource)
    with sandbox.faulty(f"{resource}:repeated-row;times=1"):
        second = page(get, resource, cursor=first["cursor"])
    third = page(get, resource, cursor=second["cursor"])
    rows = [row for body in (first, second, third) for row in body[ROOTS[resource]]]
    assert identities(resource, rows) == [
        *expected[:2],
        *expected[1:3],
        *expected[3:4],
        *identities(resource, rows)[5:],
    ]


@pytest.mark.parametrize("resource", WALKED)
def test_stuck_cursor(sandbox: Sandbox, get: Get, resource: str) -> None:
    sandbox.page_size = 2
    sandbox.faults.add(f"{resource}:stuck-cursor")
    first = page(get, resource)
    assert first["has_more"]
    second, third = (page(get, resource, cursor=first["cursor"]) for _ in range(2))
    assert second == third
    assert (second["cursor"], second["has_more"]) == (first["cursor"], True)
    assert second[ROOTS[resource]] != first[ROOTS[resource]]


@pytest.mark.parametrize("place", ["customers", "lists", "subscriptions", "data_sources", "metrics"])
def test_empty_list(sandbox: Sandbox, get: Get, place: str) -> None:
    paths = {
        "subscriptions": f"customers/{sandbox.rows('customers')[0]['uuid']}/subscriptions",
        "metrics": "metrics/all",
        "lists": "invoices",
    }
    sandbox.faults.add(f"{place}:empty-list")
    body = page(get, paths.get(place, place), **{"start-date": "2024-01-01", "end-date": "2024-01-01"})
    assert body[ROOTS.get(paths.get(place, place), "data_sources" if place == "data_sources" else "entries")] == []
    assert body.get("has_more", False) is False
    if place in ("customers", "lists"):
        assert body["cursor"] is None


def test_rows_created_during_walk(sandbox: Sandbox, get: Get) -> None:
    for resource in WALKED:
        expected = sandbox.rows(resource)
        with sandbox.faulty(f"{resource}:row-created;times=1"):
            rows = walk(get, resource)
        after = sandbox.rows(resource)
        assert len(after) == len(expected) + 1
        assert len(set(identities(resource, after))) == len(after)
        if resource == "customers":
            # A new customer is a lead, which comes last: the walk meets it.
            assert rows == after
        else:
            assert rows == expected == after[1:]


def test_rows_deleted_during_walk(sandbox: Sandbox, get: Get) -> None:
    sandbox.page_size = 2
    for resource in WALKED:
        expected = sandbox.rows(resource)
        with sandbox.faulty(f"{resource}:row-deleted;times=1"):
            rows = walk(get, resource)
        assert rows == sandbox.rows(resource) == [*expected[:2], *expected[3:]]


def test_customer_moves_during_walk(sandbox: Sandbox, get: Get) -> None:
    sandbox.page_size = 3
    expected = sandbox.rows("customers")
    uuids = [row["uuid"] for row in expected]
    with sandbox.faulty("customers:customer-moved;skip=1;times=1"):
        met = [row["uuid"] for row in walk(get, "customers")]
    assert {uuid for uuid in met if met.count(uuid) == 2} == {uuids[3]}
    assert set(met) == set(uuids)
    with sandbox.faulty("customers:customer-moved;to=earlier;skip=1;times=1"):
        before = [row["uuid"] for row in sandbox.rows("customers")]
        missed = [row["uuid"] for row in walk(get, "customers")]
    assert set(before) - set(missed) == {before[6]}
    assert [row["uuid"] for row in sandbox.rows("customers")].index(before[6]) == 3


def test_customer_can_be_moved_at_will(sandbox: Sandbox) -> None:
    first = sandbox.rows("customers")[0]
    sandbox.lists.move_customer(first["uuid"], AS_OF - timedelta(hours=1))
    moved = [row for row in sandbox.rows("customers") if row["customer-since"]][-1]
    assert moved == {**first, "customer-since": "2024-06-30T23:00:00+00:00"}
    with pytest.raises(ValueError, match="customers has no row whose uuid is 'cus_unknown'"):
        sandbox.lists.move_customer("cus_unknown", AS_OF)


def test_new_keys_and_other_types(sandbox: Sandbox, get: Get) -> None:
    with sandbox.faulty("lists:new-key"):
        (invoice,) = page(get, "invoices", per_page=1)["invoices"]
        assert "new_key" in invoice
        assert all("new_key" in child for child in (*invoice["line_items"], *invoice["transactions"]))
        assert "new_key" in page(get, "data_sources")["data_sources"][0]
    with sandbox.faulty("subscription_events:blank-amounts"):
        (event,) = page(get, "subscription_events", per_page=1)["subscription_events"]
        assert (event["quantity"], event["amount_in_cents"], event["tax_amount_in_cents"]) == ("", "", "")
    expected = {row["id"]: row for row in sandbox.rows("subscription_events")}
    with sandbox.faulty("subscription_events:other-types"):
        events = walk(get, "subscription_events")
    for event in events:
        before = expected[event["id"]]
        for key in ("quantity", "amount_in_cents"):
            assert event[key] == (None if before[key] is None else str(before[key]))
    assert {type(event["retracted_event_id"]) for event in events} == {int, type(None)}


def test_limit_of_compute_time(sandbox: Sandbox, get: Get) -> None:
    sandbox.faults.add("lists:429;above=3;window=0.5")
    statuses = [get("contacts").status_code for _ in range(3)]
    deadline = time.monotonic() + TIMEOUT
    while get("invoices").status_code != 429:
        assert time.monotonic() < deadline
    assert get("ping").status_code == 200
    while get("invoices").status_code != 200:
        assert time.monotonic() < deadline
    assert statuses == [200, 200, 200]


def test_resources_without_access(sandbox: Sandbox, get: Get) -> None:
    sandbox.faults.add("contacts:403", "tasks:402", "notes:404;body=json2", "customers:404")
    assert [get(path).status_code for path in ("contacts", "tasks", "notes", "customers")] == [403, 402, 404, 404]
    assert get("notes").json() == {"error": "Path not found"}
    assert get("customers").json() == {"code": 404, "message": "Not found", "param": None}
    assert get("customer_notes").status_code == get("invoices").status_code == 200


def test_documented_example(get: Get) -> None:
    names = run(block_with(DOCS / "testing.md", "python", "lists.create_row"))
    sandbox = names["sandbox"]
    assert len(sandbox.rows("customers")) == len(names["customers"])
    assert sandbox.rows("customers")[0] != names["customers"][0]
    assert names["invoices"][0] not in sandbox.rows("invoices", {"validation_type": "all", "with_disabled": "true"})


# ChartMogul's official client


def test_official_client_reads_all_lists(sandbox: Sandbox) -> None:
    config = chartmogul.Config("sandbox-api-key")
    config.uri = f"{sandbox.url}/v1"

    def walk_with_client(method: Callable[..., Any], **query: Any) -> list[Any]:
        rows: list[Any] = []
        while True:
            many = method(config, **query).get()
            rows += many[0] if isinstance(many[0], list) else next(part for part in many if isinstance(part, list))
            if not many.has_more:
                return rows
            query["cursor"] = many.cursor

    methods = {
        "customers": chartmogul.Customer.all,
        "contacts": chartmogul.Contact.all,
        "plans": chartmogul.Plan.all,
        "plan_groups": chartmogul.PlanGroup.all,
        "invoices": chartmogul.Invoice.all_any,
        "subscription_events": chartmogul.SubscriptionEvent.all,
        "notes": chartmogul.EntityNote.all,
        "opportunities": chartmogul.Opportunity.all,
        "tasks": chartmogul.Task.all,
    }
    for resource, method in methods.items():
        expected = sandbox.rows(resource)
        rows = walk_with_client(method, per_page=7)
        key = {"subscription_events": "id", "tasks": "task_uuid"}.get(resource, "uuid")
        assert [getattr(row, key) for row in rows] == [row[key] for row in expected]
    customers = walk_with_client(chartmogul.Customer.all)
    assert sum(row.mrr for row in customers) == sum(row["mrr"] for row in sandbox.rows("customers"))
    invoices = walk_with_client(chartmogul.Invoice.all_any)
    assert [item.amount_in_cents for row in invoices for item in row.line_items] == [
        item["amount_in_cents"] for row in sandbox.rows("invoices") for item in row["line_items"]
    ]
    events = walk_with_client(chartmogul.SubscriptionEvent.all)
    assert [row.amount_in_cents for row in events] == [
        row["amount_in_cents"] for row in sandbox.rows("subscription_events")
    ]
    with pytest.warns(DeprecationWarning, match=r"CustomerNote\.all"):
        notes = walk_with_client(chartmogul.CustomerNote.all)
    assert [row.uuid for row in notes] == [row["uuid"] for row in sandbox.rows("customer_notes")]
    sources = chartmogul.DataSource.all(config, with_processing_status=True).get().data_sources
    assert [row.uuid for row in sources] == [row["uuid"] for row in sandbox.rows("data_sources")]
    assert sources[0].processing_status.processed == 12
    group = sandbox.rows("plan_groups")[-1]
    plans = walk_with_client(chartmogul.PlanGroup.all, uuid=group["uuid"])
    assert len(plans) == group["plans_count"]
    account = chartmogul.Account.retrieve(config, include="refund_handling").get()
    assert account.refund_handling == "refund_full_only"
    subscriptions = walk_with_client(chartmogul.Customer.subscriptions, uuid=customers[0].uuid)
    assert sum(row.mrr for row in subscriptions) == customers[0].mrr
    metrics = chartmogul.Metrics.all(config, start_date="2024-01-01", end_date="2024-03-31", interval="month").get()
    expected = sandbox.rows("metrics", {"start-date": "2024-01-01", "end-date": "2024-03-31", "interval": "month"})
    assert [(row.mrr, row.ltv) for row in metrics.entries] == [(row["mrr"], row["ltv"]) for row in expected]
