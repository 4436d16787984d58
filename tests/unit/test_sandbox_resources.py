# SPDX-License-Identifier: Apache-2.0
"""The rows of the sandbox's lists: the recorded keys, the same rows every time, and amounts that add up."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from airflow_provider_chartmogul.sandbox import Sandbox

AS_OF = datetime(2024, 7, 1, tzinfo=UTC)

LISTS = (
    "data_sources",
    "customers",
    "contacts",
    "plans",
    "plan_groups",
    "plan_group_plans",
    "invoices",
    "subscription_events",
    "notes",
    "customer_notes",
    "opportunities",
    "tasks",
    "subscriptions",
)

ALL = {"validation_type": "all", "with_disabled": "true"}

PLAN_KEYS = {"external_id", "name", "interval_count", "uuid", "interval_unit", "data_source_uuid"}
DISABLED_KEYS = {"disabled", "disabled_at", "disabled_by"}
NOTE_KEYS = {"uuid", "customer_uuid", "type", "text", "call_duration", "author", "created_at", "updated_at"}
ONE_TIME_KEYS = {
    *("uuid", "external_id", "type", "description", "amount_in_cents", "quantity", "discount_code"),
    *("discount_amount_in_cents", "tax_amount_in_cents", "transaction_fees_in_cents", "account_code"),
    *("transaction_fees_currency", "discount_description", "event_order"),
}
SUBSCRIPTION_ITEM_KEYS = {
    *(ONE_TIME_KEYS - {"description"}),
    *("subscription_uuid", "subscription_external_id", "prorated", "proration_type", "service_period_start"),
    *("service_period_end", "plan_uuid", "balance_transfer"),
}

# As recorded from the API.
KEYS: Mapping[str, set[str]] = {
    "data_sources": {"uuid", "name", "system", "created_at", "status"},
    "customers": {
        *("id", "uuid", "external_id", "name", "email", "status", "customer-since", "attributes", "data_source_uuid"),
        *("data_source_uuids", "external_ids", "company", "country", "state", "city", "zip", "lead_created_at"),
        *("free_trial_started_at", "address", "mrr", "arr", "billing-system-url", "chartmogul-url"),
        *("billing-system-type", "currency", "currency-sign", "owner"),
    },
    "contacts": {
        *("uuid", "customer_uuid", "customer_external_id", "data_source_uuid", "position", "first_name", "last_name"),
        *("title", "email", "phone", "linked_in", "twitter", "notes", "custom"),
    },
    "plans": PLAN_KEYS,
    "plan_groups": {"name", "uuid", "plans_count"},
    "plan_group_plans": {"plan_group_uuid", *PLAN_KEYS},
    "invoices": {
        *("uuid", "external_id", "date", "due_date", "currency", "customer_uuid", "errors", "line_items"),
        "transactions",
    },
    "subscription_events": {
        *("id", "data_source_uuid", "customer_external_id", "subscription_set_external_id"),
        *("subscription_external_id", "plan_external_id", "event_date", "effective_date", "event_type", "external_id"),
        *("errors", "created_at", "updated_at", "quantity", "currency", "amount_in_cents", "tax_amount_in_cents"),
        "retracted_event_id",
    },
    "notes": {*NOTE_KEYS, "associated_object", "associated_object_uuid"},
    "customer_notes": NOTE_KEYS,
    "opportunities": {
        *("uuid", "customer_uuid", "owner", "pipeline", "pipeline_stage", "estimated_close_date", "currency"),
        *("amount_in_cents", "type", "forecast_category", "win_likelihood", "custom", "created_at", "updated_at"),
    },
    "tasks": {
        *("task_uuid", "customer_uuid", "task_details", "assignee", "due_date", "completed_at", "created_at"),
        "updated_at",
    },
    "subscriptions": {
        *("customer_uuid", "id", "external_id", "subscription_set_external_id", "quantity", "uuid", "mrr", "arr"),
        *("status", "plan", "billing-cycle", "billing-cycle-count", "start-date", "end-date", "currency"),
        "currency-sign",
    },
}


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox(customers=60, as_of=AS_OF)


def identity(resource: str, row: dict[str, Any]) -> Any:
    if resource == "plan_group_plans":
        return row["plan_group_uuid"], row["uuid"]
    return row[{"subscription_events": "id", "tasks": "task_uuid"}.get(resource, "uuid")]


@pytest.mark.parametrize("resource", LISTS)
def test_rows_have_recorded_keys_and_unique_identities(sandbox: Sandbox, resource: str) -> None:
    rows = sandbox.rows(resource)
    assert rows
    assert all(set(row) == KEYS[resource] for row in rows)
    assert len({identity(resource, row) for row in rows}) == len(rows)


def test_rows_are_the_same_in_another_process(sandbox: Sandbox) -> None:
    program = (
        "import sys, json, datetime as d\n"
        "from airflow_provider_chartmogul.sandbox import Sandbox\n"
        "sandbox = Sandbox(customers=60, as_of=d.datetime(2024, 7, 1))\n"
        "print(json.dumps({name: sandbox.rows(name) for name in sys.argv[1:]}))\n"
    )
    other = subprocess.run([sys.executable, "-c", program, *LISTS], capture_output=True, text=True, check=True)
    assert json.loads(other.stdout) == {resource: sandbox.rows(resource) for resource in LISTS}


def test_rows_contain_values_that_readers_get_wrong(sandbox: Sandbox) -> None:
    customers = sandbox.rows("customers")
    assert {"", None} < {row["city"] for row in customers} | {row["country"] for row in customers}
    assert any(not row["company"].isascii() for row in customers)
    assert any(len(row["data_source_uuids"]) > len(set(row["data_source_uuids"])) for row in customers)
    assert {type(value) for row in customers for value in row["attributes"]["custom"].values()} == {
        *(int, float, bool, str),
    }
    assert any("\n" in (row["notes"] or "") for row in sandbox.rows("contacts"))
    items = [item for invoice in sandbox.rows("invoices") for item in invoice["line_items"]]
    assert {frozenset(item) for item in items} == {frozenset(ONE_TIME_KEYS), frozenset(SUBSCRIPTION_ITEM_KEYS)}
    transactions = [transaction for invoice in sandbox.rows("invoices") for transaction in invoice["transactions"]]
    assert {transaction["type"] for transaction in transactions} == {"payment", "refund"}
    assert {transaction["result"] for transaction in transactions} == {"successful", "failed"}
    assert {type(transaction["amount_in_cents"]) for transaction in transactions} == {int, type(None)}


@pytest.mark.parametrize("resource", ["customers", "contacts", "notes", "opportunities", "tasks"])
def test_children_refer_to_customers(sandbox: Sandbox, resource: str) -> None:
    customers = {row["uuid"]: row for row in sandbox.rows("customers")}
    for row in sandbox.rows(resource):
        if resource == "contacts":
            customer = customers[row["customer_uuid"]]
            assert row["customer_external_id"] == customer["external_id"]
            assert row["data_source_uuid"] == customer["data_source_uuid"]
        elif resource != "customers" and row["customer_uuid"] is not None:
            assert row["customer_uuid"] in customers


def test_leads_have_no_customer_since_and_come_last(sandbox: Sandbox) -> None:
    since = [row["customer-since"] for row in sandbox.rows("customers")]
    leads = since.count(None)
    assert leads == 6
    assert since[-leads:] == [None] * leads
    assert since[:-leads] == sorted(since[:-leads])


@pytest.mark.parametrize("resource", ["notes", "customer_notes", "opportunities", "tasks", "subscription_events"])
def test_newest_rows_come_first(sandbox: Sandbox, resource: str) -> None:
    created = [row["created_at"] for row in sandbox.rows(resource)]
    assert created == sorted(created, reverse=True)
    assert created[0] < AS_OF.isoformat()


def test_invoices_are_not_in_the_order_of_their_dates(sandbox: Sandbox) -> None:
    dates = [row["date"] for row in sandbox.rows("invoices")]
    assert dates != sorted(dates, reverse=True)


def test_disabled_and_invalid_rows_appear_on_request(sandbox: Sandbox) -> None:
    default = sandbox.rows("invoices")
    everything = sandbox.rows("invoices", ALL)
    invalid = sandbox.rows("invoices", {"validation_type": "invalid"})
    assert len(default) < len(everything)
    assert all(set(row) == KEYS["invoices"] | DISABLED_KEYS for row in everything)
    disabled = [row for row in everything if row["disabled"]]
    assert disabled
    assert all(row["disabled_at"] and row["disabled_by"] for row in disabled)
    assert all(row["errors"] for row in invalid)
    assert len(everything) == len(default) + len(invalid) + len(disabled)
    assert not any(row["errors"] for row in default)
    assert any(item["disabled"] for row in everything if not row["disabled"] for item in row["line_items"])
    children = [child for row in everything for child in (*row["line_items"], *row["transactions"])]
    assert len({child["uuid"] for child in children}) == len(children)
    events = sandbox.rows("subscription_events", ALL)
    assert Counter(row["disabled"] for row in events)[False] == len(sandbox.rows("subscription_events"))
    assert any(row["disabled"] for row in events)


def test_optional_keys_appear_on_request(sandbox: Sandbox) -> None:
    assert sandbox.rows("account") == [
        {
            "name": "Example Test Company",
            "currency": "EUR",
            "time_zone": "Europe/Berlin",
            "week_start_on": "sunday",
        }
    ]
    included = sandbox.rows("account", {"include": "refund_handling,churn_when_zero_mrr,unknown"})[0]
    assert set(included) - set(sandbox.rows("account")[0]) == {"refund_handling", "churn_when_zero_mrr"}
    names = ("processing_status", "auto_churn_subscription_setting", "invoice_handling_setting")
    sources = sandbox.rows("data_sources", {f"with_{name}": "true" for name in names})
    assert all(set(row) == KEYS["data_sources"] | set(names) for row in sources)
    edited = sandbox.rows("invoices", {"include_edit_histories": "true"})
    assert {type(row["edit_history_summary"]) for row in edited} == {dict, type(None)}


def test_unknown_resource_raises(sandbox: Sandbox) -> None:
    with pytest.raises(
        ValueError, match=r"unknown resource: 'users'; known resources: account, data_sources, .*metrics"
    ):
        sandbox.rows("users")


def movements_by(sandbox: Sandbox, column: str) -> dict[str, int]:
    sums: dict[str, int] = defaultdict(int)
    for row in sandbox.expected_rows(None, AS_OF):
        sums[row[column]] += int(row["activity_mrr_movement"])
    return sums


def assert_agrees(sandbox: Sandbox) -> None:
    """Compare the MRR of customers, subscriptions and metrics with the sums of the activities' movements."""
    customers = {row["uuid"]: row for row in sandbox.rows("customers")}
    by_customer = movements_by(sandbox, "customer_uuid")
    assert {uuid: row["mrr"] for uuid, row in customers.items() if row["customer-since"]} == by_customer
    subscriptions = sandbox.rows("subscriptions")
    by_subscription = movements_by(sandbox, "subscription_external_id")
    assert {row["external_id"]: row["mrr"] for row in subscriptions} == by_subscription
    assert all(row["arr"] == 12 * row["mrr"] for row in (*customers.values(), *subscriptions))
    yesterday = (AS_OF - timedelta(days=1)).date().isoformat()
    query = {"start-date": yesterday, "end-date": yesterday, "interval": "day"}
    (metrics,) = sandbox.rows("metrics", query)
    assert metrics["mrr"] == sum(by_customer.values())
    assert metrics["customers"] == sum(mrr > 0 for mrr in by_customer.values())


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_mrr_agrees_before_and_after_amendments(seed: int) -> None:
    sandbox = Sandbox(customers=30, seed=seed, as_of=AS_OF)
    assert_agrees(sandbox)
    rows = sandbox.expected_rows(datetime(2023, 1, 1), datetime(2023, 3, 1))
    first = rows[0]
    sandbox.amend(
        removed=[row["uuid"] for row in rows[1:20]],
        added=[
            {**first, "uuid": "edited", "date": "2022-05-05T05:05:05Z", "activity_mrr_movement": "1234"},
            {**first, "uuid": "new", "subscription_external_id": "other", "activity_mrr_movement": "500"},
            {
                **first,
                "uuid": "newer",
                "customer_uuid": "cus_new",
                "customer_external_id": "new-1",
                "subscription_external_id": "sub-new-1",
                "activity_mrr_movement": "777",
            },
        ],
    )
    assert_agrees(sandbox)
    assert "cus_new" in {row["uuid"] for row in sandbox.rows("customers")}


