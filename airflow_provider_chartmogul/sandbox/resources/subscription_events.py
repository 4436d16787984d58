# SPDX-License-Identifier: Apache-2.0
"""Rows of `/subscription_events`: one for each activity of the customers whose data source imports events.

Beside them there are disabled events, and events that were retracted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from airflow_provider_chartmogul.sandbox.company.activities import ACTIVITY_TYPES
from airflow_provider_chartmogul.sandbox.company.billing import DATA_SOURCES, PLANS, data_source_uuid
from airflow_provider_chartmogul.sandbox.company.books import Books, Subscription
from airflow_provider_chartmogul.sandbox.company.clock import with_seconds
from airflow_provider_chartmogul.sandbox.company.identity import pick
from airflow_provider_chartmogul.sandbox.resources.definition import (
    ListDefinition,
    Query,
    Record,
    Row,
    equals,
    is_set,
    with_disabled_keys,
)

_FIRST_ID = 374_000_000
_IDS_PER_CUSTOMER = 10_000_000
_HOUR = 3_600

_EVENT_TYPES = {
    "new_biz": "subscription_start",
    "reactivation": "subscription_start",
    "expansion": "subscription_updated",
    "contraction": "subscription_updated",
    "churn": "subscription_cancelled",
}


class _Event(NamedTuple):
    """An event; `seats` after it. `retracted_id` is the ID of the event that it retracts."""

    subscription: Subscription
    type: str
    at: int
    seats: int
    retracted_id: int | None = None


def _records(books: Books) -> list[Record]:
    records = [
        record
        for subscriptions in books.subscriptions.values()
        for subscription in subscriptions
        if DATA_SOURCES[subscription.customer.data_source].has_events
        for record in _records_of(books, subscription)
    ]
    return [record for record in records if record.created is not None and record.created < books.as_of * 1_000_000]


def _records_of(books: Books, subscription: Subscription) -> Iterator[Record]:
    ledger = books.ledger
    first_id = _FIRST_ID + subscription.customer.number * _IDS_PER_CUSTOMER
    mrr = 0
    for index in range(subscription.start, subscription.end):
        mrr += ledger.movement[index]
        seats = mrr // PLANS[subscription.plan].seat_mrr
        event_type = _EVENT_TYPES[ACTIVITY_TYPES[ledger.type[index]]]
        event_id = first_id + 4 * ledger.number[index]
        event = _Event(subscription, event_type, ledger.at[index], seats)
        yield _record(books, event_id, event)
        if pick(40, books.company, event_id, "disabled") == 0:
            yield _record(books, event_id + 1, event, disabled=True)
        if pick(40, books.company, event_id, "retracted") == 0:
            yield _record(books, event_id + 2, event)
            retraction = event._replace(type="subscription_event_retracted", retracted_id=event_id + 2)
            yield _record(books, event_id + 3, retraction)


def _record(books: Books, event_id: int, event: _Event, disabled: bool = False) -> Record:
    delay = 1 + pick(_HOUR, books.company, event_id, "delay")
    created = (event.at + delay) * 1_000_000 + pick(1_000_000, books.company, event_id, "microseconds")
    return Record(created, event_id, event, disabled=disabled)


def _create_row(books: Books, record: Record, query: Query) -> Row:
    event: _Event = record.source
    customer = event.subscription.customer
    plan = PLANS[event.subscription.plan]
    created = with_seconds(record.created or 0)
    date = with_seconds(event.at * 1_000_000)
    has_amount = event.type in ("subscription_start", "subscription_updated")
    retracted_id = event.retracted_id
    row: Row = {
        "id": record.id,
        "data_source_uuid": data_source_uuid(books.company, customer.data_source),
        "customer_external_id": customer.external_id,
        # Recorded cancellations have empty text here, also for the amounts: see the fault blank-amounts.
        "subscription_set_external_id": None if has_amount else "",
        "subscription_external_id": event.subscription.external_id,
        "plan_external_id": plan.external_id if has_amount else "",
        "event_date": date,
        "effective_date": date,
        "event_type": event.type,
        "external_id": f"ev-{record.id}" if pick(2, books.company, record.id, "external ID") else None,
        "errors": {},
        "created_at": created,
        "updated_at": created,
        "quantity": event.seats if has_amount else None,
        "currency": books.currency_of(customer.number) if has_amount else "",
        "amount_in_cents": event.seats * plan.seat_mrr * plan.months if has_amount else None,
        "tax_amount_in_cents": 0 if has_amount else None,
        # The API responds with a number as well: see the fault other-types.
        "retracted_event_id": None if retracted_id is None else str(retracted_id),
    }
    if is_set(query, "with_disabled"):
        row = with_disabled_keys(row, record.disabled, created)
    if is_set(query, "include_edit_histories"):
        row["edit_history_summary"] = None
    return row


SUBSCRIPTION_EVENTS = ListDefinition(
    name="subscription_events",
    path="/subscription_events",
    root="subscription_events",
    records=_records,
    create_row=_create_row,
    filters={
        **{
            name: equals(name)
            for name in (
                "data_source_uuid",
                "external_id",
                "customer_external_id",
                "subscription_external_id",
                "plan_external_id",
                "event_type",
            )
        },
        # Whether the API compares a date's time of day is not documented.
        "event_date": lambda books, record, row, value: row["event_date"][:10] == value[:10],
        "effective_date": lambda books, record, row, value: row["effective_date"][:10] == value[:10],
    },
    first_page=("meta", "cursor", "has_more"),
    identity="id",
)
