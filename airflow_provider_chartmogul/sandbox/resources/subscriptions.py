# SPDX-License-Identifier: Apache-2.0
"""Rows of `/customers/{uuid}/subscriptions`."""

from __future__ import annotations

from airflow_provider_chartmogul.sandbox.company.billing import PLANS
from airflow_provider_chartmogul.sandbox.company.books import Books, Subscription
from airflow_provider_chartmogul.sandbox.company.clock import add_months, with_offset
from airflow_provider_chartmogul.sandbox.company.identity import entity_uuid
from airflow_provider_chartmogul.sandbox.resources.definition import Row

_FIRST_ID = 5_322_000_000
_IDS_PER_CUSTOMER = 3_000_000


def subscription_uuid(books: Books, subscription: Subscription) -> str:
    """Return a subscription's UUID, which line items show with the prefix `sub_`."""
    return entity_uuid(books.company, subscription.customer.number, "subscription", subscription.number)


def subscription_rows(books: Books, customer: int) -> list[Row]:
    """Return the subscriptions of the customer with this number, active or not, oldest first."""
    return [_create_row(books, subscription) for subscription in books.subscriptions.get(customer, [])]


def _create_row(books: Books, subscription: Subscription) -> Row:
    plan = PLANS[subscription.plan]
    return {
        "id": _FIRST_ID + subscription.customer.number * _IDS_PER_CUSTOMER + subscription.number,
        "external_id": subscription.external_id,
        "subscription_set_external_id": subscription.external_id,
        "quantity": subscription.seats,
        "uuid": subscription_uuid(books, subscription),
        "mrr": subscription.shown_mrr,
        "arr": 12 * subscription.shown_mrr,
        "status": "active" if subscription.mrr > 0 else "inactive",
        "plan": plan.name,
        "billing-cycle": plan.interval_unit,
        "billing-cycle-count": 1,
        "start-date": with_offset(subscription.started_at),
        "end-date": with_offset(_end(books, subscription)),
        "currency": "EUR",
        "currency-sign": "€",
    }


def _end(books: Books, subscription: Subscription) -> int:
    """Return when a subscription ended or, where it is active, when its current billing period ends."""
    if subscription.ended_at is not None:
        return subscription.ended_at
    months = PLANS[subscription.plan].months
    periods = 1
    while (end := add_months(subscription.started_at, periods * months)) <= books.as_of:
        periods += 1
    return end
