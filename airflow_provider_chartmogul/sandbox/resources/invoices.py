# SPDX-License-Identifier: Apache-2.0
"""Rows of `/invoices`, with their line items and transactions.

Each billing period of a subscription has one valid invoice. Some periods have another one: an invalid duplicate, which
`validation_type` selects, or a disabled one, which `with_disabled` shows.
"""

from __future__ import annotations

from typing import NamedTuple

from airflow_provider_chartmogul.sandbox.company.billing import DATA_SOURCES, data_source_uuid, plan_uuid
from airflow_provider_chartmogul.sandbox.company.books import Books, Period
from airflow_provider_chartmogul.sandbox.company.clock import DAY, with_milliseconds
from airflow_provider_chartmogul.sandbox.company.identity import entity_uuid, pick
from airflow_provider_chartmogul.sandbox.resources.definition import (
    ListDefinition,
    Query,
    Record,
    Row,
    equals,
    is_set,
    with_disabled_keys,
)
from airflow_provider_chartmogul.sandbox.resources.subscriptions import subscription_uuid

_HOUR = 3_600
_SETUP_FEE = 11_100


class _Invoice(NamedTuple):
    """An invoice of a billing period; `variant` is empty for the period's valid one."""

    period: Period
    variant: str

    @property
    def names(self) -> tuple[object, ...]:
        """The names for arbitrary choices."""
        return (self.period.subscription.external_id, self.period.number, self.variant)

    @property
    def has_setup_fee(self) -> bool:
        """Whether it has a one-time line item beside the subscription's."""
        return self.period.number == 1 and pick(3, *self.names, "setup") == 0


def _records(books: Books) -> list[Record]:
    records = []
    for subscriptions in books.subscriptions.values():
        for subscription in subscriptions:
            if DATA_SOURCES[subscription.customer.data_source].has_events:
                continue
            for period in books.periods(subscription):
                names = (books.company, subscription.external_id, period.number)
                records.append(_record(books, period, ""))
                if pick(40, *names, "invalid") == 0:
                    records.append(_record(books, period, "duplicate"))
                if pick(40, *names, "disabled") == 0:
                    records.append(_record(books, period, "void"))
    return [record for record in records if record.created is not None and record.created < books.as_of * 1_000_000]


def _record(books: Books, period: Period, variant: str) -> Record:
    invoice = _Invoice(period, variant)
    names = (books.company, *invoice.names)
    # One in ten is imported some days late, so that the order of creation is not the order of dates.
    delay = pick(5 * DAY if pick(10, *names, "late") == 0 else _HOUR, *names, "delay")
    created = (period.start + delay) * 1_000_000 + pick(1_000_000, *names, "microseconds")
    uuid = f"inv_{entity_uuid(*names, 'invoice')}"
    return Record(created, uuid, invoice, disabled=variant == "void", invalid=variant == "duplicate")


def _create_row(books: Books, record: Record, query: Query) -> Row:
    invoice: _Invoice = record.source
    period = invoice.period
    date = with_milliseconds(period.start * 1_000_000)
    due_date = None
    if pick(4, *invoice.names, "due"):
        due_date = with_milliseconds((period.start + 14 * DAY) * 1_000_000)
    suffix = f"-{invoice.variant}" if invoice.variant else ""
    with_disabled = is_set(query, "with_disabled")
    # An invoice is disabled with all that belongs to it.
    children = _Children(books, invoice, with_disabled, record.disabled)
    row: Row = {
        "uuid": record.id,
        "external_id": f"inv-{period.subscription.external_id}-{period.number}{suffix}",
        "date": date,
        "due_date": due_date,
        "currency": books.currency_of(period.subscription.customer.number),
        "customer_uuid": period.subscription.customer.uuid,
        "errors": {"line_items": ["service period overlaps with another invoice's"]} if record.invalid else {},
        "line_items": children.line_items(),
        "transactions": children.transactions(),
    }
    if with_disabled:
        row = with_disabled_keys(row, record.disabled, date)
    if is_set(query, "include_edit_histories"):
        row["edit_history_summary"] = _edit_history(row, *invoice.names)
    return row


