# SPDX-License-Identifier: Apache-2.0
"""Answers of the check for accounts of every kind, of which the sandbox is only one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from airflow_provider_chartmogul.api.resources import RESOURCES, Resource
from airflow_provider_chartmogul.check.findings import find_answers
from airflow_provider_chartmogul.check.report import remove_identities
from airflow_provider_chartmogul.check.samples import Reader, Sample, walk_requests
from airflow_provider_chartmogul.exceptions import PermissionDeniedError

ACCOUNT = {"time_zone": "Europe/Berlin"}
DENIED = Sample(error=PermissionDeniedError(403, "no"))

Respond = Callable[[str, Mapping[str, str]], Sample]


class ScriptedReader(Reader):
    """A reader whose responses a function of the path and the query returns."""

    def __init__(self, respond: Respond) -> None:
        self.respond = respond

    def read(
        self, resource: Resource, query: Mapping[str, str], *, parent_uuid: str | None = None, path: str | None = None
    ) -> Sample:
        return self.respond(path or resource.path, query)


def answer(words: str, respond: Respond, account: Mapping[str, Any] = ACCOUNT, **samples: Sample) -> str:
    """Return the answer to the question with some words, for an account with these first pages."""
    all_samples = {name: samples.get(name, Sample()) for name in RESOURCES}
    findings = find_answers(ScriptedReader(respond), all_samples, account)
    return next(entry["answer"] for entry in findings if words in entry["question"])


def events(*times: str) -> Sample:
    return Sample([{"event_date": time} for time in times])


EVENTS = events("2024-03-09T10:00:00Z", "2024-03-05T10:00:00Z", "2024-03-01T10:00:00Z")
DAY = "2024-03-05"


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (events("2024-03-05T10:00:00Z"), "Exactly: all events of that day, in UTC."),
        (
            events("2024-03-04T23:30:00Z", "2024-03-05T22:59:00Z"),
            "Exactly: all events of that day, in the account's time zone.",
        ),
        (events("2024-03-05T10:00:00Z", "2024-03-09T10:00:00Z"), "From that date on."),
        (events("2024-03-05T10:00:00Z", "2024-03-01T10:00:00Z"), "Up to that date."),
        (EVENTS, "Neither: the filter has no effect."),
        (events("2024-03-04T10:00:00Z"), "Not clear: only events within a day of the date."),
        (DENIED, "Unknown: the request failed (403)."),
    ],
)
def test_meaning_of_event_date(found: Sample, expected: str) -> None:
    def respond(path: str, query: Mapping[str, str]) -> Sample:
        return found if query.get("event_date") == DAY else Sample()

    assert answer("event_date", respond, subscription_events=EVENTS) == expected


def test_event_date_with_time_of_day() -> None:
    def respond(path: str, query: Mapping[str, str]) -> Sample:
        return events("2024-03-05T10:00:00Z") if query.get("event_date") == f"{DAY}T10:00:00Z" else Sample()

    assert answer("event_date", respond, subscription_events=EVENTS) == "Exactly, with the time of day."


def test_event_date_needs_two_days() -> None:
    expected = "Unknown: the first page of subscription_events has fewer than two days."
    assert answer("event_date", lambda *_: DENIED, subscription_events=events("2024-03-05T10:00:00Z")) == expected


#: In Berlin, each of these is the day after that in UTC.
CUSTOMERS = Sample([{"customer-since": f"2024-03-{day:02}T23:30:00+00:00"} for day in range(1, 29, 3)])


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        (0, "UTC: of 10 customers, 10 match UTC"),
        (1, "The account's time zone: of 10"),
        (2, "Not clear: of 10 customers, 0"),
    ],
)
def test_time_zone_of_metrics(offset: int, expected: str) -> None:
    days = [f"2024-03-{day + offset:02}" for day in range(1, 29, 3)]
    metrics = Sample([{"date": day, "mrr-new-business": 100} for day in days])

    def respond(path: str, query: Mapping[str, str]) -> Sample:
        if path != "/metrics/mrr":
            return Sample()
        assert (query["start-date"], query["end-date"]) == ("2024-03-01", "2024-03-29")
        return metrics

    assert answer("metrics", respond, customers=CUSTOMERS).startswith(expected)


@pytest.mark.parametrize("zone", [None, "", "Nowhere/Land", 3, "../etc"])
def test_time_zone_of_metrics_without_a_zone_of_the_account(zone: Any) -> None:
    expected = "Unknown: the account's time zone could not be read."
    assert answer("metrics", lambda *_: Sample(), {"time_zone": zone}, customers=CUSTOMERS) == expected


def test_time_zone_of_metrics_in_an_account_of_utc() -> None:
    assert answer("metrics", lambda *_: Sample(), {"time_zone": "UTC"}, customers=CUSTOMERS).startswith("Unknown: ")


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_times_at_the_ends_of_the_calendar_are_left_out(time: str) -> None:
    customers = Sample([*CUSTOMERS.rows, {"customer-since": time}])
    account = {"time_zone": "America/New_York" if time < "1000" else "Asia/Tokyo"}
    assert answer("metrics", lambda *_: Sample(), account, customers=customers)
    assert answer("event_date", lambda *_: Sample(), account, subscription_events=events(time, "2024-03-05T10:00:00Z"))


def test_each_integration_is_requested_once() -> None:
    sources = [("Custom", "ds_1"), ("Stripe", "ds_2"), ("Stripe", "ds_3"), ("Recurly", "ds_4"), ("Chargebee", "ds_5")]
    sources += [("Import API", "ds_6"), ("Braintree", "ds_7")]
    requested: list[tuple[str, str]] = []

    def respond(path: str, query: Mapping[str, str]) -> Sample:
        if source := query.get("data_source_uuid"):
            requested.append((path, source))
            return Sample([{}]) if path == "/customers" else DENIED if path == "/plans" else Sample()
        return Sample()

    rows = [{"system": system, "uuid": uuid} for system, uuid in sources]
    text = answer("integrations", respond, data_sources=Sample(rows))
    found = "customers yes, invoices no, plans 403, subscription_events no"
    assert text == f"Stripe: {found}; Recurly: {found}; Chargebee: {found}."
    assert [source for path, source in requested if path == "/plans"] == ["ds_2", "ds_4", "ds_5"]


def test_requests_of_a_walk() -> None:
    uuids = [{"uuid": f"cus_{number}"} for number in range(200)]
    samples: dict[str, Sample | None] = {
        "customers": Sample(uuids, has_more=True, total_pages=19),
        "subscriptions": Sample([{}]),
        "contacts": Sample([{}], has_more=True),
        "plans": Sample(),
        "plan_groups": Sample([{"uuid": "a"}, {"uuid": "b"}]),
        "plan_group_plans": Sample([{}]),
    }
    expected = {
        "customers": (19, False),
        # 18 pages of 200 customers, at least one more, and the 19 pages of customers.
        "subscriptions": (3601 + 19, True),
        "contacts": (2, True),
        "plans": (1, False),
        "plan_groups": (1, False),
        "plan_group_plans": (3, False),
    }
    assert {name: walk_requests(RESOURCES[name], samples) for name in samples} == expected
    assert walk_requests(RESOURCES["contacts"], {"contacts": DENIED}) is None


def test_identities_are_removed() -> None:
    report = {
        "a": "cus_9c8cc2bd-762e-4d93-ae34-1cfb53a53f64 of Acme and Jane.Doe@acme.example",
        "b": ["9C8CC2BD762E4D93AE341CFB53A53F64", 3, True, None],
        "c": "Europe/Berlin, 2024-03-05",
    }
    assert remove_identities(report, ["Acme", ""]) == {
        "a": "… of … and …",
        "b": ["…", 3, True, None],
        "c": "Europe/Berlin, 2024-03-05",
    }