def test_mrr_does_not_agree_with_two_currencies() -> None:
    sandbox = Sandbox(customers=30, as_of=AS_OF, two_currencies=True)
    by_customer = movements_by(sandbox, "customer_uuid")
    customers = {row["uuid"]: row["mrr"] for row in sandbox.rows("customers") if row["customer-since"]}
    differing = [uuid for uuid, mrr in by_customer.items() if customers[uuid] != mrr]
    assert 0 < len(differing) < len(customers) / 2
    assert sum(row["mrr"] for row in sandbox.rows("subscriptions")) == sum(customers.values())
    assert {row["currency"] for row in sandbox.rows("invoices")} == {"EUR", "USD"}


def test_invoices_match_subscriptions_and_plans(sandbox: Sandbox) -> None:
    plans = {row["uuid"]: row for row in sandbox.rows("plans")}
    subscriptions = {row["external_id"]: row for row in sandbox.rows("subscriptions")}
    customers = {row["uuid"]: row for row in sandbox.rows("customers")}
    periods: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for invoice in sandbox.rows("invoices"):
        (item,) = [item for item in invoice["line_items"] if item["type"] == "subscription"]
        subscription = subscriptions[item["subscription_external_id"]]
        plan = plans[item["plan_uuid"]]
        assert invoice["customer_uuid"] == subscription["customer_uuid"]
        assert item["subscription_uuid"] == f"sub_{subscription['uuid']}"
        assert (subscription["plan"], subscription["billing-cycle"]) == (plan["name"], plan["interval_unit"])
        assert plan["data_source_uuid"] == customers[invoice["customer_uuid"]]["data_source_uuid"]
        assert invoice["date"] == item["service_period_start"]
        assert item["amount_in_cents"] % item["quantity"] == 0
        periods[subscription["external_id"]].append((item["service_period_start"], item["service_period_end"]))
    for external_id, dates in periods.items():
        dates.sort()
        assert dates[0][0][:19] == subscriptions[external_id]["start-date"][:19]
        assert all(end == start for (_, end), (start, _) in pairwise(dates))
    invoiced = {row["external_id"] for row in subscriptions.values() if row["external_id"] in periods}
    with_events = {row["subscription_external_id"] for row in sandbox.rows("subscription_events")}
    assert invoiced.isdisjoint(with_events)
    recent = {row["external_id"] for row in subscriptions.values() if row["start-date"] > "2024-06-25"}
    assert set(subscriptions) - recent <= invoiced | with_events


