# SPDX-License-Identifier: Apache-2.0
"""The company's history, computed from a seed: who subscribes, expands, contracts, churns and returns, and when.

Half of the customers subscribe in the first year, the other half evenly over the rest. An active customer changes its
number of seats about once a week; about one activity in seventeen is a churn, after which nearly every customer
returns within some weeks. With 500 customers that is about 20 to 60 activities on any day from 2019 on.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import NamedTuple

from airflow_provider_chartmogul.sandbox.company.activities import ACTIVITY_TYPES, Activity
from airflow_provider_chartmogul.sandbox.company.billing import (
    DATA_SOURCES,
    PLANS,
    Plan,
    data_source_of,
    data_source_uuid,
)
from airflow_provider_chartmogul.sandbox.company.clock import DAY, FOUNDED, HORIZON, to_seconds
from airflow_provider_chartmogul.sandbox.company.identity import entity_uuid

_NEW_BIZ, _REACTIVATION, _EXPANSION, _CONTRACTION, _CHURN = range(len(ACTIVITY_TYPES))

_FIRST_YEAR = 365 * DAY
_SHARE_SUBSCRIBING_IN_FIRST_YEAR = 0.5
_DAYS_BETWEEN_CHANGES = 7.0
_CHURN_PROBABILITY = 0.06
_FINAL_CHURN_PROBABILITY = 0.01
_MAX_SEATS = 200

_WORDS = (
    "Acorn", "Beacon", "Copper", "Dovetail", "Ember", "Fjord", "Granite", "Harbour", "Indigo", "Juniper",
    "Keystone", "Lantern", "Meridian", "Nimbus", "Orchard", "Pinnacle", "Quarry", "Riverside", "Summit",
    "Tundra", "Umber", "Vertex", "Willow", "Yonder", "Zephyr",
)  # fmt: skip

# Names with commas, quotes and letters outside ASCII, which readers of CSV must get right. They are used in turn, so
# that a company with a few customers has them all.
_NAME_FORMATS = (
    "{0} {1} Ltd",
    "{0}, {1} & Partners",
    'The "{0}" {1} Company',
    "Société {0} Céleste",
    "{0} Systems",
    "Müller & Söhne {0} GmbH",
    "{0} 株式会社",
    "{0} {1}, Inc.",
    "Łódź {0} Sp. z o.o.",
    "{0} O'{1}",
)


class _Change(NamedTuple):
    """A change of one customer's subscription; `at` in seconds since 1970, MRR in cents."""

    at: int
    type: int
    mrr: int
    movement: int
    plan: int
    subscription: int


class History:
    """All activities of a company, stored as columns of numbers: some 50 bytes each instead of a kilobyte.

    `row()` creates an activity's row. The columns hold one customer after the other, each from its index in `starts`;
    `order` has the activities' indexes by date, and `times` their dates in this order, for bisection.

    :param seed: selects one company.
    :param customers: the number of customers.
    """

    def __init__(self, seed: int, customers: int) -> None:
        self.company = f"{seed}/{customers}"
        # At least four digits, so that external IDs have leading zeros: '0042'.
        self.digits = max(4, len(str(customers)))
        self.data_source_uuids = [data_source_uuid(self.company, index) for index in range(len(DATA_SOURCES))]
        self.names: list[str] = []
        self.customer_uuids: list[str] = []
        self.starts = array("I")
        self.customer = array("I")
        self.number = array("I")
        self.type = array("B")
        self.mrr = array("q")
        self.movement = array("q")
        self.plan = array("B")
        self.subscription = array("I")
        self.at = array("q")
        for customer in range(customers):
            rng = random.Random(f"{self.company}/{customer}")
            self.names.append(_name(rng, customer))
            self.customer_uuids.append(f"cus_{entity_uuid(self.company, customer)}")
            self.starts.append(len(self.at))
            subscribed_at = _first_subscription((customer + rng.random()) / customers)
            for number, change in enumerate(_changes(rng, subscribed_at)):
                self.at.append(change.at)
                self.customer.append(customer)
                self.number.append(number)
                self.type.append(change.type)
                self.mrr.append(change.mrr)
                self.movement.append(change.movement)
                self.plan.append(change.plan)
                self.subscription.append(change.subscription)
        # The sort is stable: of activities in the same second, the earlier customer's comes first.
        self.order = array("I", sorted(range(len(self.at)), key=self.at.__getitem__))
        self.times = array("q", (self.at[index] for index in self.order))

    def row(self, index: int) -> Activity:
        """Return the row of the activity at this index of the columns."""
        customer = self.customer[index]
        number = self.number[index]
        external_id = self.external_id(customer)
        mrr = self.mrr[index]
        movement = self.movement[index]
        plan = PLANS[self.plan[index]]
        activity_type = self.type[index]
        return Activity(
            uuid=self.uuid(index),
            date=datetime.fromtimestamp(self.at[index], UTC).isoformat(),
            type=ACTIVITY_TYPES[activity_type],
            customer_uuid=self.customer_uuids[customer],
            customer_external_id=external_id,
            customer_name=self.names[customer],
            description=_description(
                activity_type,
                plan,
                mrr // plan.seat_mrr,
                movement // plan.seat_mrr,
                with_note=(customer + number) % 7 == 3,
            ),
            activity_mrr=mrr,
            activity_mrr_movement=movement,
            activity_arr=12 * mrr,
            currency="EUR",
            currency_sign="€",
            subscription_external_id=subscription_external_id(external_id, self.subscription[index]),
            plan_external_id=plan.external_id,
            billing_connector_uuid=self.data_source_uuids[data_source_of(customer)],
        )

    @cached_property
    def index_by_uuid(self) -> dict[str, int]:
        """The indexes of all activities by UUID. Computing it takes a second or two for 500 customers."""
        return {self.uuid(index): index for index in range(len(self.at))}

    def uuid(self, index: int) -> str:
        """Return the UUID of the activity at this index of the columns."""
        return entity_uuid(self.company, self.customer[index], self.number[index])

    def external_id(self, customer: int) -> str:
        """Return a customer's external ID: its number, counted from 1, with leading zeros."""
        return str(customer + 1).zfill(self.digits)