class _Children(NamedTuple):
    """The line items and transactions of an invoice."""

    books: Books
    invoice: _Invoice
    with_disabled: bool
    is_invoice_disabled: bool

    def line_items(self) -> list[Row]:
        items = [self._shown(self._subscription_item(), False)]
        if self.invoice.has_setup_fee:
            items.append(self._shown(self._one_time_item("setup", "Setup"), False))
        if self.with_disabled and pick(30, *self.invoice.names, "disabled item") == 0:
            items.append(self._shown(self._one_time_item("disabled setup", None), True))
        return items

    def transactions(self) -> list[Row]:
        names = self.invoice.names
        kind = pick(20, *names, "payment")
        if kind == 0:
            return []
        transactions = []
        if kind == 1:
            transactions.append(self._transaction("payment", "failed", 0))
        transactions.append(self._transaction("payment", "successful", 1))
        if kind == 2:
            transactions.append(self._transaction("refund", "successful", 2))
        return [self._shown(transaction, False) for transaction in transactions]

    def _shown(self, row: Row, disabled: bool) -> Row:
        if not self.with_disabled:
            return row
        date = with_milliseconds(self.invoice.period.start * 1_000_000)
        return with_disabled_keys(row, disabled or self.is_invoice_disabled, date)

    def _subscription_item(self) -> Row:
        period, names = self.invoice.period, self.invoice.names
        subscription = period.subscription
        data_source = subscription.customer.data_source
        has_discount = pick(12, *names, "discount") == 0
        return {
            "subscription_uuid": f"sub_{subscription_uuid(self.books, subscription)}",
            "subscription_external_id": subscription.external_id,
            "prorated": False,
            "proration_type": None,
            "service_period_start": with_milliseconds(period.start * 1_000_000),
            "service_period_end": with_milliseconds(period.end * 1_000_000),
            "uuid": f"li_{entity_uuid(self.books.company, *names, 'item')}",
            "external_id": f"li-{subscription.external_id}-{period.number}" if pick(2, *names, "item ID") else None,
            "type": "subscription",
            "amount_in_cents": period.amount,
            "quantity": period.seats,
            "discount_code": "PARTNER, 10 %" if has_discount else "",
            "discount_amount_in_cents": period.amount // 10 if has_discount else 0,
            "tax_amount_in_cents": 0,
            "transaction_fees_in_cents": 0,
            "account_code": "",
            "plan_uuid": plan_uuid(self.books.company, data_source, subscription.plan),
            "transaction_fees_currency": None,
            "discount_description": "Partners" if has_discount else None,
            "event_order": None,
            "balance_transfer": None,
        }

    def _one_time_item(self, name: str, description: str | None) -> Row:
        return {
            "uuid": f"li_{entity_uuid(self.books.company, *self.invoice.names, name)}",
            "external_id": None,
            "type": "one_time",
            "description": description,
            "amount_in_cents": _SETUP_FEE,
            "quantity": 1,
            "discount_code": "",
            "discount_amount_in_cents": 0,
            "tax_amount_in_cents": 0,
            "transaction_fees_in_cents": 0,
            "account_code": "",
            "transaction_fees_currency": None,
            "discount_description": None,
            "event_order": None,
        }

    def _transaction(self, transaction_type: str, result: str, number: int) -> Row:
        invoice = self.invoice
        names = (*invoice.names, transaction_type, number)
        amount = invoice.period.amount + (_SETUP_FEE if invoice.has_setup_fee else 0)
        return {
            "uuid": f"tr_{entity_uuid(self.books.company, *names)}",
            "external_id": f"tr-{invoice.period.subscription.external_id}-{invoice.period.number}-{number}",
            "type": transaction_type,
            "date": with_milliseconds((invoice.period.start + number * _HOUR) * 1_000_000),
            "result": result,
            "amount_in_cents": amount if pick(3, *names, "amount") else None,
            "transaction_fees_in_cents": None,
            "transaction_fees_currency": None,
        }


def _edit_history(row: Row, *names: object) -> Row | None:
    if pick(20, *names, "edited"):
        return None
    return {
        "values_changed": {"currency": {"original_value": "USD", "edited_value": row["currency"]}},
        "latest_edit_author": "ben@example.com",
        "latest_edit_performed_at": row["date"],
    }


def _has_data_source(books: Books, record: Record, row: Row, value: str) -> bool:
    return data_source_uuid(books.company, record.source.period.subscription.customer.data_source) == value


INVOICES = ListDefinition(
    name="invoices",
    path="/invoices",
    root="invoices",
    records=_records,
    create_row=_create_row,
    filters={
        "customer_uuid": equals("customer_uuid"),
        "data_source_uuid": _has_data_source,
        "external_id": equals("external_id"),
    },
    first_page=("total_pages", "current_page", "cursor", "has_more"),
)