def test_subscription_events_match_activities(sandbox: Sandbox) -> None:
    events = sandbox.rows("subscription_events")
    retracted = {row["retracted_event_id"] for row in events} - {None}
    assert retracted
    assert retracted < {str(row["id"]) for row in events}
    of_activities = sorted(
        (row["subscription_external_id"], row["event_date"], row["event_type"])
        for row in events
        if row["retracted_event_id"] is None and str(row["id"]) not in retracted
    )
    sources = {row["subscription_external_id"] for row in events}
    types = {
        "new_biz": "subscription_start",
        "reactivation": "subscription_start",
        "expansion": "subscription_updated",
        "contraction": "subscription_updated",
        "churn": "subscription_cancelled",
    }
    # An event is created up to an hour after its activity.
    activities = sorted(
        (row["subscription_external_id"], row["date"].replace("+00:00", "Z"), types[row["type"]])
        for row in sandbox.expected_rows(None, AS_OF)
        if row["subscription_external_id"] in sources
    )
    assert set(of_activities) <= set(activities)
    assert len(activities) - len(of_activities) <= 3


def test_later_present_has_more_rows() -> None:
    sandbox = Sandbox(customers=60, as_of=AS_OF)
    before = {resource: len(sandbox.rows(resource)) for resource in LISTS}
    assert len(sandbox.expected_rows(None, datetime(2030, 1, 1))) == len(sandbox.expected_rows(None, AS_OF))
    sandbox.as_of = AS_OF + timedelta(days=730)
    after = {resource: len(sandbox.rows(resource)) for resource in LISTS}
    growing = {"customers", "invoices", "subscription_events", "subscriptions"}
    assert all(after[resource] > before[resource] for resource in growing)
    assert all(after[resource] >= before[resource] for resource in LISTS)


