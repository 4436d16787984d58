# SPDX-License-Identifier: Apache-2.0
"""The company's books as of one moment: who its customers are, and what they subscribe to."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

from airflow_provider_chartmogul.sandbox.company.billing import PLANS, Plan, data_source_of
from airflow_provider_chartmogul.sandbox.company.clock import DAY, FOUNDED, add_months, to_seconds
from airflow_provider_chartmogul.sandbox.company.identity import choose, entity_uuid, pick
from airflow_provider_chartmogul.sandbox.company.ledger import Ledger, LedgerCustomer

_CUSTOMERS_PER_LEAD = 10

_COUNTRIES = ("DE", "US", "FR", "PL", "JP", "GB", None)


class Subscription(NamedTuple):
    """A subscription as of the books' moment. Its movements are those from `start` to before `end` in the ledger.

    * `mrr`: the sum of its movements, in cents
    * `shown_mrr`: its MRR as the API shows it; another one for a subscription in a second currency
    """

    customer: LedgerCustomer
    number: int
    external_id: str
    plan: int
    start: int
    end: int
    started_at: int
    ended_at: int | None
    mrr: int
    shown_mrr: int

    @property
    def seats(self) -> int:
        """The number of seats, of which each has the plan's price."""
        return self.mrr // PLANS[self.plan].seat_mrr


class Party(NamedTuple):
    """A customer or lead as of the books' moment.

    * `number`: counts customers and leads from 0
    * `known_at`: when it subscribed first, or became a lead
    * `customer_since`: when it subscribed first; `None` for a lead
    * `mrr`: the sum of its subscriptions' `shown_mrr`
    """

    number: int
    uuid: str
    external_id: str
    company: str
    data_source: int
    country: str | None
    known_at: int
    customer_since: int | None
    mrr: int


class Period(NamedTuple):
    """A billing period of a subscription, with the MRR at its start."""

    subscription: Subscription
    number: int
    start: int
    end: int
    mrr: int

    @property
    def plan(self) -> Plan:
        return PLANS[self.subscription.plan]

    @property
    def seats(self) -> int:
        """The number of seats that are billed."""
        return self.mrr // self.plan.seat_mrr

    @property
    def amount(self) -> int:
        """The amount that is billed, in cents."""
        return self.mrr * self.plan.months


class Books:
    """The books of a company as of one moment.

    :param ledger: the company's ledger.
    :param as_of: the moment, in seconds since 1970. What happens then or later is not in the books.

    :param two_currencies: whether some customers pay in another currency, converted at the present rate.

    `cache` is for what others compute from the books.
    """

    def __init__(self, ledger: Ledger, as_of: int, *, two_currencies: bool = False) -> None:
        self.ledger = ledger
        self.company = ledger.company
        self.as_of = as_of
        self.two_currencies = two_currencies
        self.cache: dict[object, Any] = {}

    @cached_property
    def subscriptions(self) -> dict[int, list[Subscription]]:
        """The subscriptions by their customer's index, oldest first."""
        found: dict[int, list[Subscription]] = {}
        for customer in self.ledger.customers:
            subscriptions = list(self._subscriptions_of(customer))
            if subscriptions:
                found[customer.number] = subscriptions
        return found

    @cached_property
    def parties(self) -> list[Party]:
        """The customers, then the leads."""
        parties = [
            Party(
                number=customer.number,
                uuid=customer.uuid,
                external_id=customer.external_id,
                company=customer.name,
                data_source=customer.data_source,
                country=country_of(self.company, customer.number),
                known_at=min(subscription.started_at for subscription in self.subscriptions[customer.number]),
                customer_since=min(subscription.started_at for subscription in self.subscriptions[customer.number]),
                mrr=sum(subscription.shown_mrr for subscription in self.subscriptions[customer.number]),
            )
            for customer in self.ledger.customers
            if customer.number in self.subscriptions
        ]
        return [*parties, *self._leads()]

    @cached_property
    def party_by_uuid(self) -> dict[str, Party]:
        """The customers and leads by UUID."""
        return {party.uuid: party for party in self.parties}

    def periods(self, subscription: Subscription) -> Iterator[Period]:
        """Yield the billing periods that started before the books' moment, while the subscription had seats."""
        ledger = self.ledger
        months = PLANS[subscription.plan].months
        index, mrr = subscription.start, 0
        number, start = 0, subscription.started_at
        last = self.as_of if subscription.ended_at is None else subscription.ended_at
        while start < last:
            while index < subscription.end and ledger.at[index] <= start:
                mrr += ledger.movement[index]
                index += 1
            end = add_months(subscription.started_at, (number + 1) * months)
            if mrr > 0:
                yield Period(subscription, number + 1, start, end, mrr)
            number, start = number + 1, end

    def _subscriptions_of(self, customer: LedgerCustomer) -> Iterator[Subscription]:
        ledger = self.ledger
        start = customer.start
        while start < customer.end:
            number = ledger.subscription[start]
            end = start
            while end < customer.end and ledger.subscription[end] == number:
                end += 1
            # Only this subscription's movements are in the order of time.
            known = bisect_left(ledger.at, self.as_of, start, end)
            if known > start:
                mrr = sum(ledger.movement[start:known])
                yield Subscription(
                    customer=customer,
                    number=number,
                    external_id=ledger.subscription_external_id(customer, number),
                    plan=ledger.plan[start],
                    start=start,
                    end=known,
                    started_at=ledger.at[start],
                    ended_at=ledger.at[known - 1] if mrr <= 0 else None,
                    mrr=mrr,
                    shown_mrr=round(mrr * self._conversion(customer.number)),
                )
            start = end

    def currency_of(self, customer: int) -> str:
        """Return the currency in which a customer pays."""
        return "USD" if self.two_currencies and customer % 5 == 2 else "EUR"

    def _conversion(self, customer: int) -> float:
        """Return a customer's MRR at the present rate, relative to its MRR at the rates of its movements' days."""
        if self.currency_of(customer) == "EUR":
            return 1.0
        return 1.02 + pick(100, self.company, "rate", self.as_of // DAY) / 10_000

    def _leads(self) -> Iterator[Party]:
        customers = len(self.ledger.customers)
        leads = -(-customers // _CUSTOMERS_PER_LEAD)
        for number in range(leads):
            index = customers + number
            # In the company's first year, so that a small company has leads too.
            known_at = to_seconds(FOUNDED) + 365 * DAY * number // leads + pick(DAY, self.company, "lead", number)
            if known_at < self.as_of:
                yield Party(
                    number=index,
                    uuid=f"cus_{entity_uuid(self.company, 'lead', number)}",
                    external_id=f"lead-{number + 1:04}",
                    company="",
                    data_source=data_source_of(number),
                    country=country_of(self.company, f"lead {number}"),
                    known_at=known_at,
                    customer_since=None,
                    mrr=0,
                )


def country_of(company: str, customer: object) -> str | None:
    """Return a customer's ISO 3166 country code; `None` where it is not known."""
    return choose(_COUNTRIES, company, customer, "country")
