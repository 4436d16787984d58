# SPDX-License-Identifier: Apache-2.0
"""The company's MRR movements by customer and subscription: its history with the amendments applied.

Customers, subscriptions, invoices, subscription events and metrics derive from the ledger, so that they agree with the
activities.
"""

from __future__ import annotations

import zlib
from array import array
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from functools import cached_property
from typing import NamedTuple

from airflow_provider_chartmogul.sandbox.company.activities import ACTIVITY_TYPES, Activity
from airflow_provider_chartmogul.sandbox.company.billing import PLANS, data_source_of
from airflow_provider_chartmogul.sandbox.company.clock import to_seconds
from airflow_provider_chartmogul.sandbox.company.history import History, subscription_external_id

_PLAN_INDEXES = {plan.external_id: index for index, plan in enumerate(PLANS)}

_FIRST_AMENDED_NUMBER = 1_000_000


class LedgerCustomer(NamedTuple):
    """A customer, whose movements are those from `start` to before `end` in the ledger's columns."""

    number: int
    uuid: str
    external_id: str
    name: str
    data_source: int
    start: int
    end: int


class _Movement(NamedTuple):
    subscription: int
    at: int
    type: int
    movement: int
    plan: int
    number: int


class Ledger:
    """The movements as columns, by customer, subscription and time.

    :param history: the company's history.
    :param added: activities that were added to it. An unknown customer becomes a customer of its own; an unknown plan
        counts as the first one.
    :param removed: UUIDs of activities that were removed.
    """

    def __init__(self, history: History, added: Iterable[Activity] = (), removed: frozenset[str] = frozenset()) -> None:
        self.company = history.company
        self.at = history.at
        self.type = history.type
        self.movement = history.movement
        self.plan = history.plan
        self.subscription = history.subscription
        self.number = history.number
        self.customers = _customers(history)
        self._subscription_external_ids: dict[tuple[int, int], str] = {}
        added = list(added)
        if added or removed:
            self._amend(history, added, removed)

    def subscription_external_id(self, customer: LedgerCustomer, subscription: int) -> str:
        """Return the external ID of a customer's subscription."""
        given = self._subscription_external_ids.get((customer.number, subscription))
        return given or subscription_external_id(customer.external_id, subscription)

    @cached_property
    def order(self) -> array[int]:
        """The movements' indexes by time."""
        return array("I", sorted(range(len(self.at)), key=self.at.__getitem__))

    def _amend(self, history: History, added: list[Activity], removed: frozenset[str]) -> None:
        movements: dict[int, list[_Movement]] = defaultdict(list)
        known = {customer.uuid: customer for customer in self.customers}
        customers = list(self.customers)
        for activity in added:
            if activity.customer_uuid not in known:
                customer = LedgerCustomer(
                    number=len(customers),
                    uuid=activity.customer_uuid,
                    external_id=activity.customer_external_id,
                    name=activity.customer_name,
                    data_source=data_source_of(len(customers)),
                    start=0,
                    end=0,
                )
                known[customer.uuid] = customer
                customers.append(customer)
            customer = known[activity.customer_uuid]
            movements[customer.number].append(self._movement(customer, activity))
        removed_indexes = {index for uuid in removed if (index := history.index_by_uuid.get(uuid)) is not None}
        changed = {*movements, *(history.customer[index] for index in removed_indexes)}
        columns = _Columns()
        for position, customer in enumerate(customers):
            start = len(columns.at)
            if customer.number not in changed:
                columns.copy(history, customer.start, customer.end)
            else:
                kept = (index for index in range(customer.start, customer.end) if index not in removed_indexes)
                old = [
                    _Movement(
                        history.subscription[index],
                        history.at[index],
                        history.type[index],
                        history.movement[index],
                        history.plan[index],
                        history.number[index],
                    )
                    for index in kept
                ]
                columns.extend(sorted([*old, *movements[customer.number]]))
            customers[position] = customer._replace(start=start, end=len(columns.at))
        self.customers = customers
        self.at, self.type, self.movement = columns.at, columns.type, columns.movement
        self.plan, self.subscription, self.number = columns.plan, columns.subscription, columns.number

    def _movement(self, customer: LedgerCustomer, activity: Activity) -> _Movement:
        return _Movement(
            subscription=self._subscription_number(customer, activity.subscription_external_id),
            at=to_seconds(datetime.fromisoformat(activity.date)),
            type=ACTIVITY_TYPES.index(activity.type),
            movement=activity.activity_mrr_movement,
            plan=_PLAN_INDEXES.get(activity.plan_external_id, 0),
            number=_FIRST_AMENDED_NUMBER + zlib.crc32(activity.uuid.encode()) % 1_000_000,
        )

    def _subscription_number(self, customer: LedgerCustomer, external_id: str) -> int:
        number = external_id.rpartition("-")[2]
        if number.isdecimal() and external_id == subscription_external_id(customer.external_id, int(number)):
            return int(number)
        # Not one of the company's own external IDs.
        other = _FIRST_AMENDED_NUMBER + zlib.crc32(external_id.encode()) % 1_000_000
        self._subscription_external_ids[customer.number, other] = external_id
        return other


class _Columns:
    """The columns of an amended ledger, filled customer by customer."""

    def __init__(self) -> None:
        self.at = array("q")
        self.type = array("B")
        self.movement = array("q")
        self.plan = array("B")
        self.subscription = array("I")
        self.number = array("I")

    def copy(self, history: History, start: int, end: int) -> None:
        for name in ("at", "type", "movement", "plan", "subscription", "number"):
            getattr(self, name).extend(getattr(history, name)[start:end])

    def extend(self, movements: Iterable[_Movement]) -> None:
        for movement in movements:
            for name, value in movement._asdict().items():
                getattr(self, name).append(value)


def _customers(history: History) -> list[LedgerCustomer]:
    ends = [*history.starts[1:], len(history.at)]
    return [
        LedgerCustomer(
            number=index,
            uuid=history.customer_uuids[index],
            external_id=history.external_id(index),
            name=name,
            data_source=data_source_of(index),
            start=history.starts[index],
            end=ends[index],
        )
        for index, name in enumerate(history.names)
    ]