def test_company_without_customers_has_empty_lists() -> None:
    sandbox = Sandbox(customers=0, as_of=AS_OF)
    for resource in ("customers", "contacts", "invoices", "subscription_events", "notes", "subscriptions"):
        assert sandbox.rows(resource) == []
    with pytest.raises(ValueError, match="cannot create a row in contacts"):
        sandbox.lists.create_row("contacts")


# Metrics


def metrics(sandbox: Sandbox, start: str, end: str, interval: str, **query: str) -> list[dict[str, Any]]:
    return sandbox.rows("metrics", {"start-date": start, "end-date": end, "interval": interval, **query})


@pytest.mark.parametrize(
    ("interval", "start", "end", "dates"),
    [
        ("day", "2024-02-28", "2024-03-01", ["2024-02-28", "2024-02-29", "2024-03-01"]),
        ("week", "2024-03-03", "2024-03-18", ["2024-03-09", "2024-03-16", "2024-03-18"]),
        ("month", "2024-01-01", "2024-03-15", ["2024-01-31", "2024-02-29", "2024-03-15"]),
        ("quarter", "2023-10-01", "2024-03-31", ["2023-12-31", "2024-03-31"]),
        ("year", "2022-01-01", "2023-12-31", ["2022-12-31", "2023-12-31"]),
    ],
)
def test_metrics_have_the_last_day_of_each_period(
    sandbox: Sandbox, interval: str, start: str, end: str, dates: list[str]
) -> None:
    assert [row["date"] for row in metrics(sandbox, start, end, interval)] == dates