def subscription_external_id(customer_external_id: str, number: int) -> str:
    """Return the external ID of a customer's subscription; they are counted from 1."""
    return f"sub-{customer_external_id}-{number}"


@lru_cache(maxsize=4)
def history(seed: int, customers: int) -> History:
    """Return a company's history, computed once: about a second for 500 customers."""
    return History(seed, customers)


# Of random.Random, only random() is used: its sequence is the only one that Python promises to keep in later versions.
# Logarithms are avoided, since the C library's differ between machines.


def _random_below(rng: random.Random, limit: int) -> int:
    """Return a random whole number of at least 0 and below the limit."""
    return int(rng.random() * limit)


def _name(rng: random.Random, customer: int) -> str:
    name_format = _NAME_FORMATS[customer % len(_NAME_FORMATS)]
    return name_format.format(_WORDS[_random_below(rng, len(_WORDS))], _WORDS[_random_below(rng, len(_WORDS))])


def _first_subscription(share: float) -> int:
    """Return when a customer first subscribes, in seconds since 1970.

    :param share: the share of all customers that subscribed before, from 0 to 1.
    """
    founded, horizon = to_seconds(FOUNDED), to_seconds(HORIZON)
    if share < _SHARE_SUBSCRIBING_IN_FIRST_YEAR:
        return founded + int(_FIRST_YEAR * share / _SHARE_SUBSCRIBING_IN_FIRST_YEAR)
    later = (share - _SHARE_SUBSCRIBING_IN_FIRST_YEAR) / (1 - _SHARE_SUBSCRIBING_IN_FIRST_YEAR)
    return founded + _FIRST_YEAR + int((horizon - founded - _FIRST_YEAR) * later)


def _changes(rng: random.Random, subscribed_at: int) -> Iterator[_Change]:
    """Yield one customer's changes in order, from its first subscription to the horizon."""
    horizon = to_seconds(HORIZON)
    at = subscribed_at
    subscription = 0
    seats = 0
    plan = 0
    price = 0
    change = _NEW_BIZ
    while at < horizon:
        mrr_before = seats * price
        if change in (_NEW_BIZ, _REACTIVATION):
            # A returning customer has a new subscription, perhaps to another plan.
            subscription += 1
            plan = _random_below(rng, len(PLANS))
            price = PLANS[plan].seat_mrr
            seats = 1 + _random_below(rng, 20)
        elif change == _EXPANSION:
            seats += 1 + _random_below(rng, 5)
        elif change == _CONTRACTION:
            seats -= 1 + _random_below(rng, min(5, seats - 1))
        else:
            seats = 0
        yield _Change(at, change, seats * price, seats * price - mrr_before, plan, subscription)
        if change == _CHURN:
            if rng.random() < _FINAL_CHURN_PROBABILITY:
                return
            change = _REACTIVATION
            at += int(DAY * (5 + 25 * rng.random()))
            continue
        at += int(DAY * _DAYS_BETWEEN_CHANGES * (0.1 + 1.8 * rng.random()))
        draw = rng.random()
        if draw < _CHURN_PROBABILITY:
            change = _CHURN
        elif seats == 1 or (draw < (1 + _CHURN_PROBABILITY) / 2 and seats < _MAX_SEATS):
            change = _EXPANSION
        else:
            change = _CONTRACTION


def _description(activity_type: int, plan: Plan, seats: int, change: int, *, with_note: bool) -> str:
    if activity_type == _NEW_BIZ:
        text = f"{plan.name}: subscribed with {seats} seats"
    elif activity_type == _REACTIVATION:
        text = f"{plan.name}: came back with {seats} seats"
    elif activity_type == _CHURN:
        text = f"{plan.name}: cancelled {-change} seats"
    else:
        text = f"{plan.name}: from {seats - change} to {seats} seats"
    if with_note:
        # A line feed and quotes, which readers that split a file at line feeds get wrong.
        text += '\nNote: agreed by phone, "as discussed"'
    return text