@pytest.mark.parametrize("time_zone", ["UTC", "Europe/Berlin", "America/New_York"])
def test_daily_mrr_is_the_sum_of_movements(time_zone: str) -> None:
    sandbox = Sandbox(customers=60, as_of=AS_OF, metrics_time_zone=time_zone)
    activities = [
        (datetime.fromisoformat(row["date"]), int(row["activity_mrr_movement"]))
        for row in sandbox.expected_rows(None, AS_OF)
    ]
    # Over the change of clocks of both zones.
    for row in metrics(sandbox, "2024-03-05", "2024-04-05", "day"):
        end = datetime.combine(date.fromisoformat(row["date"]) + timedelta(days=1), datetime.min.time())
        end = end.replace(tzinfo=ZoneInfo(time_zone))
        assert row["mrr"] == sum(movement for moment, movement in activities if moment < end)


def test_metrics_by_country_and_plan_partition_mrr(sandbox: Sandbox) -> None:
    (total,) = metrics(sandbox, "2024-03-05", "2024-03-05", "day")
    countries = {row["country"] for row in sandbox.rows("customers")} - {None}
    unknown = sum(row["mrr"] for row in sandbox.rows("customers") if row["country"] is None)
    plans = {row["external_id"] for row in sandbox.rows("plans")}
    by_plan = [metrics(sandbox, "2024-03-05", "2024-03-05", "day", plans=plan)[0] for plan in plans]
    assert sum(row["mrr"] for row in by_plan) == total["mrr"]
    yesterday = "2024-06-30"
    (total,) = metrics(sandbox, yesterday, yesterday, "day")
    by_country = [metrics(sandbox, yesterday, yesterday, "day", geo=country)[0] for country in countries]
    assert sum(row["mrr"] for row in by_country) + unknown == total["mrr"]
    both = metrics(sandbox, yesterday, yesterday, "day", geo="DE,US")[0]["mrr"]
    assert both == sum(metrics(sandbox, yesterday, yesterday, "day", geo=geo)[0]["mrr"] for geo in ("DE", "US"))


def test_invalid_time_zone_raises() -> None:
    with pytest.raises(ValueError, match="metrics_time_zone must be a time zone such as Europe/Berlin, not 'Berlin'"):
        Sandbox(metrics_time_zone="Berlin")
